//! Purges that the store has not taken yet. Until they are carried out, this node does not read its
//! cache.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::StoreError;

/// Most purges that wait for the store; beyond it the whole cache is purged at once.
const PENDING_MAX: usize = 32;

/// The epochs to change.
#[derive(Debug, Default)]
pub(super) struct PendingPurges {
    any: AtomicBool,
    /// Whether somebody is carrying them out; the others do without the cache meanwhile.
    settling: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each with the number of its addition, so that one that was added again in the meantime is
    /// not taken for done.
    epochs: Vec<(u64, String)>,
    additions: u64,
    /// Whether the log says that some wait.
    is_told: bool,
}

impl PendingPurges {
    /// Whether something waits.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Adds some. `base` is the epoch whose change purges everything.
    pub(super) fn add(&self, epochs: Vec<String>, base: &str) {
        let mut waiting = self.lock();
        for epoch in epochs {
            waiting.additions += 1;
            let number = waiting.additions;
            waiting.epochs.retain(|(_, known)| *known != epoch);
            waiting.epochs.push((number, epoch));
        }
        if waiting.epochs.len() > PENDING_MAX {
            waiting.epochs = vec![(waiting.additions, base.to_owned())];
        }
        self.any.store(true, Ordering::Release);
    }

    /// Says once that some wait, until none does.
    pub(super) fn tell(&self, error: &StoreError) {
        let mut waiting = self.lock();
        if !waiting.epochs.is_empty() && !std::mem::replace(&mut waiting.is_told, true) {
            tracing::warn!(%error, "an invalidation waits for the store");
        }
    }

    /// What waits, for the one who gets to carry it out.
    pub(super) fn begin(&self) -> Option<Settling<'_>> {
        if !self.any() || self.settling.swap(true, Ordering::AcqRel) {
            return None;
        }
        let waiting = self.lock();
        let upto = waiting.additions;
        let epochs = waiting.epochs.iter().map(|(_, epoch)| epoch.clone()).collect();
        Some(Settling { pending: self, epochs, upto })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carrying out what waits. Dropping it without [`Settling::done`] leaves it waiting.
pub(super) struct Settling<'a> {
    pending: &'a PendingPurges,
    pub(super) epochs: Vec<String>,
    upto: u64,
}

impl Settling<'_> {
    pub(super) fn done(&self) {
        let mut waiting = self.pending.lock();
        waiting.epochs.retain(|(number, _)| *number > self.upto);
        let is_empty = waiting.epochs.is_empty();
        self.pending.any.store(!is_empty, Ordering::Release);
        if is_empty && std::mem::take(&mut waiting.is_told) {
            tracing::info!("no invalidation waits any more");
        }
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.pending.settling.store(false, Ordering::Release);
    }
}
