//! The cache's part of a request: what it asks of the store, what the answer is worth, and who is
//! asked when that is not enough.

mod fetch;
mod fill;
mod head;
mod keep;
mod lease;
mod look;
mod receive;
mod respond;

use std::sync::Arc;

use http::Response;
use http::request::Parts;

use self::keep::{Origin, Site};
use self::lease::{Lease, Turn};
use self::look::Valid;
use super::body::Content;
use super::exchange::Exchange;
use super::forward::Arrival;
use super::rejection::Rejection;
use crate::base::facts::Caller;
use crate::cache::{
    self, Boarding, Flight, Forward, Held, Intent, Lead, Place, Policy, Stored, Verdict,
};
use crate::gateway::Gateway;
use crate::headers;
use crate::store::{Cached, CachedEntry, CachedReply, Epoch, Reply, StoreError};

pub(super) use self::fetch::Fetch;
pub(super) use self::respond::Wish;
use self::respond::is_there;

/// The variant of what depends on no field, and of what nobody knows yet.
const PLAIN: &str = "-";

/// What the cache wants to know for one request.
#[derive(Debug)]
pub(super) struct Lookup {
    policy: Arc<Policy>,
    place: Arc<Place>,
    origin: Arc<Origin>,
    intent: Intent,
    /// This node's copies, which count only if the epochs agree.
    near: Option<Arc<Held>>,
    /// The epochs that are asked, where the copies have tags: those of the tags stand before the
    /// last one of the place. Otherwise those of the place are asked alone.
    tagged: Vec<String>,
    /// The epochs, where this node knows them without asking and needs nothing else.
    known: Option<Vec<Epoch>>,
    /// The variants that are asked, where no copy here is fresh.
    variants: Vec<String>,
    /// The lease on the fetch, should nothing be stored; with the epochs that it is named by.
    lease: Option<(Lease, Vec<Epoch>)>,
    turn: Turn,
}

/// What is known of a response that must be fetched.
#[derive(Debug)]
pub(super) struct Errand {
    policy: Arc<Policy>,
    site: Site,
    intent: Intent,
    stale: Option<Arc<Stored>>,
    /// A soft purge made it stale.
    purged: bool,
    why: Forward,
    variant: String,
    /// Whether it is this request's turn to fetch, of all in the fleet.
    turn: Turn,
}

impl Errand {
    /// Whether the answer to another request for the same will do, once it is there.
    fn is_shareable(&self) -> bool {
        is_shareable(&self.intent)
    }

    /// The duty to fetch the answer behind the clients' backs, unless somebody has it.
    /// Only a request whose answer may be kept can do that.
    pub(super) fn refresh(&self, gateway: &Gateway) -> Option<Lead> {
        self.intent.store.then(|| gateway.flights.refresh(self.flight())).flatten()
    }

    /// Whether what is stored is this caller's alone.
    pub(super) fn is_per_user(&self, caller: &Caller) -> bool {
        self.policy.is_per_user(caller)
    }

    /// Joins those on this node who want the same answer.
    fn board(&self, gateway: &Gateway) -> Boarding {
        gateway.flights.board(self.flight())
    }

    /// What may be shared: the same entry and variant, with nothing withdrawn between.
    fn flight(&self) -> Flight {
        let answer = answer(&self.site.place, &self.variant);
        Flight { answer, epochs: Arc::clone(&self.site.epochs) }
    }
}

/// What the cache has for a request.
pub(super) enum Found {
    /// This answers it.
    Answer(Response<Content>),
    /// This answers it, and is to be fetched anew behind the client's back.
    Stale(Response<Content>, Box<Errand>),
    /// Nothing; with what is needed to keep the upstream's answer, where that is allowed.
    Nothing(Option<Box<Errand>>),
}

