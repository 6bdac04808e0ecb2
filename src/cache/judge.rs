//! Decides what a stored answer is worth to a request, RFC 9111 §4.
//!
//! A pure function of the request, the entry and the time. It must not know how the entry was
//! found; that it is the right one (key, epochs) is for the caller to have checked.

use http::{HeaderMap, StatusCode};

use super::entry::Stored;
use super::freshness::seconds;
use super::request::Intent;
use super::status::Forward;
use super::variant::value;
use crate::config;

/// What a stored answer is worth to one request. Ages are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it: it is fresh, or as stale as the client says it takes.
    Fresh { age: u64 },
    /// Send it, and fetch a new one behind the client's back (RFC 5861 §3).
    StaleWhileRevalidate { age: u64 },
    /// It answers a different request.
    VaryMiss,
    /// It is no longer fresh, or may be used after validation only: ask the origin whether it still
    /// holds.
    Revalidate,
    /// It is fresh, but the client asks for more than that: the same question to the origin.
    RequestForbids,
}

impl Verdict {
    /// Why the request goes on to the upstream; none if it does not wait for it (RFC 9211 §2.2).
    #[must_use]
    pub fn forward(self) -> Option<Forward> {
        match self {
            Self::Fresh { .. } | Self::StaleWhileRevalidate { .. } => None,
            Self::VaryMiss => Some(Forward::VaryMiss),
            Self::Revalidate => Some(Forward::Stale),
            Self::RequestForbids => Some(Forward::Request),
        }
    }
}

/// Judges one stored answer: RFC 9111 §4.1 (Vary), §4.2 (freshness), §5.2.1 (the client's wishes).
///
/// `purged` says that a soft purge has made it stale before its time. It is stale from then on, but
/// since nobody noted when that was, only what is left of its windows by its own clock counts.
///
/// Comparisons are made in milliseconds, so that `max-age=0` is not met by an answer that is
/// merely younger than a second.
#[must_use]
pub fn judge(
    stored: &Stored,
    request: &HeaderMap,
    intent: &Intent,
    purged: bool,
    now_ms: u64,
) -> Verdict {
    if !selects(stored, request) {
        return Verdict::VaryMiss;
    }
    let remaining_ms = if purged { 0 } else { stored.remaining_ms(now_ms) };
    let age = stored.age_ms(now_ms) / 1000;
    if remaining_ms > 0 && !stored.flags.no_cache {
        if is_refused(stored, intent, remaining_ms, now_ms) {
            return Verdict::RequestForbids;
        }
        return Verdict::Fresh { age };
    }
    let stale_ms = stored.stale_ms(now_ms);
    let is_settled = stored.flags.never_stale
        || stored.flags.no_cache
        || !intent.read
        || intent.reload
        || intent.min_fresh.is_some()
        // A client that names an age takes nothing stale unless it says so (RFC 9111 §5.2.1.1).
        || intent.max_age.is_some() && intent.max_stale.is_none()
        || is_too_old(stored, intent, now_ms);
    if is_settled {
        return Verdict::Revalidate;
    }
    if !purged && intent.max_stale.is_some_and(|max| stale_ms <= in_ms(max)) {
        return Verdict::Fresh { age };
    }
    let is_taken = intent.max_stale.is_none_or(|max| stale_ms <= in_ms(max));
    if is_taken && stale_ms < in_ms(stored.swr_s) {
        return Verdict::StaleWhileRevalidate { age };
    }
    Verdict::Revalidate
}

/// Whether the entry answers this request: all fields that selected it have the same values.
#[must_use]
pub fn selects(stored: &Stored, request: &HeaderMap) -> bool {
    stored.vary.iter().all(|(name, then)| *then == value(request, name))
}

/// Whether the client refuses a fresh answer. A reload by `max-age=0` does not ask for a new copy
/// of what never changes (RFC 8246 §2.1); `no-cache` does.
fn is_refused(stored: &Stored, intent: &Intent, remaining_ms: u64, now_ms: u64) -> bool {
    let ends_too_soon = intent.min_fresh.is_some_and(|min| remaining_ms < in_ms(min));
    let is_too_old = !stored.flags.immutable && is_too_old(stored, intent, now_ms);
    !intent.read || intent.reload || ends_too_soon || is_too_old
}

fn is_too_old(stored: &Stored, intent: &Intent, now_ms: u64) -> bool {
    intent.max_age.is_some_and(|max| stored.age_ms(now_ms) > in_ms(max))
}

/// How the upstream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There was no answer: no connection, a connection that ended, a time-out.
    NoAnswer,
    /// There was this one.
    Status(StatusCode),
}

/// Whether a stored answer may be sent in place of a failure: RFC 9111 §4.2.4, RFC 5861 §4.
///
/// `purged` as for [`judge`]. The entry must be one that it did not call [`Verdict::VaryMiss`].
/// What forbids its use without validation, and a client's `no-cache`, forbid it here too.
#[must_use]
pub fn usable_after(
    failure: Failure,
    (stored, purged): (&Stored, bool),
    intent: &Intent,
    policy: &config::Cache,
    now_ms: u64,
) -> bool {
    let is_failure = match failure {
        Failure::NoAnswer => true,
        Failure::Status(status) => matches!(status.as_u16(), 500 | 502 | 503 | 504),
    };
    if !is_failure || !intent.read || intent.reload || stored.flags.no_cache {
        return false;
    }
    if stored.remaining_ms(now_ms) > 0 && !purged {
        return true;
    }
    let disconnected = match failure {
        Failure::NoAnswer => seconds(policy.stale_when_disconnected),
        Failure::Status(_) => 0,
    };
    let window = stored.sie_s.max(intent.stale_if_error.unwrap_or(0)).max(disconnected);
    !stored.flags.never_stale && stored.stale_ms(now_ms) < in_ms(window)
}

fn in_ms(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}
