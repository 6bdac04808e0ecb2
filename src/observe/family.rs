//! Families whose series stand in the order of their labels, so that two answers list them alike.
//! Those of the registry's crate stand in the order of a hash, which differs from gateway to
//! gateway.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Metrics by the values of `N` labels, all of them words of this program; shared by its clones.
#[derive(Debug, Clone)]
pub(super) struct Family<const N: usize, M> {
    names: [&'static str; N],
    series: Arc<RwLock<BTreeMap<[&'static str; N], M>>>,
}

impl<const N: usize, M: Clone + Default> Family<N, M> {
    /// No series yet, of labels with these names.
    pub(super) fn new(names: [&'static str; N]) -> Self {
        Self { names, series: Arc::default() }
    }

    /// The metric of these values, where it has a series.
    pub(super) fn known(&self, values: [&'static str; N]) -> Option<M> {
        self.series.read().unwrap_or_else(PoisonError::into_inner).get(&values).cloned()
    }

    /// The metric of these values, which has a series from now on.
    pub(super) fn of(&self, values: [&'static str; N]) -> M {
        self.known(values).unwrap_or_else(|| {
            let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
            series.entry(values).or_default().clone()
        })
    }
}

impl<const N: usize, M: EncodeMetric + TypedMetric> EncodeMetric for Family<N, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (values, metric) in &*self.series.read().unwrap_or_else(PoisonError::into_inner) {
            let mut value = values.iter();
            let labels = self.names.map(|name| (name, value.next().copied().unwrap_or_default()));
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }

    fn is_empty(&self) -> bool {
        self.series.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl<const N: usize, M: TypedMetric> TypedMetric for Family<N, M> {
    const TYPE: MetricType = M::TYPE;
}
