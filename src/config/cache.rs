//! `cache = { … }` of a route: what is kept, for how long, and for whom.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::query::{self, Query};
use super::reader::Section;
use super::value::{
    GIB, MIB, Mistake, Read, choice, duration, duration_or_zero, echo, field_name, flag, size,
    string,
};
use super::warm::{self, Warm};
use crate::base::claim::Found;
use crate::base::facts::{Caller, Identity};

/// How long a response is still sent when its upstream gives no answer at all.
const STALE_WHEN_DISCONNECTED: Duration = Duration::from_secs(60);
/// The longest that an error is kept.
const ERROR_TTL: Duration = Duration::from_secs(10);

/// `cache = { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Freshness of responses that state none of their own.
    pub ttl: Option<Duration>,
    /// The upstream ignores the identity that the gateway injects.
    pub shared: bool,
    /// Parts of the identity that the response depends on (`claim:NAME`, the names alone).
    pub partition: Vec<String>,
    /// Largest stored body, in bytes.
    pub max_bytes: u64,
    /// How long a stale response is sent while a new one is fetched, where it does not say.
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale response is sent in place of an error, where it does not say.
    pub stale_if_error: Option<Duration>,
    /// How long a stale response is sent when the upstream gives no answer; zero for never.
    pub stale_when_disconnected: Duration,
    /// The last part of its lifetime, in percent, in which what is asked for again is fetched anew.
    pub refresh_ahead: Option<u8>,
    /// Whether a response without a lifetime gets a tenth of its age.
    pub heuristic: bool,
    /// What becomes of responses that set a cookie.
    pub set_cookie: SetCookie,
    /// The longest that a status from 400 on is kept; zero for not at all.
    pub error_ttl: Duration,
    /// Lifetimes of error statuses that state none of their own.
    pub negative: BTreeMap<u16, Duration>,
    /// Whether clients cannot ask for newer answers, or for older ones.
    pub ignore_request_directives: bool,
    /// Which parameters of a query make no difference.
    pub query: Option<Query>,
    /// Whether clients' conditions go to the upstream where nothing is stored.
    pub forward_conditions: bool,
    /// Which answers to writes are stored as what a read would be answered with.
    pub write_through: WriteThrough,
    /// What is fetched before anybody asks for it.
    pub warm: Option<Warm>,
}

/// `write_through = "off" | "content-location" | "always"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteThrough {
    /// None.
    Off,
    /// Those that say so (RFC 9110 §8.7): their `Content-Location` is the URL that was written.
    ContentLocation,
    /// All that have content: the operator vouches for it.
    Always,
}

/// `set_cookie = "explicit" | "store" | "never"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCookie {
    /// Kept where the response says that it is for everybody.
    Explicit,
    /// Kept where the response states a lifetime.
    Store,
    /// Never kept.
    Never,
}

impl Default for Cache {
    /// The safe choice for every key.
    fn default() -> Self {
        Self {
            ttl: None,
            shared: false,
            partition: Vec::new(),
            max_bytes: MIB,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_when_disconnected: STALE_WHEN_DISCONNECTED,
            refresh_ahead: None,
            heuristic: false,
            set_cookie: SetCookie::Explicit,
            error_ttl: ERROR_TTL,
            negative: BTreeMap::new(),
            ignore_request_directives: false,
            query: None,
            forward_conditions: false,
            write_through: WriteThrough::Off,
            warm: None,
        }
    }
}

impl Cache {
    /// Whether the operator has settled who may see an answer given to an identified caller.
    pub fn settles_identity(&self) -> bool {
        self.shared || !self.partition.is_empty()
    }

    /// Whether this caller's entries are nobody else's: the partition names the subject, and the
    /// caller has one. Only then may what is `private` be stored.
    #[must_use]
    pub fn is_per_user(&self, caller: &Caller) -> bool {
        let names_subject = self.partition.iter().any(|name| name == "sub");
        let has_subject = |caller: &Identity| {
            caller.find("sub").and_then(Found::scalar).is_some_and(|subject| !subject.is_empty())
        };
        names_subject && caller.as_deref().is_some_and(has_subject)
    }
}

