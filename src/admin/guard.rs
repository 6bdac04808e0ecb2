//! Who may have an answer below `/v1/` and `/ui/`. One function refuses what a web page of another
//! site could send; it does not matter what it asks for. Another knows who asks, and what for.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::logins::{self, Digest, Found, Logins, Role, lock};
use super::reply::{Reply, problem};
use super::routes::{self, Access};
use crate::base::http::authority::Authority;
use crate::base::units::Secret;
use crate::config::{self, Dashboard};

/// What a browser says of where a request comes from (Fetch Metadata), and of what it is for.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// What proxies add to requests that they pass on, and this one to each.
const PASSED_ON: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// What a page may do: run its own scripts and ask its own origin. Text never becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// What every answer says to browsers.
const SECURE: [(&str, &str); 5] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Adds what every answer below `/v1/` and `/ui/` says to browsers.
pub(super) fn secure(headers: &mut HeaderMap) {
    for (name, value) in SECURE {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

/// What let somebody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    /// There is no `admin.token`, and the request comes from this machine.
    Loopback,
    /// `admin.token`
    Token,
    /// `admin.read_token`
    ReadToken,
    /// A session of `POST /v1/login`.
    Session(Digested),
    /// It wants to log in.
    Login,
}

/// A session, and the digest that it is found by.
#[derive(Debug, Clone)]
pub(super) struct Digested {
    pub(super) found: Found,
    pub(super) digest: Digest,
}

impl PartialEq for Digested {
    fn eq(&self, other: &Self) -> bool {
        self.digest.is(&other.digest)
    }
}

impl Eq for Digested {}

/// Whoever sent a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// What let it in.
    pub(super) by: By,
    /// What it may do.
    pub(super) role: Role,
    /// What it might do without `admin.dashboard`.
    own_role: Role,
}

impl By {
    /// As the audit has it.
    fn told(&self) -> String {
        match self {
            Self::Loopback => "loopback".to_owned(),
            Self::Token => "admin.token".to_owned(),
            Self::ReadToken => "admin.read_token".to_owned(),
            Self::Session(session) => format!("session:{}", session.found.name),
            Self::Login => "login".to_owned(),
        }
    }
}

impl Caller {
    /// As the audit has it.
    pub(super) fn told(&self) -> String {
        self.by.told()
    }

    /// Whether it must not see who the gateway's callers are.
    pub(super) fn is_masked(&self) -> bool {
        self.own_role == Role::Read
    }

    /// Its session.
    pub(super) fn session(&self) -> Option<&Digested> {
        match &self.by {
            By::Session(session) => Some(session),
            _ => None,
        }
    }
}

/// Marks the refusal of a bearer that is neither a token nor a session: a guess, or a mistake.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stranger {
    /// Whether so many from its address were wrong that the answer is to wait.
    pub(super) is_slowed: bool,
}

/// Marks a refusal of somebody who is known, as the audit has him.
#[derive(Debug, Clone)]
pub(super) struct Known(pub(super) String);

/// Lets in whoever may have the operation that a request names.
///
/// # Errors
/// Nobody else.
pub(super) fn admit(
    admin: &config::Admin,
    logins: &Logins,
    peer: SocketAddr,
    head: &Parts,
) -> Result<Caller, Box<Reply>> {
    refuse_others(admin, peer, &head.headers)?;
    if let Err(mut refusal) = refuse_other_sites(admin, head) {
        // It is refused whoever sends it: a guess learns nothing here, and is not counted.
        if let Some((by, _)) = holder(admin, logins, &head.headers) {
            refusal.extensions_mut().insert(Known(by.told()));
        }
        return Err(refusal);
    }
    let path = head.uri.path();
    let is_login = matches!(path, routes::LOGIN | routes::LOGIN_CODE);
    if is_login && admin.dashboard == Dashboard::Off {
        return Err(Box::new(dashboard_off()));
    }
    let caller = if path == routes::LOGIN && head.method == Method::POST {
        Caller { by: By::Login, role: Role::Read, own_role: Role::Read }
    } else {
        identify(admin, logins, peer, head)?
    };
    let access = routes::find(path).and_then(|found| Some(found.on(&head.method)?.access));
    if access == Some(Access::Operate) && caller.role < Role::Operate {
        return Err(Box::new(read_only(&caller)));
    }
    Ok(caller)
}

