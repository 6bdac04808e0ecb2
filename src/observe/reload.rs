//! Which configuration is in force, and what became of the last attempt to put another one there.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::family::Family;
use super::series::gauge;

/// Digits of a SHA-256 that make the number: 48 bits, which a floating-point number holds exactly.
const DIGITS: usize = 12;

/// See the module.
#[derive(Debug)]
pub(super) struct ReloadMeter {
    results: Family<1, Counter>,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    is_successful: bool,
    /// Unix seconds of when what is in force was put in force.
    since: f64,
    /// The beginning of its file's SHA-256; nothing where there is no file.
    hash: Option<i64>,
}

impl Default for ReloadMeter {
    /// What a process starts with is in force.
    fn default() -> Self {
        let now = Now { is_successful: true, since: unix_now(), hash: None };
        let meter = Self { results: Family::new(["result"]), now: Mutex::new(now) };
        for result in ["applied", "refused"] {
            meter.results.of([result]).inc_by(0);
        }
        meter
    }
}

impl ReloadMeter {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The SHA-256 of the file in force, in hexadecimal.
    pub(super) fn is_of(&self, sha256: &str) {
        self.now().hash = sha256.get(..DIGITS).and_then(|it| i64::from_str_radix(it, 16).ok());
    }

    /// A reload put a file with this SHA-256 in force.
    pub(super) fn applied(&self, sha256: &str) {
        self.results.of(["applied"]).inc();
        let mut now = self.now();
        (now.is_successful, now.since) = (true, unix_now());
        drop(now);
        self.is_of(sha256);
    }

    /// Whether the last reload was refused.
    pub(super) fn is_refused(&self) -> bool {
        !self.now().is_successful
    }

    /// Unix seconds of when what is in force was put in force.
    pub(super) fn since(&self) -> f64 {
        self.now().since
    }

    /// A reload left what was in force.
    pub(super) fn refused(&self) {
        self.results.of(["refused"]).inc();
        self.now().is_successful = false;
    }
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Collector for ReloadMeter {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Configuration reloads, by result.";
        let kind = self.results.metric_type();
        let results = encoder.encode_descriptor("reloads", help, None, kind)?;
        self.results.encode(results)?;
        let Now { is_successful, since, hash } = *self.now();
        let help = "Whether the last reload was applied (1) or refused (0); 1 before the first.";
        let name = "config_last_reload_successful";
        gauge(&mut encoder, name, help, is_successful.into())?;
        let (name, help) = (
            "config_last_reload_success_timestamp",
            "When the configuration in force was applied, Unix time.",
        );
        let since = ConstGauge::new(since);
        let (unit, kind) = (Some(&Unit::Seconds), since.metric_type());
        since.encode(encoder.encode_descriptor(name, help, unit, kind)?)?;
        let help = "The first 48 bits of the SHA-256 of the file in force, with those that it \
                    includes: gateways with one value have the same files. What variables and \
                    files of secrets say is not in it.";
        let hash = hash.map(ConstGauge::new);
        let value = encoder.encode_descriptor("config_hash", help, None, kind)?;
        hash.map_or(Ok(()), |hash| hash.encode(value))
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn what_was_read_from_no_file_has_no_number() {
        let meter = std::sync::Arc::new(ReloadMeter::default());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(std::sync::Arc::clone(&meter)));
        let number = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
            let line = text.lines().find_map(|line| line.strip_prefix("config_hash "));
            line.map(str::to_owned)
        };
        assert_eq!(number(), None);
        meter.is_of("00000000001aff");
        assert_eq!(number().as_deref(), Some("26"));
        meter.applied("ffffffffffff00");
        assert_eq!(number().as_deref(), Some("281474976710655"));
        meter.is_of("short");
        assert_eq!(number(), None);
    }
}
