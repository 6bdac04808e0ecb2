//! Idempotency keys and proofs in the embedded store: what one command or a script does in Redis
//! happens under one lock.

use bytes::Bytes;

use super::{MemoryStore, lock};
use crate::store::{ClaimKey, ProofKey, Reply, RevocationKeys, RevocationStatus, StoreError, Swap};

/// Most bytes of proofs that have come, about 40,000 of them.
const PROOFS_BYTES_MAX: usize = 16 * 1024 * 1024;

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

    /// What is known of a token's revocation, and why its proof could not be noted. A proof that
    /// comes with what is blacklisted is not: it would take the room of others.
    pub(super) fn judge(
        &self,
        asked: Option<RevocationKeys<'_>>,
    ) -> (Option<Reply<RevocationStatus>>, Option<StoreError>) {
        let Some(asked) = asked else { return (None, None) };
        let mut revocation = self.revocation(asked);
        let (Ok(status), Some(proof)) = (&mut revocation, asked.proof) else {
            return (Some(revocation), None);
        };
        if status.listed || status.gone {
            return (Some(revocation), None);
        }
        match self.proof(proof) {
            Ok(replayed) => {
                status.replayed = replayed;
                (Some(revocation), None)
            }
            Err(error) => (Some(revocation), Some(error)),
        }
    }

    /// Whether a proof has come before; else it has now. Where there is no room to note it, it is
    /// an error.
    pub(super) fn proof(&self, asked: &ProofKey) -> Result<bool, StoreError> {
        let mut proofs = lock(&self.proofs);
        if let Some(held) = proofs.live(&asked.key) {
            return Ok(**held != asked.mark);
        }
        proofs.put(&asked.key, &asked.mark, asked.ttl, PROOFS_BYTES_MAX)?;
        Ok(false)
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
