//! How many gateways share the limits: what each may admit while the store is away.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many looks later a gateway that is not heard of any more still counts: what is away may only
/// be slow. Looks and not time, because after an outage the first one sees nobody else yet.
const REMEMBERED: u64 = 30;

/// The gateways that were heard of. While the store is away nobody is heard, and the number stays
/// as it was.
#[derive(Debug, Default)]
pub struct Fleet {
    seen: Mutex<Looks>,
    /// The most that were seen of late.
    most: AtomicU32,
}

#[derive(Debug, Default)]
struct Looks {
    count: u64,
    /// The number of the look, and how many were seen.
    seen: VecDeque<(u64, u32)>,
}

impl Fleet {
    /// So many gateways were there a moment ago.
    pub(super) fn note(&self, count: u32) {
        let mut looks = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Looks { count: look, seen } = &mut *looks;
        *look += 1;
        while seen.front().is_some_and(|(at, _)| *look - at > REMEMBERED) {
            seen.pop_front();
        }
        // What is smaller than the newest never is the most again.
        while seen.back().is_some_and(|(_, smaller)| *smaller <= count) {
            seen.pop_back();
        }
        seen.push_back((*look, count));
        let most = seen.front().map_or(count, |(_, most)| *most);
        self.most.store(most, Ordering::Relaxed);
    }

    /// The most that were seen in the last looks; 0 where none was seen yet.
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

    #[test]
    fn who_is_not_heard_of_counts_for_some_looks() {
        let fleet = Fleet::default();
        assert_eq!((fleet.seen(), fleet.nodes(0), fleet.nodes(4)), (0, 1, 4));
        for (count, most) in [(3, 3), (5, 5), (2, 5), (4, 5)] {
            fleet.note(count);
            assert_eq!(fleet.seen(), most, "after {count}");
        }
        // The first look after an outage, for example.
        fleet.note(1);
        assert_eq!((fleet.seen(), fleet.nodes(2), fleet.nodes(9)), (5, 5, 9));
        (0..REMEMBERED - 3).for_each(|_| fleet.note(1));
        assert_eq!(fleet.seen(), 5);
        fleet.note(1);
        assert_eq!(fleet.seen(), 4);
        (0..2 * REMEMBERED).for_each(|_| fleet.note(1));
        assert_eq!(fleet.seen(), 1);
    }
}
