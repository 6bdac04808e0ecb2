//! One request in progress at a server, and what it comes to.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::breaker::Round;
use super::care::Care;
use super::endpoint::Endpoint;
use super::ends::{self, NoAnswer, Report, judge, judge_call, judge_status};
use super::outgoing::{Asked, Blame, Sender};
use super::span::AttemptSpan;
use super::tally::{Kind, Outcome};
use super::verdict::Token;
use crate::base::grpc;
use crate::observe::UpstreamMeter;

/// A server, and who judges it: what a visit holds on to.
#[derive(Debug)]
pub(super) struct Place {
    server: Arc<Endpoint>,
    /// None where nothing is to be learned.
    care: Option<Arc<Care>>,
    meter: Arc<UpstreamMeter>,
}

impl Place {
    /// Of this server.
    pub(super) fn new(
        server: &Arc<Endpoint>,
        care: Option<&Arc<Care>>,
        meter: &Arc<UpstreamMeter>,
    ) -> Arc<Self> {
        let (server, meter) = (Arc::clone(server), Arc::clone(meter));
        Arc::new(Self { server, care: care.map(Arc::clone), meter })
    }

    /// Counts what an attempt came to.
    fn count(&self, outcome: Outcome) {
        let Some(attempted) = ends::attempted(outcome) else { return };
        self.meter.attempted(attempted);
        self.server.attempts().add(attempted);
    }
}

/// What a request owes the breaker of its upstream. It is told once.
#[derive(Debug)]
struct Debt {
    /// When the request began, as the breaker counts.
    round: Round,
    /// Whether it tries an upstream that is half open, and that was not told yet.
    is_try: bool,
    is_counted: bool,
}

impl Debt {
    /// The head of the answer is here, and it is one.
    fn is_answered(&mut self, care: &Care) {
        if std::mem::take(&mut self.is_try) {
            care.settle_round(self.round, Outcome::Good);
        }
    }

    /// The request has come to this.
    fn settle(&mut self, care: &Care, outcome: Outcome) {
        if std::mem::take(&mut self.is_try) {
            care.settle_round(self.round, outcome);
        }
        if !std::mem::replace(&mut self.is_counted, true) {
            care.count_request(self.round, outcome);
        }
    }
}

/// What a whole request comes to, for the breaker of its upstream. It is told once; dropping it
/// says that nobody can say.
#[derive(Debug)]
pub(super) struct Charge<'c> {
    care: &'c Care,
    /// None once the visit of its last attempt has it.
    debt: Option<Debt>,
    /// From when on a request that is dropped waited too long.
    deadline: Option<Blame>,
}

impl<'c> Charge<'c> {
    /// Of a request that begins in this round; `is_try`: it tries an upstream that is half open.
    pub(super) fn new(care: &'c Care, round: Round, is_try: bool) -> Box<Self> {
        let debt = Some(Debt { round, is_try, is_counted: false });
        Box::new(Self { care, debt, deadline: None })
    }

    /// Servers are asked from now on: one that has not answered by then has failed.
    pub(super) fn is_asked_until(&mut self, deadline: Option<Blame>) {
        self.deadline = deadline;
    }

    /// The request has no answer; `is_upstreams`: by no fault of others.
    pub(super) fn fail(&mut self, is_upstreams: bool) {
        let failed = Outcome::Failed(Kind::Lost);
        self.settle(if is_upstreams { failed } else { Outcome::Nothing });
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(debt) = &mut self.debt {
            debt.settle(self.care, outcome);
        }
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        let is_late = self.deadline.as_ref().is_some_and(Blame::is_due);
        self.settle(if is_late { Outcome::Failed(Kind::Silent) } else { Outcome::Nothing });
    }
}

/// What an attempt owes those who learn of it.
#[derive(Debug, Default)]
struct Ticket {
    /// Where the attempt tries a server that is ejected.
    token: Option<Token>,
    /// From when on a request that is dropped waited too long.
    deadline: Option<Blame>,
    /// The request's own, with its last attempt.
    debt: Option<Debt>,
}

