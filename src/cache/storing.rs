//! Decides what may be kept, RFC 9111 §3, and for how long, §4.2.
//!
//! Pure functions of a request, a response and the time. It must not know where entries live or
//! how a body arrives.

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, COOKIE, DATE, HeaderName, LAST_MODIFIED, SET_COOKIE,
};
use http::{HeaderMap, StatusCode};

use super::control::{self, ResponseControl};
use super::entry::Stored;
use super::freshness::{Flags, Freshness, RESIDENCE_MAX_S, seconds};
use super::kept::kept;
use super::request::Intent;
use super::validator::can_validate;
use super::{date, tags, text, variant};
use crate::base::facts::is_event_stream;
use crate::config::{self, SetCookie};

/// The longest lifetime that is guessed, RFC 9111 §4.2.2.
const HEURISTIC_MAX_S: u64 = 24 * 60 * 60;

/// The request whose answer is to be kept.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'a> {
    /// What [`lookup`](super::lookup) made of it.
    pub intent: &'a Intent,
    /// Its fields as the client sent them; the values that Vary selects come from here.
    pub headers: &'a HeaderMap,
    /// The gateway verified a credential, or the request had Authorization.
    pub authenticated: bool,
    /// The entry is this caller's alone, by [`config::Cache::is_per_user`].
    pub per_user: bool,
    /// The gateway knows callers on this route, by tokens or sessions: a Cookie may be what it
    /// knows them by. Elsewhere a Cookie is between the client and the upstream.
    pub ends_identity: bool,
    /// When it was sent upstream, in Unix milliseconds.
    pub sent_ms: u64,
}

/// Why an answer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WhyNot {
    #[error("the request does not allow storing")]
    Request,
    #[error("the status is not final, or not understood although it must be")]
    Status,
    #[error("the response is a part of a representation")]
    Partial,
    #[error("the response says no-store, or its Cache-Control cannot be read")]
    NoStore,
    #[error("the response says private")]
    Private,
    #[error("the response says no-cache, and has nothing to validate it by")]
    NoCache,
    #[error("the response sets a cookie")]
    SetCookie,
    #[error("the body is larger than the route keeps, or its length is unreadable")]
    TooLarge,
    #[error("the response varies on more than can be compared")]
    Vary,
    #[error("the response has more tags or groups than are kept")]
    Tags,
    #[error("the caller is identified and nothing says that others may see the response")]
    Authenticated,
    #[error("the response states no lifetime and the route gives it none")]
    NoFreshness,
    #[error("the response is already stale, and has nothing to validate it by")]
    Expired,
}

impl WhyNot {
    /// Whether it lies in the response, so that the next request will meet it again. What lies in
    /// the request must not keep others from sharing: anybody could send it.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        match self {
            Self::Request | Self::Authenticated => false,
            Self::Status
            | Self::Partial
            | Self::NoStore
            | Self::Private
            | Self::NoCache
            | Self::SetCookie
            | Self::TooLarge
            | Self::Vary
            | Self::Tags
            | Self::NoFreshness
            | Self::Expired => true,
        }
    }

    /// The name in metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::NoCache => "no_cache",
            Self::SetCookie => "set_cookie",
            Self::TooLarge => "too_long",
            Self::Vary => "vary",
            Self::Tags => "tags",
            Self::Authenticated => "authenticated",
            Self::NoFreshness => "no_freshness",
            Self::Expired => "expired",
        }
    }
}

/// An answer that may be kept.
#[derive(Debug)]
pub struct Storable {
    /// How long it holds, and for which requests.
    pub freshness: Freshness,
    /// The fields of it that an entry keeps.
    pub headers: HeaderMap,
}

/// Decides whether an upstream's answer may be kept, from its head alone (RFC 9111 §3), and what of
/// that head.
///
/// `headers` are the upstream's own, before anything was removed from them: a field that is
/// nominated by Connection may still forbid storing. An answer that is stale from the start is
/// kept where it can be validated, or where it says itself that it may be used stale.
///
/// # Errors
/// The first rule that forbids it.
pub fn storable(
    policy: &config::Cache,
    request: &RequestContext<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    answered_ms: u64,
) -> Result<Storable, WhyNot> {
    if !request.intent.store {
        return Err(WhyNot::Request);
    }
    let control = ResponseControl::of(headers);
    let freshness = assess(policy, request, status, (headers, &control), answered_ms)?;
    Ok(Storable { freshness, headers: kept(headers, &control) })
}

