//! The token request and what answers it (RFC 6749 §4.1.3, §5, §6; OpenID Connect Core 1.0 §3.1.3).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use super::callback::error_name;
use super::fault::Fault;
use crate::base::http::{form, percent};
use crate::config::{ClientAuthentication, Provider};

/// Longest token, in bytes, but for the `id_token`, which `max_bytes` of the provider bounds.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest life of an access token that is believed, in seconds: a year.
const LIFE_S_MAX: u64 = 366 * 24 * 60 * 60;

/// What tokens are asked for with.
#[derive(Debug, Clone, Copy)]
pub enum Grant<'a> {
    /// A code, and the verifier that it was asked for with (RFC 7636 §4.5).
    Code {
        /// `code`
        code: &'a str,
        /// `code_verifier`
        verifier: &'a str,
    },
    /// A refresh token.
    Refresh(&'a str),
}

/// The form of a request.
pub fn form(provider: &Provider, grant: Grant<'_>) -> String {
    let mut pairs = match grant {
        Grant::Code { code, verifier } => vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            // RFC 6749 §4.1.3: the same as the code was asked for with.
            ("redirect_uri", &*provider.redirect_uri.text),
            ("code_verifier", verifier),
        ],
        Grant::Refresh(token) => vec![("grant_type", "refresh_token"), ("refresh_token", token)],
    };
    let secret = provider.client_secret.as_ref().map(|it| String::from_utf8_lossy(it.expose()));
    match (&secret, provider.client_auth) {
        (Some(_), ClientAuthentication::Basic) => {}
        (Some(secret), ClientAuthentication::Post) => {
            pairs.push(("client_id", &provider.client_id));
            pairs.push(("client_secret", secret));
        }
        // RFC 6749 §3.2.1: who has no secret says who it is.
        (None, _) => pairs.push(("client_id", &provider.client_id)),
    }
    form::write(&pairs)
}

/// `Authorization` of a request (RFC 6749 §2.3.1: both parts are encoded as a form's values are);
/// nothing where the form says it, or there is no secret.
pub fn client_credentials(provider: &Provider) -> Option<HeaderValue> {
    let secret = provider.client_secret.as_ref()?;
    if provider.client_auth != ClientAuthentication::Basic {
        return None;
    }
    let (id, secret) =
        (percent::encode(provider.client_id.as_bytes()), percent::encode(secret.expose()));
    let text = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let mut credentials = HeaderValue::try_from(text).ok()?;
    credentials.set_sensitive(true);
    Some(credentials)
}

/// What a provider has issued.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    /// `access_token`
    pub access: String,
    /// `id_token`; at a log-in it is there.
    pub id: Option<String>,
    /// `refresh_token`
    pub refresh: Option<String>,
    /// How many seconds the access token lives.
    pub expires_in: Option<u64>,
}

/// What is there, and nothing of it.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("has_id", &self.id.is_some())
            .field("has_refresh", &self.refresh.is_some())
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// RFC 6749 §5.1. No member may stand twice.
#[derive(Deserialize)]
struct Issued {
    access_token: String,
    token_type: String,
    id_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct Failed {
    error: String,
}

/// Reads the answer to a request.
///
/// # Errors
/// The provider has issued nothing, or what it says is not to be believed.
pub fn tokens(status: StatusCode, body: &[u8]) -> Result<Tokens, Fault> {
    let is_object = body.trim_ascii_start().starts_with(b"{");
    if status != StatusCode::OK {
        let failed = serde_json::from_slice::<Failed>(body).ok().filter(|_| is_object);
        let error = failed.map(|failed| error_name(&failed.error));
        return Err(match error {
            Some(error) if error == "invalid_grant" => Fault::Code(error),
            Some(error) => Fault::answer(format!("{status} {error}")),
            None => Fault::answer(status.to_string()),
        });
    }
    let issued: Issued = match serde_json::from_slice(body) {
        Ok(issued) if is_object => issued,
        _ => return Err(Fault::answer("the token endpoint answered no tokens")),
    };
    // RFC 6749 §7.1: a type that is not understood must not be used.
    if !issued.token_type.eq_ignore_ascii_case("bearer") {
        return Err(Fault::answer("the tokens are of a type that is not understood"));
    }
    let all = [Some(&issued.access_token), issued.refresh_token.as_ref()];
    if all.into_iter().flatten().any(|token| !is_token(token)) {
        return Err(Fault::answer("a token is empty, too long, or no text"));
    }
    Ok(Tokens {
        access: issued.access_token,
        id: issued.id_token,
        refresh: issued.refresh_token,
        expires_in: issued.expires_in.map(|life| life.min(LIFE_S_MAX)),
    })
}

/// RFC 6749, appendices A.12 and A.17: it may become a field's value.
fn is_token(text: &str) -> bool {
    let is_visible = |byte: u8| (0x21..=0x7e).contains(&byte);
    (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_visible)
}