impl Ticket {
    fn settle(&mut self, server: &Endpoint, care: &Care, outcome: Outcome) {
        if let Some(token) = self.token.take() {
            care.settle_probe(server, token, outcome);
        }
        care.count(server, outcome);
        if let Some(debt) = &mut self.debt {
            debt.settle(care, outcome);
        }
    }
}

/// A request in progress at a server, which counts as busy with it for as long as this lives. What
/// it comes to is told once; dropping it says that nobody can say.
#[derive(Debug)]
pub(super) struct Visit {
    place: Arc<Place>,
    /// When it began, where it is measured how long servers take.
    timed: Option<Instant>,
    /// Whether the client itself has said how long the call may take.
    is_clients_time: bool,
    /// Whether it is a call of gRPC.
    is_call: bool,
    /// What it came to, once that is known.
    outcome: Option<Outcome>,
    /// What the answer's head says, which its body may belie.
    head: Option<Outcome>,
    /// Whether there was a head, though it may say nothing.
    has_begun: bool,
    /// None where nothing is to be learned.
    ticket: Option<Box<Ticket>>,
    /// The attempt in progress, where it is traced.
    span: Option<Box<AttemptSpan>>,
}

impl Visit {
    /// Counts a request of this sender in. `token`: it tries a server that is ejected.
    pub(super) fn begin(place: &Arc<Place>, token: Option<Token>, sender: &Sender) -> Self {
        place.server.begin();
        let ticket = || Ticket { token, deadline: sender.blames_at(), ..Ticket::default() };
        Self {
            place: Arc::clone(place),
            timed: None,
            is_clients_time: sender.is_clients_time,
            is_call: sender.is_call,
            outcome: None,
            head: None,
            has_begun: false,
            ticket: place.care.as_ref().map(|_| Box::new(ticket())),
            span: None,
        }
    }

    /// An attempt begins; the one before it has ended, if there was one.
    pub(super) fn is_traced(&mut self, sender: &Sender, asked: Asked) {
        drop(self.span.take());
        self.span = AttemptSpan::begin(sender, self.transport(), asked);
    }

    /// The piece of the trace that the attempt is, and what it asks for; nothing where it is not
    /// traced.
    pub(super) fn span(&self) -> Option<&AttemptSpan> {
        self.span.as_deref()
    }

    /// The attempt has ended without an answer.
    pub(super) fn unanswered(&mut self, end: &NoAnswer) {
        if let Some(mut span) = self.span.take() {
            span.failed(end);
        }
    }

    /// It is to be measured how long the server takes to answer.
    pub(super) fn is_timed(&mut self) {
        self.timed = Some(Instant::now());
    }

    /// The server has answered, or failed.
    fn took(&mut self, has_failed: bool) {
        if let Some(began) = self.timed.take() {
            self.place.server.latency().observe(began.elapsed(), has_failed);
        }
    }

    /// Nobody waits any more for what the server has to say.
    pub(super) fn is_over(&mut self) {
        if let Some(began) = self.timed.take() {
            self.place.server.latency().observe_at_least(began.elapsed());
        }
    }

    /// Its ticket, with what that is told to.
    fn watched(&mut self) -> Option<(&mut Ticket, &Endpoint, &Care)> {
        let ticket = self.ticket.as_deref_mut()?;
        Some((ticket, &self.place.server, self.place.care.as_deref()?))
    }

