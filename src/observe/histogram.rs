//! Histograms of the request path, spread over the threads: the registry's own histogram takes a
//! mutex at every observation.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::base::shard::Counters;

/// Upper bounds in microseconds, from what a cache hit takes to what a client gives up after.
const BOUNDS_US: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// One count per bound, one for what is longer, and the sum in microseconds.
const COUNTERS: usize = BOUNDS_US.len() + 2;
const SUM: usize = COUNTERS - 1;

/// A histogram of durations, shared by its clones.
#[derive(Debug, Clone, Default)]
pub struct Histogram(Arc<Counters<COUNTERS>>);

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.add(BOUNDS_US.partition_point(|bound| *bound < us), 1);
        self.0.add(SUM, us);
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let count = |index: usize| self.0.sum(index);
        let seconds = |us: u64| us as f64 / 1e6;
        let mut buckets: Vec<(f64, u64)> =
            BOUNDS_US.iter().enumerate().map(|(i, us)| (seconds(*us), count(i))).collect();
        // The encoder spells this bound `+Inf`, and no other.
        buckets.push((f64::INFINITY, count(BOUNDS_US.len())));
        let total = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.0.sum(SUM));
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}