/// Decides the same of an answer that may be kept as far as its request goes. `control` is what it
/// says of caching.
pub(super) fn assess(
    policy: &config::Cache,
    request: &RequestContext<'_>,
    status: StatusCode,
    (headers, control): (&HeaderMap, &ResponseControl),
    answered_ms: u64,
) -> Result<Freshness, WhyNot> {
    check_response(policy, request, status, headers, control)?;
    // The operator can speak for the identity that the gateway verified, not for a credential that
    // it forwards without knowing it (RFC 9111 §3.5).
    let foreign = !request.authenticated && request.headers.contains_key(AUTHORIZATION);
    let is_settled = policy.settles_identity() && !foreign;
    if (foreign || request.authenticated) && !control.opens_to_others() && !is_settled {
        return Err(WhyNot::Authenticated);
    }
    let vary = variant::vary_set(request.headers, headers).ok_or(WhyNot::Vary)?;
    let (Some(tags), Some(groups)) = (tags::tags(headers), tags::groups(headers)) else {
        return Err(WhyNot::Tags);
    };

    let has_cookie = request.headers.contains_key(COOKIE);
    let is_anonymous = !foreign && !request.authenticated && !has_cookie;
    let is_settled = is_settled && (!has_cookie || request.ends_identity);
    let may_assume = (is_anonymous || is_settled) && !sets_cookie(headers, control);
    let can_validate = can_validate(headers, answered_ms / 1000);
    let stated = stated_lifetime(control, headers, answered_ms);
    let lifetime = stated
        .or_else(|| {
            assumed_lifetime(policy, status, headers, control, answered_ms).filter(|_| may_assume)
        })
        // It is for reuse after validation only, so that it needs no lifetime.
        .or((control.no_cache && can_validate).then_some(0))
        .ok_or(if control.no_cache { WhyNot::NoCache } else { WhyNot::NoFreshness })?;
    let (swr_s, sie_s) = stale_windows(policy, control);

    let age_ms = initial_age_ms(headers, request.sent_ms, answered_ms);
    let is_fresh = lifetime.saturating_mul(1000) > age_ms;
    if control.no_cache && !can_validate {
        return Err(WhyNot::NoCache);
    }
    if !is_fresh && !can_validate && swr_s == 0 && sie_s == 0 {
        return Err(WhyNot::Expired);
    }
    Ok(Freshness {
        born_ms: answered_ms.saturating_sub(age_ms),
        answered_ms,
        lifetime_s: capped(policy, status, lifetime, age_ms),
        swr_s,
        sie_s,
        flags: Flags {
            no_cache: control.no_cache,
            never_stale: control.forbids_stale(),
            immutable: control.immutable,
        },
        vary: variant::values(vary, request.headers),
        tags,
        groups,
    })
}

/// Whether an answer that is not kept ends what is stored. The origin has another one now, so that
/// what is stale is not sent for it (RFC 9111 §4.3.3); what is fresh keeps its word, unless nothing
/// of its resource may be stored any more. What is for one caller alone says nothing about the
/// others', and an error that a client can provoke says nothing at all.
#[must_use]
pub fn outdates(new: StatusCode, why: WhyNot, stored: &Stored, now_ms: u64) -> bool {
    if stored.remaining_ms(now_ms) > 0 {
        return why == WhyNot::NoStore && new.is_success();
    }
    let is_personal = matches!(
        why,
        WhyNot::Request
            | WhyNot::Authenticated
            | WhyNot::Private
            | WhyNot::SetCookie
            | WhyNot::Partial
    );
    !is_personal && matches!(new.as_u16(), 200..=399 | 404 | 410)
}

/// What is bounded is the time an entry is used here. An old answer with a long life keeps both:
/// its age is told truthfully and its life ends with the bound.
fn capped(policy: &config::Cache, status: StatusCode, lifetime: u64, age_ms: u64) -> u32 {
    let cap = if status.as_u16() >= 400 { seconds(policy.error_ttl) } else { RESIDENCE_MAX_S };
    let age = u32::try_from(age_ms / 1000).unwrap_or(u32::MAX);
    let lifetime = u32::try_from(lifetime).unwrap_or(u32::MAX);
    lifetime.min(age.saturating_add(cap.min(RESIDENCE_MAX_S)))
}

/// The rules that need no time: status, framing, directives, cookies, size.
fn check_response(
    policy: &config::Cache,
    request: &RequestContext<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    control: &ResponseControl,
) -> Result<(), WhyNot> {
    let code = status.as_u16();
    let understood = is_understood(code);
    // RFC 9111 §5.2.2.3: a cache that understands the status leaves no-store aside.
    let no_store = control.no_store && !(control.must_understand && understood);
    let is_private = control.private && !request.per_user;
    let no_cookie = match policy.set_cookie {
        SetCookie::Store => false,
        SetCookie::Never => true,
        SetCookie::Explicit => !(control.public || control.s_maxage.is_some() || control.targeted),
    };
    let refusals = [
        // Content-Range means nothing with any other status (RFC 9110 §14.4).
        (matches!(code, 206 | 416), WhyNot::Partial),
        (!(200..=599).contains(&code) || code == 304, WhyNot::Status),
        (control.must_understand && !understood, WhyNot::Status),
        (no_store, WhyNot::NoStore),
        (is_private, WhyNot::Private),
        (no_cookie && sets_cookie(headers, control), WhyNot::SetCookie),
        (is_too_large(headers, policy.max_bytes), WhyNot::TooLarge),
    ];
    refusals.iter().find(|(broken, _)| *broken).map_or(Ok(()), |(_, why)| Err(*why))
}

