//! `split`, `sticky`, `ramp` and `rollback` of a route: which of several upstreams takes a request,
//! and when one of them takes more of them, or none.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::de::DeValue;

use super::hash_key::{HashKey, hash_key};
use super::reader::Section;
use super::value::{
    Mistake, Read, choice, count, duration, echo, parse_share, percent_beyond, share, string, text,
};
use crate::base::units::parse_positive_duration;

/// All requests of a route: shares are told in ten-thousandths.
pub const WHOLE: u16 = 10_000;
/// Most upstreams among which a route is split.
const ARMS_MAX: usize = 8;
/// Most steps of a ramp.
const STEPS_MAX: usize = 32;
/// Shortest and longest time that a roll-back looks back upon.
const WINDOW_MIN: Duration = Duration::from_secs(10);
const WINDOW_MAX: Duration = Duration::from_secs(60 * 60);

/// `split = […]`, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// At least two. The first is the base: it takes what the others do not.
    pub arms: Vec<Arm>,
    /// By what a caller stays with an upstream; `None`: each request is drawn anew.
    pub sticky: Option<HashKey>,
    /// How the share of the second arm grows; empty: not by itself.
    pub ramp: Vec<Step>,
    /// When the second arm is taken back; `None`: never by itself.
    pub rollback: Option<Rollback>,
}

/// One upstream of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// Its name.
    pub upstream: String,
    /// Its share, in ten-thousandths of all requests.
    pub share: u16,
}

/// `"10%/30m"`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// In ten-thousandths of all requests.
    pub share: u16,
    /// For how long; nothing at the last one.
    pub time: Option<Duration>,
}

/// `rollback = { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    /// How much larger its share of failures may be, in ten-thousandths of its answers.
    pub failures: u16,
    /// How long its answers may take, in percent of those of the base, at the 95th percentile.
    pub latency: u16,
    /// Of so many answers of each arm at least.
    pub answers: u32,
    /// Within this time.
    pub window: Duration,
    /// What becomes of it then.
    pub on_bad: OnBad,
}

/// What becomes of an arm that is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBad {
    /// The base takes all requests.
    Stable,
    /// Its share stays as it is, and grows no more.
    Freeze,
}

/// One arm as it is written.
struct Written {
    upstream: String,
    /// Nothing where there is none, or none that can be understood.
    weight: Option<Option<u16>>,
}

/// Reads the keys of a route.
pub(super) fn read(route: &mut Section<'_>) -> Option<Split> {
    let is_there = route.has("split");
    let written = if is_there || route.is_survey() {
        route.need_tables("split", "[{ upstream = \"NAME\", weight = 95 }, …]", read_arm)
    } else {
        Vec::new()
    };
    let sticky = route.get("sticky", hash_key);
    let ramp = route.list("ramp", step).unwrap_or_default();
    let rollback = route.optional("rollback", read_rollback);
    if route.is_survey() {
        return None;
    }
    if !is_there {
        for key in ["sticky", "ramp", "rollback"].into_iter().filter(|key| route.has(key)) {
            let remedy = "add split = [{ upstream = \"NAME\", weight = 95 }, …], or remove it";
            route.problem(key, "there is no split that it could be about", remedy);
        }
        return None;
    }
    if route.has("upstream") {
        let remedy = "remove it: the first upstream of split takes what the others do not";
        route.problem("upstream", "is beside split", remedy);
    }
    check_ramp(route, &ramp, sticky.as_ref());
    let is_ramped = route.has("ramp");
    let arms = arms(route, written, is_ramped)?;
    if arms.len() > 2 && (is_ramped || rollback.is_some()) {
        let key = if is_ramped { "ramp" } else { "rollback" };
        let remedy = "split between two upstreams: the base, and the one that is tried";
        route.problem(key, "is about one upstream beside the base, and there are more", remedy);
    }
    Some(Split { arms, sticky, ramp, rollback })
}

fn read_arm(arm: &mut Section<'_>) -> Option<Written> {
    let upstream = arm.need("upstream", "\"NAME\", one of [upstreams]", text);
    let is_there = arm.has("weight");
    let weight = arm.get("weight", count(0..=u64::from(WHOLE)));
    let weight = is_there.then_some(weight);
    Some(Written { upstream: upstream.unwrap_or_default(), weight })
}

