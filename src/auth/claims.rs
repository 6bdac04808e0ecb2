//! What the claims of a token whose signature is good must say (RFC 7519 §4.1), and the
//! [`Identity`] they make. A claim of the wrong type is refused, never skipped. It must not know
//! signatures.

use std::sync::Arc;

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::challenge::Reason;
use super::header_value;
use super::rules::Rules;
use crate::base::claim::Exact;
use crate::base::facts::{Credential, Identity};
use crate::base::http::hex;
use crate::config::{AudienceMatch, BoundTo};

/// Largest magnitude of a time: beyond it a JSON number is not exact (RFC 8259 §6).
const SECONDS_MAX: f64 = 9_007_199_254_740_991.0;

/// Judges the claims at `now` (Unix seconds) and builds the identity.
pub(super) fn identity(
    rules: &Rules,
    claims: Map<String, Value>,
    exact: Exact,
    signing_input: &str,
    now: i64,
) -> Result<Identity, Reason> {
    let (expires_at, issued_at) = check_times(rules, &claims, now)?;
    check_issuer(rules, &claims)?;
    check_audience(rules, &claims)?;
    let subject = text(&claims, "sub")?;
    let token_id = text(&claims, "jti")?;
    let session = text(&claims, "sid")?;
    let (bound_to, proven_by) = binding(&claims)?;
    let is_bound = match rules.bound {
        None => true,
        Some(BoundTo::Certificate) => bound_to.is_some(),
        Some(BoundTo::Dpop) => proven_by.is_some(),
    };
    if !is_bound {
        return Err(Reason::NotBound);
    }
    let mut blacklist_keys = Vec::new();
    let mut not_before_key = None;
    if rules.revocation {
        let keys = &rules.store_keys;
        let by_digest = || keys.blacklist_digest(signing_input.as_bytes());
        blacklist_keys.push(token_id.map_or_else(by_digest, |jti| keys.blacklist(jti)));
        // Whoever revokes a certificate means what is only good with it, too.
        let certificate = bound_to.as_ref().map(|it| keys.blacklist_certificate(&it.sha256));
        blacklist_keys.extend(certificate);
        blacklist_keys.extend(session.map(|sid| keys.blacklist_session(sid)));
        not_before_key = subject.map(|sub| keys.not_before(sub));
    }
    let subject = subject.map(str::to_owned);
    let headers = Vec::new();
    let mut identity = Identity {
        claims,
        exact,
        subject,
        issued_at,
        expires_at,
        credential: Credential::Token { bound_to: bound_to.map(|it| it.thumbprint), proven_by },
        blacklist_keys,
        not_before_key,
        verifier: Arc::clone(&rules.name),
        qualifier: rules.qualifier.clone(),
        headers,
    };
    identity.headers = header_value::all(&rules.claim_headers, &identity)?;
    Ok(identity)
}

/// `exp` and `iat`, once all times are acceptable (RFC 7519 §4.1.4 to §4.1.6). Fractions count
/// against the token: `exp` and `iat` are rounded down, `nbf` up.
fn check_times(
    rules: &Rules,
    claims: &Map<String, Value>,
    now: i64,
) -> Result<(i64, Option<i64>), Reason> {
    let leeway = rules.leeway;
    let expires_at = match time(claims, "exp", f64::floor)? {
        Some(expires_at) => expires_at,
        None if rules.needs_expiry => return Err(Reason::NoExpiry),
        None => i64::MAX,
    };
    let not_before = time(claims, "nbf", f64::ceil)?;
    let issued_at = time(claims, "iat", f64::floor)?;
    if expires_at < 0 {
        return Err(Reason::Claim("exp"));
    }
    if now >= expires_at.saturating_add(leeway) {
        return Err(Reason::Expired);
    }
    if not_before.is_some_and(|not_before| now.saturating_add(leeway) < not_before) {
        return Err(Reason::NotYet);
    }
    if issued_at.is_some_and(|issued_at| now.saturating_add(leeway) < issued_at) {
        return Err(Reason::IssuedInFuture);
    }
    if let Some(max_age) = rules.max_age {
        let issued_at = issued_at.ok_or(Reason::MaxAge)?;
        if expires_at.saturating_sub(issued_at) > max_age {
            return Err(Reason::MaxAge);
        }
    }
    Ok((expires_at, issued_at))
}