/// Whether a cookie would be kept with the response: one that the response itself reserves is not.
fn sets_cookie(headers: &HeaderMap, control: &ResponseControl) -> bool {
    let is_kept = |name: &HeaderName| !control.omit.contains(name);
    headers.keys().any(|name| (*name == SET_COOKIE || name == "set-cookie2") && is_kept(name))
}

/// The final statuses that RFC 9110 §15 defines.
fn is_understood(code: u16) -> bool {
    matches!(code, 200..=205 | 300..=303 | 305 | 307 | 308)
        || matches!(code, 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// The statuses whose answers may be kept without a word, RFC 9110 §15.1.
fn is_heuristic(code: u16) -> bool {
    matches!(code, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

fn is_too_large(headers: &HeaderMap, max_bytes: u64) -> bool {
    if !headers.contains_key(CONTENT_LENGTH) {
        return false;
    }
    let length = text::only(headers, CONTENT_LENGTH)
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.parse::<u64>().ok());
    length.is_none_or(|length| length > max_bytes)
}

/// Whether a response states its lifetime itself.
#[must_use]
pub fn states_lifetime(headers: &HeaderMap, answered_ms: u64) -> bool {
    stated_lifetime(&ResponseControl::of(headers), headers, answered_ms).is_some()
}

/// The lifetime that the response states itself, in seconds: s-maxage, then max-age, then Expires
/// minus Date (RFC 9111 §4.2.1). Without a readable Date, the time of arrival stands in for it.
fn stated_lifetime(
    control: &ResponseControl,
    headers: &HeaderMap,
    answered_ms: u64,
) -> Option<u64> {
    if let Some(seconds) = control.s_maxage.or(control.max_age) {
        return Some(u64::from(seconds));
    }
    if control.targeted {
        return None;
    }
    let now_s = answered_ms / 1000;
    let expires = control::expires(headers, now_s)?;
    Some(expires.saturating_sub(date::of(headers, DATE, now_s).unwrap_or(now_s)))
}

/// The lifetime that the route gives to what states none: what is said for its status, or the
/// route's `ttl`, or a tenth of the time it has not changed for (RFC 9111 §4.2.2).
fn assumed_lifetime(
    policy: &config::Cache,
    status: StatusCode,
    headers: &HeaderMap,
    control: &ResponseControl,
    answered_ms: u64,
) -> Option<u64> {
    let code = status.as_u16();
    if let Some(ttl) = policy.negative.get(&code) {
        return Some(ttl.as_secs());
    }
    if is_event_stream(headers) {
        // It ends when its client goes: nobody else is to wait for its next event.
        return None;
    }
    if code < 400 && is_heuristic(code) && policy.ttl.is_some() {
        return policy.ttl.map(|ttl| ttl.as_secs());
    }
    if !policy.heuristic || !(is_heuristic(code) || control.public) {
        return None;
    }
    let now_s = answered_ms / 1000;
    let modified = date::of(headers, LAST_MODIFIED, now_s)?;
    let made = date::of(headers, DATE, now_s).unwrap_or(now_s);
    Some((made.saturating_sub(modified) / 10).min(HEURISTIC_MAX_S))
}

/// How long it may be used beyond its lifetime: while a new one is fetched, and when that fails.
/// What it says itself counts before what the route says; neither counts where it forbids it.
fn stale_windows(policy: &config::Cache, control: &ResponseControl) -> (u32, u32) {
    if control.forbids_stale() {
        return (0, 0);
    }
    let window = |stated: Option<u32>, route: Option<std::time::Duration>| {
        stated.or(route.map(seconds)).unwrap_or(0).min(RESIDENCE_MAX_S)
    };
    (
        window(control.stale_while_revalidate, policy.stale_while_revalidate),
        window(control.stale_if_error, policy.stale_if_error),
    )
}

/// How old the answer was on arrival, in milliseconds: RFC 9111 §4.2.3, corrected_initial_age.
fn initial_age_ms(headers: &HeaderMap, sent_ms: u64, answered_ms: u64) -> u64 {
    let date = date::of(headers, DATE, answered_ms / 1000);
    let date_ms = date.map_or(answered_ms, |date| date.saturating_mul(1000));
    let apparent = answered_ms.saturating_sub(date_ms);
    let delay = answered_ms.saturating_sub(sent_ms);
    apparent.max(delay.saturating_add(u64::from(control::age(headers)) * 1000))
}
