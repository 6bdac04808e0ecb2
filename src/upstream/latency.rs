//! How long a server takes to answer: a peak EWMA, as in Finagle's `PeakEwma`. What is slower than
//! expected counts at once, and is forgotten slowly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::shard::{self, Padded, SHARDS};

/// After so many seconds without news an estimate is 1/e of what it was.
const DECAY: f64 = 10.0;
/// Largest estimate, in seconds. What fails doubles its own each time, and is to be tried again
/// some day.
const ESTIMATE_MAX: f64 = 60.0;

/// What one thread knows, in seconds, as the bits of a double; 0 for nothing yet. Threads beyond
/// the shards share: one of two updates may be lost then, which does no harm.
#[derive(Debug, Default)]
struct Shard {
    estimate: AtomicU64,
    /// When that was, since the server was made.
    at: AtomicU64,
}

/// See the module. Each thread has its own estimate: all answers would fight for one otherwise.
#[derive(Debug)]
pub(super) struct Latency {
    began: Instant,
    shards: Box<[Padded<Shard>]>,
}

impl Latency {
    /// Of a server that has not answered yet.
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Padded::default()).collect();
        Self { began: Instant::now(), shards }
    }

    /// The estimate of this thread in seconds, or the middle one of others where it has none.
    pub(super) fn estimate(&self) -> Option<f64> {
        let now = self.now();
        let own = self.mine().read().map(|(estimate, at)| decayed(estimate, now - at));
        own.or_else(|| {
            let others = self.shards.iter().filter_map(|shard| shard.0.read());
            median(others.map(|(estimate, at)| decayed(estimate, now - at)).collect())
        })
    }

    /// The server took so long to begin its answer, or to fail. A failure counts as twice what was
    /// expected: one that fails at once would look like the quickest of all, and get everything.
    pub(super) fn observe(&self, took: Duration, has_failed: bool) {
        let former = self.estimate();
        let took = took.as_secs_f64();
        let punished = former.filter(|_| has_failed).map_or(took, |former| took.max(2.0 * former));
        let now = self.now();
        let estimate = match self.mine().read() {
            Some((former, at)) if punished <= former && !has_failed => {
                let kept = (-(now - at) / DECAY).exp();
                former * kept + punished * (1.0 - kept)
            }
            _ => punished,
        };
        self.mine().write(estimate.clamp(f64::MIN_POSITIVE, ESTIMATE_MAX), now);
    }

    /// Nobody waits any more for an answer that took so long already.
    pub(super) fn observe_at_least(&self, took: Duration) {
        if self.estimate().is_none_or(|expected| took.as_secs_f64() > expected) {
            self.observe(took, false);
        }
    }

    /// What this thread expects of a server of which nothing is known.
    pub(super) fn expect(&self, seconds: f64) {
        if self.estimate().is_none() {
            self.mine().write(seconds.clamp(f64::MIN_POSITIVE, ESTIMATE_MAX), self.now());
        }
    }

    fn mine(&self) -> &Shard {
        &self.shards[shard::mine()].0
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

impl Shard {
    /// The estimate, and when it was made.
    fn read(&self) -> Option<(f64, f64)> {
        let estimate = f64::from_bits(self.estimate.load(Ordering::Relaxed));
        let at = f64::from_bits(self.at.load(Ordering::Relaxed));
        (estimate > 0.0).then_some((estimate, at))
    }

    fn write(&self, estimate: f64, at: f64) {
        self.at.store(at.to_bits(), Ordering::Relaxed);
        self.estimate.store(estimate.to_bits(), Ordering::Relaxed);
    }
}

/// What is left of an estimate after so many seconds.
fn decayed(estimate: f64, since: f64) -> f64 {
    estimate * (-since.max(0.0) / DECAY).exp()
}

/// The middle one, the lower of two; nothing of none.
pub(super) fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn is_about(latency: &Latency, seconds: f64) {
        let estimate = latency.estimate().unwrap();
        assert!((estimate - seconds).abs() < seconds / 1_000.0, "{estimate} and not {seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_slow_counts_at_once_and_is_forgotten_slowly() {
        let latency = Latency::new();
        assert_eq!(latency.estimate(), None);
        latency.observe(20 * MS, false);
        is_about(&latency, 0.02);
        latency.observe(500 * MS, false);
        is_about(&latency, 0.5);
        // Nothing has passed, so a quick answer says nothing yet.
        latency.observe(MS, false);
        is_about(&latency, 0.5);
        tokio::time::advance(10_000 * MS).await;
        is_about(&latency, 0.5 / std::f64::consts::E);
        latency.observe(100 * MS, false);
        is_about(&latency, 0.5 / std::f64::consts::E + 0.1 * (1.0 - 1.0 / std::f64::consts::E));
        latency.observe_at_least(MS);
        is_about(&latency, 0.5 / std::f64::consts::E + 0.1 * (1.0 - 1.0 / std::f64::consts::E));
        latency.observe_at_least(2_000 * MS);
        is_about(&latency, 2.0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_doubles_what_is_expected() {
        let latency = Latency::new();
        latency.expect(0.02);
        for expected in [0.04, 0.08, 0.16] {
            latency.observe(MS, true);
            is_about(&latency, expected);
        }
        // One that is slow to fail is as slow as that.
        latency.observe(1_000 * MS, true);
        is_about(&latency, 1.0);
        for _ in 0..20 {
            latency.observe(MS, true);
        }
        is_about(&latency, ESTIMATE_MAX);
        latency.expect(0.02);
        is_about(&latency, ESTIMATE_MAX);
    }

    #[test]
    fn the_middle_one() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(vec![9.0, 1.0]), Some(1.0));
    }
}