/// Refuses what may come from a page of another site, and, where there is no token, from another
/// machine.
///
/// # Errors
/// It is refused.
pub(super) fn screen(
    admin: &config::Admin,
    peer: SocketAddr,
    head: &Parts,
) -> Result<(), Box<Reply>> {
    refuse_others(admin, peer, &head.headers)?;
    refuse_other_sites(admin, head)
}

/// Where there is no token, refuses whoever is on another machine, also behind a proxy of this one:
/// the gateway itself may be one that has an upstream here, by a name that leads here.
fn refuse_others(
    admin: &config::Admin,
    peer: SocketAddr,
    headers: &HeaderMap,
) -> Result<(), Box<Reply>> {
    if admin.token.is_some() {
        return Ok(());
    }
    let refused =
        |detail: &str| Box::new(problem(StatusCode::FORBIDDEN, "admin_loopback_only", detail));
    if !(peer.ip().to_canonical().is_loopback() && names_loopback(headers)) {
        let detail = "Without admin.token, operations are for this machine alone: set admin.token \
                      to operate from elsewhere.";
        return Err(refused(detail));
    }
    if let Some(name) = PASSED_ON.iter().find(|name| headers.contains_key(**name)) {
        let detail = format!(
            "{name} says that a proxy has passed this on, and without admin.token operations are \
             for this machine alone: set admin.token to operate through a proxy."
        );
        return Err(refused(&detail));
    }
    Ok(())
}

/// Refuses what may come from a page of another site.
fn refuse_other_sites(admin: &config::Admin, head: &Parts) -> Result<(), Box<Reply>> {
    let headers = &head.headers;
    let refused =
        |detail: &str| Box::new(problem(StatusCode::FORBIDDEN, "cross_site_refused", detail));
    if !headers.get_all(SEC_FETCH_SITE).iter().all(|site| is_of_own_page(site, head)) {
        let detail = "A page of another site has sent this: open /ui/ by its own address.";
        return Err(refused(detail));
    }
    if !headers.get_all(ORIGIN).iter().all(|origin| is_own_origin(admin, origin, headers)) {
        let detail = "Origin is another than that of Host. Where a proxy changes Host, or ends \
                      TLS, add the page's origin to admin.origins.";
        return Err(refused(detail));
    }
    let only_looks = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !only_looks && !is_json(headers) {
        return Err(refused("Send Content-Type: application/json."));
    }
    Ok(())
}

