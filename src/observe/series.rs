//! Writes metrics whose series are only known when somebody asks.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// What operators read of a family of series.
#[derive(Debug)]
pub(super) struct Described<'n> {
    name: &'n str,
    help: &'n str,
    unit: Option<Unit>,
}

impl<'n> Described<'n> {
    /// A family whose values have no unit.
    pub(super) fn new(name: &'n str, help: &'n str) -> Self {
        Self { name, help, unit: None }
    }

    /// The same in a unit, which becomes part of the name.
    pub(super) fn in_unit(self, unit: Unit) -> Self {
        Self { unit: Some(unit), ..self }
    }
}

/// Writes one family.
pub(super) fn family<M: EncodeMetric + TypedMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    described: &Described<'_>,
    series: impl Iterator<Item = (impl EncodeLabelSet, M)>,
) -> fmt::Result {
    let Described { name, help, unit } = described;
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), M::TYPE)?;
    for (labels, value) in series {
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Writes one gauge without labels.
pub(super) fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    let kind = value.metric_type();
    value.encode(encoder.encode_descriptor(name, help, None, kind)?)
}
