//! Which threads have connections of their own to which server of a Redis Cluster, where each
//! having one to each would be too many: questions of many threads on one connection share system
//! calls, on both sides of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::shard::SHARDS;

/// Up to so many primaries, each thread has a connection to each.
const PRIMARIES_OF_EACH: usize = 4;
/// From so many on, one thread has one to each.
const PRIMARIES_OF_ONE: usize = 16;

/// How many threads have a connection to each of so many primaries.
pub(super) fn auto(threads: usize, primaries: usize) -> usize {
    let left = PRIMARIES_OF_ONE.saturating_sub(primaries.max(PRIMARIES_OF_EACH));
    (threads * left / (PRIMARIES_OF_ONE - PRIMARIES_OF_EACH)).max(1)
}

/// Threads in the order in which they joined.
#[derive(Debug)]
pub(super) struct Ranks {
    by_shard: [AtomicUsize; SHARDS],
    next: AtomicUsize,
    /// How many are to join.
    threads: usize,
}

impl Ranks {
    /// Of so many threads.
    pub(super) fn of(threads: usize) -> Self {
        Self {
            by_shard: std::array::from_fn(|_| AtomicUsize::new(usize::MAX)),
            next: AtomicUsize::new(0),
            threads: threads.clamp(1, SHARDS),
        }
    }

    /// How many threads are to join; those of one shard count once.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// The threads of this shard have connections of their own.
    pub(super) fn join(&self, shard: usize) {
        if let Some(rank) = self.by_shard.get(shard)
            && rank.load(Ordering::Relaxed) == usize::MAX
        {
            rank.store(self.next.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn get(&self, shard: usize) -> Option<usize> {
        let rank = self.by_shard.get(shard)?.load(Ordering::Relaxed);
        (rank != usize::MAX).then_some(rank)
    }
}

/// See the module; of one server.
#[derive(Debug, Clone)]
pub(super) struct Lanes {
    pub(super) ranks: Arc<Ranks>,
    /// How many connections there are.
    pub(super) count: usize,
    /// Which server it is, so that each thread owns connections to some of them.
    pub(super) server: usize,
}

impl Lanes {
    /// Which connection the threads of a shard ask on, and whether it is theirs; nothing where they
    /// did not join.
    pub(super) fn of(&self, shard: usize) -> Option<(usize, bool)> {
        let at = (self.ranks.get(shard)? + self.server) % self.ranks.threads;
        Some((at % self.count, at < self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_primaries_the_fewer_threads_have_connections_to_each() {
        let of = |primaries| auto(16, primaries);
        assert_eq!(
            [of(1), of(4), of(7), of(10), of(15), of(16), of(500)],
            [16, 16, 12, 8, 1, 1, 1]
        );
        assert_eq!((auto(2, 3), auto(2, 12), auto(1, 1)), (2, 1, 1));
    }

    #[test]
    fn each_connection_has_one_owner_and_owners_take_turns() {
        let ranks = Arc::new(Ranks::of(4));
        let shards = [9, 2, 5, 0];
        shards.iter().for_each(|shard| ranks.join(*shard));
        ranks.join(9);
        for count in 1..=4 {
            let mut owned = [0; 4];
            for server in 0..8 {
                let lanes = Lanes { ranks: Arc::clone(&ranks), count, server };
                let all: Vec<_> =
                    shards.iter().map(|it| lanes.of(*it).expect("it has joined")).collect();
                let mut own: Vec<_> = all.iter().filter(|it| it.1).map(|it| it.0).collect();
                own.sort_unstable();
                assert_eq!(own, (0..count).collect::<Vec<_>>());
                assert!(all.iter().all(|(lane, _)| *lane < count));
                all.iter().zip(&mut owned).for_each(|(it, owned)| *owned += usize::from(it.1));
                assert_eq!(lanes.of(3), None);
            }
            assert!(owned.iter().all(|it| *it == 2 * count), "{owned:?}");
        }
    }
}
