//! What log-ins at OpenID providers need of the store: values that are taken once, and indexes of
//! the sessions that a provider may end.

use std::time::Duration;

use bytes::Bytes;

use super::separate::One;
use super::sessions::SESSIONS_MAX;
use super::{Store, StoreError};

/// A session that a provider may end, noted where it will be looked for.
#[derive(Debug, Clone, Copy)]
pub struct Noted<'a> {
    /// The index.
    pub index: &'a str,
    /// The id of the session, as it stands in keys.
    pub part: &'a str,
    /// When it was made, Unix seconds.
    pub created_s: u64,
    /// When it ends at the latest.
    pub ttl: Duration,
    /// What stands before ids in the keys of sessions.
    pub family: &'a str,
}

/// Where a session is noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its id, as it stands in keys.
    pub part: String,
    /// When it was made, Unix seconds.
    pub created_s: u64,
}

impl Store {
    /// One string, which nobody gets again. Nothing when there is none.
    ///
    /// # Errors
    /// The store did not answer; it may be taken then.
    pub async fn read_and_delete(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.main() {
            One::Redis(store) => store.read_and_delete(key).await,
            One::Memory(store) => store.read_and_delete(key),
        }
    }

    /// Notes a session in an index. Some that are gone are taken out of it.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn note_session(&self, noted: Noted<'_>) -> Result<(), StoreError> {
        match self.main() {
            One::Redis(store) => store.note_session(noted).await,
            One::Memory(store) => store.note_session(noted),
        }
    }

    /// The sessions that are noted in an index, the newest [`SESSIONS_MAX`], gone or not.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn noted(&self, index: &str) -> Result<Vec<Place>, StoreError> {
        match self.main() {
            One::Redis(store) => store.noted(index, SESSIONS_MAX).await,
            One::Memory(store) => store.noted(index, SESSIONS_MAX),
        }
    }

    /// Takes these out of an index, but for those that were noted anew meanwhile.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn forget_noted(&self, index: &str, places: &[Place]) -> Result<(), StoreError> {
        match self.main() {
            One::Redis(store) => store.forget_noted(index, places).await,
            One::Memory(store) => store.forget_noted(index, places),
        }
    }
}
