//! How many gateways share the limits: what each may admit while the store is away.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a gateway that is not heard of any more still counts: what is away may only be slow.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The gateways that were heard of. While the store is away nobody is heard, and the number stays
/// as it was.
#[derive(Debug, Default)]
pub struct Fleet {
    seen: Mutex<VecDeque<(Instant, u32)>>,
    /// The most that were seen of late.
    most: AtomicU32,
}

impl Fleet {
    /// So many gateways were there a moment ago.
    pub(super) fn note(&self, count: u32) {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while seen.front().is_some_and(|(at, _)| now.duration_since(*at) > REMEMBERED) {
            seen.pop_front();
        }
        // What is smaller than the newest never is the most again.
        while seen.back().is_some_and(|(_, smaller)| *smaller <= count) {
            seen.pop_back();
        }
        seen.push_back((now, count));
        let most = seen.front().map_or(count, |(_, most)| *most);
        self.most.store(most, Ordering::Relaxed);
    }

    /// The most that were seen within the last minute; 0 where none was seen yet.
    pub fn seen(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// By how many limits are divided, at least by `configured`.
    pub(super) fn nodes(&self, configured: u32) -> u32 {
        self.seen().max(configured).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_not_heard_of_counts_for_a_minute() {
        let fleet = Fleet::default();
        assert_eq!((fleet.seen(), fleet.nodes(0), fleet.nodes(4)), (0, 1, 4));
        for (after_s, count, most) in [(0, 3, 3), (1, 5, 5), (30, 2, 5), (30, 4, 5), (1, 2, 4)] {
            tokio::time::advance(Duration::from_secs(after_s)).await;
            fleet.note(count);
            assert_eq!(fleet.seen(), most, "after {after_s} s and {count}");
        }
        assert_eq!((fleet.nodes(2), fleet.nodes(9)), (4, 9));
        // Nobody can be heard of: an hour changes nothing.
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(fleet.seen(), 4);
        fleet.note(1);
        assert_eq!(fleet.seen(), 1);
    }
}
