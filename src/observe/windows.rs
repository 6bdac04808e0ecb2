//! What the cache did for a route within a minute, within a quarter of an hour and since the start:
//! what its counters are now, compared with what they were. Pure: it is told what time it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// No look is quite a step after the one before.
const EARLY: Duration = Duration::from_secs(5);

/// How far back hits are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheWindow {
    /// One minute, give or take five seconds.
    Minute,
    /// 15 minutes, give or take half a minute.
    Quarter,
    /// All since the route is there.
    Start,
}

impl CacheWindow {
    /// All of them, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Quarter, Self::Start];

    /// Its name in answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::Quarter => "15m",
            Self::Start => "start",
        }
    }
}

/// What the cache of a route has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Requests that were answered without waiting for an answer of their own.
    pub hits: u64,
    /// Requests that waited for the upstream.
    pub others: u64,
    /// Of these, the ones for which only other variants were stored.
    pub vary_misses: u64,
    /// Responses that were stored.
    pub stored: u64,
    /// What was left of their lifetimes then, in seconds, in all.
    pub stored_ttl_s: u64,
    /// Responses that were not stored, by the reason; none that was not counted.
    pub not_kept: BTreeMap<&'static str, u64>,
}

impl CacheCounts {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.hits.saturating_add(self.others)
    }

    /// Requests that were hits, from 0 to 1; none without requests.
    pub fn hit_ratio(&self) -> Option<f64> {
        let all = self.requests();
        (all > 0).then(|| self.hits as f64 / all as f64)
    }

    /// Mean of what was left of a lifetime when a response was stored, in seconds.
    pub fn mean_ttl_s(&self) -> Option<u64> {
        self.stored_ttl_s.checked_div(self.stored)
    }

    /// Why most of the responses were not stored that were not, and how many these were.
    pub fn main_reason(&self) -> Option<(&'static str, u64)> {
        // Of two the first in the alphabet, so that the answer does not waver.
        let most = self.not_kept.iter().rev().max_by_key(|(_, count)| **count);
        most.map(|(reason, count)| (*reason, *count))
    }

    /// What came after `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let not_kept = self.not_kept.iter().map(|(reason, now)| {
            (*reason, now.saturating_sub(before.not_kept.get(reason).copied().unwrap_or_default()))
        });
        Self {
            hits: self.hits.saturating_sub(before.hits),
            others: self.others.saturating_sub(before.others),
            vary_misses: self.vary_misses.saturating_sub(before.vary_misses),
            stored: self.stored.saturating_sub(before.stored),
            stored_ttl_s: self.stored_ttl_s.saturating_sub(before.stored_ttl_s),
            not_kept: not_kept.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// What counters were at a moment. Two moments between which nothing was counted share it.
#[derive(Debug, Clone)]
struct Point {
    at: Instant,
    counts: Arc<CacheCounts>,
}

/// What counters were at even distances.
#[derive(Debug)]
struct Ring {
    step: Duration,
    window: Duration,
    points: VecDeque<Point>,
}

impl Ring {
    fn new(step_s: u64, window_s: u64) -> Self {
        let (step, window) = (Duration::from_secs(step_s), Duration::from_secs(window_s));
        Self { step, window, points: VecDeque::new() }
    }

    fn push(&mut self, point: &Point) {
        let is_due = |last: &Point| point.at.duration_since(last.at) + EARLY >= self.step;
        if self.points.back().is_none_or(is_due) {
            self.points.push_back(point.clone());
        }
        // One of those is kept that are old enough to be compared with.
        let reaches = |it: &Point| point.at.duration_since(it.at) >= self.window;
        while self.points.get(1).is_some_and(reaches) {
            self.points.pop_front();
        }
    }

    /// What counters were when the window began; nothing where that was before there were any.
    fn begin(&self, now: Instant) -> Option<&CacheCounts> {
        let reaches = |it: &&Point| now.duration_since(it.at) + self.step / 2 >= self.window;
        self.points.iter().rev().find(reaches).map(|it| &*it.counts)
    }
}

/// The windows of one route: at most 9 points for the minute and 17 for the quarter.
#[derive(Debug)]
pub(super) struct CacheWindows {
    minute: Ring,
    quarter: Ring,
}

impl Default for CacheWindows {
    fn default() -> Self {
        Self { minute: Ring::new(10, 60), quarter: Ring::new(60, 900) }
    }
}

impl CacheWindows {
    /// Remembers what counters are now.
    pub(super) fn note(&mut self, at: Instant, counts: CacheCounts) {
        let last = self.minute.points.back().map(|it| &it.counts);
        let counts = match last {
            Some(same) if **same == counts => Arc::clone(same),
            _ => Arc::new(counts),
        };
        let point = Point { at, counts };
        self.minute.push(&point);
        self.quarter.push(&point);
    }

    /// What was counted in a window that ends now, at which counters are `counts`.
    pub(super) fn within(
        &self,
        window: CacheWindow,
        now: Instant,
        counts: &CacheCounts,
    ) -> CacheCounts {
        let begin = match window {
            CacheWindow::Minute => self.minute.begin(now),
            CacheWindow::Quarter => self.quarter.begin(now),
            CacheWindow::Start => None,
        };
        begin.map_or_else(|| counts.clone(), |before| counts.since(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(hits: u64, others: u64, not_kept: &[(&'static str, u64)]) -> CacheCounts {
        let not_kept = not_kept.iter().copied().collect();
        CacheCounts { hits, others, not_kept, ..CacheCounts::default() }
    }

    #[test]
    fn each_window_forgets_what_came_before_it() {
        let (mut windows, begin) = (CacheWindows::default(), Instant::now());
        let at = |second: u64| begin + Duration::from_secs(second);
        // One hit a second, and in the first ten minutes as many that are not stored.
        let of = |second: u64| counts(second, second.min(600), &[("no_store", second.min(600))]);
        let hits = |windows: &CacheWindows, second| {
            CacheWindow::ALL.map(|it| windows.within(it, at(second), &of(second)).hits)
        };
        assert_eq!(hits(&windows, 5), [5; 3], "nothing was remembered yet");
        for second in (0..=2000).step_by(10) {
            windows.note(at(second), of(second));
            assert!(windows.minute.points.len() <= 9, "{}", windows.minute.points.len());
            assert!(windows.quarter.points.len() <= 17, "{}", windows.quarter.points.len());
            if second == 40 {
                assert_eq!(hits(&windows, second), [40; 3], "it began within the window");
            }
        }
        assert_eq!(hits(&windows, 2000), [60, 920, 2000]);
        assert_eq!(hits(&windows, 2004), [64, 924, 2004]);
        assert_eq!(hits(&windows, 2007), [57, 927, 2007]);
        let quarter = |second| windows.within(CacheWindow::Quarter, at(second), &of(second));
        assert_eq!(quarter(2000).not_kept, BTreeMap::new(), "that is over");
        let all = windows.within(CacheWindow::Start, at(2000), &of(2000));
        assert_eq!((all.requests(), all.hit_ratio()), (2600, Some(2000.0 / 2600.0)));
        assert_eq!(all.main_reason(), Some(("no_store", 600)));
    }

    #[test]
    fn where_nothing_is_counted_points_share_what_they_hold() {
        let (mut windows, begin) = (CacheWindows::default(), Instant::now());
        for second in (0..=120).step_by(10) {
            windows.note(begin + Duration::from_secs(second), counts(1, 1, &[("vary", 1)]));
        }
        let points = &windows.minute.points;
        assert!(points.iter().all(|it| Arc::ptr_eq(&it.counts, &points[0].counts)));
    }

    #[test]
    fn the_main_reason_does_not_waver() {
        assert_eq!(counts(0, 0, &[]).main_reason(), None);
        let even = counts(0, 0, &[("no_store", 2), ("private", 2), ("vary", 1)]);
        assert_eq!(even.main_reason(), Some(("no_store", 2)));
        let nothing = CacheCounts::default();
        assert_eq!((nothing.hit_ratio(), nothing.mean_ttl_s()), (None, None));
        // A counter that begins anew is no negative count.
        assert_eq!(counts(1, 0, &[]).since(&even), counts(1, 0, &[]));
    }
}