/// A NumericDate (RFC 7519 §2) in whole seconds.
pub(super) fn time(
    claims: &Map<String, Value>,
    name: &'static str,
    round: fn(f64) -> f64,
) -> Result<Option<i64>, Reason> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value
        .as_f64()
        .ok_or_else(|| Reason::ClaimType(name, "a number of seconds", kind(value)))?;
    if seconds.abs() > SECONDS_MAX {
        return Err(Reason::Claim(name));
    }
    // Within the bound the conversion is exact.
    Ok(Some(round(seconds) as i64))
}

/// RFC 7519 §4.1.1: compared byte for byte.
fn check_issuer(rules: &Rules, claims: &Map<String, Value>) -> Result<(), Reason> {
    let issuer = match claims.get("iss") {
        None => None,
        Some(Value::String(issuer)) => Some(issuer),
        Some(other) => return Err(not_a_text("iss", other)),
    };
    match &rules.issuer {
        Some(expected) if issuer != Some(expected) => Err(Reason::Issuer),
        _ => Ok(()),
    }
}

/// RFC 7519 §4.1.3: a string or a list of strings, one of which must be ours where we have any, or
/// among which all of ours must be.
fn check_audience(rules: &Rules, claims: &Map<String, Value>) -> Result<(), Reason> {
    let named: Vec<&str> = match claims.get("aud") {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) => {
            list.iter().map(Value::as_str).collect::<Option<_>>().ok_or(Reason::Claim("aud"))?
        }
        Some(other) => {
            return Err(Reason::ClaimType("aud", "a text or a list of texts", kind(other)));
        }
    };
    let is_named = |ours: &String| named.iter().any(|name| name == ours);
    let accepted = match rules.audience_match {
        AudienceMatch::Any => rules.audience.is_empty() || rules.audience.iter().any(is_named),
        AudienceMatch::All => rules.audience.iter().all(is_named),
    };
    if accepted { Ok(()) } else { Err(Reason::Audience) }
}

/// The one certificate with which a token is good, by its SHA-256.
struct Binding {
    /// In base64url, as the token has it.
    thumbprint: Box<str>,
    /// In lower-case hexadecimal, as store keys have it.
    sha256: String,
}

/// The certificate to which `cnf` binds the token (RFC 8705 §3.1), and the thumbprint of the key
/// (RFC 9449 §6.1). Of other ways to confirm a sender nothing is known here (RFC 7800 §3.1).
fn binding(claims: &Map<String, Value>) -> Result<(Option<Binding>, Option<Box<str>>), Reason> {
    let Some(confirmation) = claims.get("cnf") else { return Ok((None, None)) };
    let members = confirmation.as_object().ok_or(Reason::Claim("cnf"))?;
    let certificate = members.get("x5t#S256").map(thumbprint).transpose()?;
    let certificate = certificate
        .map(|(text, digest)| Binding { thumbprint: text.into(), sha256: hex::encode(&digest) });
    let key = members.get("jkt").map(thumbprint).transpose()?;
    Ok((certificate, key.map(|(text, _)| text.into())))
}

/// A SHA-256 in base64url, and its bytes.
fn thumbprint(value: &Value) -> Result<(&str, Vec<u8>), Reason> {
    const REFUSED: Reason = Reason::Claim("cnf");
    let text = value.as_str().ok_or(REFUSED)?;
    let digest = URL_SAFE_NO_PAD.decode(text).map_err(|_| REFUSED)?;
    if digest.len() == SHA256_OUTPUT_LEN { Ok((text, digest)) } else { Err(REFUSED) }
}

/// A claim that identifies something: it becomes part of store keys, limits and logs, so it is
/// neither empty, which would make one identity of all that lack it, nor does it hold control
/// characters.
fn text<'c>(claims: &'c Map<String, Value>, name: &'static str) -> Result<Option<&'c str>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && !text.contains(char::is_control) => {
            Ok(Some(text))
        }
        Some(other) => Err(not_a_text(name, other)),
    }
}

/// A claim that must be a text, and is none.
pub(super) fn not_a_text(name: &'static str, value: &Value) -> Reason {
    Reason::ClaimType(name, "a text", kind(value))
}

/// What a value is, in words that name nothing of it.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(text) if text.is_empty() => "empty",
        Value::String(text) if text.contains(char::is_control) => "one with control characters",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
