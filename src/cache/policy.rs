//! Decides what may be asked of the cache and what may be kept in it, RFC 9111 §3 and §4.4.
//!
//! Pure functions of a request, a response and the time. It must not know where entries live,
//! how a body arrives, or what a claim is: a partition is here only the fact that one exists.

use super::control::{self, CacheControl};
use super::status::Forward;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, COOKIE,
    DATE, HeaderName, IF_MATCH, IF_UNMODIFIED_SINCE, ORIGIN, RANGE, SET_COOKIE,
};
use http::{HeaderMap, Method, StatusCode};
use std::time::Duration;

/// No entry is used for longer than this: the epochs that could withdraw it live eight days.
const RESIDENCE_MAX: u32 = 7 * 24 * 60 * 60;

/// An error is kept only this long, so that nobody can make one stick for everybody else.
const ERROR_RESIDENCE_MAX: u32 = 10;

/// Fields by which some frameworks replace the method. A GET that carries one may be a DELETE.
const METHOD_OVERRIDES: [&str; 3] =
    ["x-http-method-override", "x-http-method", "x-method-override"];

/// What the configuration of a route says about caching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Lifetime of responses that state none of their own.
    pub ttl: Option<Duration>,
    /// The operator's word that the upstream ignores who is asking.
    pub shared: bool,
    /// Names of the claims whose values are part of the key, so that each has entries of its own.
    pub partition: Vec<String>,
    /// The longest body that is kept.
    pub max_bytes: usize,
}

impl Policy {
    /// Whether the operator has settled who may see an answer given to an identified caller.
    fn settles_identity(&self) -> bool {
        self.shared || !self.partition.is_empty()
    }
}

/// What a request allows the cache to do, RFC 9111 §4 and §5.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// Whether a stored answer may be used at all.
    pub read: bool,
    /// Whether the upstream's answer may be kept.
    pub store: bool,
    /// The request must not be forwarded: without a usable stored answer it is a 504.
    pub only_if_cached: bool,
    /// The oldest answer that the client accepts, in seconds.
    pub max_age: Option<u32>,
    /// How long, in seconds, the answer must stay fresh for the client.
    pub min_fresh: Option<u32>,
    /// What to report if the request is forwarded and nothing stored was looked at.
    pub forward: Forward,
}

/// Reads what a request allows. Only GET and HEAD without a body take part.
///
/// A request with a body, a range, If-Match, If-Unmodified-Since or a method override passes by
/// in both directions: its answer is not the answer to the plain request.
#[must_use]
pub fn lookup(method: &Method, headers: &HeaderMap, has_body: bool) -> Intent {
    let aside = |forward| Intent {
        read: false,
        store: false,
        only_if_cached: false,
        max_age: None,
        min_fresh: None,
        forward,
    };
    if method != Method::GET && method != Method::HEAD {
        return aside(Forward::Method);
    }
    let control = CacheControl::of_request(headers);
    let only_if_cached = control.only_if_cached;
    let is_special = has_body
        || [RANGE, IF_MATCH, IF_UNMODIFIED_SINCE].iter().any(|name| headers.contains_key(name))
        || METHOD_OVERRIDES.iter().any(|name| headers.contains_key(*name));
    if is_special {
        return Intent { only_if_cached, ..aside(Forward::Bypass) };
    }
    Intent {
        read: !control.no_cache,
        store: method == Method::GET && !control.no_store,
        only_if_cached,
        max_age: control.max_age,
        min_fresh: control.min_fresh,
        forward: if control.no_cache { Forward::Request } else { Forward::UriMiss },
    }
}

/// The request whose answer is to be kept.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What [`lookup`] made of it.
    pub intent: &'a Intent,
    /// Its fields as they were forwarded upstream; the values that Vary selects come from here.
    pub headers: &'a HeaderMap,
    /// The gateway verified a credential, or the request had Authorization.
    pub authenticated: bool,
    /// The client sent a Cookie, even if the gateway took it away.
    pub cookie: bool,
    /// When it was sent upstream, in Unix milliseconds.
    pub sent_ms: u64,
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
    /// The request fields it depends on, with the values they had (RFC 9111 §4.1).
    pub vary: Vec<(HeaderName, Option<Bytes>)>,
}

