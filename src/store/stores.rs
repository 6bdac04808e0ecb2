//! What concerns a store as a whole: where it is, whether it answers, who asks it. It may be
//! several, one for each use.

use std::time::Duration;

use super::separate::{Backend, One, Separate};
use super::{
    Evicted, Looks, NotWalked, Questions, Store, StoreError, StoreState, Walk, Walked, WhyAway,
};
use crate::config::{Config, StoreUse};
use crate::observe::RedisNow;

impl Store {
    /// The store that the configuration names, or the stores. Waits for first connections for
    /// `store.connect_timeout` at most, then does without until there are some.
    pub async fn open(config: &Config) -> Self {
        let settings = &config.store;
        let store = if settings.is_one_of_several() {
            Self::Separate(Box::new(Separate::open(settings).await))
        } else {
            match Backend::open(settings).await {
                Backend::Redis(store) => Self::Redis(store),
                Backend::Memory(store) => Self::Memory(store),
            }
        };
        store.follow_revocations(config);
        store.follow_epochs();
        store
    }

    /// Says in the set `gateways` that this one, `name`, is there. Returns how many were heard of
    /// within `remembered`, this one among them. That is in the main store, unless that one is of
    /// this process alone.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn announce(
        &self,
        gateways: &str,
        name: &str,
        remembered: Duration,
    ) -> Result<u32, StoreError> {
        match (self.main(), self.limits()) {
            (One::Redis(store), _) | (One::Memory(_), One::Redis(store)) => {
                store.announce(gateways, name, remembered).await
            }
            (One::Memory(_), One::Memory(_)) => Ok(1),
        }
    }

    /// Has the files of secrets looked at now; otherwise it is done from time to time.
    pub fn look_at_files(&self) {
        for usage in StoreUse::ALL {
            match self.used_for(usage) {
                One::Redis(store) => store.look_at_files(),
                One::Memory(_) => {}
            }
        }
    }

    /// What gave way in the embedded store so far; what Redis evicts is its own affair.
    pub fn evicted(&self) -> Evicted {
        let of = |store: One<'_>| match store {
            One::Redis(_) => Evicted::default(),
            One::Memory(store) => store.evicted(),
        };
        Evicted { limits: of(self.limits()).limits, ..of(self.cache()) }
    }

    /// Prepares the current thread for asking.
    pub async fn join(&self) {
        match self {
            Self::Redis(store) => store.join().await,
            Self::Memory(_) => {}
            Self::Separate(stores) => {
                let Separate { main, cache, limits, queue } = &**stores;
                let own = async |store: &Option<Backend>| {
                    if let Some(store) = store {
                        store.one().join().await;
                    }
                };
                tokio::join!(main.one().join(), own(cache), own(limits), own(queue));
            }
        }
    }

    /// Whether other nodes ask the same store for this.
    pub fn is_shared(&self, usage: StoreUse) -> bool {
        matches!(self.used_for(usage), One::Redis(_))
    }

    /// Whether a question of this use, asked now, would reach its store.
    pub fn is_connected(&self, usage: StoreUse) -> bool {
        match self.used_for(usage) {
            One::Redis(store) => store.is_connected(),
            One::Memory(_) => true,
        }
    }

    /// Why its store does not answer, as far as that is known; of use where it does not.
    pub fn why_away(&self, usage: StoreUse) -> Option<WhyAway> {
        match self.used_for(usage) {
            One::Redis(store) => store.why_away(),
            One::Memory(_) => None,
        }
    }

    /// How the servers of Redis are that are used for this; nothing for the embedded store.
    pub fn state(&self, usage: StoreUse) -> Option<StoreState> {
        match self.used_for(usage) {
            One::Redis(store) => Some(store.state()),
            One::Memory(_) => None,
        }
    }

    /// What the servers of Redis that are used for this told `[store.operator]` last.
    pub fn redis_now(&self, usage: StoreUse) -> Vec<RedisNow> {
        match self.used_for(usage) {
            One::Redis(store) => store.redis_now(),
            One::Memory(_) => Vec::new(),
        }
    }

    /// Looks at these servers as `[store.operator]`; nothing for the embedded store.
    pub async fn look(&self, usage: StoreUse) -> Option<Looks> {
        match self.used_for(usage) {
            One::Redis(store) => Some(store.look().await),
            One::Memory(_) => None,
        }
    }

    /// Walks through the entries of the cache, by a user who may only look.
    ///
    /// # Errors
    /// See [`NotWalked`].
    pub async fn walk(&self, walk: &Walk) -> Result<Walked, NotWalked> {
        match self.used_for(StoreUse::Cache) {
            One::Redis(store) => store.walk(walk).await,
            One::Memory(_) => Err(NotWalked::Embedded),
        }
    }

    /// The uses that have a store of their own, the main one first.
    pub fn uses(&self) -> impl Iterator<Item = StoreUse> {
        StoreUse::ALL.into_iter().filter(|usage| self.has(*usage))
    }

    /// Whether this has a store of its own; the main store is always one.
    pub fn has(&self, usage: StoreUse) -> bool {
        match self {
            Self::Redis(_) | Self::Memory(_) => usage == StoreUse::Main,
            Self::Separate(stores) => stores.has(usage),
        }
    }

    /// Whether both are asked of one store, so that one that is away is away for both.
    pub fn is_one_for(&self, usage: StoreUse, other: StoreUse) -> bool {
        usage == other || !(self.has_apart(usage) || self.has_apart(other))
    }

    fn has_apart(&self, usage: StoreUse) -> bool {
        usage != StoreUse::Main && self.has(usage)
    }

    /// Of the questions those that the main store does not answer; nothing to ask where it is the
    /// only one.
    pub fn beside_main<'q>(&self, all: &Questions<'q>) -> Questions<'q> {
        let Self::Separate(stores) = self else { return Questions::default() };
        let [_, of_cache, of_limits] = stores.split(all);
        let Questions { charges, leases, .. } = of_limits;
        Questions { charges, leases, ..of_cache }
    }

    /// What to add to this node's wall clock to get that of this use's store, in milliseconds: all
    /// nodes write and compare times on one clock.
    pub fn clock_offset_ms(&self, usage: StoreUse) -> i64 {
        match self.used_for(usage) {
            One::Redis(store) => store.clock_offset_ms(),
            One::Memory(_) => 0,
        }
    }
}
