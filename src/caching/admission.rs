//! The last word on a complete response: stored, in this node's memory before its last byte is out
//! and in the store behind it, or not.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::entry_key::KeyWithEpochs;
use super::http_cache::HttpCache;
use super::leases::Lease;
use super::write_job::WriteJob;
use crate::base::boxed;
use crate::cache::{self, Stored};

/// Under what a response is stored, if it is.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) cache: Arc<HttpCache>,
    pub(super) key: KeyWithEpochs,
    /// What is stored for such requests now.
    pub(super) replaces: Option<Arc<Stored>>,
    /// The key of the mark that somebody has written, where a reader has answered.
    pub(super) unless: Option<Arc<str>>,
    pub(super) lease: Option<Lease>,
}

/// A complete response.
#[derive(Debug)]
pub(super) struct Admitted {
    /// It answers those who wait for it also where it is not stored: they asked before that was
    /// known.
    pub(super) response: Arc<Stored>,
    /// Whether the next request finds it.
    pub(super) is_stored: bool,
}

impl Admission {
    /// Stores a complete response that answers requests with these fields, unless it cannot be
    /// stored after all.
    pub(super) async fn admit(self, mut response: Arc<Stored>, fields: &HeaderMap) -> Admitted {
        let Self { cache, key, replaces, unless, lease } = self;
        let refused = |reason: &'static str, response| {
            key.origin.not_stored(reason);
            Admitted { response, is_stored: false }
        };
        if key.epochs.is_empty() {
            // Nobody could tell whether it still holds.
            return refused("store", response);
        }
        if !cache::may_replace(response.status, replaces.as_deref(), cache.now_ms()) {
            return refused("error", response);
        }
        let Some(epochs) = key.epochs_of(&cache, &response).await else {
            return refused("tags", response);
        };
        // The last question of all: its mark was set before what is fetched here was made stale.
        if let Some(mark) = unless
            && !boxed::pin(|| cache.is_unmarked(&mark)).await
        {
            return refused("written", response);
        }
        // Nobody else has it yet, so that nothing is copied here.
        let entry = Arc::make_mut(&mut response);
        entry.epochs = epochs;
        entry.compact();
        let now_ms = cache.now_ms();
        cache.near.offer(&key.key, &response, now_ms);
        let route = Arc::clone(&key.origin.route);
        let set: Vec<HeaderName> = response.vary.iter().map(|(name, _)| name.clone()).collect();
        let job = WriteJob {
            cache,
            variant: cache::variant_name(&set, fields),
            vary: cache::vary_line(&set),
            ttl: Duration::from_millis(response.keep_ms(&route.policy, now_ms)),
            path_epoch: key.path_epoch,
            key: key.key,
            lease,
            route,
            response: Arc::clone(&response),
        };
        job.start().await;
        Admitted { response, is_stored: true }
    }
}
