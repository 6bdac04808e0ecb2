//! Idempotency keys in the embedded store: what a script does in Redis happens under one lock.

use bytes::Bytes;

use super::{MemoryStore, lock};
use crate::store::{ClaimKey, StoreError, Swap};

impl MemoryStore {
    /// What the key held; nothing where it is the asker's now.
    pub(super) fn claim(&self, asked: ClaimKey<'_>) -> Result<Option<Bytes>, StoreError> {
        let mut claims = lock(&self.claims);
        if let Some(held) = claims.live(asked.key) {
            return Ok(Some(held.clone()));
        }
        claims.put(asked.key, asked.value, asked.ttl, self.bounds.idempotency_bytes)?;
        Ok(None)
    }

    /// See [`crate::store::Store::swap`].
    pub fn swap(&self, swap: Swap<'_>) -> Result<bool, StoreError> {
        let mut claims = lock(&self.claims);
        if !claims.live(swap.key).is_some_and(|held| held.starts_with(swap.begins)) {
            return Ok(false);
        }
        if swap.value.is_empty() {
            claims.remove(swap.key);
        } else {
            claims.put(swap.key, swap.value, swap.ttl, self.bounds.idempotency_bytes)?;
        }
        Ok(true)
    }
}
