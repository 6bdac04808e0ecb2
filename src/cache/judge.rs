//! Decides what a stored answer is worth to a request, RFC 9111 §4.
//!
//! A pure function of the request, the entry and the time. It must not know how the entry was
//! found; that it is the right one (key, epochs) is for the caller to have checked.

use super::control;
use super::entry::Stored;
use super::policy::Intent;
use super::status::Forward;
use http::HeaderMap;
use http::header::{DATE, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};

/// What a stored answer is worth to one request. Ages are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Hit { age: u64 },
    /// The client has it already: send a 304.
    NotModified { age: u64 },
    /// It answers a different request.
    VaryMiss,
    /// It is no longer fresh.
    Stale,
    /// It is fresh, but the client asks for more than that.
    RequestForbids,
}

impl Verdict {
    /// Why the request goes on to the upstream; none if it does not (RFC 9211 §2.2).
    #[must_use]
    pub fn forward(self) -> Option<Forward> {
        match self {
            Self::Hit { .. } | Self::NotModified { .. } => None,
            Self::VaryMiss => Some(Forward::VaryMiss),
            Self::Stale => Some(Forward::Stale),
            Self::RequestForbids => Some(Forward::Request),
        }
    }
}

/// Judges one stored answer: RFC 9111 §4.1 (Vary), §4.2 (freshness), §4.3.2 (conditions).
///
/// Comparisons are made in milliseconds, so that `max-age=0` is not met by an answer that is
/// merely younger than a second.
#[must_use]
pub fn judge(stored: &Stored, request: &HeaderMap, intent: &Intent, now_ms: u64) -> Verdict {
    if !intent.read {
        return Verdict::RequestForbids;
    }
    let selects = stored.vary.iter().all(|(name, then)| *then == control::combined(request, name));
    if !selects {
        return Verdict::VaryMiss;
    }
    let remaining_ms = stored.remaining_ms(now_ms);
    if remaining_ms == 0 {
        return Verdict::Stale;
    }
    let age_ms = stored.age_ms(now_ms);
    let is_too_old = intent.max_age.is_some_and(|max| age_ms > in_ms(max));
    let ends_too_soon = intent.min_fresh.is_some_and(|min| remaining_ms < in_ms(min));
    if is_too_old || ends_too_soon {
        return Verdict::RequestForbids;
    }
    let age = age_ms / 1000;
    if stored.status.is_success() && client_has(stored, request) {
        Verdict::NotModified { age }
    } else {
        Verdict::Hit { age }
    }
}

fn in_ms(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}

/// Whether the request's conditions say that the client holds this answer (RFC 9110 §13.2.2).
/// If-None-Match decides alone wherever it is present, readable or not.
fn client_has(stored: &Stored, request: &HeaderMap) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let tag = stored.etag().and_then(|tag| split_tag(tag.trim_ascii())).map(|(tag, _)| tag);
        let mut lines = request.get_all(IF_NONE_MATCH).iter();
        return lines.any(|line| names_tag(line.as_bytes(), tag));
    }
    let Some(since) = control::date(request, &IF_MODIFIED_SINCE) else {
        return false;
    };
    let modified = if stored.headers.contains_key(LAST_MODIFIED) {
        control::date(&stored.headers, &LAST_MODIFIED)
    } else {
        control::date(&stored.headers, &DATE)
    };
    modified.is_some_and(|modified| modified <= since)
}

/// Whether a line of If-None-Match is `*` or lists the tag, by weak comparison
/// (RFC 9110 §8.8.3.2). What cannot be read matches nothing: the client gets the whole answer.
fn names_tag(line: &[u8], tag: Option<&[u8]>) -> bool {
    let mut rest = line.trim_ascii();
    if rest == b"*" {
        return true;
    }
    let Some(tag) = tag else {
        return false;
    };
    while let Some((candidate, after)) = split_tag(rest) {
        if candidate == tag {
            return true;
        }
        let Some(after) = after.trim_ascii_start().strip_prefix(b",") else {
            return false;
        };
        rest = after.trim_ascii_start();
    }
    false
}

/// Splits off one entity tag and yields what its quotes hold, without the mark of a weak one.
/// A tag may hold commas, and knows no escapes (RFC 9110 §8.8.3).
fn split_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quoted = text.strip_prefix(b"W/").unwrap_or(text).strip_prefix(b"\"")?;
    let end = quoted.iter().position(|b| *b == b'"')?;
    Some((&quoted[..end], &quoted[end + 1..]))
}
