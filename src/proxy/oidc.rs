//! What the gateway itself answers on routes of OpenID providers: it leads browsers there, takes
//! what they bring back, and hears of sessions that have ended. Nothing of it may be kept, and none
//! of its addresses is told to another page (RFC 9700 §4.2.4).

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, LOCATION, PRAGMA, REFERRER_POLICY, SET_COOKIE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::accept;
use super::content::Content;
use super::deliver::Answer;
use super::own_cookie::OwnCookie;
use super::rejection::Rejection;
use super::request::Request;
use crate::base::body::Inbound;
use crate::base::http::{cookie, form, percent};
use crate::observe::LoginOutcome;
use crate::oidc::{Callback, Fault, LOGIN_COOKIES_MAX, Secrets, logout_token, return_to};
use crate::plan::{OidcRoute, OidcStep, Provider};
use crate::runtime::{LoggedIn, NotLoggedIn, NotMade};

/// Longest body with a `logout_token`, in bytes.
const LOGOUT_BYTES_MAX: u64 = 32 * 1024;
/// The parameter that says where a browser goes once it has logged in.
const RETURN_TO: &str = "return_to";

/// Answers a request on such a route.
///
/// # Errors
/// Nobody has logged in, or the log-out is not believed.
pub(super) async fn answer(
    request: &Request<'_>,
    route: &OidcRoute,
    (head, body): (&Parts, Inbound),
) -> Result<Response<Content>, Rejection> {
    let provider = &*route.provider;
    match route.step {
        OidcStep::Login => login(request, provider, head).await,
        OidcStep::Callback => callback(request, provider, head).await,
        OidcStep::BackchannelLogout => logout(request, provider, (head, body)).await,
    }
}

/// Leads a browser to the provider.
async fn login(
    request: &Request<'_>,
    provider: &Provider,
    head: &Parts,
) -> Result<Response<Content>, Rejection> {
    let query = request.target.query().unwrap_or_default();
    // What cannot be read leads to the begin of the site, as what leads elsewhere does.
    let [asked] = form::read(query.as_bytes(), [RETURN_TO]).unwrap_or_default();
    let back = return_to(asked.as_deref());
    let begun = request.gateway().begin_login(request.running(), provider, back).await?;
    let mut response = redirect(StatusCode::FOUND, &begun.location)?;
    let fields = response.headers_mut();
    let is_clear = allows_http(request);
    let ttl = provider.login_timeout();
    set_cookie(fields, &begun.secrets.set_cookie(ttl, is_clear));
    // A browser that begins and never ends would send ever more of them.
    for name in cookie::names(&head.headers).filter(|it| Secrets::is_name(it)) {
        if cookies_of_logins(head) >= LOGIN_COOKIES_MAX {
            set_cookie(fields, &Secrets::unset_cookie(name, is_clear));
        }
    }
    Ok(response)
}

fn cookies_of_logins(head: &Parts) -> usize {
    cookie::names(&head.headers).filter(|name| Secrets::is_name(name)).count()
}

/// Takes what a browser brings back from the provider.
async fn callback(
    request: &Request<'_>,
    provider: &Provider,
    head: &Parts,
) -> Result<Response<Content>, Rejection> {
    let callback = Callback::parse(request.target.query().unwrap_or_default())?;
    let is_clear = allows_http(request);
    // Who has not begun the log-in does not end it, nor spoils it for who has.
    let name = Secrets::name_of(&callback.state, is_clear).ok_or(Fault::StateUnknown)?;
    let mut kept = cookie::values(&head.headers, &name);
    let (Some(kept), None) = (kept.next(), kept.next()) else {
        return Err(Fault::StateUnknown.into());
    };
    let kept = std::str::from_utf8(kept).map_err(|_| Fault::StateUnknown)?;
    let (gateway, running) = (request.gateway(), request.running());
    let shown = request.received.shown();
    let ended = gateway.end_login(running, provider, (&callback, kept), shown).await;
    count(request, &ended);
    let logged_in = ended.map_err(|why| match why {
        NotLoggedIn::Fault(fault) => Rejection::from(fault),
        NotLoggedIn::NotMade(fault) => Rejection::from(fault),
    })?;
    let mut response = redirect(StatusCode::SEE_OTHER, &logged_in.return_to)?;
    set_cookie(response.headers_mut(), &Secrets::unset_cookie(&name, is_clear));
    response.extensions_mut().insert(OwnCookie(logged_in.session.set_cookie));
    Ok(response)
}

/// What a browser brings that began no log-in is not counted: it is nobody's.
fn count(request: &Request<'_>, ended: &Result<LoggedIn, NotLoggedIn>) {
    let outcome = match ended {
        Ok(_) => LoginOutcome::LoggedIn,
        Err(NotLoggedIn::NotMade(NotMade::Away(_)) | NotLoggedIn::Fault(Fault::Store(_))) => {
            LoginOutcome::Away
        }
        Err(NotLoggedIn::NotMade(NotMade::Unusable(_)))
        | Err(NotLoggedIn::Fault(Fault::Answer(_) | Fault::Away(_))) => LoginOutcome::Unusable,
        Err(NotLoggedIn::Fault(_)) => return,
    };
    request.gateway().observer.metrics.identity().login(outcome);
}

