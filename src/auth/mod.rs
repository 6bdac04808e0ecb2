//! The auth room: who calls, as far as a signed token, an API key or a client's certificate says,
//! and whether that suffices for a route (RFC 6750, RFC 7519, RFC 8705). It asks the store for
//! records of API keys alone: revocation is looked up elsewhere and only judged here. It must not
//! know routes, nor the shape of an error answer.

mod api_key;
mod authenticator;
mod carrier;
mod certificate;
mod challenge;
mod claims;
mod clauses;
mod dpop;
mod flaw;
mod header_value;
mod identify;
mod introspect;
mod judged;
mod jwk;
mod key;
mod key_verifier;
mod keys;
mod material;
mod memory;
mod proof_fault;
mod rules;
mod session_verifier;
mod sign;
mod token;
mod verifier;
mod weak;

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "the tables read better with plain literals")]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName};
use serde_json::Value;

pub use self::api_key::{NewKey, RECORD_BYTES_MAX, Record, generate, key_digest};
pub use self::authenticator::{Authenticator, Identified};
pub use self::carrier::Places;
pub use self::certificate::{CertificateVerifier, ShownCertificate};
pub use self::challenge::{CertificateFault, Denied, KeyFault, REALM, Reason, Unmet};
pub use self::clauses::{Circumstances, fulfil};
pub use self::dpop::{Sent, prove};
pub use self::flaw::Flaw;
pub use self::identify::{Unidentified, claimed, identify};
pub use self::judged::{AuthNotes, Judged};
pub use self::key::Key;
pub use self::key_verifier::{KeyVerifier, RECORD_FRESH, RECORD_KEPT, Unread};
pub use self::keys::KeySet;
pub use self::memory::{TOKENS_MAX, TokenMemory};
pub use self::proof_fault::ProofFault;
pub use self::rules::Mistake;
pub use self::session_verifier::{ReadClaims, SessionVerifier};
pub use self::sign::sign;
pub use self::verifier::{Missing, NotVerified, SharedWith, Unasked, Verifier};

use self::carrier::Form;
use crate::base::claim::Found;
use crate::base::facts::{Caller, Credential, Identity, Target};
use crate::config::{BoundTo, TokenSource};
use crate::store::RevocationStatus;

/// The claim whose words are permissions (RFC 8693 §4.2).
const SCOPE: &str = "scope";
/// The other name of `scope`, as some issuers write it.
const SCOPE_ALIAS: &str = "scp";

/// What a route says about its callers.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Who verify tokens; of several, each has an `issuer` of its own, and the token
    /// says which.
    pub verifiers: Vec<Arc<Verifier>>,
    /// Who verify API keys, in places of their own.
    pub key_verifiers: Vec<Arc<KeyVerifier>>,
    /// Who says who calls where a request carries none of these: the one for certificates.
    pub certificate_verifier: Option<Arc<CertificateVerifier>>,
    /// Who says who calls by sessions that the gateway has made, where a request carries nothing
    /// but their cookie.
    pub session_verifier: Option<Arc<SessionVerifier>>,
    /// Where tokens are looked for: all places of those who verify tokens.
    pub from: Vec<TokenSource>,
    /// Whether the upstream sees the token or key.
    pub forward_token: bool,
    /// Whether a request without any credential passes. One with a bad one never does.
    pub optional: bool,
    /// What the token must say, all of it.
    pub require: Vec<Requirement>,
}

/// One claim that must have one of several values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The claim; dots walk into nested objects. `scope` stands for the words of `scope` and `scp`.
    pub claim: String,
    /// One of these is needed.
    pub any_of: Vec<String>,
}

/// The `typ` and the algorithm of a token that was verified.
pub fn header_of(token: &str) -> Option<(Option<String>, jsonwebtoken::Algorithm)> {
    token::header(token)
}

