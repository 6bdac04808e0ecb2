//! What one request asks of the store: the questions of all rooms, collected before the wait and
//! judged after it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Response;
use http::request::Parts;

use super::exchange::Exchange;
use super::forward::Arrival;
use super::rejection::Rejection;
use crate::auth::{self, Denied};
use crate::base::facts::{Caller, Identity};
use crate::cache::{
    self, CacheStatus, Forward, Found, Intent, NearCache, Place, Stored, StoredBody, Verdict,
};
use crate::config::Outage;
use crate::gateway::{Gateway, Held};
use crate::headers;
use crate::limit::{self, Exceeded, Receipt, Told};
use crate::plan::Plan;
use crate::session;
use crate::store::{
    Answers, Cached, CachedReply, Questions, Reply, SessionKey, SessionKeys, Standing,
    StandingReply, StoreError,
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
    cached: Option<Lookup>,
}

/// What the cache wants to know.
struct Lookup {
    place: Place,
    intent: Intent,
    /// This node's copy, which counts only if the epochs agree.
    near: Option<Arc<Stored>>,
}

impl<'p> Asked<'p> {
    /// Lets every room ask. A caller whose token is no good asks for its address's limits only.
    /// What this node knows to be exhausted is refused without asking.
    pub(super) fn collect(
        gateway: &Arc<Gateway>,
        arrival: &Arrival<'p>,
        identified: &Result<Caller, Denied>,
        head: &Parts,
        told: &mut Told<'p>,
    ) -> Result<Self, Exceeded> {
        let Arrival { running, route, client, target, .. } = *arrival;
        let plan = &running.plan;
        let good = identified.is_ok();
        let caller = identified.as_ref().ok().cloned().flatten();
        let session_id = route
            .session
            .as_ref()
            .filter(|_| good)
            .and_then(|policy| session::id(policy, &caller, &head.headers));
        let facts = limit::Facts {
            address: client.address,
            caller: &caller,
            method: &head.method,
            headers: &head.headers,
            session: session_id.as_deref(),
            route: &route.name,
        };
        let charges = limit::question(&route.limits, &plan.keys, &facts, good);
        if let Some(charges) = &charges {
            charges.recall(&gateway.limits, told)?;
        }
        if good {
            limit::charge(&route.limits, &gateway.limits, &plan.keys, &facts, told)?;
        }
        let places = good
            .then(|| limit::wanted(&route.limits, &gateway.limits, &plan.keys, &facts))
            .flatten();
        let held = places.as_ref().map(|places| Held::new(gateway, places.ticket()));
        let session_policy = route.session.as_ref();
        let session = session_id.map(|id| {
            let renews = session_policy.is_some_and(session::Policy::renews);
            let end = if renews { plan.keys.session_end(&id) } else { String::new() };
            SessionKeys { session: plan.keys.session(&id), end }
        });
        let cached = route.cache.as_ref().filter(|_| good).map(|policy| {
            let odd = has_body(head) || headers::nominates(&head.headers);
            let intent = cache::lookup(policy, &head.method, &head.headers, odd);
            let place = Place::of(&plan.keys, policy, &route.name, target, &caller);
            let near = if intent.read { gateway.near.get(&place.entry, now_ms()) } else { None };
            Lookup { place, intent, near }
        });
        Ok(Self { charges, places, held, caller, session, session_policy, cached })
    }