/// A page that was rebound to this address still names its own host (DNS rebinding).
fn names_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none()).and_then(Authority::of_header);
    host.is_some_and(|host| {
        let address = host.host().trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host.host() == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

/// `same-site` is another port of the same host, which anybody may have. `none` is somebody who
/// opens the dashboard by its address.
fn is_of_own_page(site: &HeaderValue, head: &Parts) -> bool {
    let opens = || {
        let mode = head.headers.get(SEC_FETCH_MODE);
        matches!(head.method, Method::GET | Method::HEAD)
            && !head.uri.path().starts_with("/v1/")
            && mode.is_none_or(|mode| mode == "navigate")
    };
    site == "same-origin" || (site == "none" && opens())
}

/// The listener speaks HTTP in clear, so its own pages have that scheme.
fn is_own_origin(admin: &config::Admin, origin: &HeaderValue, headers: &HeaderMap) -> bool {
    if admin.origins.iter().any(|known| known.covers(origin.as_bytes())) {
        return true;
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none()).and_then(Authority::of_header);
    let origin = origin.as_bytes().strip_prefix(b"http://").and_then(Authority::parse);
    // Port 80 may be written or not.
    let is_same = |host: Authority, origin: Authority| host.site() == origin.site();
    host.zip(origin).is_some_and(|(host, origin)| is_same(host, origin))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Who sends a request, by its bearer.
fn identify(
    admin: &config::Admin,
    logins: &Logins,
    peer: SocketAddr,
    head: &Parts,
) -> Result<Caller, Box<Reply>> {
    let headers = &head.headers;
    let is_of_page = headers.contains_key(SEC_FETCH_SITE) || headers.contains_key(ORIGIN);
    let of_page = match admin.dashboard {
        Dashboard::Operate => Role::Operate,
        Dashboard::Read | Dashboard::Off => Role::Read,
    };
    let caller = |by: By, own_role: Role| {
        let is_capped = is_of_page || matches!(by, By::Session(_));
        let role = if is_capped { own_role.min(of_page) } else { own_role };
        Caller { by, role, own_role }
    };
    if admin.token.is_none() {
        return Ok(caller(By::Loopback, Role::Operate));
    }
    let held = holder(admin, logins, headers);
    let held = held.ok_or_else(|| Box::new(refuse_bearer(logins, peer, bearer(headers))));
    held.map(|(by, role)| caller(by, role))
}

/// Whose bearer a request has, if it opens something, and what that may do.
fn holder(admin: &config::Admin, logins: &Logins, headers: &HeaderMap) -> Option<(By, Role)> {
    let given = Digest::of(bearer(headers));
    if is_secret(&given, admin.token.as_ref()) {
        return Some((By::Token, Role::Operate));
    }
    if is_secret(&given, admin.read_token.as_ref()) {
        return Some((By::ReadToken, Role::Read));
    }
    let found = logins.find(&given, Instant::now())?;
    let role = found.role;
    Some((By::Session(Digested { found, digest: given }), role))
}

fn bearer(headers: &HeaderMap) -> &[u8] {
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    given.strip_prefix(b"Bearer ").unwrap_or_default()
}

/// Refuses what opens nothing. A wrong bearer counts as a log-in that has failed, so that nobody
/// guesses here what he may not guess there; a right one from the same address is let in all the
/// same, or a script with an old token would lock out all others beside it.
fn refuse_bearer(logins: &Logins, peer: SocketAddr, bearer: &[u8]) -> Reply {
    if bearer.is_empty() {
        return unknown();
    }
    // A session that has ended is no guess: nobody guesses one.
    let counts = !logins::has_form_of_session(bearer);
    let attempt = || lock(&logins.throttle).attempt(peer.ip(), Instant::now(), || None::<()>);
    let slowed = if counts { attempt().err() } else { None };
    let mut reply = slowed.map_or_else(unknown, throttled);
    reply.extensions_mut().insert(Stranger { is_slowed: slowed.is_some() });
    reply
}

/// Somebody of the same address has failed too often, and may try again after this time.
pub(super) fn throttled(wait: Duration) -> Reply {
    let seconds = wait.as_secs().saturating_add(1);
    let detail =
        format!("Too many log-ins or tokens of this address were wrong: wait {seconds} s.");
    let mut reply = problem(StatusCode::TOO_MANY_REQUESTS, "login_throttled", &detail);
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    reply
}

fn is_secret(given: &Digest, secret: Option<&Secret>) -> bool {
    secret.is_some_and(|secret| given.is(&Digest::of(secret.expose())))
}

/// The role that a token has.
pub(super) fn role_of(admin: &config::Admin, token: &str) -> Option<Role> {
    let given = Digest::of(token.as_bytes());
    if is_secret(&given, admin.token.as_ref()) {
        return Some(Role::Operate);
    }
    is_secret(&given, admin.read_token.as_ref()).then_some(Role::Read)
}

/// There is no dashboard.
pub(super) fn dashboard_off() -> Reply {
    let detail = "admin.dashboard is \"off\".";
    problem(StatusCode::NOT_FOUND, "dashboard_off", detail)
}

fn unknown() -> Reply {
    let detail = "Send Authorization: Bearer with the value of admin.token or admin.read_token, \
                  or with a session of POST /v1/login that has not ended.";
    let mut reply = problem(StatusCode::UNAUTHORIZED, "admin_token_invalid", detail);
    let challenge = HeaderValue::from_static("Bearer realm=\"portcullis-admin\"");
    reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    reply
}

fn read_only(caller: &Caller) -> Reply {
    let detail = if caller.own_role == Role::Read {
        "Whoever has admin.read_token only looks: this changes something."
    } else {
        "The dashboard only looks, by admin.dashboard: use the command, or admin.token itself."
    };
    let mut reply = problem(StatusCode::FORBIDDEN, "admin_read_only", detail);
    reply.extensions_mut().insert(Known(caller.told()));
    reply
}
