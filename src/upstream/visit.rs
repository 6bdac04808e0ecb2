//! One request in progress at a server, and what it comes to.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::breaker::Round;
use super::care::Care;
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::tally::{Kind, Outcome};
use super::verdict::Token;
use crate::base::grpc;

/// What an attempt says of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// It lives, whatever it answered.
    Answered,
    /// It lives, and its answer cannot be passed on.
    Unusable,
    /// It took no connection, or nothing on one.
    Refused,
    /// A new connection ended without an answer. One may be the fault of what was asked.
    Lost,
    /// There was no answer, which may be the fault of what was asked.
    Silent,
    /// Nothing: somebody else may be the cause.
    Nothing,
}

impl Report {
    fn kind(self) -> Option<Kind> {
        match self {
            Self::Answered | Self::Nothing => None,
            Self::Unusable => Some(Kind::Unusable),
            Self::Refused => Some(Kind::Refused),
            Self::Lost => Some(Kind::Lost),
            Self::Silent => Some(Kind::Silent),
        }
    }
}

/// What an answer of this status and these fields says of its server; nothing where that is told by
/// its trailers.
fn judge(status: StatusCode, fields: &HeaderMap) -> Option<Outcome> {
    if let Some(status) = grpc::status(fields) {
        return Some(judge_call(status));
    }
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(Outcome::Throttled),
        status if status.is_server_error() => Some(Outcome::Failed(Kind::Status)),
        _ if grpc::is_grpc(fields) => None,
        _ => Some(Outcome::Good),
    }
}

/// UNKNOWN, DEADLINE_EXCEEDED, INTERNAL and UNAVAILABLE are a server's failures.
fn judge_call(status: u16) -> Outcome {
    if matches!(status, 2 | 4 | 13 | 14) { Outcome::Failed(Kind::Grpc) } else { Outcome::Good }
}

/// What a whole request comes to, for the breaker of its upstream. It is told once; dropping it
/// says that nobody can say.
#[derive(Debug)]
pub(super) struct Charge {
    care: Arc<Care>,
    /// Where the request tries an upstream that is half open.
    round: Option<Round>,
    is_counted: bool,
    /// From when on a request that is dropped waited too long.
    deadline: Option<Instant>,
}

impl Charge {
    /// Of a request that begins.
    pub(super) fn new(care: Arc<Care>, round: Option<Round>) -> Box<Self> {
        Box::new(Self { care, round, is_counted: false, deadline: None })
    }

