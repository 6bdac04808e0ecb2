//! The cache's part of a request: what it asks of the store, what the answer is worth, and who is
//! asked when that is not enough.

mod errand;
mod fetch;
mod fill;
mod head;
mod keep;
mod lease;
mod look;
mod receive;
mod respond;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use self::fetch::Trip;
use self::keep::{Origin, Site};
use self::look::Valid;
use super::body::Content;
use super::exchange::Exchange;
use super::forward::Arrival;
use super::rejection::Rejection;
use crate::base::facts::Caller;
use crate::cache::{self, Forward, Held, Intent, Place, Policy, Stored, Verdict};
use crate::gateway::Gateway;
use crate::headers;
use crate::store::{Cached, CachedEntry, CachedReply, Epoch, Reply};

pub(super) use self::errand::Errand;
pub(super) use self::fetch::Fetch;
pub(super) use self::respond::Wish;
use self::respond::is_there;

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
}

/// What the cache has for a request.
pub(super) enum Found {
    /// This answers it.
    Answer(Response<Content>),
    /// This answers it, and is to be fetched anew behind the client's back: it is stale, or will be
    /// soon.
    Refresh(Response<Content>, Box<Errand>),
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
        Some(Self { policy, place, origin, intent, near, tagged, known, variants })
    }

    /// The question, unless the request passes the cache by or this node knows all there is to ask.
    pub(super) fn question(&self) -> Option<Cached<'_>> {
        let asks = (self.intent.read || self.intent.store) && self.known.is_none();
        let entry = CachedEntry { key: &self.place.entry, variants: &self.variants };
        let entry = (!self.variants.is_empty()).then_some(entry);
        asks.then(|| Cached { epochs: asked(&self.tagged, &self.place), entry })
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
                Found::Nothing(self.unkept(head, gateway, Forward::Bypass))
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
            let why = self.intent.forward;
            return Found::Nothing(self.unkept(head, gateway, why));
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
            Verdict::Fresh { age } | Verdict::StaleWhileRevalidate { age } => {
                let is_fresh = matches!(verdict, Verdict::Fresh { .. });
                if is_fresh && !is_near {
                    gateway.near.offer(&self.place, &stored, now_ms);
                }
                let answer = respond::stored(gateway, &stored, wish, age, exchange).await;
                let Some(response) = answer else {
                    // Its body is gone.
                    let why = if is_fresh { why } else { Forward::Stale };
                    return Found::Nothing(Some(self.errand(&reply, head, None, why)));
                };
                exchange.meter().cache_answered(is_near);
                if !is_fresh {
                    let errand = self.errand(&reply, head, Some(valid), Forward::Stale);
                    return Found::Refresh(response, errand);
                }
                match self.ahead(&reply, head, valid, gateway) {
                    Some(errand) => Found::Refresh(response, errand),
                    None => Found::Answer(response),
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

    /// The errand to fetch anew what is fresh, where the route wants that for what is asked for
    /// again near its end. A request that says `no-store` or `only-if-cached` brings nothing about.
    fn ahead(
        self,
        reply: &CachedReply,
        head: &Parts,
        valid: Valid,
        gateway: &Gateway,
    ) -> Option<Box<Errand>> {
        let (share, now_ms) = (self.policy.refresh_ahead?, gateway.now_ms());
        let may_fetch = self.intent.store && !self.intent.only_if_cached;
        if !may_fetch || !valid.stored.ends_soon(share, now_ms) {
            return None;
        }
        let stored = Arc::clone(&valid.stored);
        let mut errand = self.errand(reply, head, Some(valid), Forward::Miss);
        // The entry may not have been asked for, and with it what its variants depend on.
        errand.set_variant_of(&stored, &head.headers);
        gateway.flights.is_asked_again(&errand.flight(), stored.answered_ms).then_some(errand)
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
        let Self { policy, intent, .. } = self;
        let purged = stale.as_ref().is_some_and(|valid| valid.purged);
        let stale = stale.map(|valid| valid.stored);
        Box::new(Errand { policy, site, intent, stale, purged, why, variant, unkept: None })
    }

    /// The errand of a request while the epochs are not known: nothing is read, nothing can be
    /// kept, and only those who ask at the same time may share the answer. None where it cannot be
    /// shared, or is the upstream's to make for this one request: a part, or news.
    fn unkept(self, head: &Parts, gateway: &Gateway, why: Forward) -> Option<Box<Errand>> {
        if !errand::is_shareable(&self.intent) || cache::is_partial(&head.headers) {
            return None;
        }
        let Self { policy, place, origin, intent, .. } = self;
        let (epochs, path_epoch) = (Arc::default(), Bytes::new());
        let unkept = Some(gateway.flights.withdrawals());
        let site = Site { place, epochs, path_epoch, origin };
        let (stale, purged, variant) = (None, false, String::new());
        Some(Box::new(Errand { policy, site, intent, stale, purged, why, variant, unkept }))
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
    let mut trip = Trip { took: &mut exchange.upstream_time, collapsed: None };
    let fetched = fetch.run(&mut trip).await?;
    let collapsed = trip.collapsed;
    let response = respond::fetched(gateway, fetched, wish, (why, collapsed), exchange).await;
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

/// The epochs that are asked.
fn asked<'a>(tagged: &'a [String], place: &'a Place) -> &'a [String] {
    if tagged.is_empty() { &place.epochs } else { tagged }
}

/// The variants that a request may be of, as far as the copies here tell; the only one of a
/// response that depends on nothing, where there are none.
fn variants_of(copies: &[Arc<Stored>], head: &Parts) -> Vec<String> {
    let mut names = vec!["-".to_owned()];
    for copy in copies {
        let set: Vec<_> = copy.vary.iter().map(|(name, _)| name.clone()).collect();
        let name = cache::variant_name(&set, &head.headers);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
