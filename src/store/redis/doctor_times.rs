//! How far apart clocks are, and how long Redis takes: each asked often, one after the other.

use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::connect_error::ConnectError;
use super::connection::Connection;
use super::doctor_row::{Checked, SLOW_REMEDY, Verdict, lost, timed};
use super::link::now_ms;
use super::reply::server_error;
use super::scripts::Scripts;
use super::selftest::Look;
use crate::config::{self, StoreUse};
use crate::store::window::{Window, WindowSet};

/// How often each is asked.
const ASKED: usize = 200;
/// Longest time for that.
const ASKING_MAX: Duration = Duration::from_secs(8);
/// How often the clock is asked; the quickest answer counts.
const CLOCK_ASKED: usize = 5;
/// From here on clocks are watched, and from here on they are poor, in milliseconds.
const CLOCK_MS: (u64, u64) = (1000, 5000);
/// The same of the slowest hundredth of answers, as parts of `store.timeout`.
const SLOW: (f64, f64) = (0.5, 0.9);
/// The life of the key that is charged, in milliseconds.
const KEY_TTL_MS: u64 = 5000;

/// Both, of one server; `has_key` says whether keys of the look lie there. Each row is there as
/// soon as it is known: the look may be ended.
pub(super) async fn look(
    look: &Look<'_>,
    connection: &Connection,
    settings: &config::Store,
    has_key: bool,
    rows: &mut Vec<Checked>,
) {
    rows.push(clock(look, connection).await.unwrap_or_else(|error| lost("clock", &error)));
    let mut ping = Pipeline::new();
    ping.cmd("PING");
    let pings = ask(look, connection, &ping).await;
    let questions = match &pings.lost {
        None if has_key => questions(look, connection, settings).await,
        _ => None,
    };
    rows.push(latency(&pings, questions.as_ref(), settings.timeout));
}

async fn questions(
    look: &Look<'_>,
    connection: &Connection,
    settings: &config::Store,
) -> Option<Times> {
    match question(look, connection, settings).await {
        Ok(question) => Some(ask(look, connection, &question?).await),
        Err(error) => Some(Times { lost: Some(error.to_string()), ..Times::default() }),
    }
}

async fn clock(look: &Look<'_>, connection: &Connection) -> Result<Checked, ConnectError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("TIME");
    let mut best: Option<(Duration, i64)> = None;
    for _ in 0..CLOCK_ASKED {
        let before = now_ms();
        let (took, replies) = timed(look.send(connection, &pipeline)).await;
        let time = replies?.pop().unwrap_or_default();
        let Ok((seconds, micros)) = redis::from_redis_value::<(i64, i64)>(time) else { continue };
        let there = seconds.saturating_mul(1000).saturating_add(micros / 1000);
        // Half of the round trip is the way there.
        let half = i64::try_from(took.as_millis() / 2).unwrap_or(i64::MAX);
        let offset = there.saturating_sub(before).saturating_sub(half);
        if best.is_none_or(|(known, _)| took < known) {
            best = Some((took, offset));
        }
    }
    Ok(of_clock(best.map(|(_, offset)| offset)))
}

fn of_clock(offset_ms: Option<i64>) -> Checked {
    const BOUND: &str = "1 s is watched, 5 s is poor";
    let Some(offset) = offset_ms else {
        return Checked::new("clock", Verdict::Unknown, "Redis does not tell its time", BOUND);
    };
    let verdict = match offset.unsigned_abs() {
        apart if apart > CLOCK_MS.1 => Verdict::Poor,
        apart if apart > CLOCK_MS.0 => Verdict::Watch,
        _ => Verdict::Good,
    };
    let value = format!("{offset} ms apart from this machine's");
    let remedy = "have both follow the same time servers (NTP): the ends of tokens and sessions \
                  are told by both";
    Checked::new("clock", verdict, value, BOUND).or(remedy)
}

/// A question as requests ask it; nothing where this user may not.
async fn question(
    look: &Look<'_>,
    connection: &Connection,
    settings: &config::Store,
) -> Result<Option<Pipeline>, ConnectError> {
    let has = |usage| settings.uses().any(|own| own == usage);
    let mut question = Pipeline::new();
    let take = &Scripts::new().take;
    if has(StoreUse::Limits) {
        let mut load = Pipeline::new();
        load.cmd("SCRIPT").arg("LOAD").arg(take.code);
        let loaded = look.send(connection, &load).await?;
        if loaded.iter().any(|reply| server_error(reply).is_some()) {
            return Ok(None);
        }
        let set = WindowSet::new(vec![Window::new(2, Duration::from_millis(KEY_TTL_MS))]);
        let call = question.cmd("EVALSHA").arg(&take.sha).arg(1).arg(look.key("asked"));
        call.arg(set.records.as_slice()).arg(&set.ttls);
    }
    if has(StoreUse::Main) || has(StoreUse::Cache) {
        question.cmd("EXISTS").arg(look.key("asked"));
    }
    let replies = look.send(connection, &question).await?;
    let is_refused = |reply: &Value| server_error(reply).is_some();
    Ok((!replies.iter().any(is_refused)).then_some(question))
}

