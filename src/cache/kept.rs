//! Which fields of a response an entry keeps, RFC 9111 §3.1.

use http::HeaderMap;
use http::header::HeaderName;

use super::control::ResponseControl;
use super::tags;
use crate::base::http::fields::{connection_options, is_of_connection};

/// The fields of a response that an entry keeps, in their order and with repeats.
///
/// Left out: what belongs to one connection, what belongs to one exchange (the rate limits of its
/// caller), what the response reserves for one client or for use after validation, Age, which an
/// entry keeps as the moment of birth, Content-Length, which follows from the body, and tags, which
/// an entry keeps on its own. A cookie is kept: a response whose cookie is nobody else's does not
/// become an entry. So is what caches and proxies before this one reported (RFC 9211 §2).
pub(super) fn kept(headers: &HeaderMap, control: &ResponseControl) -> HeaderMap {
    let nominated: Vec<&[u8]> = connection_options(headers).collect();
    let is_nominated = |name: &HeaderName| {
        nominated.iter().any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    let is_kept = |(name, _): &(&HeaderName, _)| {
        !belongs_to_exchange(name) && !is_nominated(name) && !control.omit.contains(name)
    };
    let mut kept = HeaderMap::with_capacity(headers.len() + 1);
    for (name, value) in headers.iter().filter(is_kept) {
        kept.append(name.clone(), value.clone());
    }
    kept
}

fn belongs_to_exchange(name: &HeaderName) -> bool {
    const PREFIXES: [&str; 2] = ["ratelimit", "x-ratelimit"];
    let name = name.as_str();
    is_of_connection(name)
        || matches!(name, "age" | "cache-group-invalidation" | "content-length")
        || tags::is_tag_field(name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