/// Chooses the cryptographic library for signatures. Compiling a verifier and signing do it too;
/// once is enough.
pub fn init() {
    // An error says that it was chosen before, which is what is wanted.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

/// Whether the caller's claims meet what the route requires. A caller without a token meets no
/// requirement.
pub fn permit(policy: &Policy, caller: &Caller) -> Result<(), Denied> {
    if policy.require.is_empty() {
        return Ok(());
    }
    let identity = caller.as_deref().ok_or_else(|| policy.missing())?;
    match policy.require.iter().find(|requirement| !requirement.is_met_by(identity)) {
        None => Ok(()),
        Some(unmet) => Err(unmet.refusal(identity)),
    }
}

/// Judges what the store said of the identity's keys. There is no leeway, and a token that does not
/// say when it was issued is taken for an old one. A certificate is as old as its begin.
///
/// # Errors
/// It was revoked.
pub fn confirm(identity: &Identity, revocation: RevocationStatus) -> Result<(), Denied> {
    let listed = revocation.listed;
    if !revocation.revokes(identity.issued_at) {
        return Ok(());
    }
    Err(match identity.credential {
        Credential::ApiKey { .. } => Denied::ApiKey(KeyFault::Revoked),
        Credential::Certificate => Denied::Certificate(CertificateFault::Revoked),
        Credential::Session { .. } => Denied::SessionRevoked,
        Credential::Token { .. } if !listed => Denied::Revoked("sub"),
        Credential::Token { .. } => Denied::Revoked(listed_by(identity)),
    })
}

/// What of a token is on the blacklist, as the log says it: the store counts the keys that it has,
/// and does not say which.
fn listed_by(identity: &Identity) -> &'static str {
    let has = |claim: &str| identity.claims.contains_key(claim);
    if matches!(identity.credential, Credential::Token { bound_to: Some(_), .. }) {
        return "token_or_certificate";
    }
    match (has("jti"), has("sid")) {
        (true, false) => "jti",
        (true, true) => "jti_or_sid",
        (false, true) => "token_or_sid",
        (false, false) => "token",
    }
}

/// Takes the token out of the header fields that are forwarded, unless it is passed on.
pub fn strip(policy: &Policy, headers: &mut HeaderMap) {
    if policy.forward_token {
        return;
    }
    carrier::remove(&policy.from, Form::Token, headers);
    for verifier in &policy.key_verifiers {
        carrier::remove(&verifier.from, Form::ApiKey, headers);
    }
}

/// Takes out of a request what stands where any of these look for a credential, passed on or not:
/// in its fields, and in its query.
pub fn strip_places<'v>(
    verifiers: impl Iterator<Item = &'v Arc<Verifier>>,
    key_verifiers: impl Iterator<Item = &'v Arc<KeyVerifier>>,
    request: &mut http::Request<()>,
) {
    let places = verifiers.flat_map(|it| &it.from).chain(key_verifiers.flat_map(|it| &it.from));
    let places: Vec<TokenSource> = places.cloned().collect();
    carrier::remove(&places, Form::Token, request.headers_mut());
    let left = request.uri().query().and_then(|it| carrier::without_parameters(&places.iter(), it));
    if let Some(target) = left.and_then(|query| with_query(request.uri().path(), &query)) {
        *request.uri_mut() = target.into();
    }
}

/// The target without a token in its query, unless it is passed on: what is forwarded, and what a
/// response is kept under.
pub fn forwarded<'t>(policy: Option<&Policy>, target: &'t Target) -> Cow<'t, Target> {
    let stripped = policy.filter(|policy| !policy.forward_token).and_then(|policy| {
        let query = carrier::without_parameters(&policy.all_places(), target.query()?)?;
        let path_and_query = with_query(target.path(), &query)?;
        Some(Target { authority: target.authority.clone(), path_and_query })
    });
    stripped.map_or(Cow::Borrowed(target), Cow::Owned)
}

/// A path with what is left of its query. What is left of a good target is one.
fn with_query(path: &str, query: &str) -> Option<PathAndQuery> {
    let question_mark = if query.is_empty() { "" } else { "?" };
    PathAndQuery::try_from(format!("{path}{question_mark}{query}")).ok()
}

impl Policy {
    /// A policy by these verifiers of tokens; others are added by [`Self::with_api_keys`] and
    /// [`Self::with_certificates`].
    pub fn new(verifiers: Vec<Arc<Verifier>>, optional: bool, require: Vec<Requirement>) -> Self {
        let mut from: Vec<TokenSource> = Vec::new();
        for source in verifiers.iter().flat_map(|verifier| &verifier.from) {
            if !from.contains(source) {
                from.push(source.clone());
            }
        }
        // The plan sees to it that they agree; one that keeps its tokens here is enough.
        let forward_token = verifiers.iter().all(|verifier| verifier.forward_token);
        let (key_verifiers, certificate_verifier, session_verifier) = (Vec::new(), None, None);
        Self {
            verifiers,
            key_verifiers,
            certificate_verifier,
            session_verifier,
            from,
            forward_token,
            optional,
            require,
        }
    }