impl Lookup {
    /// What a route's cache asks for a request; nothing where the route has none.
    pub(super) fn of(
        exchange: &Exchange,
        arrival: &Arrival<'_>,
        head: &Parts,
        caller: &Caller,
    ) -> Option<Self> {
        let gateway = exchange.gateway();
        let Arrival { running, route, client, target, .. } = *arrival;
        let keys = &running.plan.keys;
        let policy = Arc::clone(route.cache.as_ref()?);
        let odd = arrival.has_body || headers::nominates(&head.headers);
        let intent = cache::lookup(&policy, &head.method, &head.headers, odd);
        let upstream = running.plan.upstreams.get(route.upstream).map_or("", |(name, _)| name);
        let named = (&*route.name, upstream, client.scheme);
        let entry = Place::entry(keys, &policy, named, target, caller);
        let near = if intent.read { gateway.near.get(&entry) } else { None };
        let place = match &near {
            Some(held) => Arc::clone(&held.place),
            None => Arc::new(Place::of(keys, entry, &route.name, target)),
        };
        let origin = Origin {
            running: Arc::clone(&exchange.running),
            route: route.index,
            upstream: route.upstream,
            scheme: client.scheme,
            site: target.authority.site().into_owned(),
        };
        let copies = near.as_deref().map_or(&[][..], |held| &held.variants);
        let now_ms = gateway.now_ms();
        let has_fresh = copies
            .iter()
            .any(|copy| copy.remaining_ms(now_ms) > 0 && cache::selects(copy, &head.headers));
        let variants =
            if intent.read && !has_fresh { variants_of(copies, head) } else { Vec::new() };
        let tagged = tagged(&place, &origin, copies);
        let known = (has_fresh && gateway.is_settled())
            .then(|| gateway.store.known_epochs(asked(&tagged, &place)))
            .flatten();
        let origin = Arc::new(origin);
        let is_shareable = is_shareable(&intent) && near.is_none();
        let lease =
            (is_shareable && !gateway.flights.is_alone(&answer(&place, PLAIN))).then(|| {
                let guess = gateway.guess_epochs(&place.epochs);
                (Lease::wanted(gateway, place.lock(PLAIN, &guess)), guess)
            });
        let turn = Turn::Unknown;
        Some(Self { policy, place, origin, intent, near, tagged, known, variants, lease, turn })
    }