/// The arms with their shares of all weights.
fn arms(route: &Section<'_>, written: Vec<Written>, is_ramped: bool) -> Option<Vec<Arm>> {
    // What is wrong with the arms themselves has been told.
    if written.is_empty() || written.iter().any(|arm| arm.upstream.is_empty()) {
        return None;
    }
    if !(2..=ARMS_MAX).contains(&written.len()) {
        let what = format!("names {}, and splits between 2 to {ARMS_MAX} upstreams", written.len());
        route.problem("split", what, "name the base first, then what is tried");
    }
    let names: BTreeSet<&str> = written.iter().map(|arm| &*arm.upstream).collect();
    if names.len() < written.len() {
        route.problem("split", "names an upstream twice", "name each once");
    }
    if is_ramped {
        let share = |at: usize| if at == 0 { WHOLE } else { 0 };
        let arms = written.into_iter().enumerate();
        return Some(
            arms.map(|(at, it)| Arm { upstream: it.upstream, share: share(at) }).collect(),
        );
    }
    if written.iter().any(|arm| arm.weight.is_none()) {
        route.problem("split", "has an upstream without weight", "add weight = 5, or a ramp");
        return None;
    }
    let weights = written.iter().map(|arm| arm.weight.flatten()).collect::<Option<Vec<u16>>>()?;
    let sum: u32 = weights.iter().copied().map(u32::from).sum();
    if sum == 0 {
        route.problem("split", "has no weight above 0", "write what each is to have of all");
        return None;
    }
    let share = |weight: u16| {
        let share = (u32::from(weight) * u32::from(WHOLE) + sum / 2) / sum;
        u16::try_from(share).unwrap_or(WHOLE)
    };
    let arms = written.into_iter().zip(weights);
    Some(arms.map(|(it, weight)| Arm { upstream: it.upstream, share: share(weight) }).collect())
}

fn check_ramp(route: &Section<'_>, ramp: &[Step], sticky: Option<&HashKey>) {
    if ramp.is_empty() {
        return;
    }
    if sticky.is_none() && !route.has("sticky") {
        let remedy = "add sticky = \"claim:sub\", or \"cookie:NAME\", \"header:NAME\", \"address\"";
        let what = "callers would go back and forth between the upstreams without sticky";
        route.problem("ramp", what, remedy);
    }
    if ramp.len() > STEPS_MAX {
        let remedy = format!("write at most {STEPS_MAX}");
        route.problem("ramp", "has too many steps", remedy);
    }
    if ramp.windows(2).any(|pair| matches!(pair, [a, b] if a.share >= b.share)) {
        let remedy = "write each share larger than the one before: callers move one way only";
        route.problem("ramp", "does not grow from step to step", remedy);
    }
    let (last, others) = ramp.split_last().map_or((None, ramp), |(it, rest)| (Some(it), rest));
    if last.is_some_and(|it| it.time.is_some()) || others.iter().any(|it| it.time.is_none()) {
        let remedy = "write a time for each but the last, as in [\"1%/10m\", \"100%\"]";
        route.problem("ramp", "has a last step that ends, or another one that does not", remedy);
    }
}

fn read_rollback(rollback: &mut Section<'_>) -> Rollback {
    let window = rollback.or("window", Duration::from_secs(60), duration);
    if !(WINDOW_MIN..=WINDOW_MAX).contains(&window) {
        let remedy = "write a time from \"10s\" to \"1h\"";
        rollback.problem("window", "is too short or too long to judge by", remedy);
    }
    Rollback {
        failures: rollback.or("failures", WHOLE / 50, share),
        latency: rollback.or("latency", 150, percent_beyond(101..=10_000)),
        answers: rollback.or("answers", 100, count(10..=1_000_000)),
        window,
        on_bad: rollback.or(
            "on_bad",
            OnBad::Stable,
            choice(&[("stable", OnBad::Stable), ("freeze", OnBad::Freeze)]),
        ),
    }
}

/// `"10%/30m"`, or `"100%"` as the last.
fn step(value: &DeValue<'_>) -> Read<Step> {
    const EXAMPLE: &str = "a share and a time in quotes, such as \"10%/30m\"";
    let text = string(value, EXAMPLE)?;
    let (percent, time) = match text.split_once('/') {
        None => (text, None),
        Some((percent, time)) => (percent, Some(time)),
    };
    let wrong =
        || Mistake::new(format!("{} is not a step", echo(text)), format!("write {EXAMPLE}"));
    let share = parse_share(percent).ok_or_else(wrong)?;
    let time = time.map(|time| parse_positive_duration(time).map_err(|_| wrong())).transpose()?;
    Ok(Step { share, time })
}
