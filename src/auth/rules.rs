//! What a verifier's configuration demands of a token and makes of its claims, compiled: plain data
//! that the readers of tokens and of claims share. It must not know keys, nor any token.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderName;
use jsonwebtoken::Algorithm;

use super::challenge::Denied;
use super::header_value::ClaimHeader;
use super::proof_fault::ProofFault;
use crate::base::http::fields::is_reserved;
use crate::config::{self, AudienceMatch, BoundTo, KeySource};
use crate::store::keys::Keys;

/// A mistake in `[auth.NAME]`: the key below it, what is wrong, and the remedy.
pub type Mistake = (String, String, String);

/// What `[auth.NAME]` says of tokens.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// The name after `auth.`.
    pub(super) name: Arc<str>,
    /// The name, where identities must be told apart by it.
    pub(super) qualifier: Option<Arc<str>>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Vec<String>,
    pub(super) audience_match: AudienceMatch,
    /// Whole seconds.
    pub(super) leeway: i64,
    /// Whole seconds.
    pub(super) max_age: Option<i64>,
    /// Longest token, in bytes.
    pub(super) token_bytes: usize,
    /// Whether the store is asked if the token was revoked.
    pub(super) revocation: bool,
    /// The keys of the store that revoke tokens.
    pub(super) store_keys: Keys,
    pub(super) claim_headers: Vec<ClaimHeader>,
    /// Whether a token must say when it ends: a server that is asked may leave that to itself.
    pub(super) needs_expiry: bool,
    /// What its tokens must be bound to.
    pub(super) bound: Option<BoundTo>,
    pub(super) proof_algorithms: Vec<Algorithm>,
    /// The same, as challenges name them.
    pub(super) proof_names: Arc<str>,
    /// How old a proof may be, in whole seconds.
    pub(super) proof_window: i64,
}

impl Rules {
    /// What is written; `is_qualified`: identities must be told apart by the verifier's name.
    pub(super) fn of(
        config: &config::Verifier,
        name: &str,
        store_keys: Keys,
        claim_headers: Vec<ClaimHeader>,
        is_qualified: bool,
    ) -> Self {
        let name: Arc<str> = name.into();
        Self {
            qualifier: is_qualified.then(|| Arc::clone(&name)),
            name,
            algorithms: config.algorithms.clone(),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            audience_match: config.audience_match,
            leeway: seconds(config.leeway),
            max_age: config.max_age.map(seconds),
            token_bytes: config.token_bytes,
            revocation: config.revocation,
            store_keys,
            claim_headers,
            needs_expiry: !matches!(config.keys, Some(KeySource::Introspection(_))),
            bound: config.sender.bound,
            proof_algorithms: config.sender.algorithms.clone(),
            proof_names: names(&config.sender.algorithms),
            proof_window: seconds(config.sender.window),
        }
    }

    /// The refusal of a token whose sender does not show that it is his.
    pub(super) fn unproven(&self, fault: ProofFault) -> Denied {
        Denied::Unproven { fault, algorithms: Arc::clone(&self.proof_names) }
    }
}

/// Algorithms as a challenge lists them (RFC 9449 §7.1).
fn names(algorithms: &[Algorithm]) -> Arc<str> {
    let names: Vec<String> = algorithms.iter().map(|it| format!("{it:?}")).collect();
    names.join(" ").into()
}

/// The headers that `claims_to_headers` names, and what is wrong with it.
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
        if is_reserved(header.as_str()) {
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

/// Whole seconds; a fraction is dropped, which is never in the token's favour.
pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A clock that stands before 1970 reads as 1970, where tokens of today lie in the future and are
/// refused.
pub(super) fn unix_seconds(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).map_or(0, seconds)
}