/// Why an answer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WhyNot {
    #[error("the request does not allow storing")]
    Request,
    #[error("the status is not one that is kept")]
    Status,
    #[error("the response is a part of a representation")]
    Partial,
    #[error("the response says no-store, or its Cache-Control cannot be read")]
    NoStore,
    #[error("the response says private")]
    Private,
    #[error("the response says no-cache")]
    NoCache,
    #[error("the response sets a cookie")]
    SetCookie,
    #[error("the body is larger than the route keeps, or its length is unreadable")]
    TooLarge,
    #[error("the response varies on more than can be compared")]
    Vary,
    #[error("the caller is identified and nothing says that others may see the response")]
    Authenticated,
    #[error("the response states no lifetime and the route gives it none")]
    NoFreshness,
    #[error("the response is already stale")]
    Expired,
}

/// Decides whether an upstream's answer may be kept, from its head alone (RFC 9111 §3).
///
/// `headers` are the upstream's own, before anything was removed from them: a field that is
/// nominated by Connection may still forbid storing.
///
/// # Errors
/// The first rule that forbids it.
pub fn storable(
    policy: &Policy,
    asked: &Asked<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    answered_ms: u64,
) -> Result<Freshness, WhyNot> {
    let control = CacheControl::of_response(headers);
    check_response(policy, asked, status, headers, &control)?;
    let authenticated = asked.authenticated || asked.headers.contains_key(AUTHORIZATION);
    let is_opened = control.public || control.must_revalidate || control.s_maxage.is_some();
    if authenticated && !is_opened && !policy.settles_identity() {
        return Err(WhyNot::Authenticated);
    }
    let vary = selecting_fields(asked.headers, headers).ok_or(WhyNot::Vary)?;

    let stated = stated_lifetime(&control, headers, answered_ms);
    let identified = authenticated || asked.cookie || asked.headers.contains_key(COOKIE);
    let is_error = status.as_u16() >= 400;
    let ttl = policy
        .ttl
        .filter(|_| !is_error && (!identified || policy.settles_identity()))
        .map(|ttl| ttl.as_secs());
    let lifetime = stated.or(ttl).ok_or(WhyNot::NoFreshness)?;

    let age_ms = initial_age_ms(headers, asked.sent_ms, answered_ms);
    let age = u32::try_from(age_ms / 1000).unwrap_or(u32::MAX);
    let lifetime = u32::try_from(lifetime).unwrap_or(u32::MAX);
    if u64::from(lifetime) * 1000 <= age_ms {
        return Err(WhyNot::Expired);
    }
    // What is bounded is the time an entry is used here. An old answer with a long life keeps
    // both: its age is told truthfully and its life ends with the bound.
    let cap = if is_error { ERROR_RESIDENCE_MAX } else { RESIDENCE_MAX };
    Ok(Freshness {
        born_ms: answered_ms.saturating_sub(age_ms),
        answered_ms,
        lifetime_s: lifetime.min(age.saturating_add(cap)),
        vary,
    })
}

/// The rules that need no time: status, framing, directives, cookies, size.
fn check_response(
    policy: &Policy,
    asked: &Asked<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    control: &CacheControl,
) -> Result<(), WhyNot> {
    let refusals = [
        (!asked.intent.store, WhyNot::Request),
        (status == StatusCode::PARTIAL_CONTENT, WhyNot::Partial),
        (headers.contains_key(CONTENT_RANGE), WhyNot::Partial),
        (!matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 410), WhyNot::Status),
        (control.no_store, WhyNot::NoStore),
        (control.private, WhyNot::Private),
        (control.no_cache, WhyNot::NoCache),
        (headers.contains_key(SET_COOKIE), WhyNot::SetCookie),
        (headers.contains_key("set-cookie2"), WhyNot::SetCookie),
        (is_too_large(headers, policy.max_bytes), WhyNot::TooLarge),
    ];
    refusals.iter().find(|(broken, _)| *broken).map_or(Ok(()), |(_, why)| Err(*why))
}