    /// The same, also by these verifiers of API keys.
    #[must_use]
    pub fn with_api_keys(mut self, key_verifiers: Vec<Arc<KeyVerifier>>) -> Self {
        self.forward_token &= key_verifiers.iter().all(|verifier| verifier.forward_token);
        self.key_verifiers = key_verifiers;
        self
    }

    /// The same, where a request without such credentials is judged by its client's certificate.
    #[must_use]
    pub fn with_certificates(mut self, verifier: Option<Arc<CertificateVerifier>>) -> Self {
        self.certificate_verifier = verifier;
        self
    }

    /// The same, where a request without other credentials is judged by its session.
    #[must_use]
    pub fn with_sessions(mut self, verifier: Option<Arc<SessionVerifier>>) -> Self {
        self.session_verifier = verifier;
        self
    }

    /// Whether a request carries a credential that stands in it, good or bad.
    pub fn finds_credential(&self, places: Places<'_>) -> bool {
        let is_found = |sources: &[TokenSource], form| {
            carrier::find(sources, form, places).is_ok_and(|it| it.is_none())
        };
        !is_found(&self.from, Form::Token)
            || !self.key_verifiers.iter().all(|it| is_found(&it.from, Form::ApiKey))
    }

    /// Whether it takes nothing but sessions.
    pub fn takes_sessions_alone(&self) -> bool {
        self.session_verifier.is_some()
            && self.verifiers.is_empty()
            && self.key_verifiers.is_empty()
            && self.certificate_verifier.is_none()
    }

    /// The refusal of a request that carries nothing.
    pub fn missing(&self) -> Denied {
        let demands_proof = |it: &&Arc<Verifier>| it.rules.bound == Some(BoundTo::Dpop);
        if self.takes_sessions_alone() {
            return Denied::NoSession;
        }
        match (self.verifiers.is_empty(), self.key_verifiers.is_empty()) {
            (false, true) if self.verifiers.iter().all(|it| demands_proof(&it)) => {
                let first = self.verifiers.first();
                first.map_or(Denied::NoToken, |it| it.rules.unproven(ProofFault::NoToken))
            }
            (false, _) => Denied::NoToken,
            (true, false) => Denied::NoApiKey,
            (true, true) => Denied::NoCertificate,
        }
    }

    /// Whether a header field carries credentials to this route. They are kept nowhere.
    pub fn reads(&self, name: &HeaderName) -> bool {
        let of_keys = self.key_verifiers.iter().flat_map(|verifier| &verifier.from);
        let header = |source: &TokenSource| matches!(source, TokenSource::Header(it) if it == name);
        self.from.iter().chain(of_keys).any(header)
    }

    fn all_places(&self) -> impl Iterator<Item = &TokenSource> + Clone {
        let of_keys = self.key_verifiers.iter().flat_map(|verifier| &verifier.from);
        self.from.iter().chain(of_keys)
    }
}

impl Requirement {
    fn is_met_by(&self, identity: &Identity) -> bool {
        if self.claim == SCOPE {
            let words = |name: &str| {
                identity.claims.get(name).is_some_and(|value| self.accepts_words_of(value))
            };
            return words(SCOPE) || words(SCOPE_ALIAS);
        }
        let Some(found) = identity.find(&self.claim) else { return false };
        match found.items() {
            Some(mut items) => items.any(|item| self.accepts(item)),
            None => self.accepts(found),
        }
    }

    fn accepts(&self, value: Found<'_>) -> bool {
        value.scalar().is_some_and(|text| self.lists(&text))
    }

    fn accepts_words_of(&self, value: &Value) -> bool {
        match value {
            Value::String(words) => words.split(' ').any(|word| self.lists(word)),
            Value::Array(items) => items.iter().filter_map(Value::as_str).any(|it| self.lists(it)),
            _ => false,
        }
    }

    fn lists(&self, text: &str) -> bool {
        self.any_of.iter().any(|accepted| accepted == text)
    }

    /// The refusal of a caller that does not meet it.
    fn refusal(&self, identity: &Identity) -> Denied {
        let unmet = Unmet {
            subject: identity.subject.clone(),
            claim: self.claim.clone(),
            wanted: self.any_of.clone(),
            ..Unmet::default()
        };
        Denied::Insufficient { scope: self.scope(), unmet: Box::new(unmet) }
    }

    /// What the challenge names as needed, when this is a requirement of scope.
    fn scope(&self) -> Option<String> {
        (self.claim == SCOPE).then(|| self.any_of.join(" "))
    }
}
