//! What events of applications count.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::counter::{Tally, Words};
use super::series::{Described, family};

/// How an event may end: `taken`, does not count (`ignored`), nothing or not all of it can be
/// carried out (`poison`), came before (`again`), or was not by who may send it (`refused`).
const OUTCOMES: [&str; 5] = ["taken", "ignored", "poison", "again", "refused"];

/// What the events of one source count on this node.
#[derive(Debug)]
pub struct EventMeter {
    name: String,
    outcomes: Words,
    /// Times that events were missed, or may have been.
    pub gaps: Tally,
    lag_ms: AtomicU64,
}

impl EventMeter {
    /// Of the source of this name.
    pub(super) fn new(name: &str) -> Self {
        let meter = Self {
            name: name.to_owned(),
            outcomes: Words::default(),
            gaps: Tally::default(),
            lag_ms: AtomicU64::new(0),
        };
        OUTCOMES.iter().for_each(|word| meter.outcomes.make(word));
        meter
    }

    /// Its source.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An event has ended so.
    pub fn count(&self, outcome: &'static str) {
        self.outcomes.count(outcome);
    }

    /// How often events have ended so.
    pub fn outcomes(&self) -> Vec<(&'static str, u64)> {
        self.outcomes.all().into_iter().map(|(word, count)| (word, count.get())).collect()
    }

    /// From when the last event was told to when it was done; nothing where all are done.
    pub fn lags(&self, lag: Duration) {
        let lag = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        self.lag_ms.store(lag, Ordering::Relaxed);
    }

    /// See [`Self::lags`].
    pub fn lag(&self) -> Duration {
        Duration::from_millis(self.lag_ms.load(Ordering::Relaxed))
    }
}

pub(super) fn encode(
    meters: &[Arc<EventMeter>],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let outcomes = meters.iter().flat_map(|meter| {
        let words = meter.outcomes.all().into_iter();
        words.map(|(word, count)| ([("source", &*meter.name), ("outcome", word)], count))
    });
    let help = "Events of applications, by source and outcome; poison: not all could be done.";
    family(encoder, &Described::new("events", help), outcomes)?;
    let label = |meter: &Arc<EventMeter>| [("source", meter.name.clone())];
    let lag = meters.iter().map(|it| (label(it), ConstGauge::new(it.lag().as_secs_f64())));
    let help = "How late the last event was done. Where events are read, 0 once all are done.";
    family(encoder, &Described::new("event_lag", help).in_unit(Unit::Seconds), lag)?;
    let gaps = meters.iter().map(|meter| (label(meter), meter.gaps.clone()));
    let help = "Times that events of a source were missed, or may have been.";
    family(encoder, &Described::new("event_gaps", help), gaps)
}
