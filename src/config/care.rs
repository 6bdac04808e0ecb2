//! `[upstreams.NAME.health]`, `.eject` and `.breaker`: what becomes of servers that fail.

use std::time::Duration;

use http::uri::PathAndQuery;
use toml::de::DeValue;

use super::reader::Section;
use super::rewrite::{self, Fallback};
use super::value::{Mistake, Read, count, duration, duration_or_zero, echo, flag, percent, string};

/// The share of servers below which all are used, unless it is written, in percent.
pub const PANIC_DEFAULT: u8 = 50;

/// What becomes of servers that fail, beside that they are avoided for `fail_timeout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Care {
    /// Asks each server regularly how it is.
    pub health: Option<Health>,
    /// Takes a server out by what its requests meet.
    pub eject: Option<Eject>,
    /// Takes the whole upstream out.
    pub breaker: Option<Breaker>,
    /// How long the share of a server grows that comes back; zero gives it all at once.
    pub slow_start: Duration,
    /// The share of servers below which all are used, whatever is known of them, in percent.
    pub panic: u8,
}

impl Care {
    /// Whether anything is to be learned from requests, or asked of servers.
    pub fn is_on(&self) -> bool {
        let tables = self.health.is_some() || self.eject.is_some() || self.breaker.is_some();
        tables || !self.slow_start.is_zero()
    }
}

/// `[upstreams.NAME.health]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub question: Question,
    /// Time from one question to the next, give or take a tenth.
    pub interval: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// How many bad answers in a row take a server out.
    pub down: u32,
    /// How many good answers in a row bring it back.
    pub up: u32,
    /// Whether a good answer brings back a server that was ejected.
    pub trusted: bool,
}

/// What a server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// `GET` of this path; a status from 200 to 399 is good.
    Path(PathAndQuery),
    /// `grpc.health.v1.Health/Check` of this service; empty for the server itself.
    Grpc(String),
}

/// `[upstreams.NAME.eject]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eject {
    /// How many failures in a row.
    pub failures: u32,
    /// Or a smaller share of good answers than this within 10 s, in percent.
    pub ratio: u8,
    /// Of so many requests at least.
    pub requests: u64,
    /// For how long the first time.
    pub time: Duration,
    /// Largest share of the servers that may be out at a time, in percent.
    pub most: u8,
}

/// `[upstreams.NAME.breaker]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// The share of failed requests from which on it opens, in percent.
    pub failures: u8,
    /// Of so many requests at least.
    pub requests: u64,
    /// Within this time.
    pub window: Duration,
    /// For how long it opens the first time.
    pub open: Duration,
    /// How many requests try it then, all of which must go well.
    pub probes: u8,
    /// What clients get while it is open, in place of a refusal.
    pub fallback: Option<Fallback>,
}

/// Reads the tables and keys.
pub(super) fn read(upstream: &mut Section<'_>) -> Care {
    Care {
        health: upstream.optional("health", read_health).flatten(),
        eject: upstream.optional("eject", read_eject),
        breaker: upstream.optional("breaker", read_breaker),
        slow_start: upstream.or("slow_start", Duration::ZERO, duration_or_zero),
        panic: upstream.or("panic", PANIC_DEFAULT, percent(0..=100)),
    }
}

fn read_health(health: &mut Section<'_>) -> Option<Health> {
    let path = health.get("path", path);
    let service = health.get("grpc", service);
    let question = match (path, service) {
        (Some(_), Some(_)) => {
            let what = "names two questions";
            health.problem("", what, "write path or grpc, and remove the other one");
            None
        }
        (Some(path), None) => Some(Question::Path(path)),
        (None, Some(service)) => Some(Question::Grpc(service)),
        (None, None) => {
            if !health.has("path") && !health.has("grpc") {
                let what = "does not say what servers are asked";
                health.problem("", what, "write path = \"/health\", or grpc = \"\"");
            }
            None
        }
    };
    let interval = health.or("interval", Duration::from_secs(5), duration);
    let timeout = health.or("timeout", Duration::from_secs(1), duration);
    if timeout > interval {
        let what = "is longer than interval, and one question is open at a time";
        health.problem("timeout", what, "write a timeout of at most interval");
    }
    let (down, up) = (health.or("down", 3, count(1..=100)), health.or("up", 2, count(1..=100)));
    let trusted = health.or("trusted", true, flag);
    question.map(|question| Health { question, interval, timeout, down, up, trusted })
}

fn read_eject(eject: &mut Section<'_>) -> Eject {
    Eject {
        failures: eject.or("failures", 5, count(1..=1_000)),
        ratio: eject.or("ratio", 50, percent(1..=100)),
        requests: eject.or("requests", 20, count(1..=1_000_000)),
        time: eject.or("time", Duration::from_secs(30), duration),
        most: eject.or("most", 50, percent(1..=100)),
    }
}

fn read_breaker(breaker: &mut Section<'_>) -> Breaker {
    const WINDOW_MIN: Duration = Duration::from_secs(1);
    let window = breaker.or("window", Duration::from_secs(10), duration);
    if window < WINDOW_MIN {
        let what = "is shorter than 1s, in which too little is seen";
        breaker.problem("window", what, "write \"1s\" or more");
    }
    Breaker {
        failures: breaker.or("failures", 50, percent(1..=100)),
        requests: breaker.or("requests", 20, count(1..=1_000_000)),
        window,
        open: breaker.or("open", Duration::from_secs(5), duration),
        probes: breaker.or("probes", 3, count(1..=63)),
        fallback: breaker.optional("fallback", rewrite::read_fallback),
    }
}

/// A path of which a request can be made.
fn path(value: &DeValue<'_>) -> Read<PathAndQuery> {
    const EXAMPLE: &str = "a path in quotes, such as \"/health\"";
    let text = string(value, EXAMPLE)?;
    let path = text.starts_with('/').then(|| text.parse::<PathAndQuery>().ok()).flatten();
    path.filter(|path| path.as_str() == text).ok_or_else(|| {
        Mistake::new(format!("{} is not a path", echo(text)), format!("write {EXAMPLE}"))
    })
}

/// The name of a gRPC service, or nothing for the server itself.
fn service(value: &DeValue<'_>) -> Read<String> {
    const EXAMPLE: &str = "its name in quotes, such as \"shop.Orders\", or \"\" for the server";
    const BYTES_MAX: usize = 120;
    let text = string(value, EXAMPLE)?;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    if text.len() > BYTES_MAX || !text.bytes().all(is_name) {
        let what = format!("{} is not the name of a service", echo(text));
        return Err(Mistake::new(what, format!("write {EXAMPLE}")));
    }
    Ok(text.to_owned())
}
