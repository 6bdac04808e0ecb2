//! One named verifier, compiled: what `[auth.NAME]` means. It must not know routes, nor what they
//! require.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use config::{KeySource, TokenSource};
use http::{HeaderMap, HeaderName};
use jsonwebtoken::Algorithm;

use super::carrier::{self, Raw};
use super::challenge::{Denied, Reason};
use super::header_value::ClaimHeader;
use super::keys::{Flaw, KeySet};
use super::memory::{self, Fingerprint, TokenMemory};
use super::token;
use crate::base::facts::Identity;
use crate::config;
use crate::store::keys::Keys;

/// A mistake in `[auth.NAME]`: the key below it, what is wrong, and the remedy.
pub type Mistake = (String, String, String);

/// Headers that frame or route the message, or that the gateway itself writes; a claim must not set
/// them.
const RESERVED_HEADERS: [&str; 16] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Verifies the tokens of one issuer.
#[derive(Debug)]
pub struct Verifier {
    name: String,
    /// Stands for the whole configuration, keys included, so that a reload that changes any of it
    /// starts with an empty memory of its own, even while requests of the former plan are still
    /// being remembered.
    fingerprint: Fingerprint,
    from: Vec<TokenSource>,
    forward_token: bool,
    pub(super) keys: KeySet,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Vec<String>,
    /// Whole seconds.
    pub(super) leeway: i64,
    /// Whole seconds.
    pub(super) max_age: Option<i64>,
    pub(super) token_bytes: usize,
    pub(super) revocation: bool,
    pub(super) store_keys: Keys,
    pub(super) claim_headers: Vec<ClaimHeader>,
}

impl Verifier {
    /// Compiles what was written, or says everything that is wrong with it. The list of mistakes is
    /// empty when the only one is that no key source is named, which the reader of the file has
    /// reported.
    pub fn compile(
        name: &str,
        config: &config::Verifier,
        store_keys: &Keys,
    ) -> Result<Self, Vec<Mistake>> {
        super::init();
        let mut mistakes = Vec::new();
        let claim_headers = compile_headers(config, &mut mistakes);
        let keys = config.keys.as_ref().and_then(|source| {
            let (place, keys) = read_keys(source, &config.algorithms);
            let report = |Flaw { what, remedy }| mistakes.push((place.to_owned(), what, remedy));
            keys.map_err(|flaws| flaws.into_iter().for_each(report)).ok()
        });
        let (Some(keys), true) = (keys, mistakes.is_empty()) else { return Err(mistakes) };
        Ok(Self {
            name: name.to_owned(),
            fingerprint: fingerprint(name, config, store_keys),
            from: config.from.clone(),
            forward_token: config.forward_token,
            keys,
            algorithms: config.algorithms.clone(),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            leeway: seconds(config.leeway),
            max_age: config.max_age.map(seconds),
            token_bytes: config.token_bytes,
            revocation: config.revocation,
            store_keys: store_keys.clone(),
            claim_headers,
        })
    }

    /// The name after `auth.`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The headers that claims are written to; the gateway takes them out of what a client sends.
    pub fn owned_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.claim_headers.iter().map(|(header, _)| header)
    }

    /// Takes the token out of what is forwarded, unless it is to be passed on.
    pub fn strip(&self, headers: &mut HeaderMap) {
        if !self.forward_token {
            carrier::remove(&self.from, headers);
        }
    }

    /// Who the request's token says is calling; nothing when it carries none.
    pub(super) fn identify(
        &self,
        headers: &HeaderMap,
        memory: &TokenMemory,
        now: SystemTime,
    ) -> Result<Option<Arc<Identity>>, Denied> {
        let Some(token) = carrier::find(&self.from, headers)? else { return Ok(None) };
        self.recall_or_verify(token, memory, unix_seconds(now)).map(Some)
    }

    fn recall_or_verify(
        &self,
        token: Raw<'_>,
        memory: &TokenMemory,
        now: i64,
    ) -> Result<Arc<Identity>, Denied> {
        // The bound comes before any work on the token.
        if token.0.len() > self.token_bytes {
            return Err(Reason::TooLarge.into());
        }
        if let Some(identity) = memory.get(&self.fingerprint, token.0, (now, self.leeway)) {
            return Ok(identity);
        }
        let identity = Arc::new(token::verify(self, token.text()?, now)?);
        memory.insert(&self.fingerprint, token.0, Arc::clone(&identity));
        Ok(identity)
    }
}

fn read_keys(
    source: &KeySource,
    algorithms: &[Algorithm],
) -> (&'static str, Result<KeySet, Vec<Flaw>>) {
    match source {
        KeySource::Secret(secret) => ("secret", KeySet::from_secret(secret.expose(), algorithms)),
        KeySource::PublicKey(pem) => ("public_key_file", KeySet::from_pem(pem, algorithms)),
        KeySource::Jwks(json) => {
            let text = std::str::from_utf8(json.expose())
                .map_err(|_| vec![Flaw::new("the JWK set is not UTF-8", "save the file as UTF-8")]);
            ("jwks_file", text.and_then(|text| KeySet::from_jwks(text, algorithms)))
        }
    }
}

fn compile_headers(config: &config::Verifier, mistakes: &mut Vec<Mistake>) -> Vec<ClaimHeader> {
    let mut headers = Vec::with_capacity(config.claims_to_headers.len());
    let mut seen = HashSet::new();
    for (written, claim) in &config.claims_to_headers {
        let mut mistake = |what: String, remedy: &str| {
            mistakes.push((format!("claims_to_headers.{written}"), what, remedy.to_owned()));
        };
        let Ok(header) = HeaderName::try_from(written.as_str()) else {
            mistake(format!("{written:?} is no header name"), "use a name such as `x-user-id`");
            continue;
        };
        if RESERVED_HEADERS.contains(&header.as_str()) {
            mistake(format!("`{header}` has its own meaning in HTTP"), "use a name of your own");
        }
        if claim.is_empty() {
            mistake("the claim has no name".to_owned(), "name a claim such as `sub`");
        }
        if !seen.insert(header.clone()) {
            mistake(format!("`{header}` is written twice"), "keep one; case makes no difference");
        }
        headers.push((header, claim.clone()));
    }
    headers
}

/// A digest of everything that decides what a token is worth here. `Debug` hides secrets, so they
/// are added as they are.
fn fingerprint(name: &str, config: &config::Verifier, store_keys: &Keys) -> Fingerprint {
    let material: &[u8] = match &config.keys {
        Some(KeySource::Secret(secret) | KeySource::Jwks(secret)) => secret.expose(),
        Some(KeySource::PublicKey(_)) | None => &[],
    };
    let mut context = Context::new(&SHA256);
    context.update(format!("{name:?} {store_keys:?} {config:?} ").as_bytes());
    context.update(material);
    memory::bytes(&context.finish())
}

/// Whole seconds; a fraction is dropped, which is never in the token's favour.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A clock that stands before 1970 reads as 1970, where tokens of today lie in the future and are
/// refused.
fn unix_seconds(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).map_or(0, seconds)
}
