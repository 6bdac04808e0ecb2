//! `/v1/login` and `/v1/me`: a token or a code becomes a session of the dashboard, which ends when
//! its user says so; and who somebody is.

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::guard::{By, Caller, Digested, role_of, throttled};
use super::logins::{CODE_LIFE, IDLE, Logins, Role, lock};
use super::reply::{Body, Effect, Fault, Reply, json as reply_json, parse, problem};
use crate::base::instance;
use crate::config;
use crate::runtime::Gateway;

/// What somebody logs in with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credential {
    token: Option<String>,
    code: Option<String>,
}

/// `POST /v1/login`: a session for a token or a code.
pub(super) fn log_in(
    gateway: &Gateway,
    logins: &Logins,
    peer: std::net::SocketAddr,
    body: &[u8],
) -> Result<Reply, Fault> {
    const EXAMPLE: &str = "{\"token\": \"…\"}, or {\"code\": \"…\"}";
    let given: Credential = parse(body, EXAMPLE)?;
    if given.token.is_some() == given.code.is_some() {
        let detail = format!("Send a token or a code. Example: {EXAMPLE}");
        return Err(Fault::Invalid(detail));
    }
    let running = gateway.running();
    let admin = &running.plan.config.admin;
    let now = Instant::now();
    // Nobody guesses a code, so a right one is taken from whoever shares an address with guessers.
    let redeemed = given.code.as_ref().and_then(|code| logins.redeem(code, now));
    let check = || given.token.as_ref().and_then(|token| role_of(admin, token));
    let checked = match redeemed {
        Some(role) => Ok(Some(role)),
        None => lock(&logins.throttle).attempt(peer.ip(), now, check),
    };
    let role = match checked {
        Ok(Some(role)) => role,
        Ok(None) => return Ok(invalid()),
        Err(wait) => return Ok(throttled(wait)),
    };
    let (session, found) = logins.open(role, now).ok_or_else(no_random)?;
    let answer = json!({
        "session": session,
        "role": allowed(admin, role).word(),
        "idle_s": IDLE.as_secs(),
        "ends_at": found.ends_at.to_string(),
    });
    let mut reply = reply_json(StatusCode::OK, &answer);
    reply.extensions_mut().insert(Effect("session", found.name));
    Ok(reply)
}

/// What a session may do that was made by somebody with this role.
fn allowed(admin: &config::Admin, role: Role) -> Role {
    match admin.dashboard {
        config::Dashboard::Operate => role,
        config::Dashboard::Read | config::Dashboard::Off => Role::Read,
    }
}

fn invalid() -> Reply {
    let detail = "This is neither admin.token nor admin.read_token, nor a code that is younger \
                  than 60 s and was not used.";
    problem(StatusCode::UNAUTHORIZED, "login_invalid", detail)
}

fn no_random() -> Fault {
    Fault::Problem {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "login_unavailable",
        detail: "The system's random source has failed.".to_owned(),
    }
}

/// `POST /v1/login/code`: a code for whoever has a token, to be used once by a browser.
pub(super) fn code(logins: &Logins, caller: &Caller) -> Result<Reply, Fault> {
    let role = match caller.by {
        By::Token => Role::Operate,
        By::ReadToken => Role::Read,
        By::Loopback | By::Session(_) | By::Login => {
            return Err(Fault::Problem {
                status: StatusCode::FORBIDDEN,
                code: "login_invalid",
                detail: "A code is for whoever sends admin.token or admin.read_token.".to_owned(),
            });
        }
    };
    let code = logins.code(role, Instant::now()).ok_or_else(no_random)?;
    let answer = json!({ "code": code, "expires_in_s": CODE_LIFE.as_secs() });
    Ok(reply_json(StatusCode::OK, &answer))
}

/// `DELETE /v1/login`: ends the session that is sent with it.
pub(super) fn log_out(logins: &Logins, caller: &Caller) -> Reply {
    if let Some(Digested { digest, .. }) = caller.session() {
        logins.end(digest);
    }
    let mut reply = Reply::new(Body::default());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

/// `GET /v1/me`: who somebody is here, and what the dashboard may do.
pub(super) fn me(gateway: &Gateway, caller: &Caller) -> Reply {
    let running = gateway.running();
    let admin = &running.plan.config.admin;
    let session = caller.session().map(|session| {
        let ends_at = session.found.ends_at.to_string();
        json!({ "ends_at": ends_at, "idle_s": IDLE.as_secs() })
    });
    let answer = json!({
        "role": caller.role.word(),
        "session": session,
        "login": if admin.token.is_some() { "token" } else { "loopback" },
        "dashboard": admin.dashboard.word(),
        "node": instance::name(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    reply_json(StatusCode::OK, &answer)
}
