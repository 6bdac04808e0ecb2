//! One named verifier, compiled: what `[auth.NAME]` means. It must not know routes, nor what they
//! require.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use config::{AudienceMatch, KeySource, RemoteKeys, TokenSource};
use http::HeaderName;
use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::carrier::{self, Form, Places, Raw};
use super::challenge::{Denied, Reason};
use super::header_value::ClaimHeader;
use super::flaw::Flaw;
use super::keys::KeySet;
use super::memory::{self, Fingerprint, TokenMemory};
use super::{Missing, Unidentified, token};
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
    name: Arc<str>,
    /// Stands for the whole configuration, keys included, so that a reload that changes any of it
    /// starts with an empty memory of its own, even while requests of the former plan are still
    /// being remembered.
    fingerprint: Fingerprint,
    /// The keys of now; they change only where an issuer publishes them.
    current: ArcSwap<Current>,
    remote: Option<RemoteKeys>,
    pub(super) from: Vec<TokenSource>,
    pub(super) forward_token: bool,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Vec<String>,
    pub(super) audience_match: AudienceMatch,
    /// Whole seconds.
    pub(super) leeway: i64,
    /// Whole seconds.
    pub(super) max_age: Option<i64>,
    pub(super) token_bytes: usize,
    pub(super) revocation: bool,
    pub(super) store_keys: Keys,
    company: Company,
    pub(super) claim_headers: Vec<ClaimHeader>,
}

/// With whom a verifier of tokens shares a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Company {
    /// With nobody.
    Alone,
    /// With verifiers of API keys: their callers are told apart from its own, but what revokes its
    /// tokens revokes nothing of theirs.
    ApiKeys,
    /// With another verifier of tokens, whose `jti`, `sid` and `sub` may be the same.
    Tokens,
}

/// The keys of a verifier, and what its tokens are remembered under while it has these.
#[derive(Debug)]
struct Current {
    keys: KeySet,
    fingerprint: Fingerprint,
}

impl Verifier {
    /// Compiles what was written, or says everything that is wrong with it. The list of mistakes is
    /// empty when the only one is that no key source is named, which the reader of the file has
    /// reported.
    pub fn compile(
        name: &str,
        config: &config::Verifier,
        store_keys: &Keys,
        company: Company,
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
        let remote = match &config.keys {
            Some(KeySource::Url(remote)) => Some(remote.clone()),
            _ => None,
        };
        let store_keys = match company {
            Company::Tokens => store_keys.qualified(name),
            Company::Alone | Company::ApiKeys => store_keys.clone(),
        };
        let fingerprint = fingerprint(&format!("{name} {company:?}"), config, &store_keys);
        Ok(Self {
            name: name.into(),
            fingerprint,
            current: ArcSwap::from_pointee(Current { keys, fingerprint }),
            remote,
            from: config.from.clone(),
            forward_token: config.forward_token,
            algorithms: config.algorithms.clone(),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            audience_match: config.audience_match,
            leeway: seconds(config.leeway),
            max_age: config.max_age.map(seconds),
            token_bytes: config.token_bytes,
            revocation: config.revocation,
            store_keys,
            company,
            claim_headers,
        })
    }