/// How long each of many took.
#[derive(Debug, Default)]
struct Times {
    took: Vec<Duration>,
    /// Why the next one was not answered, where that has ended the asking.
    lost: Option<String>,
}

impl Times {
    /// What this part of them stayed below.
    fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.took.clone();
        sorted.sort_unstable();
        let at = (part * sorted.len() as f64) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    fn told(&self, what: &str) -> String {
        let ms = |part| self.quantile(part).as_secs_f64() * 1e3;
        let mut told = format!("{} {what}", self.took.len());
        if !self.took.is_empty() {
            told = format!("{told}: p50 {:.2} ms, p99 {:.2} ms", ms(0.5), ms(0.99));
        }
        match &self.lost {
            Some(why) => format!("{told}, then {why}"),
            None => told,
        }
    }
}

/// What is not answered ends the asking; what was measured until then is told.
async fn ask(look: &Look<'_>, connection: &Connection, question: &Pipeline) -> Times {
    let (mut times, begin) = (Times::default(), Instant::now());
    while times.took.len() < ASKED && begin.elapsed() < ASKING_MAX {
        let (took, replies) = timed(look.send(connection, question)).await;
        if let Err(error) = replies {
            times.lost = Some(error.to_string());
            break;
        }
        times.took.push(took);
    }
    times
}

fn latency(pings: &Times, questions: Option<&Times>, most: Duration) -> Checked {
    let slowest = questions.unwrap_or(pings).quantile(0.99).as_secs_f64() / most.as_secs_f64();
    let is_lost = pings.lost.is_some() || questions.is_some_and(|it| it.lost.is_some());
    let verdict = match slowest {
        _ if is_lost => Verdict::Poor,
        part if part >= SLOW.1 => Verdict::Poor,
        part if part >= SLOW.0 => Verdict::Watch,
        _ => Verdict::Good,
    };
    let mut value = pings.told("pings");
    if let Some(questions) = questions {
        value = format!("{value}; {}", questions.told("questions"));
    }
    let bound = format!(
        "store.timeout is {} ms: p99 at 50 % of it is watched, at 90 % poor",
        most.as_millis()
    );
    Checked::new("latency", verdict, value, bound).or(SLOW_REMEDY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_watched_from_a_second_and_poor_from_five() {
        for (offset, expected) in [
            (Some(0), Verdict::Good),
            (Some(-1000), Verdict::Good),
            (Some(1001), Verdict::Watch),
            (Some(-5000), Verdict::Watch),
            (Some(-5001), Verdict::Poor),
            (Some(i64::MIN), Verdict::Poor),
            (None, Verdict::Unknown),
        ] {
            assert_eq!(of_clock(offset).verdict, expected, "{offset:?}");
        }
        assert!(of_clock(Some(9000)).remedy.contains("NTP"));
        assert_eq!(of_clock(Some(9)).remedy, "");
    }

    #[test]
    fn the_slowest_hundredth_is_compared_with_the_timeout() {
        let times = |slow_ms: u64| {
            let mut all = vec![Duration::from_millis(1); 197];
            all.extend([Duration::from_millis(slow_ms); 3]);
            Times { took: all, lost: None }
        };
        let most = Duration::from_millis(50);
        for (slow, expected) in
            [(24, Verdict::Good), (25, Verdict::Watch), (44, Verdict::Watch), (46, Verdict::Poor)]
        {
            assert_eq!(latency(&times(1), Some(&times(slow)), most).verdict, expected, "{slow}");
            assert_eq!(latency(&times(slow), None, most).verdict, expected, "{slow}");
        }
        let told = latency(&times(1), Some(&times(25)), most).value;
        let expected = "200 pings: p50 1.00 ms, p99 1.00 ms; 200 questions: p50 1.00 ms, \
                        p99 25.00 ms";
        assert_eq!(told, expected);
        assert_eq!(Times::default().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn what_is_not_answered_is_poor_and_keeps_what_was_measured() {
        let most = Duration::from_millis(50);
        let well = || Times { took: vec![Duration::from_millis(1); 9], lost: None };
        let cut = || Times { lost: Some("no answer".to_owned()), ..well() };
        let row = latency(&cut(), None, most);
        let expected = "9 pings: p50 1.00 ms, p99 1.00 ms, then no answer";
        assert_eq!((row.verdict, &*row.value), (Verdict::Poor, expected));
        let never = Times { took: Vec::new(), ..cut() };
        let row = latency(&well(), Some(&never), most);
        assert_eq!(row.verdict, Verdict::Poor);
        assert!(row.value.ends_with("; 0 questions, then no answer"), "{row:?}");
    }
}
