//! Writes the Cache-Status field, RFC 9211: what the cache did with one request.
//!
//! It must not know why; the decision is made elsewhere and arrives here as a value. `key` and
//! `detail` tell a stranger what is worth attacking: whoever fills them in has made sure that the
//! client may know.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The largest structured-field integer, RFC 9651 §3.3.1.
const INTEGER_MAX: i64 = 999_999_999_999_999;

/// Why a request went on to the upstream, the `fwd` parameter of RFC 9211 §2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Nothing is stored for this URI.
    UriMiss,
    /// Something is stored for this URI, but for a different request (RFC 9111 §4.1).
    VaryMiss,
    /// Nothing usable is stored, and it is not known which of the two it was.
    Miss,
    /// What is stored is no longer fresh, or must be validated before use.
    Stale,
    /// The request itself refused what is stored, for instance by `no-cache`.
    Request,
    /// The cache was not asked: a body, a condition that only the origin can judge, an outage.
    Bypass,
    /// The method is not one that a cache may answer.
    Method,
}

/// What became of a request, as Cache-Status reports it. The two kinds exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStatus<'a> {
    /// Why it was forwarded; none for a hit (RFC 9211 §2.1, §2.2).
    pub forward: Option<Forward>,
    /// The status that the upstream gave, where it is not the one that the client gets: 304 of a
    /// validation, for instance (§2.3).
    pub forward_status: Option<u16>,
    /// Seconds of freshness left; below zero once it is stale (§2.4).
    pub ttl: Option<i64>,
    /// The upstream's answer is being kept (§2.5).
    pub stored: bool,
    /// Whether waiting for another request's answer to the same question helped; none where it was
    /// not tried (§2.6).
    pub collapsed: Option<bool>,
    /// The cache key (§2.7), for trusted clients only.
    pub key: Option<&'a str>,
    /// What else there is to know (§2.8), for trusted clients only.
    pub detail: Option<&'a str>,
}

impl CacheStatus<'_> {
    /// Answered from the cache, with so many seconds of freshness left.
    #[must_use]
    pub fn hit(ttl: i64) -> Self {
        Self { ttl: Some(ttl), ..Self::default() }
    }

    /// Forwarded; `stored` says that the answer is being kept.
    #[must_use]
    pub fn forwarded(why: Forward, stored: bool) -> Self {
        Self { forward: Some(why), stored, ..Self::default() }
    }

    /// The member that this gateway appends to Cache-Status, RFC 9211 §2.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        let mut text = String::with_capacity(64);
        text.push_str("portcullis; ");
        match self.forward {
            None => text.push_str("hit"),
            Some(why) => text.extend(["fwd=", why.token()]),
        }
        // Writing to a String cannot fail.
        if let (Some(_), Some(status)) = (self.forward, self.forward_status) {
            let _ = write!(text, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(text, "; ttl={}", ttl.clamp(-INTEGER_MAX, INTEGER_MAX));
        }
        if self.forward.is_some() {
            text.push_str(if self.stored { "; stored" } else { "" });
            text.push_str(match self.collapsed {
                Some(true) => "; collapsed",
                Some(false) => "; collapsed=?0",
                None => "",
            });
        }
        for (name, value) in [("key", self.key), ("detail", self.detail)] {
            if let Some(value) = value {
                push_string(&mut text, name, value);
            }
        }
        HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("portcullis"))
    }
}

/// A parameter with a string, RFC 9651 §3.3.3; left out if the string has what none may have.
fn push_string(text: &mut String, name: &str, value: &str) {
    if !value.bytes().all(|b| (0x20..0x7F).contains(&b)) {
        return;
    }
    let _ = write!(text, "; {name}=\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

impl Forward {
    /// The token of RFC 9211 §2.2.
    fn token(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Bypass => "bypass",
            Self::Method => "method",
        }
    }

    /// The same as a word for logs and metrics.
    #[must_use]
    pub fn verdict(self) -> &'static str {
        match self {
            Self::UriMiss => "miss",
            other => other.token(),
        }
    }
}

/// Appends this gateway's member to whatever caches nearer to the origin said (RFC 9211 §2).
pub fn append_status(headers: &mut HeaderMap, status: &CacheStatus<'_>) {
    headers.append(CACHE_STATUS, status.header());
}
