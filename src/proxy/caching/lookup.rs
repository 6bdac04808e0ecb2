//! What the cache asks of the store for one request.

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;

use super::super::request::Request;
use super::PLAIN;
use super::errand::{answer, is_shareable};
use super::keep::Origin;
use super::lease::{Lease, Turn};
use crate::cache::{self, Held, Intent, Place, Policy, Stored};
use crate::forwarding::fields;
use crate::runtime::Gateway;
use crate::store::{Cached, CachedEntry, CachedReply, Epoch, Reply, StoreError};

/// What the cache wants to know for one request.
#[derive(Debug)]
pub(in crate::proxy) struct Lookup {
    pub(super) policy: Arc<Policy>,
    pub(super) place: Arc<Place>,
    pub(super) origin: Arc<Origin>,
    pub(super) intent: Intent,
    /// This node's copies, which count only if the epochs agree.
    near: Option<Arc<Held>>,
    /// The epochs that are asked, where the copies have tags: those of the tags stand before the
    /// last one of the place. Otherwise those of the place are asked alone.
    tagged: Vec<String>,
    /// The epochs, where this node knows them without asking and needs nothing else.
    pub(super) known: Option<Vec<Epoch>>,
    /// The variants that are asked, where no copy here is fresh.
    pub(super) variants: Vec<String>,
    /// The lease on the fetch, should one be needed, with the variant and the epochs that it is
    /// named by.
    lease: Option<(Lease, String, Vec<Epoch>)>,
    /// Whose turn it is to fetch this variant.
    pub(super) turn: (String, Turn),
}

impl Lookup {
    /// What a route's cache asks for a request; nothing where the route has none.
    pub(in crate::proxy) fn of(request: &Request<'_>, head: &Parts) -> Option<Self> {
        let Request { received, route, target, caller, .. } = *request;
        let (gateway, client) = (request.gateway(), request.client());
        let running = &received.running;
        let keys = &running.plan.keys;
        let policy = Arc::clone(route.cache.as_ref()?);
        let odd = request.has_body
            || fields::nominates(&head.headers)
            || !Place::is_known(&policy, caller);
        let intent = cache::lookup(&policy, &head.method, &head.headers, odd);
        let upstream = running.plan.upstreams.get(route.upstream);
        let reading = upstream.map(|(_, upstream)| upstream.paths).unwrap_or_default();
        let upstream = upstream.map_or("", |(name, _)| name);
        // An upstream may write the host that it is told of into what it answers.
        let authority = client.authority(target);
        let upstream = if *authority == target.authority {
            Cow::Borrowed(upstream)
        } else {
            Cow::Owned(format!("{upstream};@{}", authority.as_str()))
        };
        let named = (&*route.name, &*upstream, client.scheme);
        let entry = Place::entry(keys, &policy, named, target, caller);
        let near = if intent.read { gateway.near.get(&entry) } else { None };
        let place = match &near {
            Some(held) => Arc::clone(&held.place),
            None => Arc::new(Place::of(keys, entry, &route.name, target, reading)),
        };
        let origin = Origin {
            running: Arc::clone(running),
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
        // The lease on the fetch, should one be needed: of the variant that the newest copy tells.
        let is_private = policy.forward_conditions && cache::is_conditional(&head.headers);
        let may_fetch = !intent.only_if_cached && !is_private;
        let fetches = may_fetch && !has_fresh && is_shareable(&intent);
        let variant = variants.get(1).map_or(PLAIN, String::as_str);
        let lease = (fetches && !gateway.flights.is_alone(&answer(&place, variant))).then(|| {
            let guess = gateway.guess_epochs(&place.epochs);
            let lease = Lease::wanted(gateway, place.lock(variant, &guess));
            (lease, variant.to_owned(), guess)
        });
        let turn = (String::new(), Turn::Unknown);
        Some(Self { policy, place, origin, intent, near, tagged, known, variants, lease, turn })
    }

    /// The question, unless the request passes the cache by or this node knows all there is to ask.
    pub(in crate::proxy) fn question(&self) -> Option<Cached<'_>> {
        let asks = (self.intent.read || self.intent.store) && self.known.is_none();
        let lock = self.lease.as_ref().and_then(|(lease, ..)| lease.question());
        let entry = CachedEntry { key: &self.place.entry, variants: &self.variants, lock };
        let entry = (!self.variants.is_empty()).then_some(entry);
        asks.then(|| Cached { epochs: asked(&self.tagged, &self.place), entry })
    }

    /// The store has answered: the lease is this request's, or it is not.
    pub(in crate::proxy) fn heard(&mut self, gateway: &Gateway, reply: &Reply<CachedReply>) {
        let Some((lease, variant, guess)) = self.lease.take() else { return };
        let reply = match reply {
            Ok(reply) => reply,
            // It may have been taken: dropping it gives it back. Should that overtake the taking,
            // on another connection, the lease lapses.
            Err(StoreError::Timeout) => return,
            Err(_) => return drop(lease.heard(None)),
        };
        let turn = lease.heard(reply.holder.as_deref());
        let (epochs, _) = self.split(&reply.epochs);
        if self.place.is_same(&guess, &epochs) {
            self.turn = (variant, turn);
        } else {
            // It is the lease of another moment: theirs is not to be waited for.
            gateway.note_epochs(&self.place.epochs, &guess, &epochs);
        }
    }

    /// This node's copies.
    pub(super) fn copies(&self) -> &[Arc<Stored>] {
        self.near.as_deref().map_or(&[][..], |held| &held.variants)
    }

    /// The epochs of the place, and those of the copies' tags.
    pub(super) fn split(&self, epochs: &[Epoch]) -> (Vec<Epoch>, Vec<(String, Epoch)>) {
        if self.tagged.is_empty() {
            return (epochs.to_vec(), Vec::new());
        }
        let known = self.place.epochs.len().saturating_sub(1);
        let last = epochs.len().saturating_sub(1);
        let place = epochs.iter().take(known).chain(epochs.last()).copied().collect();
        let tags = self.tagged.iter().cloned().zip(epochs.iter().copied());
        (place, tags.take(last).skip(known).collect())
    }
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
pub(super) fn variants_of(copies: &[Arc<Stored>], head: &Parts) -> Vec<String> {
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
