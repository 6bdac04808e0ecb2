//! A verifier of client certificates, compiled: what `[auth.NAME]` with `certificate` means, and
//! who a connection's certificate is to it. TLS has verified the certificate itself. It must not
//! know routes, nor what they require.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderName;
use serde_json::{Map, Value};

use super::challenge::CertificateFault;
use super::header_value::{self, ClaimHeader};
use super::rules::{Mistake, compile_headers};
use crate::base::claim::Exact;
use crate::base::facts::{ClientCertificate, Credential, Identity};
use crate::config;
use crate::store::keys::Keys;

/// Most verifiers for which a connection remembers who its client is. A plan rarely has more.
const REMEMBERED_MAX: usize = 8;

/// Says who clients with certificates are.
#[derive(Debug)]
pub struct CertificateVerifier {
    name: Arc<str>,
    qualifier: Option<Arc<str>>,
    revocation: bool,
    store_keys: Keys,
    claim_headers: Vec<ClaimHeader>,
}

/// The certificate that the client of one connection has shown, and who that is to verifiers: found
/// out once for all of its requests, and again after a reload, which has other verifiers.
#[derive(Debug)]
pub struct ShownCertificate {
    facts: Arc<ClientCertificate>,
    known: Mutex<Vec<(Arc<CertificateVerifier>, Known)>>,
}

type Known = Result<Arc<Identity>, CertificateFault>;

impl CertificateVerifier {
    /// Compiles what was written, or says everything that is wrong with it. `qualified`: callers of
    /// other verifiers could be confused with this one's.
    ///
    /// # Errors
    /// All mistakes.
    pub fn compile(
        name: &str,
        config: &config::Verifier,
        store_keys: &Keys,
        qualified: bool,
    ) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let claim_headers = compile_headers(config, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let store_keys = if qualified { store_keys.qualified(name) } else { store_keys.clone() };
        let (name, revocation): (Arc<str>, _) = (name.into(), config.revocation);
        let qualifier = qualified.then(|| Arc::clone(&name));
        Ok(Self { name, qualifier, revocation, store_keys, claim_headers })
    }

    /// Its name, where identities must be told apart by it.
    pub fn qualifier(&self) -> Option<Arc<str>> {
        self.qualifier.clone()
    }

    /// The headers that claims are written to; the gateway takes them out of what a client sends.
    pub fn owned_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.claim_headers.iter().map(|(header, _)| header)
    }

    /// The keys of the store that revoke its callers by `sub`.
    pub fn store_keys(&self) -> &Keys {
        &self.store_keys
    }

    fn identity(&self, facts: &ClientCertificate) -> Result<Identity, CertificateFault> {
        let subject = facts.subject.as_deref();
        // It becomes part of store keys, limits and logs, as the `sub` of a token does.
        if subject.is_some_and(|sub| sub.is_empty() || sub.contains(char::is_control)) {
            return Err(CertificateFault::Subject);
        }
        let mut identity = Identity {
            claims: claims(facts),
            exact: Exact::default(),
            subject: subject.map(str::to_owned),
            issued_at: Some(facts.not_before),
            expires_at: facts.not_after,
            credential: Credential::Certificate,
            blacklist_keys: Vec::new(),
            not_before_key: None,
            verifier: Arc::clone(&self.name),
            qualifier: self.qualifier.clone(),
            headers: Vec::new(),
        };
        if self.revocation {
            identity.blacklist_keys.push(self.store_keys.blacklist_certificate(&facts.sha256));
            identity.not_before_key = subject.map(|sub| self.store_keys.not_before(sub));
        }
        identity.headers = header_value::all(&self.claim_headers, &identity)
            .map_err(|_| CertificateFault::ClaimTooLarge)?;
        Ok(identity)
    }
}

/// What a certificate says, as claims.
fn claims(facts: &ClientCertificate) -> Map<String, Value> {
    let mut claims = Map::new();
    if let Some(subject) = &facts.subject {
        claims.insert("sub".to_owned(), Value::from(subject.as_str()));
    }
    for (name, text) in [("dn", &facts.dn), ("serial", &facts.serial), ("sha256", &facts.sha256)] {
        claims.insert(name.to_owned(), Value::from(text.as_str()));
    }
    claims.insert("san".to_owned(), Value::from(facts.san.clone()));
    claims
}

impl ShownCertificate {
    /// A certificate that nobody has judged yet.
    pub fn new(facts: &Arc<ClientCertificate>) -> Self {
        Self { facts: Arc::clone(facts), known: Mutex::default() }
    }

    /// Whether a token that is bound to this thumbprint may come with it (RFC 8705 §3).
    pub(super) fn confirms(&self, thumbprint: &str) -> bool {
        *self.facts.thumbprint == *thumbprint
    }

    /// Who it is to this verifier at `now` (Unix seconds).
    ///
    /// # Errors
    /// It is over, or its claims cannot be used.
    pub(super) fn identify(&self, verifier: &Arc<CertificateVerifier>, now: i64) -> Known {
        // The handshake looked at the date, and a connection may live longer.
        if now > self.facts.not_after {
            return Err(CertificateFault::Expired);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = known.iter().find(|(other, _)| Arc::ptr_eq(other, verifier)) {
            return known.clone();
        }
        let identity = verifier.identity(&self.facts).map(Arc::new);
        if known.len() == REMEMBERED_MAX {
            let _ = known.remove(0);
        }
        known.push((Arc::clone(verifier), identity.clone()));
        identity
    }
}
