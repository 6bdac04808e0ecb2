//! What a provider posts when a session there has ended (OpenID Connect Back-Channel Logout 1.0
//! §2.4 to §2.8): a token whose signature, issuer, audience and times are verified elsewhere.

use serde_json::{Map, Value};

use super::fault::Fault;
use super::id_token::{Header, number, sid, subject};
use crate::base::http::form;

/// The event that it tells of.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// What it calls itself, where it does.
const KIND: &str = "logout+jwt";
/// Longest `jti`, in bytes.
const ID_BYTES_MAX: usize = 256;

/// The token of a request: a form with one `logout_token` (§2.5).
///
/// # Errors
/// It is none.
pub fn logout_token(content_type: Option<&str>, body: &[u8]) -> Result<String, Fault> {
    let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Fault::Malformed("Send application/x-www-form-urlencoded."));
    }
    match form::read(body, ["logout_token"]) {
        Ok([Some(token)]) if !token.is_empty() => Ok(token),
        _ => Err(Fault::Malformed("Send one logout_token.")),
    }
}

/// Whose sessions have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedOut {
    /// The user, as the provider calls him.
    pub subject: Option<String>,
    /// His session there; nothing: all of them.
    pub sid: Option<String>,
    /// `jti`: it counts once.
    pub id: String,
    /// When it ends, Unix seconds.
    pub expires_at: i64,
    /// When it was issued, Unix seconds.
    pub issued_at: i64,
}

/// Of the claims of a token.
///
/// # Errors
/// It tells of no log-out (§2.6).
pub fn logged_out(header: &Header, claims: &Map<String, Value>) -> Result<LoggedOut, Fault> {
    let refused = |why: &str| Fault::LogoutToken(why.to_owned());
    // It need not say what it is (§2.4); a token that calls itself something else is that.
    if header.kind.as_deref().is_some_and(|kind| kind != KIND && kind != "jwt") {
        return Err(refused("it is a token of another kind"));
    }
    // What an id_token has, so that none can stand in its place.
    if claims.contains_key("nonce") {
        return Err(refused("it has a nonce"));
    }
    if !claims.get("events").and_then(|it| it.get(EVENT)).is_some_and(Value::is_object) {
        return Err(refused("it tells of another event"));
    }
    let of = |fault: Fault| Fault::LogoutToken(fault.to_string());
    let time = |name: &str| number(claims, name).map_err(of)?.ok_or(refused("it has no times"));
    let (issued_at, expires_at) = (time("iat")?, time("exp")?);
    let subject = match claims.contains_key("sub") {
        true => Some(subject(claims).map_err(of)?),
        false => None,
    };
    let sid = sid(claims).map_err(of)?;
    if subject.is_none() && sid.is_none() {
        return Err(refused("it names neither a user nor a session"));
    }
    let id = claims.get("jti").and_then(Value::as_str);
    let id = id.filter(|id| (1..=ID_BYTES_MAX).contains(&id.len()));
    let id = id.ok_or(refused("it has no jti"))?.to_owned();
    Ok(LoggedOut { subject, sid, id, expires_at, issued_at })
}
