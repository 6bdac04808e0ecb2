//! One log-in that was begun and is not over: what the store has of it, and what its browser has.
//!
//! Three secrets tie it together. The `state` goes through the browser's address bar and the
//! provider's logs; what is stored under its digest is used once. The cookie never leaves the
//! browser: without it, nobody ends a log-in that somebody else began (RFC 9700 §4.7). The
//! verifier of the code (RFC 7636) never leaves the gateway before the provider has answered.

use std::borrow::Cow;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::COOKIE as COOKIE_FIELD;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::base::http::{cookie, hex};

/// Bytes of each secret: 256 bits (RFC 7636 §7.1).
const SECRET_BYTES: usize = 32;
/// Characters of a secret in base64url.
const SECRET_CHARS: usize = 43;
/// Hexadecimal digits of the state's digest in the name of the cookie.
const NAME_DIGITS: usize = 16;
/// Most log-ins that one browser has begun and not ended: each has a cookie.
pub const LOGIN_COOKIES_MAX: usize = 5;
/// What the names of these cookies begin with. Browsers take them from this host alone, over TLS.
const COOKIE: &str = "__Host-login-";
/// The same where sessions are allowed in clear.
const CLEAR_COOKIE: &str = "login-";

/// What the store has of a log-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The provider's name: what comes from another one is not for this log-in (RFC 9700 §4.4).
    pub provider: String,
    /// What the `id_token` must repeat.
    pub nonce: String,
    /// What the code was asked for with (RFC 7636 §4.1).
    pub verifier: String,
    /// The digest of what the browser's cookie holds.
    pub binding: String,
    /// Where the browser goes then: a path of this origin.
    pub return_to: String,
}

/// What the browser has of a log-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets {
    /// `state`
    pub state: String,
    /// What its cookie holds.
    pub cookie: String,
}

impl Attempt {
    /// Begins one.
    ///
    /// # Errors
    /// The random source failed.
    pub fn begin(provider: &str, return_to: &str) -> Result<(Self, Secrets), Fault> {
        let secrets = Secrets { state: secret()?, cookie: secret()? };
        let attempt = Self {
            provider: provider.to_owned(),
            nonce: secret()?,
            verifier: secret()?,
            binding: binding_of(&secrets.cookie),
            return_to: return_to.to_owned(),
        };
        Ok((attempt, secrets))
    }

    /// As the store keeps it.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Of what the store has kept.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(text).map_err(|_| Fault::StateUnknown)
    }

    /// What the provider is told of the verifier: S256 and never `plain` (RFC 7636 §4.2, RFC 9700
    /// §2.1.1).
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()))
    }

    /// Whether the log-in is of this provider, and was begun by the browser with this cookie.
    ///
    /// # Errors
    /// It is another's.
    pub fn belongs_to(&self, provider: &str, cookie: &str) -> Result<(), Fault> {
        if self.binding != binding_of(cookie) {
            return Err(Fault::StateUnknown);
        }
        if self.provider != provider {
            return Err(Fault::OtherProvider);
        }
        Ok(())
    }
}

/// The name of the cookie of a log-in, by its state.
pub(super) fn cookie_name(state: &str, is_clear: bool) -> String {
    let digest = digest_of(state);
    let digits = digest.get(..NAME_DIGITS).unwrap_or_default();
    format!("{}{digits}", prefix(is_clear))
}

fn prefix(is_clear: bool) -> &'static str {
    if is_clear { CLEAR_COOKIE } else { COOKIE }
}

impl Secrets {
    /// The cookie of a log-in that was begun, good for so long. `is_clear`: sessions are allowed in
    /// clear, for development.
    pub fn set_cookie(&self, ttl: Duration, is_clear: bool) -> String {
        set(&cookie_name(&self.state, is_clear), &self.cookie, ttl, is_clear)
    }

    /// What takes the cookie back, by its name.
    pub fn unset_cookie(name: &str, is_clear: bool) -> String {
        set(name, "", Duration::ZERO, is_clear)
    }

    /// The name of the cookie that belongs to a state; nothing of what is no state of ours.
    pub fn name_of(state: &str, is_clear: bool) -> Option<String> {
        is_secret(state).then(|| cookie_name(state, is_clear))
    }

    /// Whether a cookie of this name is one of a log-in.
    pub fn is_name(name: &str) -> bool {
        let digits = name.strip_prefix(COOKIE).or_else(|| name.strip_prefix(CLEAR_COOKIE));
        let is_hex = |it: &str| it.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.is_some_and(|digits| digits.len() == NAME_DIGITS && is_hex(digits))
    }
}

/// Takes the cookies of log-ins out of the fields of a request: no upstream has a use for them.
pub fn strip_cookies(fields: &mut Cow<'_, HeaderMap>) {
    let found = cookie::names(fields).filter(|name| Secrets::is_name(name));
    let found: Vec<String> = found.map(str::to_owned).collect();
    for name in found {
        let lines: Vec<HeaderValue> = fields.get_all(COOKIE_FIELD).iter().cloned().collect();
        let fields = fields.to_mut();
        fields.remove(COOKIE_FIELD);
        for line in lines.iter().filter_map(|line| cookie::without(line, &name)) {
            fields.append(COOKIE_FIELD, line);
        }
    }
}

/// It comes back with a navigation from the provider's site, so that it cannot be `Strict`.
fn set(name: &str, value: &str, ttl: Duration, is_clear: bool) -> String {
    let secure = if is_clear { "" } else { "; Secure" };
    let age = ttl.as_secs();
    format!("{name}={value}; Max-Age={age}; Path=/{secure}; HttpOnly; SameSite=Lax")
}

/// Whether this may be a secret of ours.
fn is_secret(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() == SECRET_CHARS && text.bytes().all(is_plain)
}

fn secret() -> Result<String, Fault> {
    let mut bytes = [0; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Fault::NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The digest of a state, under which its log-in is stored: who reads the store cannot end it.
pub fn digest_of(state: &str) -> String {
    hex::encode(digest(&SHA256, state.as_bytes()).as_ref())
}

/// What the store has of a browser's cookie.
pub fn binding_of(cookie: &str) -> String {
    hex::encode(digest(&SHA256, &[b"login cookie ", cookie.as_bytes()].concat()).as_ref())
}
