//! The cookie of sessions that the gateway makes, on its way to a client: nobody but the gateway
//! sets it.

use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderValue, Response};

use super::content::Content;
use crate::plan::Plan;

/// What sets the cookie, beside a response until that is delivered.
#[derive(Debug, Clone)]
pub(super) struct OwnCookie(pub(super) HeaderValue);

/// Drops what others say of the cookie, and sets it where the gateway has said so.
pub(super) fn settle(response: &mut Response<Content>, plan: &Plan) {
    let Some(made) = &plan.made else { return };
    made.strip_set_cookie(response.headers_mut());
    if let Some(OwnCookie(cookie)) = response.extensions_mut().remove() {
        let headers = response.headers_mut();
        headers.append(SET_COOKIE, cookie);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