    /// The questions as the store takes them.
    pub(super) fn questions(&self) -> Questions<'_> {
        Questions {
            standing: self.caller.as_deref().filter(|i| i.is_revocable()).map(standing),
            charges: self.charges.as_ref().map(limit::Asked::charges),
            leases: self.places.as_ref().and_then(limit::Wanted::leases),
            session: self.session.as_ref().zip(self.session_policy).map(|(keys, policy)| {
                let end = policy.asks_end().then_some(&*keys.end);
                SessionKey { key: &keys.session, ttl: policy.renews(), end }
            }),
            cached: self.cached.as_ref().filter(|lookup| lookup.asks()).map(|lookup| Cached {
                epochs: &lookup.place.epochs,
                entry: (lookup.intent.read && lookup.near.is_none())
                    .then_some(&*lookup.place.entry),
            }),
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
        let (Some(identity), Some(reply)) = (caller, answers.standing.take()) else {
            return Ok(());
        };
        match recalled(gateway, identity, reply, plan.on_outage.revocation_max_stale) {
            Ok(standing) => {
                let verdict = auth::confirm(identity, standing.listed, standing.not_before);
                if verdict.is_err() {
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
    pub(super) fn cached(
        self,
        reply: Option<Reply<CachedReply>>,
        head: &Parts,
        near: &NearCache,
        exchange: &mut Exchange,
    ) -> Result<Found, Rejection> {
        let Some(lookup) = self.cached else { return Ok(Found::Miss(None)) };
        let intent = lookup.intent;
        let now_ms = now_ms();
        let mut why = intent.forward;
        let mut fill = None;
        match reply {
            Some(Ok(reply)) => {
                let epochs = reply.epochs.clone();
                let based = reply.based;
                let path_epoch = reply.path_epoch.clone();
                if let Some(stored) = lookup.valid(reply, near).filter(|_| based) {
                    let verdict = cache::judge(&stored, &head.headers, &intent, false, now_ms);
                    if let (Verdict::Fresh { age }, StoredBody::Inline(body)) =
                        (verdict, &stored.body)
                    {
                        exchange.cache = Some("hit");
                        let reply = cache::reply(&stored, &head.method, &head.headers, age);
                        let mut response = Response::new(reply.gather(body).unwrap_or_default());
                        *response.status_mut() = reply.status;
                        *response.headers_mut() = reply.headers;
                        let status = CacheStatus::hit(stored.ttl_s(now_ms));
                        cache::append_status(response.headers_mut(), &status);
                        return Ok(Found::Hit(response));
                    }
                    why = verdict.forward().unwrap_or(why);
                }
                fill = (intent.store && based)
                    .then(|| cache::Pending::new(lookup.place, intent, epochs, path_epoch));
                if !based {
                    exchange.found_base();
                }
            }
            Some(Err(_)) => why = Forward::Bypass,
            None => {}
        }
        if intent.only_if_cached {
            return Err(Rejection::OnlyIfCached);
        }
        exchange.cache = Some(why.verdict());
        exchange.forward = Some(why);
        Ok(Found::Miss(fill))
    }
}

/// What the store said of a token's standing; while it is away, what this node last knew.
pub(super) fn recalled(
    gateway: &Gateway,
    identity: &Identity,
    reply: Reply<StandingReply>,
    max_stale: Duration,
) -> Reply<StandingReply> {
    reply.or_else(|error| match error {
        StoreError::Unavailable | StoreError::Timeout => {
            gateway.store.recall(standing(identity), max_stale).ok_or(error)
        }
        // An answer that cannot be used is no outage: what it says may be news.
        StoreError::Refused(_) | StoreError::Full => Err(error),
    })
}

impl Lookup {
    fn asks(&self) -> bool {
        self.intent.read || self.intent.store
    }

    /// The entry that the current epochs confirm: this node's copy, or the one that the store sent.
    fn valid(&self, reply: CachedReply, near: &NearCache) -> Option<Arc<Stored>> {
        let confirmed = |stored: &Arc<Stored>| {
            stored.epochs.hard == reply.epochs && stored.key == self.place.entry
        };
        if let Some(stored) = &self.near {
            return Some(Arc::clone(stored)).filter(confirmed);
        }
        let stored = Arc::new(Stored::decode(&reply.entry?)?);
        if stored.epochs.hard == reply.epochs && stored.key == self.place.entry {
            near.put(Arc::clone(&stored));
            return Some(stored);
        }
        None
    }
}

/// The revocation keys of a token.
fn standing(identity: &Identity) -> Standing<'_> {
    Standing { blacklist: &identity.blacklist_keys, not_before: identity.not_before_key.as_deref() }
}

/// Whether the head announces a body; HTTP/2 may have one without announcing it, which
/// `Content-Length: 0` and an ended stream rule out, and a GET that has one all the same is
/// forwarded with it.
fn has_body(head: &Parts) -> bool {
    head.headers.contains_key(http::header::TRANSFER_ENCODING)
        || head.headers.get(http::header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// The wall clock in Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