    /// The question, unless the request passes the cache by or this node knows all there is to ask.
    pub(super) fn question(&self) -> Option<Cached<'_>> {
        let asks = (self.intent.read || self.intent.store) && self.known.is_none();
        let lock = self.lease.as_ref().and_then(|(lease, _)| lease.question(false));
        let entry = CachedEntry { key: &self.place.entry, variants: &self.variants, lock };
        let entry = (!self.variants.is_empty()).then_some(entry);
        asks.then(|| Cached { epochs: asked(&self.tagged, &self.place), entry })
    }

    /// The store has answered: the lease is this request's, or it is not.
    pub(super) fn heard(&mut self, gateway: &Gateway, reply: &Reply<CachedReply>) {
        let Some((lease, guess)) = self.lease.take() else { return };
        let reply = match reply {
            Ok(reply) => reply,
            // It may have been taken: dropping it gives it back.
            Err(StoreError::Timeout) => return,
            Err(_) => return drop(lease.heard(None)),
        };
        let turn = lease.heard(reply.holder.as_deref());
        if guess == reply.epochs {
            self.turn = turn;
        } else {
            // It is the lease of another moment: theirs is not to be waited for.
            gateway.note_epochs(&self.place.epochs, &guess, &reply.epochs);
        }
    }

    /// What is stored that answers the request?
    pub(super) async fn judge(
        mut self,
        reply: Option<Reply<CachedReply>>,
        head: &Parts,
        gateway: &Arc<Gateway>,
        exchange: &mut Exchange,
    ) -> Result<Found, Rejection> {
        let only_if_cached = self.intent.only_if_cached;
        let known = self.known.take().map(|epochs| Ok(CachedReply::known(epochs)));
        let found = match reply.or(known) {
            Some(Ok(reply)) => self.look(reply, head, gateway, exchange).await,
            Some(Err(_)) => {
                exchange.note_key(&self.place.entry);
                exchange.note_detail("no answer from the store");
                exchange.forward = Some(Forward::Bypass);
                Found::Nothing(None)
            }
            None => {
                exchange.forward = Some(self.intent.forward);
                Found::Nothing(None)
            }
        };
        match found {
            Found::Nothing(_) if only_if_cached => Err(Rejection::OnlyIfCached),
            found => Ok(found),
        }
    }

    async fn look(
        self,
        reply: CachedReply,
        head: &Parts,
        gateway: &Arc<Gateway>,
        exchange: &mut Exchange,
    ) -> Found {
        exchange.forward = Some(self.intent.forward);
        exchange.note_key(&self.place.entry);
        if !reply.based {
            // Without the base nothing stored is valid, and nothing may be stored.
            gateway.found_base();
            return Found::Nothing(None);
        }
        let now_ms = gateway.now_ms();
        let wish = Wish { method: &head.method, fields: &head.headers };
        let valid = self.valid(&reply, head, gateway).await;
        let Some((valid, verdict)) = look::best(valid, &head.headers, &self.intent, now_ms) else {
            // Variants may be stored that this request does not select.
            let varies = reply.vary.as_ref().is_some_and(|sets| !sets.trim_ascii().is_empty());
            let why = if varies { Forward::Miss } else { self.intent.forward };
            exchange.forward = Some(why);
            if exchange.is_debugged() && self.has_copies(&reply) {
                exchange.note_detail("purged");
            }
            return Found::Nothing(Some(self.errand(&reply, head, None, why)));
        };
        let stored = Arc::clone(&valid.stored);
        let is_near = self.copies().iter().any(|copy| Arc::ptr_eq(copy, &stored));
        exchange.note_detail(match is_near {
            _ if valid.purged => "purged",
            true => "near",
            false => "store",
        });
        let why = verdict.forward().unwrap_or(Forward::Miss);
        exchange.forward = Some(why);
        match verdict {
            Verdict::Fresh { age } => {
                if !is_near {
                    gateway.near.offer(&self.place, &stored, now_ms);
                }
                match respond::stored(gateway, &stored, wish, age, exchange).await {
                    Some(response) => {
                        exchange.meter().cache_answered(is_near);
                        Found::Answer(response)
                    }
                    // Its body is gone.
                    None => Found::Nothing(Some(self.errand(&reply, head, None, why))),
                }
            }
            Verdict::StaleWhileRevalidate { age } => {
                let answer = respond::stored(gateway, &stored, wish, age, exchange).await;
                let stale = answer.is_some().then_some(valid);
                let errand = self.errand(&reply, head, stale, Forward::Stale);
                match answer {
                    Some(response) => {
                        exchange.meter().cache_answered(is_near);
                        Found::Stale(response, errand)
                    }
                    None => Found::Nothing(Some(errand)),
                }
            }
            Verdict::VaryMiss => Found::Nothing(Some(self.errand(&reply, head, None, why))),
            Verdict::Revalidate | Verdict::RequestForbids => {
                // A body that is gone cannot be confirmed, and stands in for nothing.
                let stale = is_there(gateway, &stored).await.then_some(valid);
                Found::Nothing(Some(self.errand(&reply, head, stale, why)))
            }
        }
    }

    /// Whether anything is stored, valid or not.
    fn has_copies(&self, reply: &CachedReply) -> bool {
        let near = self.copies().first();
        near.is_some() || look::decoded(&self.place, &reply.variants).next().is_some()
    }

    /// Everything stored that is valid by the epochs of now: what is here, what came with the
    /// answer, and what only the answer told how to ask for.
    async fn valid(&self, reply: &CachedReply, head: &Parts, gateway: &Gateway) -> Vec<Valid> {
        if !self.intent.read {
            return Vec::new();
        }
        let (epochs, tags) = self.split(&reply.epochs);
        let at = (&*self.place, &*self.origin);
        let mut candidates = self.copies().to_vec();
        candidates.extend(look::decoded(&self.place, &reply.variants));
        let valid = look::valid(gateway, at, &epochs, &tags, candidates).await;
        let is_answer = |valid: &Valid| cache::selects(&valid.stored, &head.headers);
        if valid.iter().any(is_answer) {
            return valid;
        }
        // Other variants than those that were asked for; or all, when a copy here was trusted.
        let asked = &self.variants;
        let mut others = look::names(reply.vary.as_deref(), &head.headers);
        if asked.is_empty() {
            others.extend(variants_of(self.copies(), head));
        }
        others.retain(|name| !asked.contains(name));
        if others.is_empty() || reply.vary.is_none() && !asked.is_empty() {
            return valid;
        }
        let Ok(values) = gateway.store.variants(&self.place.entry, &others).await else {
            return valid;
        };
        let found = look::decoded(&self.place, &values).collect();
        let found = look::valid(gateway, at, &epochs, &tags, found).await;
        valid.into_iter().chain(found).collect()
    }

    /// This node's copies.
    fn copies(&self) -> &[Arc<Stored>] {
        self.near.as_deref().map_or(&[][..], |held| &held.variants)
    }

    /// The epochs of the place, and those of the copies' tags.
    fn split(&self, epochs: &[Epoch]) -> (Vec<Epoch>, Vec<(String, Epoch)>) {
        if self.tagged.is_empty() {
            return (epochs.to_vec(), Vec::new());
        }
        let known = self.place.epochs.len().saturating_sub(1);
        let last = epochs.len().saturating_sub(1);
        let place = epochs.iter().take(known).chain(epochs.last()).copied().collect();
        let tags = self.tagged.iter().cloned().zip(epochs.iter().copied());
        (place, tags.take(last).skip(known).collect())
    }

    fn errand(
        self,
        reply: &CachedReply,
        head: &Parts,
        stale: Option<Valid>,
        why: Forward,
    ) -> Box<Errand> {
        let (epochs, _) = self.split(&reply.epochs);
        let mut variants = look::names(reply.vary.as_deref(), &head.headers).into_iter();
        let site = Site {
            place: self.place,
            epochs: epochs.into(),
            path_epoch: reply.path_epoch.clone(),
            origin: self.origin,
        };
        let variant = variants.next().unwrap_or_default();
        let Self { policy, intent, turn, .. } = self;
        let purged = stale.as_ref().is_some_and(|valid| valid.purged);
        let stale = stale.map(|valid| valid.stored);
        Box::new(Errand { policy, site, intent, stale, purged, why, variant, turn })
    }
}

