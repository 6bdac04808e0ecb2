//! Histograms of the request path, spread over the threads: the registry's own histogram takes a
//! mutex at every observation.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::rates::Distribution;
use crate::base::shard::Counters;

/// Upper bounds in microseconds of what has no ladder of its own.
const WIDE_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// The same of requests, and of what they wait for: from what a cache hit takes to what a client
/// gives up after.
pub(super) const REQUEST_US: &[u64] = &[
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Most bounds of a ladder: so many counts, with the two others, fill the cache lines of a shard.
const BOUNDS_MAX: usize = 30;
/// The sum in microseconds, one count per bound, and one for what is longer.
const COUNTERS: usize = BOUNDS_MAX + 2;
const SUM: usize = 0;
const FIRST: usize = 1;

/// A histogram of durations, shared by its clones.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// Upper bounds in microseconds, in their order.
    bounds: Cow<'static, [u64]>,
    counts: Counters<COUNTERS>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::of(WIDE_US)
    }
}

impl Histogram {
    /// With these upper bounds in microseconds, in their order; of more than there is room for,
    /// the first.
    pub(super) fn of(bounds: impl Into<Cow<'static, [u64]>>) -> Self {
        let mut bounds = bounds.into();
        if bounds.len() > BOUNDS_MAX {
            bounds.to_mut().truncate(BOUNDS_MAX);
        }
        Self(Arc::new(Counts { bounds, counts: Counters::default() }))
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let Counts { bounds, counts } = &*self.0;
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        counts.add(FIRST + bounds.partition_point(|bound| *bound < us), 1);
        counts.add(SUM, us);
    }

    /// How often each bound was enough so far; the last one has none.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let Counts { bounds, counts } = &*self.0;
        let bounds = bounds.iter().copied().chain([u64::MAX]);
        bounds.zip(FIRST..).map(|(bound, at)| (bound, counts.sum(at)))
    }

    /// The same, to be compared with what it is later.
    pub fn distribution(&self) -> Distribution {
        let mut counted = Distribution::default();
        counted.add(self.counts());
        counted
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Counts { bounds, counts } = &*self.0;
        let seconds = |us: u64| us as f64 / 1e6;
        // The encoder spells the last bound `+Inf`, and no other.
        let bounds = bounds.iter().map(|us| seconds(*us)).chain([f64::INFINITY]);
        let counted = bounds.zip(FIRST..).map(|(bound, at)| (bound, counts.sum(at)));
        let buckets: Vec<(f64, u64)> = counted.collect();
        let total = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(counts.sum(SUM));
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}
