//! Stores of their own for some of what a store is used for: `[store.cache]`,
//! `[store.limits]`, `store.queue_url`.
//!
//! A request's question is split by use and asked of all of them at once, of each within its own
//! timeout. One that is away leaves what the others answer as it is.

use super::memory::{MemoryBounds, MemoryStore};
use super::question::{Answers, Questions};
use super::redis::RedisStore;
use crate::config::{self, StoreUrl, StoreUse};

/// A store of one kind.
#[derive(Debug)]
pub enum Backend {
    /// A Redis server.
    Redis(Box<RedisStore>),
    /// The embedded store.
    Memory(Box<MemoryStore>),
}

/// The same, borrowed.
#[derive(Debug, Clone, Copy)]
pub(super) enum One<'a> {
    Redis(&'a RedisStore),
    Memory(&'a MemoryStore),
}

/// Several stores, by what they are used for.
#[derive(Debug)]
pub struct Separate {
    /// For what has none of its own.
    pub main: Backend,
    /// For cached responses.
    pub cache: Option<Backend>,
    /// For limits.
    pub limits: Option<Backend>,
    /// For deferred deliveries.
    pub queue: Option<Backend>,
}

impl Backend {
    /// The store of these settings. Waits for a first connection for `store.connect_timeout` at
    /// most, then does without until there is one.
    pub(super) async fn open(settings: &config::Store) -> Self {
        if settings.url == StoreUrl::Memory {
            let bounds = MemoryBounds::of(settings);
            return Self::Memory(Box::new(MemoryStore::bounded(bounds)));
        }
        let redis = RedisStore::open(settings);
        if !redis.first_connection(settings.connect_timeout).await {
            let table = settings.is_one_of_several().then(|| settings.usage.table());
            tracing::warn!(table, "starting without the store");
        }
        Self::Redis(Box::new(redis))
    }

    pub(super) fn one(&self) -> One<'_> {
        match self {
            Self::Redis(store) => One::Redis(store),
            Self::Memory(store) => One::Memory(store),
        }
    }
}

impl One<'_> {
    async fn ask(self, questions: &Questions<'_>) -> Box<Answers> {
        match self {
            One::Redis(store) => store.ask(questions).await,
            One::Memory(store) => Box::new(store.ask(questions)),
        }
    }

    pub(super) async fn join(self) {
        match self {
            One::Redis(store) => store.join().await,
            One::Memory(_) => {}
        }
    }
}

impl Separate {
    /// Opens all of them at once.
    pub(super) async fn open(settings: &config::Store) -> Self {
        let own = async |settings: &Option<Box<config::Store>>| match settings {
            Some(settings) => Some(Backend::open(settings).await),
            None => None,
        };
        let (main, cache, limits, queue) = tokio::join!(
            Backend::open(settings),
            own(&settings.cache),
            own(&settings.limits),
            own(&settings.queue),
        );
        Self { main, cache, limits, queue }
    }

    /// The store of its own for this, or the main one.
    pub(super) fn used_for(&self, usage: StoreUse) -> One<'_> {
        let own = match usage {
            StoreUse::Main => None,
            StoreUse::Cache => self.cache.as_ref(),
            StoreUse::Limits => self.limits.as_ref(),
            StoreUse::Queue => self.queue.as_ref(),
        };
        own.unwrap_or(&self.main).one()
    }

    /// Whether this has a store of its own.
    pub(super) fn has(&self, usage: StoreUse) -> bool {
        match usage {
            StoreUse::Main => true,
            StoreUse::Cache => self.cache.is_some(),
            StoreUse::Limits => self.limits.is_some(),
            StoreUse::Queue => self.queue.is_some(),
        }
    }

    /// Asks each store what it is used for, all at once: one round trip of each.
    pub(super) async fn ask(&self, all: &Questions<'_>) -> Box<Answers> {
        let [main, of_cache, of_limits] = self.split(all);
        let ask = async |store: Option<&Backend>, own: Questions<'_>| match store {
            Some(store) if !(own.is_empty() && own.pending_purges.is_empty()) => {
                store.one().ask(&own).await
            }
            _ => Box::default(),
        };
        let (mut answers, cache, limits) = tokio::join!(
            ask(Some(&self.main), main),
            ask(self.cache.as_ref(), of_cache),
            ask(self.limits.as_ref(), of_limits),
        );
        if self.cache.is_some() {
            (answers.cached, answers.settled) = (cache.cached, cache.settled);
        }
        if self.limits.is_some() {
            (answers.charges, answers.leases) = (limits.charges, limits.leases);
        }
        answers
    }

    /// What the main store is asked, and the stores of the cache and of limits, if there are such.
    pub(super) fn split<'q>(&self, all: &Questions<'q>) -> [Questions<'q>; 3] {
        let Questions { charges, leases, cached, pending_purges, .. } = *all;
        let (mut main, none) = (*all, Questions::default());
        let (mut of_cache, mut of_limits) = (none, none);
        if self.cache.is_some() {
            of_cache = Questions { cached, pending_purges, ..none };
            main = Questions { cached: None, pending_purges: &[], ..main };
        }
        if self.limits.is_some() {
            of_limits = Questions { charges, leases, ..none };
            main = Questions { charges: None, leases: None, ..main };
        }
        [main, of_cache, of_limits]
    }
}