    /// The name after `auth.`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The headers that claims are written to; the gateway takes them out of what a client sends.
    pub fn owned_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.claim_headers.iter().map(|(header, _)| header)
    }

    /// The `iss` that its tokens have, where the configuration says so.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The keys of the store that revoke its tokens.
    pub fn store_keys(&self) -> &Keys {
        &self.store_keys
    }

    /// Its name, where identities must be told apart by it.
    pub fn qualifier(&self) -> Option<Arc<str>> {
        (self.company != Company::Alone).then(|| Arc::clone(&self.name))
    }

    /// Where its keys are published, when they are.
    pub fn remote(&self) -> Option<&RemoteKeys> {
        self.remote.as_ref()
    }

    /// Whether there is any key yet.
    pub fn has_keys(&self) -> bool {
        !self.current.load().keys.is_empty()
    }

    /// Puts a set in force that the issuer published, for the requests to come; tokens that were
    /// verified by the former one are verified again. Returns what was left out of the set, if it
    /// is another one than before.
    ///
    /// # Errors
    /// When no key of it is of use, all that is wrong with it; the former keys stay.
    pub fn renew_keys(&self, document: &str) -> Result<Vec<Flaw>, Vec<Flaw>> {
        let mut context = Context::new(&SHA256);
        context.update(&self.fingerprint);
        context.update(document.as_bytes());
        let fingerprint = memory::bytes(&context.finish());
        if self.current.load().fingerprint == fingerprint {
            return Ok(Vec::new());
        }
        let (keys, ignored) = KeySet::from_published(document, &self.algorithms)?;
        self.current.store(Arc::new(Current { keys, fingerprint }));
        Ok(ignored)
    }

    /// Whether the keys are others than when a token was found to lack its own.
    pub(super) fn has_changed_since(&self, seen: &Fingerprint) -> bool {
        self.current.load().fingerprint != *seen
    }

    /// What the token says, if it was verified before and its key still counts.
    pub(super) fn recall(
        &self,
        token: &Raw<'_>,
        memory: &TokenMemory,
        now: i64,
    ) -> Option<Arc<Identity>> {
        memory.get(&self.current.load().fingerprint, &token.0, (now, self.leeway))
    }

    /// Who the token says is calling.
    pub(super) fn recall_or_verify(
        &self,
        token: &Raw<'_>,
        memory: &TokenMemory,
        now: i64,
    ) -> Result<Arc<Identity>, Unidentified<'_>> {
        // The bound comes before any work on the token.
        if token.0.len() > self.token_bytes {
            return Err(Denied::from(Reason::TooLarge).into());
        }
        let current = self.current.load();
        if let Some(identity) = memory.get(&current.fingerprint, &token.0, (now, self.leeway)) {
            return Ok(identity);
        }
        let identity = match token::verify(self, &current.keys, token.text()?, now) {
            Ok(identity) => Arc::new(identity),
            Err(Reason::KeyUnknown) => {
                let seen = current.fingerprint;
                return Err(Unidentified::KeyUnknown(Missing { verifier: self, seen }));
            }
            Err(reason) => return Err(Denied::from(reason).into()),
        };
        memory.insert(&current.fingerprint, &token.0, Arc::clone(&identity));
        Ok(identity)
    }

    /// Whether the token stands in one of this verifier's own places.
    pub(super) fn reads(&self, token: &Raw<'_>, places: Places<'_>) -> bool {
        matches!(carrier::find(&self.from, Form::Token, places), Ok(Some(found)) if found == *token)
    }

    #[cfg(test)]
    pub(super) fn verify(&self, token: &str, now: i64) -> Result<Identity, Reason> {
        token::verify(self, &self.current.load().keys, token, now)
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
        KeySource::Url(_) => {
            let secret = algorithms.iter().find(|it| it.family() == AlgorithmFamily::Hmac);
            let keys = match secret {
                None => Ok(KeySet::unfetched()),
                Some(algorithm) => Err(vec![Flaw::new(
                    format!("{algorithm:?} needs a shared secret, and what is published is none"),
                    "name what the issuer signs with, such as \"ES256\", or use `secret`",
                )]),
            };
            ("algorithms", keys)
        }
        KeySource::ApiKeys => {
            let flaw = Flaw::new("API keys are no tokens", "remove it, or name keys of an issuer");
            ("api_keys", Err(vec![flaw]))
        }
    }
}

pub(super) fn compile_headers(
    config: &config::Verifier,
    mistakes: &mut Vec<Mistake>,
) -> Vec<ClaimHeader> {
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
        Some(KeySource::PublicKey(_) | KeySource::Url(_) | KeySource::ApiKeys) | None => &[],
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
pub(super) fn unix_seconds(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).map_or(0, seconds)
}