fn is_too_large(headers: &HeaderMap, max_bytes: usize) -> bool {
    if !headers.contains_key(CONTENT_LENGTH) {
        return false;
    }
    let length = control::only(headers, &CONTENT_LENGTH)
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.parse::<usize>().ok());
    length.is_none_or(|length| length > max_bytes)
}

/// The fields that Vary names, with this request's values; none if no entry can be made of them.
///
/// An answer that reflects the caller's Origin depends on it, whether or not Vary says so.
fn selecting_fields(
    request: &HeaderMap,
    response: &HeaderMap,
) -> Option<Vec<(HeaderName, Option<Bytes>)>> {
    let mut names = control::vary(response)?;
    let mut allowed = response.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter();
    let reflects = request.contains_key(ORIGIN) && allowed.any(|origin| origin != "*");
    if reflects && !names.contains(&ORIGIN) {
        names.push(ORIGIN);
    }
    if names.contains(&COOKIE) || names.contains(&AUTHORIZATION) {
        return None;
    }
    let with_value = |name: HeaderName| {
        let value = control::combined(request, &name);
        (name, value)
    };
    Some(names.into_iter().map(with_value).collect())
}

/// The lifetime that the response states itself, in seconds: s-maxage, then max-age, then Expires
/// minus Date (RFC 9111 §4.2.1). Without a readable Date, the time of arrival stands in for it.
fn stated_lifetime(control: &CacheControl, headers: &HeaderMap, answered_ms: u64) -> Option<u64> {
    if let Some(seconds) = control.s_maxage.or(control.max_age) {
        return Some(u64::from(seconds));
    }
    let expires = control::expires(headers)?;
    let date = control::date(headers, &DATE).unwrap_or(answered_ms / 1000);
    Some(expires.saturating_sub(date))
}

/// How old the answer was on arrival, in milliseconds: RFC 9111 §4.2.3, corrected_initial_age.
fn initial_age_ms(headers: &HeaderMap, sent_ms: u64, answered_ms: u64) -> u64 {
    let date_ms = control::date(headers, &DATE).map_or(answered_ms, |date| date * 1000);
    let apparent = answered_ms.saturating_sub(date_ms);
    let delay = answered_ms.saturating_sub(sent_ms);
    apparent.max(delay.saturating_add(u64::from(control::age(headers)) * 1000))
}

/// The fields of a response that an entry keeps, RFC 9111 §3.1, in their order and with repeats.
///
/// Left out: what belongs to one connection, what belongs to one exchange (cookies, rate limits,
/// another cache's report), Age, which an entry keeps as the moment of birth, and Content-Length,
/// which follows from the body.
#[must_use]
pub fn stored_headers(headers: &HeaderMap) -> HeaderMap {
    let nominated: Vec<&[u8]> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    let is_nominated = |name: &HeaderName| {
        nominated.iter().any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    let kept = |(name, _): &(&HeaderName, _)| !belongs_to_exchange(name) && !is_nominated(name);
    headers.iter().filter(kept).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn belongs_to_exchange(name: &HeaderName) -> bool {
    const PREFIXES: [&str; 3] = ["proxy-", "ratelimit", "x-ratelimit"];
    let name = name.as_str();
    matches!(
        name,
        "age"
            | "cache-status"
            | "connection"
            | "content-length"
            | "keep-alive"
            | "set-cookie"
            | "set-cookie2"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    ) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a request makes what is stored for its URI untrue, RFC 9111 §4.4.
///
/// True for an unsafe or unknown method that succeeded, and for one that got no answer (`None`):
/// the change may have been made all the same.
#[must_use]
pub fn invalidates(method: &Method, status: Option<u16>) -> bool {
    !method.is_safe() && status.is_none_or(|status| status < 400)
}
