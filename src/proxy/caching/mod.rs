//! The cache's part of a request: what it asks of the store, what the answer is worth, and who is
//! asked when that is not enough.

mod errand;
mod fetch;
mod fill;
mod head;
mod keep;
mod lease;
mod look;
mod lookup;
mod notes;
mod receive;
mod respond;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use self::fetch::Trip;
use self::keep::Site;
use self::lease::Turn;
use self::look::Valid;
use super::body::Content;
use super::rejection::Rejection;
use crate::cache::{self, Forward, Verdict};
use crate::runtime::Gateway;
use crate::store::{CachedReply, Reply};

pub(super) use self::errand::Errand;
pub(super) use self::fetch::Fetch;
pub(super) use self::lookup::Lookup;
use self::lookup::variants_of;
pub(super) use self::notes::CacheNotes;
pub(super) use self::respond::Wish;
use self::respond::is_there;

/// The variant of what depends on no field, and of what nobody knows yet.
const PLAIN: &str = "-";

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
    /// What is stored that answers the request?
    pub(super) async fn judge(
        mut self,
        reply: Option<Reply<CachedReply>>,
        head: &Parts,
        gateway: &Arc<Gateway>,
        notes: &mut CacheNotes,
    ) -> Result<Found, Rejection> {
        let only_if_cached = self.intent.only_if_cached;
        let known = self.known.take().map(|epochs| Ok(CachedReply::known(epochs)));
        let found = match reply.or(known) {
            Some(Ok(reply)) => self.look(reply, head, gateway, notes).await,
            Some(Err(_)) => {
                notes.note_key(&self.place.entry);
                notes.note_detail("no answer from the store");
                notes.note_forward(Forward::Bypass);
                Found::Nothing(self.unkept(head, gateway, Forward::Bypass))
            }
            None => {
                notes.note_forward(self.intent.forward);
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
        notes: &mut CacheNotes,
    ) -> Found {
        notes.note_forward(self.intent.forward);
        notes.note_key(&self.place.entry);
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
            notes.note_forward(why);
            if notes.is_debugged() && self.has_copies(&reply) {
                notes.note_detail("purged");
            }
            return Found::Nothing(Some(self.errand(&reply, head, None, why)));
        };
        let stored = Arc::clone(&valid.stored);
        let is_near = self.copies().iter().any(|copy| Arc::ptr_eq(copy, &stored));
        notes.note_detail(match is_near {
            _ if valid.purged => "purged",
            true => "near",
            false => "store",
        });
        let why = verdict.forward().unwrap_or(Forward::Miss);
        notes.note_forward(why);
        match verdict {
            Verdict::Fresh { age } | Verdict::StaleWhileRevalidate { age } => {
                let is_fresh = matches!(verdict, Verdict::Fresh { .. });
                if is_fresh && !is_near {
                    gateway.near.offer(&self.place, &stored, now_ms);
                }
                let answer = respond::stored(gateway, &stored, wish, age, notes).await;
                let Some(response) = answer else {
                    // Its body is gone.
                    let why = if is_fresh { why } else { Forward::Stale };
                    return Found::Nothing(Some(self.errand(&reply, head, None, why)));
                };
                self.origin.answered(is_near);
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
        gateway
            .flights
            .is_asked_again(&errand.flight().answer, stored.answered_ms)
            .then_some(errand)
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
        let Self { policy, intent, turn: (leased, turn), .. } = self;
        // The lease of another variant is given back.
        let turn = if leased == variant { turn } else { Turn::Unknown };
        let purged = stale.as_ref().is_some_and(|valid| valid.purged);
        let stale = stale.map(|valid| valid.stored);
        Box::new(Errand { policy, site, intent, stale, purged, why, variant, unkept: None, turn })
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
        let (stale, purged, variant, turn) = (None, false, String::new(), Turn::Unknown);
        Some(Box::new(Errand { policy, site, intent, stale, purged, why, variant, unkept, turn }))
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
    notes: &mut CacheNotes,
    took: &mut Option<Duration>,
) -> Result<Response<Content>, Rejection> {
    let why = fetch.errand.why;
    let mut trip = Trip { took, collapsed: None };
    let fetched = fetch.run(&mut trip).await?;
    let collapsed = trip.collapsed;
    let response = respond::fetched(gateway, fetched, wish, (why, collapsed), notes).await;
    response.ok_or(Rejection::CacheLost)
}
