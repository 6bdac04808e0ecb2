//! Writes the Cache-Status field, RFC 9211: what the cache did with one request.
//!
//! It must not know why; the decision is made elsewhere and arrives here as a value. It never
//! writes `key` or `detail`, which would tell a stranger what is worth attacking.

use http::{HeaderMap, HeaderValue};

/// Why a request went on to the upstream, the `fwd` parameter of RFC 9211 §2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Nothing is stored for this URI.
    UriMiss,
    /// Something is stored for this URI, but for a different request (RFC 9111 §4.1).
    VaryMiss,
    /// What is stored is no longer fresh.
    Stale,
    /// The request itself refused what is stored, for instance by `no-cache`.
    Request,
    /// The cache was not asked: a body, a range, an outage.
    Bypass,
    /// The method is not one that a cache may answer.
    Method,
}

/// What became of a request, as Cache-Status reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// Answered from the cache, with this many seconds of freshness left.
    Hit { ttl: u64 },
    /// Forwarded; `stored` says that the answer is being kept.
    Forwarded { why: Forward, stored: bool },
}

impl CacheStatus {
    /// The member that this gateway appends to Cache-Status, RFC 9211 §2.
    #[must_use]
    pub fn header(self) -> HeaderValue {
        let (why, stored) = match self {
            Self::Hit { ttl } => {
                // Structured-field integers end at fifteen digits, RFC 9651 §3.3.1.
                let ttl = ttl.min(999_999_999_999_999);
                return HeaderValue::from_maybe_shared(format!("portcullis; hit; ttl={ttl}"))
                    .unwrap_or(HeaderValue::from_static("portcullis; hit"));
            }
            Self::Forwarded { why, stored } => (why, stored),
        };
        HeaderValue::from_static(match (why, stored) {
            (Forward::UriMiss, false) => "portcullis; fwd=uri-miss",
            (Forward::UriMiss, true) => "portcullis; fwd=uri-miss; stored",
            (Forward::VaryMiss, false) => "portcullis; fwd=vary-miss",
            (Forward::VaryMiss, true) => "portcullis; fwd=vary-miss; stored",
            (Forward::Stale, false) => "portcullis; fwd=stale",
            (Forward::Stale, true) => "portcullis; fwd=stale; stored",
            (Forward::Request, false) => "portcullis; fwd=request",
            (Forward::Request, true) => "portcullis; fwd=request; stored",
            (Forward::Bypass, false) => "portcullis; fwd=bypass",
            (Forward::Bypass, true) => "portcullis; fwd=bypass; stored",
            (Forward::Method, false) => "portcullis; fwd=method",
            (Forward::Method, true) => "portcullis; fwd=method; stored",
        })
    }
}

impl Forward {
    /// The same as a word for logs and metrics.
    #[must_use]
    pub fn verdict(self) -> &'static str {
        match self {
            Self::UriMiss => "miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Bypass => "bypass",
            Self::Method => "method",
        }
    }
}

/// Appends this gateway's member to whatever caches nearer to the origin said (RFC 9211 §2).
pub fn append_status(headers: &mut HeaderMap, status: CacheStatus) {
    headers.append("cache-status", status.header());
}
