//! What one request asks of the store: the questions of all rooms, collected before the wait and
//! judged after it.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use super::caching::{Found, Lookup};
use super::exchange::Exchange;
use super::forward::Arrival;
use super::rejection::Rejection;
use crate::auth::{self, Denied};
use crate::base::facts::{Caller, Identity};
use crate::config::Outage;
use crate::limit::{self, Exceeded, Receipt, Told};
use crate::plan::Plan;
use crate::runtime::{Gateway, Held};
use crate::session;
use crate::store::{
    Answers, CachedReply, Questions, Reply, RevocationKeys, RevocationStatus, SessionKey,
    SessionKeys, StoreError,
};

/// The questions of one request, with the keys they are made of.
pub(super) struct Asked<'p> {
    charges: Option<limit::Asked<'p>>,
    places: Option<limit::Wanted<'p>>,
    /// Gives the places back if the request ends before it is admitted.
    held: Option<Held>,
    caller: Caller,
    /// The session's keys, when the request names a session.
    pub(super) session: Option<SessionKeys>,
    session_policy: Option<&'p session::Policy>,
    /// The id of the session that the request names, and whether limits count by it: only while
    /// the store has it.
    named: Option<String>,
    counts_session: bool,
    cached: Option<Box<Lookup>>,
}

impl<'p> Asked<'p> {
    /// Lets every room ask. A caller whose token is no good asks for its address's limits only.
    /// What this node knows to be exhausted is refused without asking.
    pub(super) fn collect(
        exchange: &Exchange,
        arrival: &Arrival<'p>,
        identified: &Result<Caller, Denied>,
        head: &Parts,
        told: &mut Told<'p>,
    ) -> Result<Self, Exceeded> {
        let Arrival { running, route, .. } = *arrival;
        let (plan, gateway) = (&running.plan, exchange.gateway());
        let good = identified.is_ok();
        let caller = identified.as_ref().ok().cloned().flatten();
        let session_id = route
            .session
            .as_ref()
            .filter(|_| good)
            .and_then(|policy| session::id(policy, &caller, &head.headers));
        let known = &gateway.limits.sessions;
        let counted = session_id.as_deref().filter(|_| route.limits.uses_session());
        let counts_session = counted.is_some_and(|id| known.knows(id));
        let facts = limit::Facts {
            caller: &caller,
            session: session_id.as_deref().filter(|_| counts_session),
            ..arrival.origin(head)
        };
        let charges = limit::question(&route.limits, &plan.keys, &facts, good);
        if let Some(charges) = &charges {
            let in_doubt = counted.is_some() && !counts_session;
            charges.recall(&gateway.limits, told, in_doubt)?;
        }
        if good {
            limit::charge(&route.limits, &gateway.limits, &plan.keys, &facts, told)?;
        }
        let places = good
            .then(|| limit::wanted(&route.limits, &gateway.limits, &plan.keys, &facts))
            .flatten();
        let held = places.as_ref().map(|places| Held::new(gateway, places.ticket()));
        let session_policy = route.session.as_ref();
        let named = session_id.as_deref().filter(|_| route.limits.uses_session());
        let named = named.map(str::to_owned);
        let session = session_id.map(|id| {
            let renews = session_policy.is_some_and(session::Policy::renews);
            let end = if renews { plan.keys.session_end(&id) } else { String::new() };
            SessionKeys { session: plan.keys.session(&id), end }
        });
        let cached =
            if good { Lookup::of(exchange, arrival, head, &caller).map(Box::new) } else { None };
        let asked = Self {
            charges,
            places,
            held,
            caller,
            session,
            session_policy,
            named,
            counts_session,
            cached,
        };
        Ok(asked)
    }

