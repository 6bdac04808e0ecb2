//! What is known of split routes and mirrored requests, as it is told to operators.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::series::{Described, family};

/// What is known of one split route.
#[derive(Debug, Clone, Default)]
pub struct CanaryNow {
    /// Its name.
    pub route: String,
    /// Its upstreams; the base is the first.
    pub arms: Vec<ArmNow>,
    /// How often this gateway has taken the second one back.
    pub rollbacks: u64,
    /// How many steps its ramp has.
    pub steps: usize,
    /// The step that it is at, from 1, and the time until the next one.
    pub step: Option<(usize, Option<Duration>)>,
    /// Why it was stopped, where it was.
    pub stopped: Option<String>,
}

/// What is known of one upstream of a split route.
#[derive(Debug, Clone, Default)]
pub struct ArmNow {
    /// Its name.
    pub upstream: String,
    /// Its share, in ten-thousandths of all requests.
    pub share: u16,
    /// What it has answered here.
    pub answers: u64,
    /// How many of that were failures.
    pub failures: u64,
}

/// What became of the copies of one route's requests.
#[derive(Debug, Clone)]
pub struct MirrorNow {
    /// Its name.
    pub route: String,
    /// How many, by result.
    pub results: Vec<(&'static str, u64)>,
}

pub(super) fn encode(
    canaries: &[CanaryNow],
    mirrors: &[MirrorNow],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let arms = || {
        let each = canaries.iter();
        each.flat_map(|it| {
            it.arms.iter().map(|arm| ([("route", &*it.route), ("arm", &*arm.upstream)], arm))
        })
    };
    let shares =
        arms().map(|(labels, arm)| (labels, ConstGauge::new(f64::from(arm.share) / 10_000.0)));
    let help = "The share of a split route's requests that one of its upstreams takes, of 1.";
    family(encoder, &Described::new("canary_weight", help), shares)?;
    let answers = arms().map(|(labels, arm)| (labels, ConstCounter::new(arm.answers)));
    let help = "What the upstreams of a split route were asked and has come to an end.";
    family(encoder, &Described::new("canary_answers", help), answers)?;
    let failures = arms().map(|(labels, arm)| (labels, ConstCounter::new(arm.failures)));
    let help = "Of that, server errors and no answers.";
    family(encoder, &Described::new("canary_failures", help), failures)?;
    let rollbacks = canaries.iter();
    let rollbacks = rollbacks.map(|it| ([("route", &*it.route)], ConstCounter::new(it.rollbacks)));
    let help = "Times that this gateway has taken back the second upstream of a split route.";
    family(encoder, &Described::new("rollbacks", help), rollbacks)?;
    let results = mirrors.iter().flat_map(|it| {
        let each = it.results.iter();
        each.map(|(word, count)| {
            ([("route", &*it.route), ("result", *word)], ConstCounter::new(*count))
        })
    });
    let help = "Copies of requests for another upstream: sent, failed, full (no place), too_large \
                (the body) or cut_off (the body had no end).";
    family(encoder, &Described::new("mirrors", help), results)
}
