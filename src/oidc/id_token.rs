//! What an `id_token` must say whose signature, issuer, audience and times are good already (OpenID
//! Connect Core 1.0 §3.1.3.7 and §3.1.3.8).

use aws_lc_rs::digest::{Algorithm as Digest, SHA256, SHA384, SHA512, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::fault::Fault;
use crate::config::Provider;

/// Longest `sub`, in bytes (OpenID Connect Core 1.0 §2).
const SUBJECT_BYTES_MAX: usize = 255;
/// Longest `sid`, in bytes.
const SID_BYTES_MAX: usize = 512;

/// What the header of a token says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `typ`, in lower case.
    pub kind: Option<String>,
    /// `alg`, by which it was verified.
    pub algorithm: Algorithm,
}

/// What the token of one log-in must fit.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// What the gateway has asked for, and is to the provider.
    pub provider: &'a Provider,
    /// The nonce of the log-in; nothing where a token was refreshed.
    pub nonce: Option<&'a str>,
    /// The access token that came with it.
    pub access_token: &'a str,
    /// Unix seconds.
    pub now: i64,
}

/// Who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// `sub`, as the provider has it.
    pub subject: String,
    /// `sid`: the session at the provider (OpenID Connect Back-Channel Logout 1.0 §2.1).
    pub sid: Option<String>,
    /// When it was issued, Unix seconds.
    pub issued_at: i64,
}

impl LoggedIn {
    /// Of the claims of a token.
    ///
    /// # Errors
    /// It is another kind of token, of another log-in, or for somebody else.
    pub fn of(
        header: &Header,
        claims: &Map<String, Value>,
        expected: &Expected<'_>,
    ) -> Result<Self, Fault> {
        // A token for an API, or one that tells of a log-out, is none (RFC 8725 §3.11).
        if header.kind.as_deref().is_some_and(|kind| kind != "jwt") || claims.contains_key("events")
        {
            return Err(Fault::answer("a token of another kind stands for the id_token"));
        }
        let issued_at = number(claims, "iat")?.ok_or(Fault::answer("the id_token has no iat"))?;
        authorized_party(claims, &expected.provider.client_id)?;
        if let Some(nonce) = expected.nonce
            && claims.get("nonce").and_then(Value::as_str) != Some(nonce)
        {
            return Err(Fault::answer("the id_token is of another log-in: its nonce differs"));
        }
        access_token_hash(header.algorithm, claims, expected.access_token)?;
        if expected.nonce.is_some() {
            freshness(claims, expected)?;
            context(claims, &expected.provider.acr_values)?;
        }
        Ok(Self { subject: subject(claims)?, sid: sid(claims)?, issued_at })
    }
}

/// §3.1.3.7, 3 to 5: a token for several is only believed where it says that it was issued to the
/// gateway, and one that was issued to somebody else is not believed.
fn authorized_party(claims: &Map<String, Value>, client_id: &str) -> Result<(), Fault> {
    let is_for_several = claims.get("aud").and_then(Value::as_array).is_some_and(|it| it.len() > 1);
    match claims.get("azp") {
        None if !is_for_several => Ok(()),
        Some(Value::String(party)) if party == client_id => Ok(()),
        _ => Err(Fault::answer("the id_token was issued to another client (azp)")),
    }
}

/// §3.1.3.8: whether the access token is the one that the token speaks of.
fn access_token_hash(
    algorithm: Algorithm,
    claims: &Map<String, Value>,
    access_token: &str,
) -> Result<(), Fault> {
    let Some(written) = claims.get("at_hash") else { return Ok(()) };
    let whole = digest(hash_of(algorithm), access_token.as_bytes());
    let half = whole.as_ref().get(..whole.as_ref().len() / 2).unwrap_or_default();
    match written.as_str() == Some(&URL_SAFE_NO_PAD.encode(half)) {
        true => Ok(()),
        false => Err(Fault::answer("the access token is another one than at_hash says")),
    }
}

/// The hash of a signature's algorithm; that of Ed25519 is SHA-512 (RFC 8032 §5.1).
fn hash_of(algorithm: Algorithm) -> &'static Digest {
    use Algorithm::{ES384, EdDSA, HS384, HS512, PS384, PS512, RS384, RS512};
    match algorithm {
        RS384 | PS384 | ES384 | HS384 => &SHA384,
        RS512 | PS512 | HS512 | EdDSA => &SHA512,
        _ => &SHA256,
    }
}

/// §3.1.2.1 and §3.1.3.7, 13: the user has shown who he is no longer ago than was asked for.
fn freshness(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), Fault> {
    let Some(max_age) = expected.provider.max_age else { return Ok(()) };
    let seconds = |it: std::time::Duration| i64::try_from(it.as_secs()).unwrap_or(i64::MAX);
    let (max_age, leeway) = (seconds(max_age), seconds(expected.provider.leeway));
    let shown = number(claims, "auth_time")?;
    let shown = shown.ok_or(Fault::answer("the id_token has no auth_time, and max_age is set"))?;
    let age = expected.now.saturating_sub(shown);
    if age > max_age.saturating_add(leeway) || age < leeway.saturating_neg() {
        return Err(Fault::answer("the user has shown longer ago who he is than max_age allows"));
    }
    Ok(())
}

/// §3.1.3.7, 12: a provider may ignore what was asked for, so that it must say what was done.
fn context(claims: &Map<String, Value>, wanted: &[String]) -> Result<(), Fault> {
    let said = claims.get("acr").and_then(Value::as_str);
    if wanted.is_empty() || wanted.iter().any(|wanted| said == Some(wanted)) {
        return Ok(());
    }
    Err(Fault::answer("the user has logged in by other means than acr_values asks for"))
}

/// The claims that name somebody become part of store keys and logs.
pub(super) fn subject(claims: &Map<String, Value>) -> Result<String, Fault> {
    text(claims, "sub", SUBJECT_BYTES_MAX)?.ok_or(Fault::answer("the token names no user (sub)"))
}

pub(super) fn sid(claims: &Map<String, Value>) -> Result<Option<String>, Fault> {
    text(claims, "sid", SID_BYTES_MAX)
}

fn text(claims: &Map<String, Value>, name: &str, most: usize) -> Result<Option<String>, Fault> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text))
            if (1..=most).contains(&text.len()) && !text.contains(char::is_control) =>
        {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(Fault::answer(format!("{name} is no text, empty, or too long"))),
    }
}

pub(super) fn number(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, Fault> {
    match claims.get(name) {
        None => Ok(None),
        // A fraction is dropped.
        Some(Value::Number(number)) => Ok(number.as_i64().or(number.as_f64().map(|it| it as i64))),
        Some(_) => Err(Fault::answer(format!("{name} is no number"))),
    }
}