    /// The questions as the store takes them.
    pub(super) fn questions(&self) -> Questions<'_> {
        Questions {
            revocation: self.caller.as_deref().filter(|i| i.is_revocable()).map(standing),
            charges: self.charges.as_ref().map(limit::Asked::charges),
            leases: self.places.as_ref().and_then(limit::Wanted::leases),
            session: self.session.as_ref().zip(self.session_policy).map(|(keys, policy)| {
                let end = policy.asks_end().then_some(&*keys.end);
                let bytes_max = policy.bytes_max();
                SessionKey { key: &keys.session, ttl: policy.renews(), bytes_max, end }
            }),
            cached: self.cached.as_ref().and_then(|lookup| lookup.question()),
            overdue: &[],
        }
    }

    /// Is the token revoked? What its request took from the limits is given back then. Without an
    /// answer it is judged by what this node last knew, if that is trusted.
    pub(super) fn confirm(
        &mut self,
        caller: &Caller,
        answers: &mut Answers,
        plan: &Plan,
        gateway: &Arc<Gateway>,
    ) -> Result<(), Rejection> {
        let (Some(identity), Some(reply)) = (caller, answers.revocation.take()) else {
            return Ok(());
        };
        // What the store says itself counts on; what this node only knew may be known again.
        let is_news = reply.is_ok();
        match recalled(gateway, identity, reply, plan.on_outage.revocation_max_stale) {
            Ok(standing) => {
                let verdict = auth::confirm(identity, standing);
                if verdict.is_err() {
                    if is_news
                        && let Some(record) = &identity.record_key
                        && let Some(verifier) = plan.key_verifiers.get(&*identity.verifier)
                    {
                        verifier.forget(record, &gateway.tokens);
                    }
                    self.undo(answers, gateway);
                    self.held = None;
                }
                Ok(verdict?)
            }
            Err(error) if plan.on_outage.revocation == Outage::Refuse => {
                self.undo(answers, gateway);
                Err(Rejection::RevocationUnknown(error))
            }
            Err(_) => Ok(()),
        }
    }

    /// The store has answered: a place that it gave or refused comes no more, and it is known whom
    /// the limits by session count.
    pub(super) async fn heard(
        &mut self,
        arrival: &Arrival<'p>,
        head: &Parts,
        answers: &mut Answers,
        (gateway, took): (&Arc<Gateway>, &mut Option<Duration>),
    ) {
        if let (Some(lookup), Some(reply)) = (&mut self.cached, &answers.cached) {
            lookup.heard(gateway, reply);
        }
        if let (Some(Ok(_)), Some(held)) = (&answers.leases, &mut self.held) {
            held.ticket().heard();
        }
        if self.is_miscounted(answers, arrival, gateway) {
            Box::pin(self.recount(arrival, head, answers, gateway, took)).await;
        }
    }

    /// Whether the charges were made for another principal than the answer says: an id that the
    /// store does not have counts for the address, one that it has for the session.
    fn is_miscounted(
        &mut self,
        answers: &Answers,
        arrival: &Arrival<'p>,
        gateway: &Gateway,
    ) -> bool {
        let (Some(id), Some(Ok(found))) = (&self.named, &answers.session) else { return false };
        let is_there = found.is_some();
        gateway.limits.sessions.note(id, is_there);
        let was_wrong = self.counts_session != is_there;
        self.counts_session = is_there;
        was_wrong && arrival.route.limits.asks_by_session()
    }

    /// Gives back what was charged for the wrong principal, and asks again for the right one. It
    /// comes to that once for each session and node, and when a session has ended.
    async fn recount(
        &mut self,
        arrival: &Arrival<'p>,
        head: &Parts,
        answers: &mut Answers,
        gateway: &Arc<Gateway>,
        took: &mut Option<Duration>,
    ) {
        if let (Some(charges), Some(Ok(taken))) = (&self.charges, &answers.charges)
            && let Some(undo) = charges.undo(taken)
            && undo.carry_out(&gateway.store, &gateway.limits).await.is_err()
        {
            gateway.metrics.store_failed("limits");
        }
        // The places too, before others are asked for: the request must not stand in its own way.
        if let Some(held) = self.held.take() {
            held.give_back().await;
        }
        let Arrival { running, route, .. } = *arrival;
        let (keys, caller) = (&running.plan.keys, self.caller.clone());
        let session = self.named.as_deref().filter(|_| self.counts_session);
        let facts = limit::Facts { caller: &caller, session, ..arrival.origin(head) };
        self.charges = limit::question(&route.limits, keys, &facts, true);
        self.places = limit::wanted(&route.limits, &gateway.limits, keys, &facts);
        self.held = self.places.as_ref().map(|places| Held::new(gateway, places.ticket()));
        let questions = Questions {
            charges: self.charges.as_ref().map(limit::Asked::charges),
            leases: self.places.as_ref().and_then(limit::Wanted::leases),
            ..Questions::default()
        };
        let second = gateway.ask(&questions, took).await;
        (answers.charges, answers.leases) = (second.charges, second.leases);
        if let (Some(Ok(_)), Some(held)) = (&answers.leases, &mut self.held) {
            held.ticket().heard();
        }
    }

    /// Do this node's own limits by session allow it?
    pub(super) fn charge_by_session(
        &mut self,
        arrival: &Arrival<'p>,
        head: &Parts,
        answers: &Answers,
        gateway: &Arc<Gateway>,
        told: &mut Told<'p>,
    ) -> Result<(), Exceeded> {
        let limits = &arrival.route.limits;
        if !limits.uses_session() {
            return Ok(());
        }
        let session = self.named.as_deref().filter(|_| self.counts_session);
        let facts = limit::Facts { caller: &self.caller, session, ..arrival.origin(head) };
        let keys = &arrival.running.plan.keys;
        let charged = limit::charge_by_session(limits, &gateway.limits, keys, &facts, told);
        if charged.is_err() {
            self.undo(answers, gateway);
            self.held = None;
        }
        charged
    }

    /// Gives back what the store charged for a request that ends here.
    fn undo(&self, answers: &Answers, gateway: &Arc<Gateway>) {
        if let (Some(charges), Some(Ok(taken))) = (&self.charges, &answers.charges) {
            gateway.correct(charges.undo(taken));
        }
    }

    /// Do the limits allow it? What they charged may change with the answer, and a place among the
    /// requests in flight is held until the response has ended.
    pub(super) fn admit(
        &mut self,
        answers: &Answers,
        plan: &Plan,
        gateway: &Arc<Gateway>,
        told: &mut Told<'p>,
    ) -> Result<(Option<Receipt<'p>>, Option<Held>), Exceeded> {
        let (outage, limits) = (plan.on_outage.limits, &gateway.limits);
        let receipt = match (&self.charges, &answers.charges) {
            (Some(charges), Some(reply)) => charges.admit(reply, outage, limits, told)?,
            _ => None,
        };
        let mut held = self.held.take();
        if let (Some(places), Some(held)) = (&self.places, &mut held) {
            let reply = answers.leases.as_ref();
            if let Err(exceeded) = places.admit(reply, outage, limits, told, held.ticket()) {
                self.undo(answers, gateway);
                return Err(exceeded);
            }
        }
        Ok((receipt, held))
    }

    /// Is there a stored response that answers the request? A miss says what may be stored later.
    pub(super) async fn cached(
        self,
        reply: Option<Reply<CachedReply>>,
        head: &Parts,
        gateway: &Arc<Gateway>,
        exchange: &mut Exchange,
    ) -> Result<Found, Rejection> {
        match self.cached {
            Some(lookup) => Box::pin(lookup.judge(reply, head, gateway, exchange)).await,
            None => Ok(Found::Nothing(None)),
        }
    }
}

/// What the store said of a token's standing; while it is away, what this node last knew.
pub(super) fn recalled(
    gateway: &Gateway,
    identity: &Identity,
    reply: Reply<RevocationStatus>,
    max_stale: Duration,
) -> Reply<RevocationStatus> {
    reply.or_else(|error| match error {
        StoreError::Unavailable | StoreError::Timeout => {
            gateway.store.recall(standing(identity), max_stale).ok_or(error)
        }
        // An answer that cannot be used is no outage: what it says may be news.
        StoreError::Refused(_) | StoreError::Full(_) => Err(error),
    })
}

/// The revocation keys of a token or API key.
pub(super) fn standing(identity: &Identity) -> RevocationKeys<'_> {
    RevocationKeys {
        blacklist: &identity.blacklist_keys,
        not_before: identity.not_before_key.as_deref(),
        record: identity.record_key.as_deref(),
    }
}
