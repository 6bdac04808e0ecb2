//! What was counted in the last seconds: ten buckets by the time of whoever counts, so that what is
//! seen does not depend on how much there is. Pure: times are arguments.

use std::time::Duration;

/// How many buckets a window has.
const BUCKETS: usize = 10;

/// Requests, and how many of them were bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// All.
    pub(super) all: u64,
    /// Those that were bad.
    pub(super) bad: u64,
}

impl Counts {
    /// What came since `former`.
    pub(super) fn since(self, former: Self) -> Self {
        Self { all: self.all.saturating_sub(former.all), bad: self.bad.saturating_sub(former.bad) }
    }

    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self { all: self.all.saturating_add(other.all), bad: self.bad.saturating_add(other.bad) }
    }

    /// Whether there are `least` at all, and less than `percent` of them good.
    pub(super) fn has_fewer_good(self, percent: u8, least: u64) -> bool {
        let good = self.all.saturating_sub(self.bad);
        self.all >= least && good * 100 < self.all * u64::from(percent)
    }

    /// Whether there are `least` at all, and at least `percent` of them bad.
    pub(super) fn has_as_many_bad(self, percent: u8, least: u64) -> bool {
        self.all >= least && self.bad * 100 >= self.all * u64::from(percent)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    bucket_ms: u64,
    /// Which bucket of all times each one is, and what is in it.
    buckets: [(u64, Counts); BUCKETS],
}

impl Window {
    /// An empty one that reaches so far back.
    pub(super) fn new(length: Duration) -> Self {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let bucket_ms = (length_ms / BUCKETS as u64).max(1);
        Self { bucket_ms, buckets: [(0, Counts::default()); BUCKETS] }
    }

    /// Counts what came until `now`, in milliseconds.
    pub(super) fn add(&mut self, now: u64, counts: Counts) {
        let number = now / self.bucket_ms;
        let (at, found) = &mut self.buckets[(number % BUCKETS as u64) as usize];
        if *at != number {
            (*at, *found) = (number, Counts::default());
        }
        found.all += counts.all;
        found.bad += counts.bad;
    }

    /// What is in it at `now`.
    pub(super) fn sum(&self, now: u64) -> Counts {
        let number = now / self.bucket_ms;
        let is_in = |at: u64| at + BUCKETS as u64 > number && at <= number;
        let found = self.buckets.iter().filter(|(at, _)| is_in(*at));
        found.fold(Counts::default(), |sum, (_, counts)| Counts {
            all: sum.all + counts.all,
            bad: sum.bad + counts.bad,
        })
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.buckets = [(0, Counts::default()); BUCKETS];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_BAD: Counts = Counts { all: 4, bad: 1 };

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut window = Window::new(Duration::from_secs(10));
        window.add(500, ONE_BAD);
        window.add(900, ONE_BAD);
        window.add(1_100, ONE_BAD);
        assert_eq!(window.sum(1_200), Counts { all: 12, bad: 3 });
        assert_eq!(window.sum(9_999), Counts { all: 12, bad: 3 });
        // The first second leaves as a whole.
        assert_eq!(window.sum(10_000), ONE_BAD);
        assert_eq!(window.sum(11_000), Counts::default());
        // Its bucket is another one's by now.
        window.add(10_500, ONE_BAD);
        assert_eq!(window.sum(10_600), Counts { all: 8, bad: 2 });
        window.clear();
        assert_eq!(window.sum(10_600), Counts::default());
    }

    #[test]
    fn shares_are_exact() {
        let counts = |all, bad| Counts { all, bad };
        assert!(counts(20, 11).has_fewer_good(50, 20));
        assert!(!counts(20, 10).has_fewer_good(50, 20));
        assert!(!counts(19, 19).has_fewer_good(50, 20));
        assert!(counts(20, 10).has_as_many_bad(50, 20));
        assert!(!counts(20, 9).has_as_many_bad(50, 20));
        assert!(!counts(19, 19).has_as_many_bad(50, 20));
        assert_eq!(counts(7, 3).since(counts(5, 4)), counts(2, 0));
    }
}
