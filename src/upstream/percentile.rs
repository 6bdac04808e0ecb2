//! How long answers took in the last ten seconds: counted by each thread on its own cache lines, in
//! buckets a fifth apart, and read as a percentile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::shard::Counters;

/// Buckets for each doubling of the time.
const PER_DOUBLING: f64 = 4.0;
/// The first one ends with a millisecond, the last one is for all that is more than a minute.
const BUCKETS: usize = 66;
/// How far back answers are looked at, in seconds.
const WINDOW_S: usize = 10;
/// Fewer answers say nothing of a percentile.
const ANSWERS_MIN: u64 = 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Percentile {
    began: Instant,
    counts: Counters<BUCKETS>,
    seen: Mutex<Seen>,
    /// The percentile, in microseconds; 0 where nobody knows.
    found_us: AtomicU64,
}

/// What the ticker has seen.
#[derive(Debug)]
struct Seen {
    totals: [u64; BUCKETS],
    /// Which second of all times each one is, and what came in it.
    seconds: [(u64, [u64; BUCKETS]); WINDOW_S],
}

impl Percentile {
    /// Of no answer yet.
    pub(super) fn new() -> Self {
        let seen = Seen { totals: [0; BUCKETS], seconds: [(0, [0; BUCKETS]); WINDOW_S] };
        Self {
            began: Instant::now(),
            counts: Counters::default(),
            seen: Mutex::new(seen),
            found_us: AtomicU64::new(0),
        }
    }

    /// An answer took so long.
    pub(super) fn note(&self, took: Duration) {
        self.counts.add(bucket(took), 1);
    }

    /// How many answers there were.
    #[cfg(test)]
    pub(super) fn counted(&self) -> u64 {
        (0..BUCKETS).map(|bucket| self.counts.sum(bucket)).sum()
    }

    /// The percentile as of the last tick; nothing where too few answers came.
    pub(super) fn found(&self) -> Option<Duration> {
        let us = self.found_us.load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(us))
    }

    /// Finds the percentile of what came in the last ten seconds.
    pub(super) fn tick(&self, percentile: u8) {
        let second = self.began.elapsed().as_secs();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = &mut *seen;
        let (at, counts) = &mut seen.seconds[second as usize % WINDOW_S];
        if *at != second {
            (*at, *counts) = (second, [0; BUCKETS]);
        }
        for (bucket, total) in seen.totals.iter_mut().enumerate() {
            let now = self.counts.sum(bucket);
            counts[bucket] += now.saturating_sub(*total);
            *total = now;
        }
        let is_in = |at: u64| at + WINDOW_S as u64 > second;
        let recent = seen.seconds.iter().filter(|(at, _)| is_in(*at));
        let sums = recent.fold([0; BUCKETS], |mut sums, (_, counts)| {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            sums
        });
        let found = find(&sums, percentile).map_or(0, |found| found.as_micros());
        self.found_us.store(u64::try_from(found).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn bucket(took: Duration) -> usize {
    let doublings = (took.as_secs_f64() * 1_000.0).max(1.0).log2();
    ((doublings * PER_DOUBLING).ceil() as usize).min(BUCKETS - 1)
}

/// The end of a bucket.
fn end(bucket: usize) -> Duration {
    Duration::from_secs_f64((bucket as f64 / PER_DOUBLING).exp2() / 1_000.0)
}

/// Within which time so many percent of the answers came, rounded up to the end of a bucket.
fn find(counts: &[u64; BUCKETS], percentile: u8) -> Option<Duration> {
    let all: u64 = counts.iter().sum();
    if all < ANSWERS_MIN {
        return None;
    }
    let wanted = (all * u64::from(percentile)).div_ceil(100);
    let mut sum = 0;
    let found = counts.iter().position(|count| {
        sum += count;
        sum >= wanted
    });
    found.map(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn buckets_are_a_fifth_apart() {
        for took in [0, 1, 2, 5, 10, 90, 100, 1_000, 30_000, 60_000].map(ms) {
            let end = end(bucket(took));
            assert!(end >= took && end <= (took * 6 / 5).max(ms(1)), "{took:?}: {end:?}");
        }
        assert_eq!(bucket(Duration::from_secs(3_600)), BUCKETS - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_percentile_is_of_the_last_ten_seconds() {
        let times = Percentile::new();
        let note = |count: usize, took| (0..count).for_each(|_| times.note(took));
        note(19, ms(1));
        times.tick(95);
        assert_eq!(times.found(), None, "too few");
        note(1, ms(1_000));
        times.tick(95);
        assert_eq!(times.found(), Some(ms(1)));
        times.tick(99);
        assert!(times.found().unwrap() >= ms(1_000));
        tokio::time::advance(Duration::from_secs(9)).await;
        note(20, ms(1_000));
        times.tick(95);
        assert!(times.found().unwrap() >= ms(1_000));
        tokio::time::advance(Duration::from_secs(1)).await;
        times.tick(50);
        assert!(times.found().unwrap() >= ms(1_000), "what was before is forgotten");
        tokio::time::advance(Duration::from_secs(9)).await;
        times.tick(50);
        assert_eq!(times.found(), None);
    }
}
