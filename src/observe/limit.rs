//! What limits count.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::series::{Described, family};
use crate::base::shard::Counters;

/// What a limit, or one of its windows, said of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOutcome {
    /// It fits.
    Pass,
    /// It is over, and the limit refuses it.
    Refuse,
    /// It is over, and the limit only watches.
    Shadow,
    /// It is over, and its upstream is told.
    Mark,
    /// It fits by what this node counts in the store's place.
    Local,
    /// The store refused its key a moment ago, and was not asked again.
    DeniedLocally,
    /// The limit does not count it.
    Exempt,
}

impl LimitOutcome {
    const ALL: [Self; 7] = [
        Self::Pass,
        Self::Refuse,
        Self::Shadow,
        Self::Mark,
        Self::Local,
        Self::DeniedLocally,
        Self::Exempt,
    ];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Refuse => "refuse",
            Self::Shadow => "shadow",
            Self::Mark => "mark",
            Self::Local => "local",
            Self::DeniedLocally => "denied_locally",
            Self::Exempt => "exempt",
        }
    }
}

/// What one limit, or one of its windows, counts.
#[derive(Debug)]
pub struct LimitMeter {
    limit: String,
    checks: Counters<{ LimitOutcome::ALL.len() }>,
}

/// A limit in force, and what it does to requests over it.
pub(super) type LimitInForce = (Arc<LimitMeter>, LimitOutcome);

impl LimitMeter {
    pub(super) fn new(limit: &str) -> Self {
        Self { limit: limit.to_owned(), checks: Counters::default() }
    }

    /// The limit that it counts for.
    pub(super) fn limit(&self) -> &str {
        &self.limit
    }

    /// The limit has looked at a request.
    pub fn count(&self, outcome: LimitOutcome) {
        self.checks.add(outcome as usize, 1);
    }

    fn sum(&self, outcome: LimitOutcome) -> u64 {
        self.checks.sum(outcome as usize)
    }

    fn is_used(&self) -> bool {
        LimitOutcome::ALL.into_iter().any(|outcome| self.sum(outcome) > 0)
    }
}

/// Writes the families of all limits that were used; `near` has the keys near each.
pub(super) fn encode(
    limits: &[LimitInForce],
    near: &BTreeMap<String, usize>,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let used = limits.iter().filter(|(meter, _)| meter.is_used());
    // Nobody sees the first of something in a series that begins with it.
    let checks = used.clone().flat_map(|(meter, over)| {
        let sums = LimitOutcome::ALL.into_iter().map(|outcome| (outcome, meter.sum(outcome)));
        let told =
            sums.filter(move |(it, sum)| *sum > 0 || *it == LimitOutcome::Pass || it == over);
        told.map(|(outcome, sum)| {
            let labels = [("limit", meter.limit()), ("outcome", outcome.word())];
            (labels, ConstCounter::new(sum))
        })
    });
    let help = "Requests that a limit has looked at, by limit and outcome.";
    family(encoder, &Described::new("limit_checks", help), checks)?;
    let keys = used.map(|(meter, _)| {
        let count = near.get(meter.limit()).copied().unwrap_or_default();
        let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        ([("limit", meter.limit())], count)
    });
    let help = "Keys of which 80 % of a limit or more were in use within the last minute, as far \
                as this gateway knows.";
    family(encoder, &Described::new("limit_keys_near", help), keys)
}
