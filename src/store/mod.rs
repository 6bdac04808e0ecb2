//! Shared state outside the request: one question, one answer.
//!
//! A request collects what it must know in [`Questions`] and gets [`Answers`] in one round trip.
//! What an unanswered question means is policy, decided by the rooms; this module only reports it.
//! Two stores are a closed set, so the store is an enum: [`redis`] for fleets, [`memory`] for one
//! node.

pub mod api_keys;
pub mod keys;
mod lease;
pub mod memory;
mod question;
pub mod redis;
pub mod revoked;
pub mod sessions;
pub mod window;

use std::time::Duration;

use bytes::Bytes;

use crate::config::Config;

pub use self::api_keys::{ApiKeyList, ApiKeyWrite};
pub use self::lease::{Crowd, LeaseReply, Leases, Release};
pub use self::memory::MemoryStore;
pub use self::question::{
    Answers, Cached, CachedReply, ChargeReply, Charges, Questions, Reply, SessionKey, SessionReply,
    SessionValue, Standing, StandingReply,
};
pub use self::redis::{Followed, RedisStore};
pub use self::revoked::Revocation;
pub use self::sessions::{
    Ending, Renewal, SessionEnd, SessionKeys, SessionList, SessionListed, SessionWrite,
    SessionWritten,
};
pub use self::window::{Mode, Window, WindowSet, WindowState};

/// How long an epoch outlives its last change: longer than any cached response
/// (`cache::LIFETIME_MAX_S`, 7 days), so that an epoch that expired cannot revive an older
/// response.
pub const EPOCH_TTL: Duration = Duration::from_secs(8 * 24 * 3600);

/// Why the store did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no connection now; nothing was waited for.
    #[error("no connection to the store")]
    Unavailable,
    /// No answer within `store.timeout`.
    #[error("no answer from the store within store.timeout")]
    Timeout,
    /// The store answered with an error, or with something else than asked.
    #[error("the store refused: {0}")]
    Refused(String),
    /// The embedded store holds `store.memory_keys` keys already.
    #[error("the embedded store is full; raise store.memory_keys or use Redis")]
    Full,
}

/// A response to keep.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// The epoch key of its path.
    pub path_epoch_key: String,
    /// That epoch as it was read before the fetch.
    pub path_epoch: Bytes,
    /// The encoded response.
    pub value: Bytes,
    /// How long it is worth keeping.
    pub ttl: Duration,
}

/// The store, of either kind.
#[derive(Debug)]
pub enum Store {
    /// A Redis server.
    Redis(Box<RedisStore>),
    /// The embedded store.
    Memory(Box<MemoryStore>),
}

impl Store {
    /// Answers everything one request needs to know, in one round trip and within `store.timeout`.
    pub async fn ask(&self, questions: &Questions<'_>) -> Answers {
        match self {
            Self::Redis(store) => store.ask(questions).await,
            Self::Memory(store) => store.ask(questions),
        }
    }

    /// Asks windows outside a request's own question: to look, to charge later, to give way.
    pub async fn take(&self, charges: Charges<'_>) -> Result<ChargeReply, StoreError> {
        let questions = Questions { charges: Some(charges), ..Questions::default() };
        self.ask(&questions).await.charges.unwrap_or(Err(StoreError::Unavailable))
    }

    /// Asks for places outside a request's own question: to look, or to keep what one has.
    pub async fn lease(&self, leases: Leases<'_>) -> Result<LeaseReply, StoreError> {
        let questions = Questions { leases: Some(leases), ..Questions::default() };
        self.ask(&questions).await.leases.unwrap_or(Err(StoreError::Unavailable))
    }