/// Sends a request on for the cache.
///
/// # Errors
/// The upstream's failure, where nothing stored may stand in for it.
pub(super) async fn fetch(
    gateway: &Arc<Gateway>,
    fetch: Fetch,
    wish: Wish<'_>,
    exchange: &mut Exchange,
) -> Result<Response<Content>, Rejection> {
    let why = fetch.errand.why;
    let fetched = fetch.run(&mut exchange.upstream_time).await?;
    let response = respond::fetched(gateway, fetched, wish, why, exchange).await;
    response.ok_or(Rejection::CacheLost)
}

/// The epochs of a place, with those of the copies' tags before the last one; none where there are
/// no tags.
fn tagged(place: &Place, origin: &Origin, copies: &[Arc<Stored>]) -> Vec<String> {
    let mut tagged = Vec::new();
    for key in copies.iter().flat_map(|copy| origin.epochs(copy)) {
        if tagged.is_empty() {
            tagged.clone_from(&place.epochs);
        }
        if !tagged.contains(&key) {
            tagged.insert(tagged.len() - 1, key);
        }
    }
    tagged
}

/// Whether the answer to another request for the same will do, once it is there.
fn is_shareable(intent: &Intent) -> bool {
    intent.read && intent.store && !intent.reload
}

/// The name of what one fetch gets: a variant of an entry.
fn answer(place: &Place, variant: &str) -> String {
    [&*place.entry, "\n", variant].concat()
}

/// The epochs that are asked.
fn asked<'a>(tagged: &'a [String], place: &'a Place) -> &'a [String] {
    if tagged.is_empty() { &place.epochs } else { tagged }
}

/// The variants that a request may be of, as far as the copies here tell; the only one of a
/// response that depends on nothing, where there are none.
fn variants_of(copies: &[Arc<Stored>], head: &Parts) -> Vec<String> {
    let mut names = vec![PLAIN.to_owned()];
    for copy in copies {
        let set: Vec<_> = copy.vary.iter().map(|(name, _)| name.clone()).collect();
        let name = cache::variant_name(&set, &head.headers);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
