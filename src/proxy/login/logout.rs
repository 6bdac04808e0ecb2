//! The end of a session, as its own browser asks for it.

use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;

use super::judged::counted;
use crate::observe::LoginOutcome;
use crate::proxy::content::Content;
use crate::proxy::oidc;
use crate::proxy::own_cookie::OwnCookie;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::Request;
use crate::runtime::NotMade;
use crate::session::{CookieValue, CrossSite};
use crate::store::StoreError;

/// Has a browser forget what it keeps of a site.
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
/// The member of a session that names the family of its refresh tokens.
const SID: &str = "sid";

/// Ends the session that the request shows, and has the browser forget its cookie. `then` is where
/// it goes; nothing where it is a script that asks.
///
/// # Errors
/// A page of another site may have sent it, or the store does not answer: then nothing has ended,
/// and the browser keeps its cookie.
pub(super) async fn log_out(
    request: &Request<'_>,
    head: &Parts,
    (then, clear_site_data): (Option<&HeaderValue>, bool),
) -> Result<Response<Content>, Rejection> {
    if request.route.written.login.refuses_others() {
        counted(request, judge(request, head))?;
    }
    // While it is there to be read; a log-out does not fail of it.
    let leads = oidc::end_session(request).await;
    let then = leads.as_ref().or(then);
    let mut is_any = false;
    for value in request.received.shown().into_iter().flat_map(|shown| shown.all()) {
        is_any |= end(request, value).await.map_err(NotMade::from)?;
    }
    if is_any {
        request.gateway().observer.metrics.identity().login(LoginOutcome::LoggedOut);
    }
    let mut response = Response::new(Content::Bytes(bytes::Bytes::new()));
    *response.status_mut() =
        if then.is_some() { StatusCode::SEE_OTHER } else { StatusCode::NO_CONTENT };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Some(then) = then {
        headers.insert(LOCATION, then.clone());
    }
    if clear_site_data {
        headers.insert(CLEAR_SITE_DATA, HeaderValue::from_static("\"cookies\""));
    }
    if let Some(made) = &request.plan().made {
        response.extensions_mut().insert(OwnCookie(made.clear_cookie()));
    }
    Ok(response)
}

/// A link or an image of another site must log nobody out.
fn judge(request: &Request<'_>, head: &Parts) -> Result<(), CrossSite> {
    let sender = request.sender(head);
    if !sender.may_change() {
        return if sender.is_of_site() { Ok(()) } else { Err(CrossSite::Site) };
    }
    match request.received.shown() {
        Some(shown) => sender.judge(Some(shown), request.csrf_origins()),
        None => Ok(()),
    }
}

/// Ends the session of a cookie, and before that the refresh tokens that came with it: while it is
/// there, a log-out can be repeated.
async fn end(request: &Request<'_>, value: &CookieValue) -> Result<bool, StoreError> {
    let (gateway, plan) = (request.gateway(), request.plan());
    // One that cannot be read ends, too.
    let session = match gateway.read_made(plan, value).await {
        Err(error) if error.is_outage() => return Err(error),
        read => read.ok().flatten(),
    };
    if let Some(sid) = session.as_ref().and_then(|it| it.members.get(SID)).and_then(Value::as_str) {
        gateway.end_family(sid).await?;
    }
    gateway.end_shown(plan, value).await
}