    /// Servers are asked from now on: one that has not answered by then has failed.
    pub(super) fn is_asked_until(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// The head of the answer is here, and it is one.
    fn is_answered(&mut self) {
        if let Some(round) = self.round.take() {
            self.care.settle_round(round, Outcome::Good);
        }
    }

    /// The request has failed.
    pub(super) fn fail(&mut self, failure: &Failure) {
        let failed = Outcome::Failed(Kind::Lost);
        self.settle(if failure.is_the_servers() { failed } else { Outcome::Nothing });
    }

    /// The request has come to this.
    fn settle(&mut self, outcome: Outcome) {
        if let Some(round) = self.round.take() {
            self.care.settle_round(round, outcome);
        }
        if !std::mem::replace(&mut self.is_counted, true) {
            self.care.count_request(outcome);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        self.settle(if is_late { Outcome::Failed(Kind::Silent) } else { Outcome::Nothing });
    }
}

/// What one attempt at a server comes to. It is told once; dropping it says that nobody can say.
#[derive(Debug)]
struct Ticket {
    care: Arc<Care>,
    /// Where the attempt tries a server that is ejected.
    token: Option<Token>,
    /// Once it is known.
    outcome: Option<Outcome>,
    /// What the answer's head says, which its body may belie.
    head: Option<Outcome>,
    /// Whether there was a head, though it may say nothing.
    has_begun: bool,
    /// From when on a request that is dropped waited too long.
    deadline: Option<Instant>,
    /// The request's own, with its last attempt.
    charge: Option<Box<Charge>>,
}

impl Ticket {
    fn settle(&mut self, server: &Endpoint, outcome: Outcome) {
        if self.outcome.is_some() {
            return;
        }
        self.outcome = Some(outcome);
        if let Some(token) = self.token.take() {
            self.care.settle_probe(server, token, outcome);
        }
        self.care.count(server, outcome);
        if let Some(charge) = &mut self.charge {
            charge.settle(outcome);
        }
    }
}

/// A request in progress at a server, which counts as busy with it for as long as this lives.
#[derive(Debug)]
pub(super) struct Visit {
    server: Arc<Endpoint>,
    /// When it began, where it is measured how long servers take.
    timed: Option<Instant>,
    /// None where nothing is to be learned.
    ticket: Option<Box<Ticket>>,
}

impl Visit {
    /// Counts a request in.
    pub(super) fn begin(server: &Arc<Endpoint>) -> Self {
        server.begin();
        Self { server: Arc::clone(server), timed: None, ticket: None }
    }

    /// It is to be measured how long the server takes to answer.
    pub(super) fn is_timed(&mut self) {
        self.timed = Some(Instant::now());
    }

    /// The server has answered, or failed.
    fn took(&mut self, has_failed: bool) {
        if let Some(began) = self.timed.take() {
            self.server.latency().observe(began.elapsed(), has_failed);
        }
    }

    /// The same, of which `care` is to learn. `deadline`: see [`Ticket`].
    pub(super) fn watched(
        mut self,
        care: &Arc<Care>,
        token: Option<Token>,
        deadline: Option<Instant>,
    ) -> Self {
        let care = Arc::clone(care);
        let (outcome, head, charge) = (None, None, None);
        let ticket = Ticket { care, token, outcome, head, has_begun: false, deadline, charge };
        self.ticket = Some(Box::new(ticket));
        self
    }

    /// Whether anything is to be learned of it.
    pub(super) fn is_watched(&self) -> bool {
        self.ticket.is_some()
    }

    /// An attempt has ended without an answer that can be passed on.
    pub(super) fn failed(&mut self, report: Report) {
        if report.kind().is_some() {
            self.took(true);
        }
        if let (Some(ticket), Some(kind)) = (&mut self.ticket, report.kind()) {
            ticket.settle(&self.server, Outcome::Failed(kind));
        }
    }

    /// The head of the answer is here.
    pub(super) fn answered(&mut self, status: StatusCode, fields: &HeaderMap) {
        if self.timed.is_some() {
            let outcome = judge(status, fields);
            self.took(matches!(outcome, Some(Outcome::Failed(_) | Outcome::Throttled)));
        }
        let Some(ticket) = &mut self.ticket else { return };
        ticket.has_begun = true;
        match judge(status, fields) {
            Some(Outcome::Good) => {
                // What tries the server is not to wait for the end of a long body.
                if let Some(token) = ticket.token.take() {
                    ticket.care.settle_probe(&self.server, token, Outcome::Good);
                }
                ticket.head = Some(Outcome::Good);
                if status == StatusCode::SWITCHING_PROTOCOLS {
                    ticket.settle(&self.server, Outcome::Good);
                }
            }
            Some(outcome) => ticket.settle(&self.server, outcome),
            None => {}
        }
    }

    /// This is the request's last attempt: what it comes to, the request does.
    pub(super) fn charge(&mut self, mut charge: Box<Charge>) {
        let Some(ticket) = &mut self.ticket else { return };
        if let Some(outcome) = ticket.outcome {
            return charge.settle(outcome);
        }
        if ticket.head.is_some() {
            charge.is_answered();
        }
        ticket.charge = Some(charge);
    }

    /// Part of the body is here. The stream of a call may go on for hours until its trailers say
    /// how it went: what tries the server, or the upstream, does not wait for them.
    pub(super) fn flows(&mut self) {
        let Some(ticket) = &mut self.ticket else { return };
        if let Some(token) = ticket.token.take() {
            ticket.care.settle_probe(&self.server, token, Outcome::Good);
        }
        if let Some(charge) = &mut ticket.charge {
            charge.is_answered();
        }
    }

    /// The trailers of the answer are here.
    pub(super) fn trailers(&mut self, fields: &HeaderMap) {
        if let (Some(ticket), Some(status)) = (&mut self.ticket, grpc::status(fields)) {
            ticket.settle(&self.server, judge_call(status));
        }
    }

    /// The whole answer is here.
    pub(super) fn ended(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            // A call without a status is none that went well.
            let outcome = ticket.head.unwrap_or(Outcome::Failed(Kind::Grpc));
            ticket.settle(&self.server, outcome);
        }
    }

    /// The answer has broken off.
    pub(super) fn broke(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            ticket.settle(&self.server, Outcome::Failed(Kind::CutOff));
        }
    }
}

impl std::ops::Deref for Visit {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.server
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.server.end();
        // Whoever waited has left.
        if let Some(began) = self.timed {
            self.server.latency().observe_at_least(began.elapsed());
        }
        if let Some(ticket) = &mut self.ticket {
            let is_late = !ticket.has_begun
                && ticket.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let late = Outcome::Failed(Kind::Silent);
            ticket.settle(&self.server, if is_late { late } else { Outcome::Nothing });
        }
    }
}
