//! What operators see of the cache: its state at this moment, and what it did for a route.

use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The state of the cache, which nobody keeps up to date: it is set when it is asked for.
#[derive(Debug, Default)]
pub struct CacheGauges {
    near: Gauge<i64, AtomicI64>,
    near_max: Gauge<i64, AtomicI64>,
    fetches: Gauge<i64, AtomicI64>,
    backlog: Gauge<i64, AtomicI64>,
    backlog_max: Gauge<i64, AtomicI64>,
    epochs_known: Gauge<i64, AtomicI64>,
    epochs_followed: Gauge<i64, AtomicI64>,
    near_evictions: Counter,
    /// Bytes of bodies that need not go to the store because they are compressed there; counted,
    /// unlike the others.
    pub saved: Counter,
}

/// The values of [`CacheGauges`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheState {
    /// Bytes of responses in this node's memory.
    pub near_bytes: u64,
    /// Most of them, `store.near_cache_bytes`.
    pub near_bytes_max: u64,
    /// How many responses have given way there.
    pub near_evictions: u64,
    /// Answers that are being fetched.
    pub fetches: usize,
    /// Bytes of responses on their way to the store.
    pub backlog_bytes: usize,
    /// Most of them, `store.backlog_bytes`.
    pub backlog_bytes_max: u64,
    /// Epochs that this node knows without asking.
    pub epochs_known: usize,
    /// Whether it hears of their changes.
    pub epochs_followed: bool,
}

impl CacheGauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Responses in this node's memory";
        registry.register_with_unit("cache_near", help, Unit::Bytes, self.near.clone());
        let help = "Most bytes of responses in this node's memory, store.near_cache_bytes";
        registry.register_with_unit("cache_near_max", help, Unit::Bytes, self.near_max.clone());
        let help = "Responses that have given way to others in this node's memory";
        registry.register("cache_near_evictions", help, self.near_evictions.clone());
        let help = "Answers that are being fetched for the cache";
        registry.register("cache_flights", help, self.fetches.clone());
        let help = "Responses on their way to the store";
        registry.register_with_unit("cache_backlog", help, Unit::Bytes, self.backlog.clone());
        let help = "Most bytes of responses on their way to the store, store.backlog_bytes";
        let backlog_max = self.backlog_max.clone();
        registry.register_with_unit("cache_backlog_max", help, Unit::Bytes, backlog_max);
        let help = "Epochs that this node knows without asking";
        registry.register("cache_epochs_known", help, self.epochs_known.clone());
        let help = "Whether changes of epochs are heard (1) or not (0)";
        registry.register("cache_epochs_followed", help, self.epochs_followed.clone());
        let saved = self.saved.clone();
        let help = "Bytes that compression kept from being written to the store";
        registry.register_with_unit("cache_compression_saved", help, Unit::Bytes, saved);
    }

    /// Sets all of them.
    pub fn set(&self, state: &CacheState) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.near.set(bytes(state.near_bytes));
        self.near_max.set(bytes(state.near_bytes_max));
        // Two may look at once, and a total never falls.
        self.near_evictions.inner().fetch_max(state.near_evictions, Ordering::Relaxed);
        self.backlog_max.set(bytes(state.backlog_bytes_max));
        self.fetches.set(count(state.fetches));
        self.backlog.set(count(state.backlog_bytes));
        self.epochs_known.set(count(state.epochs_known));
        self.epochs_followed.set(state.epochs_followed.into());
    }
}

/// What the cache did for one route since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// Requests that were answered without waiting for an answer of their own.
    pub hits: u64,
    /// Requests that waited for the upstream.
    pub others: u64,
    /// Bytes of bodies that the upstream did not have to send.
    pub sent_bytes: u64,
    /// Responses that were stored.
    pub kept: u64,
    /// What was left of their lifetimes then, in seconds, in all.
    pub kept_ttl_s: u64,
    /// Responses that were not stored because too many waited for the store already.
    pub backlog_drops: u64,
}

impl CacheReport {
    /// The verdicts of hits.
    pub(super) const HITS: &[&str] = &["hit", "stale", "collapsed"];
    /// The verdicts of the others.
    pub(super) const OTHERS: &[&str] =
        &["miss", "vary-miss", "revalidated", "request", "bypass", "method"];

    /// Whether a verdict is that of a hit.
    pub fn is_hit(verdict: &str) -> bool {
        Self::HITS.contains(&verdict)
    }

    /// Requests that were hits, from 0 to 1; none without requests.
    pub fn hit_ratio(&self) -> Option<f64> {
        let all = self.hits.saturating_add(self.others);
        (all > 0).then(|| self.hits as f64 / all as f64)
    }

    /// Mean of what was left of a lifetime when a response was stored, in seconds.
    pub fn mean_ttl_s(&self) -> Option<u64> {
        self.kept_ttl_s.checked_div(self.kept)
    }
}
