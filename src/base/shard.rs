//! Spreading what every request touches over the threads, so that two cores do not take turns with
//! one cache line.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Shards of everything that is spread; threads beyond that share.
pub const SHARDS: usize = 16;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
}

/// The shard of the current thread.
pub fn mine() -> usize {
    MINE.with(|mine| *mine)
}

/// A value on cache lines of its own (two, because processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// Counters that each thread adds to in its own place. Reading sums them up.
#[derive(Debug)]
pub struct Counters<const N: usize>(Box<[Padded<[AtomicU64; N]>]>);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        let zeros = || Padded(std::array::from_fn(|_| AtomicU64::new(0)));
        Self((0..SHARDS).map(|_| zeros()).collect())
    }
}

impl<const N: usize> Counters<N> {
    /// Adds to one counter.
    pub fn add(&self, index: usize, amount: u64) {
        self.0[mine()].0[index].fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum of one counter over all threads.
    pub fn sum(&self, index: usize) -> u64 {
        self.0.iter().map(|shard| shard.0[index].load(Ordering::Relaxed)).sum()
    }
}
