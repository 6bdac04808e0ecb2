//! The slots that the requests of this node hold, of limits on requests in flight.
//!
//! A node that dies gives nothing back, so a slot in the store is leased: the node renews the
//! leases of requests that take long, and those of the dead end by themselves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{ConcurrencyLimit, Mode, Release};

/// A lease is renewed when this part of it has passed, so that two renewals may fail.
const RENEWAL_PARTS: u32 = 3;

/// The slots that one request holds, or may hold.
#[derive(Debug, Default)]
pub(super) struct HeldSlots {
    /// Keys that this node counts.
    pub(super) local: Vec<String>,
    /// Slots in the store.
    pub(super) leased: Option<Release>,
}

/// All slots that the requests of this node hold.
#[derive(Debug)]
pub(super) struct Slots {
    /// This node's part of every holder's name.
    node: u64,
    next: AtomicU64,
    /// Slots that only this node counts, by key.
    local: Mutex<HashMap<String, u32>>,
    /// Slots in the store, by holder.
    leased: Mutex<HashMap<String, LeaseRenewal>>,
}

/// A lease that must be renewed while its request lasts.
#[derive(Debug, Clone)]
pub(super) struct LeaseRenewal {
    pub(super) keys: Vec<String>,
    /// Their limits, which a renewal does not mind.
    pub(super) limits: Vec<ConcurrencyLimit>,
    /// When it is due.
    at: Instant,
    /// Whether a renewal failed, and may still reach the store.
    in_doubt: bool,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            node: fastrand::u64(..),
            next: AtomicU64::new(0),
            local: Mutex::default(),
            leased: Mutex::default(),
        }
    }
}

impl Slots {
    /// A name that no other request has, of this node or another.
    pub(super) fn new_holder(&self) -> String {
        format!("{:016x}-{}", self.node, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// How many requests hold a slot of each key that this node counts.
    pub(super) fn count_local(&self, keys: &[String]) -> Vec<u32> {
        held(&lock(&self.local), keys)
    }

    /// Takes slots that this node counts, all or none: `judge` refuses by how many of each are held
    /// already. Returns the keys of those that were taken.
    pub(super) fn take_local<E>(
        &self,
        keys: &[String],
        limits: &[ConcurrencyLimit],
        judge: impl FnOnce(&[u32]) -> Result<(), E>,
    ) -> Result<Vec<String>, E> {
        let mut counts = lock(&self.local);
        let held = held(&counts, keys);
        judge(&held)?;
        let mut taken = Vec::new();
        for ((key, limit), held) in keys.iter().zip(limits).zip(held) {
            if limit.admits(held) {
                *counts.entry(key.clone()).or_default() += 1;
                taken.push(key.clone());
            }
        }
        Ok(taken)
    }

    /// Renews the leases of a holder from now on.
    pub(super) fn keep_leased(
        &self,
        holder: &str,
        keys: Vec<String>,
        limits: Vec<ConcurrencyLimit>,
    ) {
        lock(&self.leased).insert(holder.to_owned(), LeaseRenewal::new(keys, limits));
    }

    /// Gives back what this node counts, and renews the rest no more: it is returned, for the
    /// store.
    pub(super) fn leave(&self, held: HeldSlots) -> Option<Release> {
        let mut counts = lock(&self.local);
        for key in &held.local {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        drop(counts);
        let mut release = held.leased?;
        if let Some(renewal) = lock(&self.leased).remove(&release.holder) {
            release.in_doubt |= renewal.in_doubt;
        }
        Some(release)
    }

    /// A renewal failed: it may yet come, also after the release.
    pub(super) fn doubt(&self, holder: &str) {
        if let Some(renewal) = lock(&self.leased).get_mut(holder) {
            renewal.in_doubt = true;
        }
    }

    /// The leases that must be renewed now, by holder.
    pub(super) fn due(&self) -> Vec<(String, LeaseRenewal)> {
        let now = Instant::now();
        let leased = lock(&self.leased);
        let due = leased.iter().filter(|(_, renewal)| renewal.at <= now);
        due.map(|(holder, renewal)| (holder.clone(), renewal.clone())).collect()
    }

    /// Whether a holder's request still lasts.
    pub(super) fn lasts(&self, holder: &str) -> bool {
        lock(&self.leased).contains_key(holder)
    }

    /// A lease was renewed. False when its request has ended meanwhile: then it must be given back
    /// once more, because the renewal may have come after the release.
    pub(super) fn renewed(&self, holder: &str) -> bool {
        let mut leased = lock(&self.leased);
        let Some(renewal) = leased.get_mut(holder) else { return false };
        renewal.at = renewal.next();
        true
    }
}

impl LeaseRenewal {
    fn new(keys: Vec<String>, limits: Vec<ConcurrencyLimit>) -> Self {
        let forced = limits.into_iter().map(|it| ConcurrencyLimit { mode: Mode::Force, ..it });
        let limits = forced.collect();
        let mut renewal = Self { keys, limits, at: Instant::now(), in_doubt: false };
        renewal.at = renewal.next();
        renewal
    }

    /// When it is due again, if it is renewed now.
    fn next(&self) -> Instant {
        let shortest: Duration =
            self.limits.iter().map(|limit| limit.lease).min().unwrap_or_default();
        Instant::now() + shortest / RENEWAL_PARTS
    }
}

fn held(counts: &HashMap<String, u32>, keys: &[String]) -> Vec<u32> {
    keys.iter().map(|key| counts.get(key).copied().unwrap_or(0)).collect()
}

/// Every change under the lock is one number or one entry, so a panic leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
