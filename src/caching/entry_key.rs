//! Where a response is stored, and what was true of that place before it was fetched.

use std::sync::Arc;

use bytes::Bytes;

use super::http_cache::HttpCache;
use super::route::Origin;
use crate::cache::{CacheKey, Epochs, Stored};
use crate::store::{Epoch, hard_halves, soft_halves};

/// A key, with its epochs before the fetch.
#[derive(Debug, Clone)]
pub(super) struct KeyWithEpochs {
    pub(super) key: Arc<CacheKey>,
    /// The epochs of the key before the fetch; none where they are not known.
    pub(super) epochs: Arc<[Epoch]>,
    /// The path's own, as the store has it.
    pub(super) path_epoch: Bytes,
    /// Whose tags and groups are meant.
    pub(super) origin: Arc<Origin>,
}

impl KeyWithEpochs {
    /// The epochs under which a response that was fetched here is valid; none when they cannot be
    /// known, or when one of its tags may have been purged while it was fetched.
    pub(super) async fn epochs_of(&self, cache: &HttpCache, stored: &Stored) -> Option<Epochs> {
        let keys = self.origin.epochs(stored);
        if keys.is_empty() {
            return Some(joined(&self.key, &self.epochs, &[]));
        }
        let tags = Box::pin(self.tags(cache, keys)).await?;
        Some(joined(&self.key, &self.epochs, &tags))
    }

    async fn tags(&self, cache: &HttpCache, keys: Vec<String>) -> Option<Vec<Epoch>> {
        let clock = self.origin.route.keys().cache_tags_clock();
        let since = self.key.tags_clock(&self.epochs);
        cache.store.tags(&keys, &clock, since).await.ok()?
    }
}

/// The epochs of a key and of a response's tags, as an entry holds them.
pub(super) fn joined(key: &CacheKey, epochs: &[Epoch], tags: &[Epoch]) -> Epochs {
    let (mut hard, mut soft) = (key.hard(epochs), key.soft(epochs));
    if !tags.is_empty() {
        hard = [hard, hard_halves(tags)].concat().into();
        soft = [soft, soft_halves(tags)].concat().into();
    }
    Epochs { hard, soft }
}
