//! What one request asks of the store: the questions of all rooms, collected before the one wait,
//! and judged after it in the order of precedence.
//!
//! The same for an operator who asks what would happen to a request: then nothing is charged, and
//! the store is only asked to look (`Mode::Peek`).

mod asserted;
mod by_session;
mod identity;
mod known;
mod limits;
mod once;

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::request::Parts;
use serde_json::Value;
use tokio::time::Instant;

pub(super) use self::known::By;
use super::asking::{Peek, ask_behind};
use super::degraded::{Degraded, Failures, error, failures};
use super::dispatch::Fields;
use super::forecast::Forecasts;
use super::pools;
use super::record::Record;
use super::rejection::Rejection;
use super::request::Request;
use super::settle::{refused, settle};
use super::without_store::{self, revocation_keys};
use crate::auth;
use crate::base::boxed;
use crate::base::facts::Caller;
use crate::caching::{Found, Lookup, LookupRequest, RequestView};
use crate::config::{LimitOutage, Outage, StoreUse};
use crate::idempotency::{NotOnce, Standing};
use crate::limit::{self, Exceeded, LimitNotes, Quota, Receipt, SlotGuard};
use crate::observe::Took;
use crate::runtime::Claim;
use crate::session::{self, Attached, NoSession};
use crate::store::{
    Answers, Charges, Leases, ProofKey, Questions, RevocationKeys, SessionKey, SessionKeys,
    StoreError, budget,
};

/// Whether the request happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It does: limits are charged, slots are taken.
    Charge,
    /// It does not: the store is only asked to look.
    Peek,
}

/// The questions of one request, with the keys they are made of, and the answers.
pub(super) struct Checks<'a, 'h> {
    pub(super) request: Request<'a>,
    head: &'h Parts,
    mode: Mode,
    /// Whether the caller's token is good, or none is asked for.
    is_identified: bool,
    /// What others learn of the limits.
    notes: LimitNotes<'a>,
    charges: Option<limit::RateCheck<'a>>,
    slots: Option<limit::SlotCheck<'a>>,
    /// Gives the slots back if the request ends before it is admitted.
    guard: Option<SlotGuard>,
    /// What the store must not have seen: the proof that comes with a token that is bound to a key.
    proof: Option<Box<ProofKey>>,
    /// The session's keys, when the request names a session.
    session: Option<SessionKeys>,
    /// Whether it is there, as far as the store has said.
    has_session: bool,
    /// When the store was asked, and how long that took.
    took: Option<Took>,
    /// The id of the session that the request names, and whether limits count by it: only while
    /// the store has it.
    named: Option<String>,
    counts_session: bool,
    cached: Option<Box<Lookup>>,
    marks: Option<Box<pools::Asked>>,
    /// The claim to the request's idempotency key, what the store has said of that, and why it has
    /// none that can be used.
    claim: Option<Claim>,
    standing: Option<Standing>,
    not_once: Option<NotOnce>,
    answers: Answers,
    /// How long the store was waited for: what comes behind has the rest of its timeout.
    waited: Duration,
    /// What the store did not answer of this request.
    degraded: Degraded,
    /// What limits would say; only in `Mode::Peek`, once the store has answered.
    forecasts: Option<Box<Forecasts<'a>>>,
}

/// A request that may pass.
#[derive(Default)]
pub(super) struct Admitted<'a> {
    /// What was charged, where the response may change that.
    pub(super) receipt: Option<Receipt<'a>>,
    /// What the client is told of the limits.
    pub(super) quota: Quota,
    /// What the upstream is told of the session and of the limits.
    pub(super) added: Fields,
}

impl<'a, 'h> Checks<'a, 'h> {
    /// No questions yet.
    pub(super) fn new(request: Request<'a>, head: &'h Parts, mode: Mode) -> Self {
        let fields = request.plan().config.server.ratelimit_fields;
        let meters = request.running().limit_meters.get(request.route.index);
        let meters = meters.map_or(&[][..], Vec::as_slice);
        Self {
            request,
            head,
            mode,
            is_identified: false,
            notes: LimitNotes::new(fields, meters),
            charges: None,
            slots: None,
            guard: None,
            proof: None,
            session: None,
            has_session: false,
            took: None,
            named: None,
            counts_session: false,
            cached: None,
            marks: None,
            claim: None,
            standing: None,
            not_once: None,
            answers: Answers::default(),
            waited: Duration::ZERO,
            degraded: Degraded::default(),
            forecasts: None,
        }
    }

