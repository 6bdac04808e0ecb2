//! What an upstream is told of a caller by a token that the gateway signs: who calls, and what was
//! verified of him. A signature costs more than all the rest of a request, so that a token is sent
//! again for a part of its life to a caller of whom the very same is said.
//!
//! Tokens that are sent again are found by the SHA-256 of all that they say beside their times: two
//! callers have one in common only where nothing that is said of them differs.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::Value;

use super::signer::Signer;
use crate::base::facts::Identity;
use crate::config;

/// Most bytes of one token: servers take heads of 8 to 16 KiB.
const TOKEN_BYTES_MAX: usize = 6 * 1024;
/// Most tokens of one route that are sent again; the least used give way.
const COPIES_MAX: usize = 8192;
/// Most bytes of them.
const COPIES_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of a `jti`.
const ID_BYTES: usize = 16;

/// `assertion` of a route, compiled.
#[derive(Debug)]
pub struct Assertion {
    /// The field that carries it.
    pub header: HeaderName,
    /// The session's fields that it repeats.
    pub session: Vec<String>,
    signer: Arc<Signer>,
    /// What each begins with: `{"iss":…,"aud":…`.
    begin: String,
    ttl_s: u64,
    reuse_s: u64,
    claims: Vec<String>,
    copies: Cache<Said, Sent, ByBytes>,
}

/// What stands for all that a token says, beside its times.
type Said = [u8; SHA256_OUTPUT_LEN];

/// Of a session: nothing, or the text of a JSON object.
pub type Session<'s> = Option<&'s str>;

/// A token that was sent, and when it was signed.
#[derive(Debug, Clone)]
struct Sent {
    value: HeaderValue,
    /// Unix seconds.
    signed_s: u64,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Said, Sent> for ByBytes {
    fn weight(&self, _: &Said, sent: &Sent) -> u64 {
        // The floor makes the bound on bytes a bound on their number too.
        (sent.value.len() as u64).max(COPIES_BYTES_MAX / COPIES_MAX as u64)
    }
}

impl Assertion {
    /// What was written, signed by this one.
    pub fn new(written: &config::Assertion, signer: Arc<Signer>) -> Self {
        let (issuer, audience) = (quoted(&signer.issuer), quoted(&written.audience));
        Self {
            header: written.header.clone(),
            session: written.session.clone(),
            begin: format!(r#"{{"iss":{issuer},"aud":{audience}"#),
            ttl_s: written.ttl.as_secs(),
            reuse_s: written.reuse.as_secs(),
            claims: written.claims.clone(),
            copies: Cache::with_weighter(COPIES_MAX, COPIES_BYTES_MAX, ByBytes),
            signer,
        }
    }

    /// The value of the field for a caller, at `now`.
    ///
    /// # Errors
    /// There is none that an upstream would take, or the random source has failed. The request must
    /// not be sent without.
    pub fn of(
        &self,
        identity: &Identity,
        session: Session<'_>,
        now: SystemTime,
    ) -> Result<HeaderValue, &'static str> {
        let said = self.said(identity, session);
        let now_s = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if self.reuse_s == 0 {
            return self.signed(&said, now_s);
        }
        let mut key = [0; SHA256_OUTPUT_LEN];
        key.copy_from_slice(digest(&SHA256, said.as_bytes()).as_ref());
        // A clock that was set back must not make one live for longer.
        let is_fresh = |sent: &Sent| {
            (sent.signed_s..sent.signed_s.saturating_add(self.reuse_s)).contains(&now_s)
        };
        if let Some(sent) = self.copies.get(&key).filter(is_fresh) {
            return Ok(sent.value);
        }
        let value = self.signed(&said, now_s)?;
        self.copies.insert(key, Sent { value: value.clone(), signed_s: now_s });
        Ok(value)
    }

    /// All that is said of a caller, as the open begin of a JSON object.
    fn said(&self, identity: &Identity, session: Session<'_>) -> String {
        let mut said = String::with_capacity(self.begin.len() + 256);
        said.push_str(&self.begin);
        if let Some(subject) = &identity.subject {
            push(&mut said, "sub", &quoted(subject));
        }
        // Two verifiers may give the same `sub` to different callers.
        push(&mut said, "verifier", &quoted(&identity.verifier));
        for name in &self.claims {
            let Some(found) = identity.find(name) else { continue };
            match found.value {
                Value::String(text) => push(&mut said, name, &quoted(text)),
                _ => push(&mut said, name, &found.text()),
            }
        }
        if let Some(session) = session {
            push(&mut said, "session", session);
        }
        said
    }

    fn signed(&self, said: &str, now_s: u64) -> Result<HeaderValue, &'static str> {
        const FAILED: &str = "the system's random source failed";
        let mut claims = said.to_owned();
        push(&mut claims, "iat", &now_s.to_string());
        push(&mut claims, "exp", &now_s.saturating_add(self.ttl_s).to_string());
        if self.reuse_s == 0 {
            let mut id = [0; ID_BYTES];
            aws_lc_rs::rand::fill(&mut id).map_err(|_| FAILED)?;
            push(&mut claims, "jti", &quoted(&URL_SAFE_NO_PAD.encode(id)));
        }
        claims.push('}');
        let token = self.signer.sign("JWT", &claims).ok_or(FAILED)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err("what is to be said of the caller is longer than upstreams take");
        }
        let mut value = HeaderValue::try_from(token).map_err(|_| FAILED)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Adds a member, whose value is JSON, to an object that is open and has one already.
fn push(object: &mut String, name: &str, value: &str) {
    object.push(',');
    object.push_str(&quoted(name));
    object.push(':');
    object.push_str(value);
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
