//! What the store refused a moment ago, refused here without asking again.
//!
//! This is exact, not an approximation: until the time that the store named, others' charges can
//! only make the counter fuller. The time is counted from when the question was sent, so that it is
//! never late. Only a refund or an operator's reset could free a counter earlier, so an entry lasts
//! at most one second.

use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::store::Window;

/// Most keys that are remembered; the oldest unused ones make room.
const KEYS_MAX: usize = 65_536;
/// Longest time without asking the store again.
const TRUST_MAX: Duration = Duration::from_secs(1);

/// Keys that are exhausted, and until when.
#[derive(Debug)]
pub(super) struct DenyCache {
    entries: Cache<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    trusted_until: Instant,
    exhausted_until: Instant,
    /// The cost that did not fit, and the limit that it met. For a request of another cost or tier
    /// the wait would be another.
    cost: u32,
    limit: u32,
}

impl Default for DenyCache {
    fn default() -> Self {
        Self { entries: Cache::new(KEYS_MAX) }
    }
}

impl DenyCache {
    /// Notes that a question sent at `asked_at` was answered with "not for `retry_after`".
    pub(super) fn deny(
        &self,
        key: &str,
        asked_at: Instant,
        retry_after: Duration,
        window: &Window,
    ) {
        // The store rounds up to whole milliseconds.
        let exact = retry_after.saturating_sub(Duration::from_millis(1));
        let entry = Entry {
            trusted_until: asked_at + exact.min(TRUST_MAX),
            exhausted_until: asked_at + retry_after,
            cost: window.cost,
            limit: window.limit,
        };
        self.entries.insert(key.to_owned(), entry);
    }

    /// How long a key is still known to be exhausted for this cost and limit, rounded up by nobody.
    pub(super) fn until(&self, key: &str, window: &Window) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        let now = Instant::now();
        let applies = window.cost == entry.cost && window.limit == entry.limit;
        if entry.trusted_until <= now || !applies {
            return None;
        }
        Some(entry.exhausted_until.saturating_duration_since(now))
    }

    /// Forgets one key: it was refunded or reset.
    pub(super) fn forget(&self, key: &str) {
        self.entries.remove(key);
    }
}