    /// Gives places back. Doing it again changes nothing.
    pub async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.release(releases).await,
            Self::Memory(store) => {
                releases.iter().for_each(|release| store.release(release));
                Ok(())
            }
        }
    }

    /// Gives back what a charge took: the cost of each window in `charges`.
    pub async fn refund(&self, charges: Charges<'_>, at_us: u64) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.refund(charges, at_us).await,
            Self::Memory(store) => {
                store.refund(charges, at_us);
                Ok(())
            }
        }
    }

    /// Keeps a response unless its path was invalidated since the fetch began. True when it was
    /// kept.
    pub async fn remember(&self, entry: &Entry) -> Result<bool, StoreError> {
        match self {
            Self::Redis(store) => store.remember(entry).await,
            Self::Memory(store) => store.remember(entry),
        }
    }

    /// Changes epochs, which makes everything stored under them stale.
    pub async fn invalidate(&self, epochs: &[String]) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.invalidate(epochs).await,
            Self::Memory(store) => store.invalidate(epochs),
        }
    }

    /// Makes the base epoch if there is none.
    pub async fn found(&self, base: &str) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.found(base).await,
            Self::Memory(store) => store.found(base),
        }
    }

    /// Writes a revocation and tells every gateway of it, in one step.
    pub async fn revoke(&self, revocation: Revocation<'_>) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.revoke(revocation).await,
            Self::Memory(store) => {
                store.put(revocation.key, revocation.value().into(), Some(revocation.ttl))
            }
        }
    }

    /// Takes a revocation back, here and with every gateway. True when there was one.
    pub async fn unrevoke(&self, key: &str, stream_ttl: Duration) -> Result<bool, StoreError> {
        match self {
            Self::Redis(store) => store.unrevoke(key, stream_ttl).await,
            Self::Memory(store) => Ok(store.delete(key)),
        }
    }

    /// Begins to follow the stream of revocations, if `config` wants to know them during an outage.
    /// Once begun, it goes on. The embedded store cannot be away, so nobody needs to know.
    pub fn follow_revocations(&self, config: &Config) {
        match self {
            Self::Redis(store) => store.follow_revocations(config),
            Self::Memory(_) => {}
        }
    }

    /// The standing of a token as this node last knew it: nothing unless what it knows is complete
    /// and less than `max_stale` old.
    pub fn recall(&self, standing: Standing<'_>, max_stale: Duration) -> Option<StandingReply> {
        match self {
            Self::Redis(store) => store.recall(standing, max_stale),
            Self::Memory(_) => None,
        }
    }

    /// What the follower of revocations knows; nothing when there is none.
    pub fn followed(&self, max_stale: Duration) -> Option<Followed> {
        match self {
            Self::Redis(store) => store.followed(max_stale),
            Self::Memory(_) => None,
        }
    }

    /// Writes one value with a life.
    pub async fn put(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.put(key, value, ttl).await,
            Self::Memory(store) => store.put(key, Bytes::copy_from_slice(value), Some(ttl)),
        }
    }

    /// Deletes one key. True when it existed.
    pub async fn delete(&self, key: &str) -> Result<bool, StoreError> {
        match self {
            Self::Redis(store) => store.delete(key).await,
            Self::Memory(store) => Ok(store.delete(key)),
        }
    }

    /// Prepares the current thread for asking.
    pub async fn join(&self) {
        match self {
            Self::Redis(store) => store.join().await,
            Self::Memory(_) => {}
        }
    }

    /// Whether a question asked now would reach the store.
    pub fn is_connected(&self) -> bool {
        match self {
            Self::Redis(store) => store.is_connected(),
            Self::Memory(_) => true,
        }
    }
}

/// A nonce that no earlier epoch had.
pub(crate) fn nonce() -> Result<Bytes, StoreError> {
    let mut bytes = [0u8; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StoreError::Refused("the system's random source failed".to_owned()))?;
    Ok(Bytes::copy_from_slice(&bytes))
}

/// Joins the epochs of a vector injectively, so that equal bytes mean equal epochs.
pub(crate) fn epoch_vector<'a>(epochs: impl Iterator<Item = Option<&'a [u8]>>) -> Bytes {
    let mut vector = Vec::with_capacity(64);
    for epoch in epochs {
        let epoch = epoch.unwrap_or_default();
        // An application's own value under an epoch key may be long; its first 255 bytes tell it
        // apart well enough.
        let epoch = &epoch[..epoch.len().min(255)];
        vector.push(epoch.len() as u8);
        vector.extend_from_slice(epoch);
    }
    vector.into()
}

#[cfg(test)]
mod tests;