/// Reads `cache = { … }`.
pub(super) fn read(cache: &mut Section<'_>) -> Cache {
    let set_cookie = choice(&[
        ("explicit", SetCookie::Explicit),
        ("store", SetCookie::Store),
        ("never", SetCookie::Never),
    ]);
    let write_through = [
        ("off", WriteThrough::Off),
        ("content-location", WriteThrough::ContentLocation),
        ("always", WriteThrough::Always),
    ];
    let negative = cache.map("negative", error_status, |ttl| ttl.read(duration));
    let default = Cache::default();
    Cache {
        ttl: cache.get("ttl", duration_or_zero),
        shared: cache.or("shared", default.shared, flag),
        partition: cache.list("partition", partition).unwrap_or_default(),
        max_bytes: cache.or("max_bytes", default.max_bytes, size(1..=GIB / 4)),
        stale_while_revalidate: cache.get("stale_while_revalidate", duration_or_zero),
        stale_if_error: cache.get("stale_if_error", duration_or_zero),
        stale_when_disconnected: cache.or(
            "stale_when_disconnected",
            default.stale_when_disconnected,
            duration_or_zero,
        ),
        refresh_ahead: cache.get("refresh_ahead", percent),
        heuristic: cache.or("heuristic", default.heuristic, flag),
        set_cookie: cache.or("set_cookie", default.set_cookie, set_cookie),
        error_ttl: cache.or("error_ttl", default.error_ttl, duration_or_zero),
        negative: negative
            .into_iter()
            .filter_map(|(status, ttl)| Some((status.parse().ok()?, ttl)))
            .collect(),
        ignore_request_directives: cache.or(
            "ignore_request_directives",
            default.ignore_request_directives,
            flag,
        ),
        query: cache.optional("query", query::read),
        forward_conditions: cache.or("forward_conditions", default.forward_conditions, flag),
        write_through: cache.or("write_through", default.write_through, choice(&write_through)),
        warm: cache.optional("warm", warm::read),
    }
}

/// A status that may be kept without its word. The ones that a client can provoke for everybody by
/// the form of its request are not among them.
fn error_status(text: &str) -> Read<String> {
    let code = text.parse().ok().filter(|code: &u16| (400..=599).contains(code));
    match code {
        Some(400 | 401 | 403 | 407 | 412 | 413 | 414 | 416 | 417 | 431) => {
            let what = format!("{text} depends on who asks, and how, and would be everybody's");
            Err(Mistake::new(what, "remove it: only the response itself may say how long it holds"))
        }
        Some(code) if code.to_string() == text => Ok(text.to_owned()),
        _ => {
            let what = format!("{} is not a status of an error", echo(text));
            Err(Mistake::new(what, "write one from \"400\" to \"599\", such as \"404\""))
        }
    }
}

/// A share: whole percents, neither none nor all.
fn percent(value: &DeValue<'_>) -> Read<u8> {
    const EXAMPLE: &str = "a percentage in quotes, such as \"10%\"";
    let text = string(value, EXAMPLE)?;
    let number = text.strip_suffix('%').and_then(|digits| digits.parse::<u8>().ok());
    match number.filter(|number| format!("{number}%") == text && (1..=99).contains(number)) {
        Some(number) => Ok(number),
        None => {
            let what = format!("{} is not a percentage of a lifetime", echo(text));
            let remedy = "write a whole percentage from \"1%\" to \"99%\", such as \"10%\"";
            Err(Mistake::new(what, remedy))
        }
    }
}

fn partition(value: &DeValue<'_>) -> Read<String> {
    const EXAMPLE: &str = "\"claim:NAME\"";
    let text = string(value, EXAMPLE)?;
    match text.split_once(':') {
        Some(("claim", name)) => field_name(name),
        _ => {
            let what = format!("{} cannot part a cache", echo(text));
            Err(Mistake::new(what, format!("write {EXAMPLE}")))
        }
    }
}
