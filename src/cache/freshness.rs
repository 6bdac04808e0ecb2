//! What is known of a response's reuse: when it was made, how long it holds, and for which
//! requests. Values only; who decides them is in `storing`, who judges by them in `judge`.

use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;

/// No entry is used for longer than this: the epochs that could withdraw it live eight days.
pub(super) const RESIDENCE_MAX_S: u32 = 7 * 24 * 60 * 60;

/// What a response said about its reuse beyond its lifetime.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// It may be used after validation only.
    pub no_cache: bool,
    /// It may not be used stale: must-revalidate, proxy-revalidate, s-maxage or no-cache.
    pub never_stale: bool,
    /// Its content never changes while it is fresh (RFC 8246).
    pub immutable: bool,
}

/// When an answer was made, how long it holds, and for which requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// The instant at which its age was zero, in Unix milliseconds (RFC 9111 §4.2.3).
    pub born_ms: u64,
    /// The instant at which its head arrived here, in Unix milliseconds.
    pub answered_ms: u64,
    /// Seconds of freshness, counted from `born_ms` (RFC 9111 §4.2.1).
    pub lifetime_s: u32,
    /// Seconds after it in which it is sent while a new one is fetched (RFC 5861 §3).
    pub swr_s: u32,
    /// Seconds after it in which it is sent in place of an error (RFC 5861 §4).
    pub sie_s: u32,
    /// What else it said.
    pub flags: Flags,
    /// The request fields it depends on, with the values they had (RFC 9111 §4.1).
    pub vary: Vec<(HeaderName, Option<Bytes>)>,
    /// The tags under which it can be withdrawn.
    pub tags: Vec<String>,
    /// The groups of its origin under which it can be withdrawn (RFC 9875).
    pub groups: Vec<String>,
}

/// Whole seconds.
pub(super) fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
