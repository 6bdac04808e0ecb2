//! Calls of pages of other origins (CORS; Fetch standard, "HTTP extensions"). A browser sends them
//! only after a preflight, an `OPTIONS` without credentials, was answered well, and shows a page
//! only responses that name its origin.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::base::http::fields::vary_on;
use crate::config::{Cors, Origins};

/// The page is none of those that may call the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the route's cors.origins do not name the page's origin")]
pub struct ForeignPage;

/// The origin of the page that sends a request; nothing where it names none, or several.
pub fn origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut named = headers.get_all(ORIGIN).iter();
    named.next().filter(|_| named.next().is_none())
}

/// The method that a preflight asks about; nothing for any other request.
pub fn asked(head: &Parts) -> Option<Method> {
    if head.method != Method::OPTIONS {
        return None;
    }
    origin(&head.headers)?;
    let method = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(method.as_bytes()).ok()
}

/// The fields of the answer to a preflight, without what every response gets by [`stamp`].
///
/// # Errors
/// The page may not call the route.
pub fn preflight(
    policy: &Cors,
    head: &Parts,
) -> Result<impl Iterator<Item = (HeaderName, HeaderValue)> + use<>, ForeignPage> {
    if !origin(&head.headers).is_some_and(|origin| policy.origins.cover(origin)) {
        return Err(ForeignPage);
    }
    let asked = |name| head.headers.get(name).cloned();
    let fields = policy.headers.clone().or_else(|| asked(ACCESS_CONTROL_REQUEST_HEADERS));
    let told = [
        (ACCESS_CONTROL_ALLOW_METHODS, asked(ACCESS_CONTROL_REQUEST_METHOD)),
        (ACCESS_CONTROL_ALLOW_HEADERS, fields),
        (ACCESS_CONTROL_MAX_AGE, Some(policy.max_age.as_secs().into())),
    ];
    let is_said = |value: &HeaderValue| !value.is_empty();
    Ok(told.into_iter().filter_map(move |(name, value)| Some((name, value.filter(is_said)?))))
}

/// Says in a response, whoever made it, whether the page may read it. What the upstream says of
/// that goes: browsers refuse a response that says it twice.
pub fn stamp(policy: &Cors, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
    // Also without an `Origin`: a cache on the way must not give that response to a page.
    vary_on(headers, &ORIGIN);
    let Some(origin) = origin.filter(|origin| policy.origins.cover(origin)) else { return };
    let named = match policy.origins {
        Origins::All => HeaderValue::from_static("*"),
        Origins::These(_) => origin.clone(),
    };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, named);
    if policy.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if !policy.expose.is_empty() {
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, policy.expose.clone());
    }
}