    fn settle(&mut self, outcome: Outcome) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            self.place.count(outcome);
            if let Some((ticket, server, care)) = self.watched() {
                ticket.settle(server, care, outcome);
            }
        }
    }

    /// What tries the server is lost after this time, and not before.
    pub(super) fn may_take(&self, time: Duration) {
        if let Some(token) = self.ticket.as_ref().and_then(|ticket| ticket.token) {
            self.verdict().prolong_probe(token, time);
        }
    }

    /// Whether it tries a server that is ejected.
    pub(super) fn is_probe(&self) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| ticket.token.is_some())
    }

    /// Others had a part of the request's time: what is left is too short to blame this server.
    pub(super) fn shares_its_time(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            ticket.deadline = None;
        }
    }

    /// Another server was faster, and nobody waits for this one any more. A server that hangs would
    /// never be found out this way: where it has answered nobody for as long as an answer may take,
    /// this counts as no answer in time.
    pub(super) fn lost_race(&mut self) {
        if let Some((_, server, care)) = self.watched()
            && server.has_been_silent(care.patience())
        {
            self.settle(Outcome::Failed(Kind::Silent));
        }
    }

    /// The request goes on trying the server in another visit.
    pub(super) fn take_token(&mut self) -> Option<Token> {
        self.ticket.as_mut()?.token.take()
    }

    /// An attempt has ended without an answer that can be passed on.
    pub(super) fn failed(&mut self, report: Report) {
        if let Some(kind) = report.kind() {
            self.took(true);
            self.settle(Outcome::Failed(kind));
        }
    }

    /// The head of the answer is here, and maybe its trailers.
    pub(super) fn answered(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
        trailers: Option<&HeaderMap>,
    ) {
        if let Some(span) = &mut self.span {
            span.answered(status);
        }
        let is_clients_time = self.is_clients_time;
        let outcome = if self.is_call || self.timed.is_some() || self.ticket.is_some() {
            let of_call = || Some(judge_call(grpc::status(trailers?)?, is_clients_time));
            judge(status, fields, is_clients_time).or_else(of_call)
        } else {
            // Looking for fields of calls costs every request, and few are calls.
            Some(judge_status(status))
        };
        self.took(matches!(outcome, Some(Outcome::Failed(_) | Outcome::Throttled)));
        self.has_begun = true;
        let is_good = matches!(outcome, None | Some(Outcome::Good));
        if let Some((ticket, server, care)) = self.watched() {
            server.note_answer();
            // What tries the server is not to wait for the end of a long body, or of a call that
            // may go on for hours before it says anything.
            if let Some(token) = ticket.token.take_if(|_| is_good) {
                care.settle_probe(server, token, Outcome::Good);
            }
        }
        match outcome {
            Some(outcome) if !is_good || status == StatusCode::SWITCHING_PROTOCOLS => {
                self.settle(outcome);
            }
            outcome => self.head = outcome,
        }
    }

    /// This is the request's last attempt: what it comes to, the request does.
    pub(super) fn charge(&mut self, charge: &mut Charge<'_>) {
        let (outcome, has_begun) = (self.outcome, self.has_begun);
        let Some((ticket, _, care)) = self.watched() else { return };
        let Some(mut debt) = charge.debt.take() else { return };
        match outcome {
            Some(outcome) => debt.settle(care, outcome),
            None => {
                if has_begun {
                    debt.is_answered(care);
                }
                ticket.debt = Some(debt);
            }
        }
    }

    /// The trailers of the answer are here.
    pub(super) fn trailers(&mut self, fields: &HeaderMap) {
        if let Some(status) = grpc::status(fields) {
            self.settle(judge_call(status, self.is_clients_time));
        }
    }

    /// The whole answer is here.
    pub(super) fn ended(&mut self) {
        // A call without a status is none that went well.
        self.settle(self.head.unwrap_or(Outcome::Failed(Kind::Grpc)));
    }

    /// The answer has broken off.
    pub(super) fn broke(&mut self) {
        if let Some(span) = &mut self.span {
            span.broke();
        }
        self.settle(Outcome::Failed(Kind::CutOff));
    }
}

impl std::ops::Deref for Visit {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.place.server
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.place.server.end();
        self.is_over();
        if self.outcome.is_some() {
            return;
        }
        let deadline = self.ticket.as_ref().and_then(|ticket| ticket.deadline.as_ref());
        let is_late = !self.has_begun && deadline.is_some_and(Blame::is_due);
        self.settle(if is_late { Outcome::Failed(Kind::Silent) } else { Outcome::Nothing });
        // Of what its client leaves in the middle there was an answer: a stream may have no end.
        if self.head == Some(Outcome::Good) {
            self.place.count(Outcome::Good);
        }
    }
}