/// Hears that sessions at the provider have ended.
async fn logout(
    request: &Request<'_>,
    provider: &Provider,
    (head, body): (&Parts, Inbound),
) -> Result<Response<Content>, Rejection> {
    let full = || Fault::Store("too many bodies are being read".to_owned());
    let held = accept::read(request, (head, body), LOGOUT_BYTES_MAX, full).await?;
    let kind = head.headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let token = logout_token(kind, &held.body).map_err(|fault| match fault {
        Fault::Malformed(why) => Fault::LogoutToken(why.to_owned()),
        other => other,
    })?;
    request.gateway().hear_logout(request.running(), provider, &token).await?;
    let mut response = Response::new(Content::Bytes(bytes::Bytes::new()));
    private(response.headers_mut());
    Ok(response)
}

/// Where a browser goes whose session comes from a provider, so that it is logged out there, too
/// (OpenID Connect RP-Initiated Logout 1.0 §2); nothing where the route does not say so, or the
/// provider has no such place.
pub(super) async fn end_session(request: &Request<'_>) -> Option<HeaderValue> {
    let written = &request.route.written;
    let value = request.received.shown()?.one().filter(|_| written.provider_logout)?;
    let (gateway, plan) = (request.gateway(), request.plan());
    let session = gateway.read_made(plan, value).await.ok()??;
    let provider = plan.providers.get(session.members.get("provider")?.as_str()?)?;
    let endpoint = gateway.end_session_endpoint(request.running(), provider)?;
    let settings = &provider.written;
    let id_token = match settings.id_token_hint {
        true => gateway.id_token(plan, &value.id()).await.ok().flatten(),
        false => None,
    };
    let back = settings.redirect_uri.at(written.login.then.as_deref().unwrap_or("/"));
    let mut pairs = vec![("client_id", &*settings.client_id), ("post_logout_redirect_uri", &*back)];
    pairs.extend(id_token.as_deref().map(|token| ("id_token_hint", token)));
    let between = if endpoint.contains('?') { '&' } else { '?' };
    HeaderValue::try_from(format!("{endpoint}{between}{}", form::write(&pairs))).ok()
}

/// What is answered to a request that may not pass: a browser without a session is led to its
/// log-in, where the route says so.
///
/// # Errors
/// It is refused all the same.
#[cold]
pub(super) fn led(
    request: &Request<'_>,
    head: &Parts,
    rejection: Rejection,
) -> Result<Answer, Rejection> {
    if rejection.status() != StatusCode::UNAUTHORIZED {
        return Err(rejection);
    }
    to_login(request, head).map(Answer::fetched).ok_or(rejection)
}

/// Where a browser without a session is led that opens a page: nothing where it is no navigation,
/// whose answer a person would see (Fetch metadata, or what is asked for where it has none).
fn to_login(request: &Request<'_>, head: &Parts) -> Option<Response<Content>> {
    let login = request.route.written.login_at.as_ref()?;
    if head.method != http::Method::GET || !is_navigation(&head.headers) {
        return None;
    }
    let path = request.asked.path();
    let query = request.asked.query().map(|query| format!("?{query}")).unwrap_or_default();
    let back = percent::encode(format!("{path}{query}").as_bytes());
    redirect(StatusCode::FOUND, &format!("{login}?{RETURN_TO}={back}")).ok()
}

fn is_navigation(fields: &HeaderMap) -> bool {
    let mut modes = fields.get_all("sec-fetch-mode").iter();
    match (modes.next(), modes.next()) {
        (Some(mode), None) => mode == "navigate",
        (Some(_), Some(_)) => false,
        (None, _) => fields.get_all(ACCEPT).iter().any(|accepted| {
            let accepted = accepted.to_str().unwrap_or_default().to_ascii_lowercase();
            accepted
                .split(',')
                .any(|it| it.split(';').next().unwrap_or_default().trim() == "text/html")
        }),
    }
}

fn allows_http(request: &Request<'_>) -> bool {
    let session = request.plan().config.session.as_ref();
    session.and_then(|session| session.make.as_ref()).is_some_and(|make| make.allow_http)
}

fn redirect(status: StatusCode, location: &str) -> Result<Response<Content>, Fault> {
    let location = HeaderValue::try_from(location)
        .map_err(|_| Fault::answer("its authorization_endpoint is no place"))?;
    let mut response = Response::new(Content::Bytes(bytes::Bytes::new()));
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, location);
    private(response.headers_mut());
    Ok(response)
}

/// Nobody keeps it, and no page learns of its address.
fn private(fields: &mut HeaderMap) {
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

fn set_cookie(fields: &mut HeaderMap, cookie: &str) {
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        fields.append(SET_COOKIE, cookie);
    }
}
