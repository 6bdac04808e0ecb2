//! Which requests are slow, and how often somebody is told of one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between two warnings.
const PAUSE_MS: u64 = 1000;

/// See the module.
#[derive(Debug)]
pub struct Slow {
    /// From when on a request is slow.
    after: Duration,
    since: Instant,
    /// When the next warning may come, in milliseconds of this log's life.
    next: AtomicU64,
    /// Slow requests of which nobody was told.
    untold: AtomicU64,
}

impl Slow {
    /// Requests that took so long are slow; zero: none is.
    pub(super) fn new(after: Duration) -> Self {
        Self {
            after: if after.is_zero() { Duration::MAX } else { after },
            since: Instant::now(),
            next: AtomicU64::new(0),
            untold: AtomicU64::new(0),
        }
    }

    /// Whether a request is slow that took so long.
    pub fn is(&self, took: Duration) -> bool {
        took >= self.after
    }

    /// Whether a warning of a slow request is due; then also how many had none before it.
    pub fn warns(&self) -> Option<u64> {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        let later = now.saturating_add(PAUSE_MS);
        let is_due = now >= next
            && self
                .next
                .compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_due {
            return Some(self.untold.swap(0, Ordering::Relaxed));
        }
        self.untold.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_stands_for_those_of_its_second() {
        let slow = Slow::new(Duration::from_secs(1));
        assert!(slow.is(Duration::from_secs(1)) && !slow.is(Duration::from_millis(999)));
        assert!(!Slow::new(Duration::ZERO).is(Duration::from_secs(99)));
        assert_eq!(slow.warns(), Some(0));
        // A clock that stands still: the pause is not over.
        slow.next.store(u64::MAX, Ordering::Relaxed);
        assert_eq!((slow.warns(), slow.warns()), (None, None));
        slow.next.store(0, Ordering::Relaxed);
        assert_eq!(slow.warns(), Some(2));
    }
}
