//! Shared state outside the request: one question, one answer.
//!
//! A request collects what it must know in [`Questions`] and gets [`Answers`] in one round trip.
//! What an unanswered question means is policy, decided by the rooms; this module only reports it.
//! Two stores are a closed set, so the store is an enum: [`redis`] for fleets, [`memory`] for one
//! node.

pub mod keys;
pub mod memory;
pub mod redis;
pub mod revoked;
pub mod window;

use std::time::Duration;

use bytes::Bytes;

use crate::config::Config;

pub use self::memory::MemoryStore;
pub use self::redis::{Followed, RedisStore};
pub use self::revoked::Revocation;
pub use self::window::{Window, WindowSet, WindowState};

/// How long an epoch outlives its last change: longer than any cached response
/// (`cache::LIFETIME_MAX_S`, 7 days), so that an epoch that expired cannot revive an older
/// response.
pub const EPOCH_TTL: Duration = Duration::from_secs(8 * 24 * 3600);

/// Everything one request asks. Unasked questions cost nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Questions<'a> {
    /// Is the token revoked?
    pub standing: Option<Standing<'a>>,
    /// May these limits be charged? All or none.
    pub charges: Option<Charges<'a>>,
    /// What is the caller's session?
    pub session: Option<SessionKey<'a>>,
    /// The stored response and the epochs under which it would be valid.
    pub cached: Option<Cached<'a>>,
    /// Epochs that an earlier request could not change; they are changed before anything is read.
    pub overdue: &'a [String],
}

/// The revocation keys of one token.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Keys whose existence revokes it.
    pub blacklist: &'a [String],
    /// Key of the subject's not-before time.
    pub not_before: Option<&'a str>,
}

/// Where a session lies.
#[derive(Debug, Clone, Copy)]
pub struct SessionKey<'a> {
    /// Its key.
    pub key: &'a str,
    /// Whether what is left of its life is asked for too.
    pub ttl: bool,
}

/// One charge of 1 on each window of a set; `keys[i]` belongs to `set.windows[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Charges<'a> {
    /// The windows.
    pub set: &'a WindowSet,
    /// Their keys, distinct.
    pub keys: &'a [String],
}

/// What the cache needs to read.
#[derive(Debug, Clone, Copy)]
pub struct Cached<'a> {
    /// Epochs that make up the vector, in order; the first is the base.
    pub epochs: &'a [String],
    /// The entry, unless this node holds a copy of it already.
    pub entry: Option<&'a str>,
}

/// What the store said to each question; `None` was not asked.
#[derive(Debug, Default)]
pub struct Answers {
    /// See [`Questions::standing`].
    pub standing: Option<Reply<StandingReply>>,
    /// See [`Questions::charges`].
    pub charges: Option<Reply<ChargeReply>>,
    /// See [`Questions::session`].
    pub session: Option<Reply<Option<SessionReply>>>,
    /// See [`Questions::cached`].
    pub cached: Option<Reply<CachedReply>>,
    /// Whether `overdue` was carried out.
    pub settled: bool,
}

impl Answers {
    /// The same failure to every question that was asked.
    pub fn failed(questions: &Questions<'_>, error: &StoreError) -> Self {
        Self {
            standing: questions.standing.map(|_| Err(error.clone())),
            charges: questions.charges.map(|_| Err(error.clone())),
            session: questions.session.map(|_| Err(error.clone())),
            cached: questions.cached.map(|_| Err(error.clone())),
            settled: false,
        }
    }
}

impl Questions<'_> {
    /// Whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        let Self { standing, charges, session, cached, overdue: _ } = self;
        standing.is_none() && charges.is_none() && session.is_none() && cached.is_none()
    }
}

/// One answer, or why there is none.
pub type Reply<T> = Result<T, StoreError>;

/// The standing of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandingReply {
    /// A blacklist key exists.
    pub listed: bool,
    /// The subject's not-before time, Unix seconds.
    pub not_before: Option<i64>,
}

/// The verdict on a set of charges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeReply {
    /// Whether every window had room; only then was anything charged.
    pub allowed: bool,
    /// The store's clock at the decision, in microseconds modulo 2^48; names the charge for a
    /// refund.
    pub at_us: u64,
    /// One state per window, as it was before the charge.
    pub windows: Vec<WindowState>,
}

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReply {
    /// The value.
    pub value: SessionValue,
    /// What is left of its life; `None` when it has no expiry, or when that was not asked.
    pub ttl: Option<Duration>,
}

/// The two shapes in which applications keep sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionValue {
    /// A string: JSON.
    Text(Bytes),
    /// A hash: field and value pairs.
    Fields(Vec<(Bytes, Bytes)>),
}

/// A stored response and the epochs of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedReply {
    /// The epochs' nonces in order, each behind its length in one byte; 0 for none.
    pub epochs: Bytes,
    /// The path's own epoch (the last one), as the store has it.
    pub path_epoch: Bytes,
    /// Whether the base epoch exists; without it nothing stored is valid and nothing may be stored.
    pub based: bool,
    /// The entry, when it was asked for and exists.
    pub entry: Option<Bytes>,
}

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

    /// Gives back what a charge took.
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

    /// Moves a session's expiry to at least `ttl` from now.
    pub async fn renew(&self, session: &str, ttl: Duration) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.renew(session, ttl).await,
            Self::Memory(store) => {
                store.renew(session, ttl);
                Ok(())
            }
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
