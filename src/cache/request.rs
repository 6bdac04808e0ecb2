//! Decides what a request allows the cache to do, RFC 9111 §4 and §5.2.1.

use http::header::{HeaderName, RANGE};
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, Method};

use super::control::RequestControl;
use super::status::Forward;
use crate::config;

/// Whether a field makes the answer to a GET another one than that to the plain request: by a
/// condition, or because some frameworks replace the method by it, so that it may be a DELETE.
fn is_special(name: &HeaderName) -> bool {
    matches!(*name, IF_MATCH | IF_UNMODIFIED_SINCE) || is_method_override(name.as_str())
}

/// Whether some frameworks take the method from this field.
pub(super) fn is_method_override(name: &str) -> bool {
    matches!(name, "x-http-method-override" | "x-http-method" | "x-method-override")
}

/// What a request allows the cache to do, RFC 9111 §4 and §5.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// Whether a stored answer may be looked at.
    pub read: bool,
    /// Whether the upstream's answer may be kept as an entry.
    pub store: bool,
    /// The request says `no-store`: nothing that belongs to it is kept, not even a new lifetime.
    pub no_store: bool,
    /// The request says `no-cache`: a stored answer may be used after validation only.
    pub reload: bool,
    /// The request must not be forwarded: without a usable stored answer it is a 504.
    pub only_if_cached: bool,
    /// The oldest answer that the client accepts, in seconds.
    pub max_age: Option<u32>,
    /// How long, in seconds, the answer must stay fresh for the client.
    pub min_fresh: Option<u32>,
    /// How far, in seconds, beyond its lifetime the client takes an answer.
    pub max_stale: Option<u32>,
    /// The same, where the upstream fails (RFC 5861 §4).
    pub stale_if_error: Option<u32>,
    /// What to report if the request is forwarded and nothing stored was looked at.
    pub forward: Forward,
}

/// Reads what a request allows. Only GET and HEAD without a body take part.
///
/// A request with a body, If-Match, If-Unmodified-Since or a method override passes by in both
/// directions: its answer is not the answer to the plain request. A Range does take part: it is
/// cut from a complete answer.
///
/// Where the route ignores request directives, those that demand newer or allow older answers
/// count for nothing. `no-store` and `only-if-cached` count all the same: they cost the upstream
/// nothing.
#[must_use]
pub fn lookup(
    policy: &config::Cache,
    method: &Method,
    headers: &HeaderMap,
    has_body: bool,
) -> Intent {
    let control = RequestControl::of(headers);
    let plain = Intent {
        read: true,
        store: method == Method::GET && !control.no_store,
        no_store: control.no_store,
        reload: control.no_cache,
        only_if_cached: control.only_if_cached,
        max_age: control.max_age,
        min_fresh: control.min_fresh,
        max_stale: control.max_stale,
        stale_if_error: control.stale_if_error,
        forward: Forward::UriMiss,
    };
    let aside = |forward| Intent { read: false, store: false, forward, ..plain };
    if method != Method::GET && method != Method::HEAD {
        return Intent { only_if_cached: false, ..aside(Forward::Method) };
    }
    if has_body || headers.keys().any(is_special) {
        return aside(Forward::Bypass);
    }
    if policy.ignore_request_directives {
        return Intent {
            reload: false,
            max_age: None,
            min_fresh: None,
            max_stale: None,
            stale_if_error: None,
            ..plain
        };
    }
    plain
}

/// Whether a request is for a part of a representation, or conditional (RFC 9110 §13.1).
#[must_use]
pub fn is_partial(headers: &HeaderMap) -> bool {
    let is_condition =
        |name: &HeaderName| matches!(*name, IF_NONE_MATCH | IF_MODIFIED_SINCE | IF_RANGE | RANGE);
    headers.keys().any(is_condition)
}

/// Whether a client asks whether its copy is still good (RFC 9110 §13.1).
#[must_use]
pub fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE)
}

/// Makes a request for the whole of a representation of a client's request for a part of it, or of
/// a conditional one: what comes back can be kept, and the client's answer is made from that.
pub fn for_fill(headers: &mut HeaderMap) {
    if is_partial(headers) {
        for_whole(headers);
        headers.remove(IF_NONE_MATCH);
        headers.remove(IF_MODIFIED_SINCE);
    }
}

/// Makes a request for the whole of a request for a part; its conditions stay.
pub fn for_whole(headers: &mut HeaderMap) {
    headers.remove(RANGE);
    headers.remove(IF_RANGE);
}
