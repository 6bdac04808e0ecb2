//! The fleet's lease on one fetch: while a node holds it, the others wait for what it stores.

use std::sync::Arc;

use crate::runtime::{Gateway, LEASE, LeaseRenewal};
use crate::store::{HeldLock, WantedLock};

/// A lease that this node has, or may have until the store has answered. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Lease {
    gateway: Arc<Gateway>,
    lock: Option<HeldLock>,
    renewal: Option<LeaseRenewal>,
}

/// Who has the lease.
#[derive(Debug, Default)]
pub(super) enum Turn {
    /// It was not asked for.
    #[default]
    Unknown,
    /// This request.
    Ours(Lease),
    /// Somebody else.
    Theirs,
}

impl Lease {
    /// The lease under `key`, before the store is asked for it.
    pub(super) fn wanted(gateway: &Arc<Gateway>, key: String) -> Self {
        let lock = HeldLock { key, token: format!("{:032x}", fastrand::u128(..)) };
        Self { gateway: Arc::clone(gateway), lock: Some(lock), renewal: None }
    }

    /// The lease as the store takes it.
    pub(super) fn question(&self) -> Option<WantedLock<'_>> {
        self.lock.as_ref().map(|lock| WantedLock { lock, ttl: LEASE })
    }

    /// What the store said: who has it.
    pub(super) fn heard(mut self, holder: Option<&[u8]>) -> Turn {
        match (&self.lock, holder) {
            (Some(lock), Some(holder)) if lock.token.as_bytes() == holder => {
                self.renewal = Some(self.gateway.renew_lease(lock.clone()));
                Turn::Ours(self)
            }
            (_, holder) => {
                self.lock = None;
                if holder.is_some() { Turn::Theirs } else { Turn::Unknown }
            }
        }
    }

    /// The lock, for the write that releases it, and its renewal until then.
    pub(super) fn into_lock(mut self) -> Option<(HeldLock, LeaseRenewal)> {
        // Both are there once the store has said that it is ours.
        Some((self.lock.take()?, self.renewal.take()?))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            self.gateway.unlock(lock);
        }
    }
}
