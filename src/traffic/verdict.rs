//! Whether an arm is worse than the base, by what both have answered in the same time. What could
//! be chance is none: a canary that goes back and forth is worse than one that comes late.

use std::time::Duration;

use super::fleet::Counts;
use super::window::Sum;
use crate::config::{Rollback, WHOLE};

/// Standard deviations beyond which a difference is no chance.
const SURE: f64 = 3.0;
/// The share of answers beyond the 95th percentile.
const BEYOND_P95: f64 = 0.05;
/// By how much the 95th percentile must be longer, whatever the base's is.
const SLOWER_MIN: Duration = Duration::from_millis(5);

/// What is bad.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bad {
    /// Its share of failures, and that of the base, of 1.
    Failures(f64, f64),
    /// Its 95th percentile, and that of the base.
    Latency(Duration, Duration),
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failures(own, base) => {
                let (own, base) = (own * 100.0, base * 100.0);
                write!(f, "{own:.1}% of its answers failed, and {base:.1}% of the base's")
            }
            Self::Latency(own, base) => {
                write!(f, "its answers took {own:?}, and the base's {base:?} (p95)")
            }
        }
    }
}

/// What is bad of an arm, if anything surely is: failures by the answers of all gateways, and times
/// by those of this one.
pub(super) fn judge(rule: &Rollback, base: &Sum, own: &Sum) -> Option<Bad> {
    failing(rule, base.of_all(), own.of_all()).or_else(|| slow(rule, base, own))
}

fn failing(rule: &Rollback, base: Counts, own: Counts) -> Option<Bad> {
    if base.answers < rule.answers || own.answers < rule.answers {
        return None;
    }
    let share = |counts: Counts| f64::from(counts.failures) / f64::from(counts.answers);
    let (own_share, base_share) = (share(own), share(base));
    let allowed = f64::from(rule.failures) / f64::from(WHOLE);
    let is_bad = own_share > base_share + allowed && deviations(base, own) > SURE;
    is_bad.then_some(Bad::Failures(own_share, base_share))
}

fn slow(rule: &Rollback, base: &Sum, own: &Sum) -> Option<Bad> {
    if base.timed() < rule.answers || own.timed() < rule.answers {
        return None;
    }
    let (own_p95, base_p95) = (own.p95()?, base.p95()?);
    let limit = (base_p95 * u32::from(rule.latency) / 100).max(base_p95 + SLOWER_MIN);
    let slow = f64::from(own.slower_than(limit)) / f64::from(own.timed());
    let deviation = (BEYOND_P95 * (1.0 - BEYOND_P95) / f64::from(own.timed())).sqrt();
    let is_slow = own_p95 > limit && (slow - BEYOND_P95) / deviation > SURE;
    is_slow.then_some(Bad::Latency(own_p95, base_p95))
}

/// By how many standard deviations more of the arm's answers failed, if both were alike
/// (two-proportion z-test).
fn deviations(base: Counts, own: Counts) -> f64 {
    let (base_all, own_all) = (f64::from(base.answers), f64::from(own.answers));
    let (base_bad, own_bad) = (f64::from(base.failures), f64::from(own.failures));
    let pooled = (base_bad + own_bad) / (base_all + own_all);
    let variance = pooled * (1.0 - pooled) * (1.0 / base_all + 1.0 / own_all);
    let difference = own_bad / own_all - base_bad / base_all;
    if variance > 0.0 {
        difference / variance.sqrt()
    } else if difference > 0.0 {
        f64::INFINITY
    } else {
        0.0
    }
}
