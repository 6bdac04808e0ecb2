//! Keeping a response: in this node's memory before its last byte is out, in the store behind it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::super::Snapshot;
use super::lease::Lease;
use crate::cache::{self, Epochs, Place, Policy, Scope, Stored};
use crate::runtime::{Gateway, Keeping};
use crate::store::keys::Keys;
use crate::store::{Epoch, hard_halves, soft_halves};

/// Where a response is kept, and what was true of that place before it was fetched.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) place: Arc<Place>,
    /// The epochs of the place before the fetch.
    pub(super) epochs: Arc<[Epoch]>,
    /// The path's own, as the store has it.
    pub(super) path_epoch: Bytes,
    /// Whose tags and groups are meant.
    pub(super) origin: Arc<Origin>,
}

/// Who may name tags and groups, so that nobody can withdraw another's.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) running: Snapshot,
    /// Index of the route.
    pub(super) route: usize,
    /// Index of the upstream: tags are its own.
    pub(super) upstream: usize,
    /// `http` or `https`, as the client sees it.
    pub(super) scheme: &'static str,
    /// Host and port as the client sees them: groups are the site's (RFC 9875 §2).
    pub(super) site: String,
}

impl Origin {
    pub(super) fn keys(&self) -> &Keys {
        &self.running.plan.keys
    }

    /// A response of this origin was not kept.
    pub(super) fn not_kept(&self, reason: &'static str) {
        if let Some(meter) = self.running.meters.get(self.route) {
            meter.cache_not_kept(reason);
        }
    }

    fn upstream(&self) -> &str {
        self.running.plan.upstreams.get(self.upstream).map_or("", |(name, _)| name)
    }

    /// The keys of the epochs of a response's tags and groups.
    pub(super) fn epochs(&self, stored: &Stored) -> Vec<String> {
        let tag = |tag: &String| {
            Scope::Tag { site: self.upstream(), tag: tag.as_bytes() }.epoch(self.keys())
        };
        let group = |group: &String| self.group(group).epoch(self.keys());
        stored.tags.iter().map(tag).chain(stored.groups.iter().map(group)).collect()
    }

    /// A group of this origin.
    pub(super) fn group<'a>(&'a self, group: &'a str) -> Scope<'a> {
        Scope::Group { scheme: self.scheme, site: &self.site, group: group.as_bytes() }
    }
}

impl Site {
    /// The epochs under which a response that was fetched here is valid; none when they cannot be
    /// known, or when one of its tags may have been purged while it was fetched.
    async fn epochs_of(&self, gateway: &Gateway, stored: &Stored) -> Option<Epochs> {
        let keys = self.origin.epochs(stored);
        if keys.is_empty() {
            return Some(join(&self.place, &self.epochs, &[]));
        }
        let tags = Box::pin(self.tags(gateway, keys)).await?;
        Some(join(&self.place, &self.epochs, &tags))
    }

    async fn tags(&self, gateway: &Gateway, keys: Vec<String>) -> Option<Vec<Epoch>> {
        let clock = self.origin.keys().cache_tags_clock();
        let since = self.place.tags_clock(&self.epochs);
        gateway.store.tags(&keys, &clock, since).await.ok()?
    }
}

/// The epochs of a place and of a response's tags, as an entry keeps them.
pub(super) fn join(place: &Place, epochs: &[Epoch], tags: &[Epoch]) -> Epochs {
    let (mut hard, mut soft) = (place.hard(epochs), place.soft(epochs));
    if !tags.is_empty() {
        hard = [hard, hard_halves(tags)].concat().into();
        soft = [soft, soft_halves(tags)].concat().into();
    }
    Epochs { hard, soft }
}

/// Keeps what is fetched.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) gateway: Arc<Gateway>,
    pub(super) policy: Arc<Policy>,
    pub(super) site: Site,
    /// What is stored for such requests now.
    pub(super) replaces: Option<Arc<Stored>>,
    pub(super) lease: Option<Lease>,
}

impl Keeper {
    /// Keeps a complete response that answers requests with these fields; what the next request
    /// finds.
    ///
    /// # Errors
    /// It cannot be kept after all. Those who wait for it get it all the same: they asked before
    /// that was known.
    pub(super) async fn keep(
        self,
        mut stored: Stored,
        fields: &HeaderMap,
    ) -> Result<Arc<Stored>, Arc<Stored>> {
        let Self { gateway, policy, site, replaces, lease } = self;
        if site.epochs.is_empty() {
            // Nobody could tell whether it still holds.
            site.origin.not_kept("store");
            return Err(Arc::new(stored));
        }
        if !cache::may_replace(stored.status, replaces.as_deref(), gateway.now_ms()) {
            site.origin.not_kept("error");
            return Err(Arc::new(stored));
        }
        let Some(epochs) = site.epochs_of(&gateway, &stored).await else {
            site.origin.not_kept("tags");
            return Err(Arc::new(stored));
        };
        stored.epochs = epochs;
        stored.compact();
        let stored = Arc::new(stored);
        let now_ms = gateway.now_ms();
        gateway.near.offer(&site.place, &stored, now_ms);
        let set: Vec<HeaderName> = stored.vary.iter().map(|(name, _)| name.clone()).collect();
        let kept = gateway.keep(Keeping {
            variant: cache::variant_name(&set, fields),
            vary: cache::vary_line(&set),
            ttl_ms: stored.keep_ms(&policy, now_ms),
            path_epoch: site.path_epoch,
            route: site.origin.route,
            place: site.place,
            lock: lease.and_then(Lease::into_lock),
            stored: Arc::clone(&stored),
        });
        kept.await;
        Ok(stored)
    }
}
