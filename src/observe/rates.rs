//! What counters say of a period: rates, ratios and percentiles, from what they were at its begin
//! and at its end. Pure.

use std::time::Duration;

use serde::Serialize;

/// How often durations were at most so many microseconds, by bounds in their order; the last one
/// has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution(Vec<(u64, u64)>);

impl Distribution {
    /// Adds the counts of a histogram; all that are added have the same bounds.
    pub(super) fn add(&mut self, counts: impl Iterator<Item = (u64, u64)>) {
        if self.0.is_empty() {
            self.0 = counts.collect();
            return;
        }
        for ((_, sum), (_, count)) in self.0.iter_mut().zip(counts) {
            *sum = sum.saturating_add(count);
        }
    }

    /// What came after `before`.
    pub fn since(&self, before: &Self) -> Self {
        let known = before.0.iter().map(|(_, count)| *count).chain(std::iter::repeat(0));
        let counts = self.0.iter().zip(known);
        Self(counts.map(|((bound, now), before)| (*bound, now.saturating_sub(before))).collect())
    }

    /// The duration in seconds that this share stays below, as if those between two bounds lay
    /// evenly; not a number where there are none.
    pub fn quantile(&self, share: f64) -> f32 {
        let total: u64 = self.0.iter().map(|(_, count)| count).sum();
        let rank = share * total as f64;
        let (mut below, mut lower) = (0_u64, 0_u64);
        for (bound, count) in &self.0 {
            let reached = below.saturating_add(*count);
            if *count > 0 && reached as f64 >= rank {
                // Nobody knows how long the longest were: at least this.
                let width = if *bound == u64::MAX { 0 } else { bound.saturating_sub(lower) };
                let part = ((rank - below as f64) / *count as f64).clamp(0.0, 1.0);
                return ((lower as f64 + width as f64 * part) / 1e6) as f32;
            }
            (below, lower) = (reached, if *bound == u64::MAX { lower } else { *bound });
        }
        f32::NAN
    }
}

/// What a route has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTotals {
    /// Requests that have ended.
    pub requests: u64,
    /// Those with a status of 2xx, 4xx, and 5xx.
    pub by_class: [u64; 3],
    /// Those that the gateway refused.
    pub refused: u64,
    /// Those that the cache answered, and the others on cached routes.
    pub hits: u64,
    /// See `hits`.
    pub others: u64,
    /// How long they took.
    pub durations: Distribution,
}

impl RouteTotals {
    /// What came after `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let [now, then] = [self, before];
        let class = |at: usize| now.by_class[at].saturating_sub(then.by_class[at]);
        Self {
            requests: now.requests.saturating_sub(then.requests),
            by_class: [class(0), class(1), class(2)],
            refused: now.refused.saturating_sub(then.refused),
            hits: now.hits.saturating_sub(then.hits),
            others: now.others.saturating_sub(then.others),
            durations: now.durations.since(&then.durations),
        }
    }

    /// Adds those of another route.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        for (sum, count) in self.by_class.iter_mut().zip(other.by_class) {
            *sum = sum.saturating_add(count);
        }
        self.refused = self.refused.saturating_add(other.refused);
        self.hits = self.hits.saturating_add(other.hits);
        self.others = self.others.saturating_add(other.others);
        self.durations.add(other.durations.0.iter().copied());
    }

    /// What they come to when they were counted in this time.
    pub fn rates(&self, over: Duration) -> Rates {
        let seconds = over.as_secs_f64();
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let rate = |count: u64| per_second(count) as f32;
        // Not a number where nothing is divided by nothing.
        let ratio = |part: u64, all: u64| (part as f64 / all as f64) as f32;
        let [s2xx, s4xx, s5xx] = self.by_class;
        Rates {
            rps: rate(self.requests),
            error_ratio: ratio(s5xx, self.requests),
            p50_s: self.durations.quantile(0.5),
            p99_s: self.durations.quantile(0.99),
            hit_ratio: ratio(self.hits, self.hits.saturating_add(self.others)),
            refused_ps: rate(self.refused),
            s2xx_ps: rate(s2xx),
            s4xx_ps: rate(s4xx),
            s5xx_ps: rate(s5xx),
        }
    }
}

/// One period of a route, or of all. What there is none of is not a number, which JSON has as null.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rates {
    /// Requests per second.
    pub rps: f32,
    /// Of the requests, those that ended with 5xx.
    pub error_ratio: f32,
    /// The median of their durations, in seconds.
    pub p50_s: f32,
    /// What 99 of 100 stayed below.
    pub p99_s: f32,
    /// Of the requests on cached routes, those that the cache answered.
    pub hit_ratio: f32,
    /// Refused by the gateway, per second.
    pub refused_ps: f32,
    /// Of each class of status, per second.
    pub s2xx_ps: f32,
    /// See `s2xx_ps`.
    pub s4xx_ps: f32,
    /// See `s2xx_ps`.
    pub s5xx_ps: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: [u64; 4]) -> Distribution {
        Distribution([1_000, 10_000, 100_000, u64::MAX].into_iter().zip(counts).collect())
    }

    #[test]
    fn quantiles_lie_between_their_bounds() {
        for (counts, share, expected) in [
            ([100, 0, 0, 0], 0.5, 0.0005),
            ([100, 0, 0, 0], 1.0, 0.001),
            ([50, 50, 0, 0], 0.5, 0.001),
            ([50, 50, 0, 0], 0.75, 0.0055),
            ([0, 0, 10, 0], 0.5, 0.055),
            // Nobody knows how much longer.
            ([1, 0, 0, 99], 0.99, 0.1),
        ] {
            let found = of(counts).quantile(share);
            assert!((f64::from(found) - expected).abs() < 1e-6, "{counts:?} {share}: {found}");
        }
        assert!(
            of([0; 4]).quantile(0.5).is_nan() && Distribution::default().quantile(0.5).is_nan()
        );
    }

    #[test]
    fn a_period_is_what_came_after_its_begin() {
        let before = RouteTotals {
            requests: 10,
            by_class: [9, 0, 1],
            refused: 0,
            hits: 1,
            others: 1,
            durations: of([10, 0, 0, 0]),
        };
        let mut after = before.clone();
        after.add(&RouteTotals {
            requests: 20,
            by_class: [10, 5, 5],
            refused: 4,
            hits: 9,
            others: 1,
            durations: of([0, 20, 0, 0]),
        });
        let rates = after.since(&before).rates(Duration::from_secs(10));
        let told = serde_json::to_value(rates).unwrap();
        for (name, expected) in [
            ("rps", 2.0),
            ("error_ratio", 0.25),
            ("p50_s", 0.0055),
            ("hit_ratio", 0.9),
            ("refused_ps", 0.4),
            ("s2xx_ps", 1.0),
            ("s4xx_ps", 0.5),
            ("s5xx_ps", 0.5),
        ] {
            let found = told[name].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-6, "{name}: {found}");
        }
        // A counter that begins anew is no negative rate.
        assert_eq!(
            before.since(&after),
            RouteTotals { durations: of([0; 4]), ..before.since(&before) }
        );
    }

    #[test]
    fn where_nothing_was_there_are_no_ratios() {
        let rates = RouteTotals::default().rates(Duration::from_secs(1));
        let told = serde_json::to_string(&rates).unwrap();
        assert_eq!(
            told,
            "{\"rps\":0.0,\"error_ratio\":null,\"p50_s\":null,\"p99_s\":null,\"hit_ratio\":null,\
             \"refused_ps\":0.0,\"s2xx_ps\":0.0,\"s4xx_ps\":0.0,\"s5xx_ps\":0.0}"
        );
    }
}
