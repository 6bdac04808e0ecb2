//! What an outage of the store leaves behind, for a while after it answers again.
//!
//! A question without an answer may have taken a lease that nobody knows of, and what was fetched
//! may not have been stored, nor its lease given back. So other nodes' leases are not waited for
//! until the last one of then has lapsed.
//!
//! Another node may still have to tell the store of a write. Nodes do not come back in the same
//! instant, so what is stored is not used until each had the time to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::leases::LEASE;
use crate::config;
use crate::store::StoreError;

/// See the module.
#[derive(Debug)]
pub(super) struct Aftermath {
    /// How long what is stored is not used after the store was away.
    after_absence: Duration,
    opened: Instant,
    /// Until when what is stored is not used, in milliseconds since `opened`.
    entries_ms: AtomicU64,
    /// The same of others' leases.
    leases_ms: AtomicU64,
}

impl Aftermath {
    /// Of no outage.
    pub(super) fn new(settings: &config::Store) -> Self {
        Self {
            // A pause between attempts to connect, and the attempt.
            after_absence: settings.reconnect_backoff * 2,
            opened: Instant::now(),
            entries_ms: AtomicU64::new(0),
            leases_ms: AtomicU64::new(0),
        }
    }

    /// The store did not answer. `is_away`: nor would it answer another question.
    pub(super) fn note(&self, error: &StoreError, is_away: bool) {
        let pause = match error {
            StoreError::NotAsked => return,
            StoreError::Unavailable | StoreError::NotServing(_) if is_away => self.after_absence,
            // One late answer is no absence, nor is one question too many, or one server of many.
            _ => Duration::ZERO,
        };
        for (until, pause) in [(&self.entries_ms, pause), (&self.leases_ms, LEASE)] {
            until.fetch_max(millis(self.opened.elapsed() + pause), Ordering::Relaxed);
        }
    }

    /// Whether what is stored may be used.
    pub(super) fn trusts_entries(&self) -> bool {
        self.is_over(&self.entries_ms)
    }

    /// Whether another node's lease is worth waiting for.
    pub(super) fn trusts_leases(&self) -> bool {
        self.is_over(&self.leases_ms)
    }

    fn is_over(&self, until: &AtomicU64) -> bool {
        let until = until.load(Ordering::Relaxed);
        // Without an outage no clock is read.
        until == 0 || millis(self.opened.elapsed()) >= until
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn what_an_outage_leaves_behind_is_over_after_its_time() {
        let settings = config::Store::default();
        let aftermath = Aftermath::new(&settings);
        aftermath.note(&StoreError::NotAsked, true);
        assert!(aftermath.trusts_entries() && aftermath.trusts_leases());
        let not_serving = StoreError::NotServing(String::new());
        for (late, is_away) in [
            (&StoreError::Refused(String::new()), true),
            (&StoreError::Timeout, true),
            (&StoreError::Unavailable, false),
            (&not_serving, false),
        ] {
            aftermath.note(late, is_away);
            assert!(aftermath.trusts_entries() && !aftermath.trusts_leases(), "{late}");
        }
        let pause = settings.reconnect_backoff * 2;
        for away in [&StoreError::Unavailable, &not_serving] {
            aftermath.note(away, true);
            advance(pause - MILLISECOND).await;
            aftermath.note(&StoreError::Timeout, true);
            assert!(!aftermath.trusts_entries(), "{away}");
            advance(MILLISECOND).await;
            assert!(aftermath.trusts_entries() && !aftermath.trusts_leases(), "{away}");
        }
        advance(LEASE).await;
        assert!(aftermath.trusts_leases());
    }
}