    /// The fields that the client sent.
    pub(super) fn fields(&self) -> &'h HeaderMap {
        &self.head.headers
    }

    /// Who calls is known, or that his token is no good.
    /// `waited`: how long the store was waited for to find that out.
    pub(super) fn note_caller(
        &mut self,
        caller: &'a Caller,
        is_identified: bool,
        waited: Duration,
    ) {
        self.request.caller = caller;
        self.is_identified = is_identified;
        self.waited = waited;
    }

    /// How long the store was waited for so far.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// Is the client's address blocked, or known here to be over a limit? Before the token is
    /// looked at.
    pub(super) fn flood(&mut self) -> Result<(), Exceeded> {
        let Self { request, head, .. } = *self;
        let Request { route, .. } = request;
        if self.mode == Mode::Peek {
            let is_blocked = route.limits.blocks(request.client().address);
            return if is_blocked { Err(Exceeded::Blocked) } else { Ok(()) };
        }
        let (state, keys) = (&request.gateway().limits.state, &request.plan().keys);
        limit::flood(&route.limits, state, keys, &request.facts(head, None), &mut self.notes)
    }

    /// Lets every room ask. A caller whose token is no good asks for its address's limits only.
    /// What this node knows to be exhausted is refused without asking.
    pub(super) fn collect(&mut self) -> Result<(), Exceeded> {
        let Self { request, head, mode, is_identified, .. } = *self;
        let Request { route, caller, .. } = request;
        let (gateway, keys) = (request.gateway(), &request.plan().keys);
        let state = &gateway.limits.state;
        let policy = route.session.as_ref().filter(|it| is_identified && it.looks(caller));
        let session_id = policy.and_then(|policy| {
            let shown = request.received.shown();
            session::id(policy, caller, &head.headers, shown)
        });
        let named = session_id.as_deref().filter(|_| route.limits.uses_session());
        if is_identified {
            self.want_key();
            pools::note_writer(&request, session_id.as_deref());
            self.marks = pools::Asked::of(&request, &head.headers, session_id.as_deref());
        }
        let counted = named.filter(|id| state.sessions.knows(id));
        let facts = request.facts(head, counted);
        let charges = limit::RateCheck::of(&route.limits, keys, &facts, is_identified);
        if mode == Mode::Charge {
            limit::count_exempt(&route.limits, &facts, is_identified, &self.notes);
            if let Some(charges) = &charges {
                let in_doubt = named.is_some() && counted.is_none();
                charges.check_denied(state, &self.notes, in_doubt)?;
            }
            if is_identified {
                limit::charge(&route.limits, state, keys, &facts, &mut self.notes)?;
            }
        }
        if is_identified {
            self.slots = limit::SlotCheck::of(&route.limits, state, keys, &facts);
        }
        self.charges = charges;
        self.hold();
        self.counts_session = counted.is_some();
        self.named = named.map(str::to_owned);
        self.session = session_id.map(|id| {
            let renews = policy.is_some_and(session::Policy::renews);
            let end = if renews { keys.session_end(&id) } else { String::new() };
            SessionKeys { session: keys.session(&id), end }
        });
        if is_identified && mode == Mode::Charge {
            self.cached = self.lookup().map(Box::new);
        }
        Ok(())
    }

    /// What the cache asks, where the route has one.
    fn lookup(&self) -> Option<Lookup> {
        let Self { request, head, .. } = *self;
        let Request { route, target, caller, has_body, .. } = request;
        let arm = request.resolved.chosen().map(|chosen| chosen.arm);
        let cache = request.running().cache_of(route.index, arm)?;
        let (client, is_debugger) = (request.client(), request.may_debug_cache());
        let view = RequestView { method: &head.method, fields: &head.headers };
        let request = LookupRequest { view, target, client, caller, has_body, is_debugger };
        Some(Lookup::of(&self.request.gateway().cache, cache, &request))
    }

    /// The slots that are asked for are given back unless the request is admitted.
    fn hold(&mut self) {
        let slots = self.slots.as_ref().filter(|_| self.mode == Mode::Charge);
        self.guard = slots.map(|slots| self.request.gateway().limits.guard(slots));
    }

    /// The questions as the store takes them.
    fn questions<'q>(&'q self, peek: Option<&'q Peek>) -> Questions<'q> {
        let Request { route, caller, .. } = self.request;
        let charges = self.charges.as_ref().map(limit::RateCheck::charges);
        let leases = self.slots.as_ref().and_then(limit::SlotCheck::leases);
        let proof = self.proof.as_deref();
        Questions {
            revocation: caller
                .as_deref()
                .filter(|identity| identity.is_revocable() || proof.is_some())
                .map(|identity| RevocationKeys { proof, ..revocation_keys(identity) }),
            charges: charges.map(|it| match peek.and_then(|peek| peek.windows.as_ref()) {
                Some(set) => Charges { set, ..it },
                None => it,
            }),
            leases: leases.map(|it| match peek {
                Some(Peek { limits, .. }) => Leases { limits, ..it },
                None => it,
            }),
            session: self.session.as_ref().zip(route.session.as_ref()).map(|(keys, policy)| {
                let end = policy.asks_end().then_some(&*keys.end);
                let ttl = (policy.renews() || self.keeps_session()) && peek.is_none();
                SessionKey { key: &keys.session, ttl, bytes_max: policy.bytes_max(), end }
            }),
            cached: self.cached.as_ref().and_then(|lookup| lookup.question()),
            marks: self.marks.as_ref().map(|it| it.question()),
            claim: self.claim.as_ref().map(Claim::question),
            pending_purges: &[],
        }
    }

    fn peek(&self) -> Option<Peek> {
        let windows = || self.charges.as_ref().map(limit::RateCheck::peek);
        let limits = || self.slots.as_ref().map(limit::SlotCheck::peek).unwrap_or_default();
        (self.mode == Mode::Peek).then(|| Peek { windows: windows(), limits: limits() })
    }

    /// What must the store tell us? One round trip, whatever the route asks for. `away` says that
    /// the store has just not answered this request, which does not wait for it twice.
    pub(super) async fn ask(&mut self, away: Option<StoreError>, record: &mut Record) {
        let answers = match (away, self.mode) {
            (Some(error), _) => {
                let began = Instant::now();
                let (gateway, peek) = (self.request.gateway(), self.peek());
                let questions = self.questions(peek.as_ref());
                let asked = without_store::ask_others(gateway, &questions, &error);
                let (answers, waited) = Box::pin(budget::spending(self.waited, asked)).await;
                self.waited = waited;
                self.took = Some(Took::since(began));
                answers
            }
            (None, Mode::Charge) => {
                let questions = self.questions(None);
                let gateway = self.request.gateway();
                let charged = self.charges.as_ref();
                let debt = charged.and_then(|charges| gateway.limits.debt(charges.keys()));
                // The first question needs no budget: it may take what the store may.
                let (answers, took) = match debt {
                    None if self.waited.is_zero() => gateway.ask(&questions).await,
                    // Rare: boxed, it takes no room in the other requests.
                    debt => {
                        let asked = ask_behind(gateway, debt, &questions);
                        Box::pin(budget::scope_from(self.waited, asked)).await
                    }
                };
                record.note_store_time(took, self.request.received);
                self.waited += took.map(|took| took.time).unwrap_or_default();
                self.took = took;
                answers
            }
            (None, Mode::Peek) => Box::pin(self.look_up()).await,
        };
        self.answers = *answers;
        self.on_reply(record).await;
        self.note_outage(record);
        if self.mode == Mode::Peek {
            self.forecasts = Some(Box::new(self.forecast()));
        }
    }

    /// Whether what is said of the session is kept, for when the store is away.
    fn keeps_session(&self) -> bool {
        let max_stale = self.request.plan().on_outage.session_max_stale;
        self.session.is_some() && self.mode == Mode::Charge && !max_stale.is_zero()
    }

    /// Asks a store that only looks.
    async fn look_up(&self) -> Box<Answers> {
        let peek = self.peek();
        let questions = self.questions(peek.as_ref());
        if questions.is_empty() {
            return Box::default();
        }
        self.request.gateway().store.ask(&questions).await
    }

    /// The store has answered: a slot that it gave or refused comes no more, and it is known whom
    /// the limits by session count.
    async fn on_reply(&mut self, record: &mut Record) {
        if let (Some(keys), Some(took)) = (&self.session, self.took)
            && self.keeps_session()
        {
            without_store::keep_session(self.request.gateway(), keys, &self.answers, took);
        }
        if let (Some(charges), Some(took)) = (&mut self.charges, self.took) {
            charges.were_asked_at(took.began);
        }
        if let (Some(lookup), Some(reply)) = (&mut self.cached, &self.answers.cached) {
            lookup.on_reply(&self.request.gateway().cache, reply);
        }
        self.on_claim();
        self.on_leases();
        if self.is_miscounted() {
            let before = self.waited;
            let ((), waited) = Box::pin(budget::spending(before, self.recount(record))).await;
            self.waited = waited;
        }
    }

    /// Who takes the request, where its upstream has readers.
    pub(super) fn choose_pool(&mut self) {
        let marks = self.marks.as_deref().zip(self.answers.marks.take());
        pools::choose(&self.request, &self.head.headers, marks, self.mode == Mode::Peek);
    }

    /// What the store did not answer of this request.
    pub(super) fn degraded(&self) -> Degraded {
        self.degraded
    }

    fn note_outage(&mut self, record: &mut Record) {
        let failures = failures(&self.answers);
        // Nearly always nothing has failed, and no name has to be looked for.
        let degraded = if failures.iter().all(|(_, _, error)| error.is_none()) {
            Degraded::default()
        } else {
            self.note_failures(&failures, record)
        };
        let (_, _, limits_failed) = failures[1];
        let asked = self.answers.charges.is_some() || self.answers.leases.is_some();
        let on_outage = self.request.plan().on_outage.limits;
        record.note_limits(match (asked, limits_failed.is_some(), on_outage) {
            (false, ..) | (true, true, LimitOutage::Allow) => "off",
            (true, false, _) => "pass",
            (true, true, LimitOutage::Local) => {
                if self.mode == Mode::Charge && error(&self.answers.charges).is_some() {
                    self.request.gateway().observer.metrics.limit_local.inc();
                }
                "local"
            }
            (true, true, LimitOutage::Refuse) => "refused",
        });
        self.degraded = degraded;
    }

    /// What these come to, of which some have failed; counted where the request is answered.
    #[cold]
    fn note_failures(&self, failures: &Failures<'_>, record: &mut Record) -> Degraded {
        let gateway = self.request.gateway();
        let is_away = failures.iter().any(|(_, usage, error)| {
            error.is_some() && gateway.store.is_one_for(*usage, StoreUse::Cache)
        });
        let is_without = |name| failures.iter().any(|it| it.0 == name && it.2.is_some());
        if self.mode == Mode::Charge {
            for (function, _, error) in failures {
                if let Some(error) = error {
                    gateway.observer.metrics.store_failed(function);
                    record.note_degraded(function, error);
                }
            }
        }
        Degraded::of(is_without, is_away)
    }

    /// May the request pass? In the order of precedence: 401 and 403, revoked, 429, the session.
    /// `slot` gets its slots.
    pub(super) fn judge(
        &mut self,
        denied: Option<Box<Rejection>>,
        slot: &mut Option<SlotGuard>,
        record: &mut Record,
    ) -> Result<Admitted<'a>, Rejection> {
        if let Some(forecasts) = &self.forecasts {
            forecasts.room.clone()?;
        }
        if let Some(denied) = denied {
            let (receipt, _) = self.admit()?;
            return Err(self.refuse(receipt, *denied));
        }
        self.confirm()?;
        self.charge_by_session()?;
        let (receipt, taken) = self.admit()?;
        *slot = taken;
        record.note_over(&self.notes.over);
        let auth = self.request.route.auth.as_ref();
        let takes_credentials = auth.is_some_and(|auth| !auth.takes_sessions_alone());
        let attached = self.attach();
        let attached = attached.map_err(|why| Rejection::NoSession { why, takes_credentials });
        match attached.and_then(|it| self.assert_identity(it)) {
            Ok(mut added) => {
                added.append(&mut self.notes.marks);
                Ok(Admitted { receipt, quota: std::mem::take(&mut self.notes.quota), added })
            }
            Err(rejection) => Err(self.refuse(receipt, rejection)),
        }
    }

    /// Refuses a request that the limits have charged.
    fn refuse(&self, receipt: Option<Receipt<'_>>, rejection: Rejection) -> Rejection {
        settle(&self.request, receipt, &refused(&rejection));
        rejection
    }

    /// Is the token revoked? What its request took from the limits is given back then. Without an
    /// answer it is judged by what this node last knew, if that is trusted.
    fn confirm(&mut self) -> Result<(), Rejection> {
        let Request { caller, .. } = self.request;
        let (gateway, plan) = (self.request.gateway(), self.request.plan());
        let (Some(identity), Some(reply)) = (caller, self.answers.revocation.take()) else {
            return Ok(());
        };
        // What the store says itself counts on; what this node only knew may be known again.
        let is_current = reply.is_ok() && self.mode == Mode::Charge;
        // Where this node judges by what it knew, proofs are not asked about.
        let unproven = self.answers.unproven.take().filter(|_| reply.is_ok());
        match without_store::recalled(gateway, identity, reply, plan.on_outage.revocation_max_stale)
        {
            Ok(status) => {
                let verdict = auth::confirm(identity, status);
                if status.replayed && verdict.is_ok() {
                    self.undo(self.taken());
                    return Err(self.replayed(identity).into());
                }
                if verdict.is_err() {
                    if is_current
                        && let Some(record) = identity.record_key()
                        && let Some(verifier) = plan.key_verifiers.get(&*identity.verifier)
                    {
                        gateway.auth.forget_record(verifier, record);
                    }
                    self.undo(self.taken());
                    self.count_revoked(identity);
                }
                verdict?;
                match unproven {
                    Some(error) if plan.on_outage.revocation == Outage::Refuse => {
                        self.undo(self.taken());
                        Err(Rejection::RevocationUnknown(error))
                    }
                    _ => Ok(()),
                }
            }
            Err(error) if plan.on_outage.revocation == Outage::Refuse => {
                self.undo(self.taken());
                Err(Rejection::RevocationUnknown(error))
            }
            Err(_) => Ok(()),
        }
    }

    /// The session for the upstream, whose life is prolonged where that is due.
    fn attach(&mut self) -> Result<Attached, NoSession> {
        let mut said = session::Said {
            reply: self.answers.session.take(),
            end: self.answers.session_end.take(),
            keeps_end: self.answers.keeps_end,
            key: self.session.as_ref().map_or("", |keys| &keys.session),
            callers_until_s: known::until_s(self.request.caller),
        };
        let (gateway, keys) = (self.request.gateway(), self.session.as_ref());
        let max_stale = self.request.plan().on_outage.session_max_stale;
        let is_recalled = without_store::recall_session(gateway, keys, &mut said.reply, max_stale);
        self.has_session = !matches!(said.reply, None | Some(Ok(None)));
        let policy = self.request.route.session.as_ref();
        let has_answered = said.reply.as_ref().map(Result::is_ok);
        let session = session::attach(policy, said, SystemTime::now);
        self.count_session(has_answered, session.as_ref().err());
        let mut session = session?;
        // A store that is away renews nothing.
        let renew = session.renew.take();
        if self.mode == Mode::Charge && !is_recalled {
            gateway.renew(keys, renew);
        }
        Ok(session)
    }

    /// Is there a stored response that answers the request? Nothing where the route has no cache.
    pub(super) async fn look(&mut self) -> Option<Found> {
        let (lookup, reply) = (self.cached.take()?, self.answers.cached.take());
        if pools::has_written(&self.request) {
            return Some(lookup.pass_by());
        }
        let view = RequestView { method: &self.head.method, fields: &self.head.headers };
        let cache = &self.request.gateway().cache;
        // Boxed before it is given a budget, it is not moved.
        let judged = boxed::pin(|| lookup.judge(cache, reply, view));
        let (found, waited) = budget::spending(self.waited, judged).await;
        self.waited = waited;
        Some(found)
    }

    /// The keys of the session that the request goes on with.
    pub(super) fn take_attached_session(&mut self) -> Option<SessionKeys> {
        let route = self.request.route;
        let may_last = route.written.tunnel.is_some() || route.written.grpc.is_some();
        self.session.take().filter(|_| may_last && self.has_session)
    }

    /// Whether the request names a session that the route uses.
    pub(super) fn names_session(&self) -> bool {
        self.session.is_some()
    }

    /// Whether the store has it, as far as it has answered.
    pub(super) fn has_session(&self) -> bool {
        self.has_session
    }

    /// What limits would say, as operators read it, once the store was asked to look.
    pub(super) fn shown(&self) -> Option<&[Value]> {
        self.forecasts.as_ref().map(|forecasts| &*forecasts.shown)
    }
}
