//! What certificates of a fleet need of the store: values read whole, writes that a lease guards,
//! and lives that begin anew.

use std::time::Duration;

use bytes::Bytes;

use super::separate::One;
use super::{HeldLock, Store, StoreError};

/// Values that are written only by who still has the lease: whoever was held up past its end writes
/// nothing over its successor's.
#[derive(Debug, Clone, Copy)]
pub struct FencedWrite<'a> {
    /// The lease, by its key and its holder.
    pub lease: &'a HeldLock,
    /// Keys with their values and lives; all or none of them are written.
    pub values: &'a [(String, Vec<u8>, Duration)],
}

impl Store {
    /// One string, or nothing when there is none, or an empty one.
    ///
    /// # Errors
    /// The store did not answer, the key holds something else, or more than `bytes_max` bytes.
    pub async fn read(&self, key: &str, bytes_max: usize) -> Result<Option<Bytes>, StoreError> {
        match self.main() {
            One::Redis(store) => store.read(key, bytes_max).await,
            One::Memory(store) => store.read(key, bytes_max),
        }
    }

    /// Writes values if the lease is still its holder's; false when it is not.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn write_fenced(&self, write: &FencedWrite<'_>) -> Result<bool, StoreError> {
        match self.main() {
            One::Redis(store) => store.write_fenced(write).await,
            One::Memory(store) => store.write_fenced(write),
        }
    }

    /// Begins a value's life anew, whatever it is. False when there is none.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn expire(&self, key: &str, ttl: Duration) -> Result<bool, StoreError> {
        match self.main() {
            One::Redis(store) => store.expire(key, ttl).await,
            One::Memory(store) => Ok(store.expire(key, ttl)),
        }
    }

    /// Writes one value where there is none. False when there is one.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn put_new(
        &self,
        key: &str,
        value: &[u8],
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        match self.main() {
            One::Redis(store) => store.put_new(key, value, ttl).await,
            One::Memory(store) => store.put_new(key, value, ttl),
        }
    }
}
