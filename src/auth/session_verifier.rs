//! A verifier of sessions that the gateway has made, compiled: what `[auth.NAME]` with `session`
//! means, and what this node remembers of sessions. What a session says is read from the store by
//! somebody else, who judges its times. It must not know routes, nor what they require.
//!
//! What is remembered counts only while the store has the very same value: each request asks for
//! that, so a session that has changed or ended is never taken for what it was.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::HeaderName;

use super::header_value::{self, ClaimHeader};
use super::memory::{self, Fingerprint, ReadSession, RecordId, TokenMemory};
use super::rules::{Mistake, compile_headers};
use crate::base::facts::{Credential, Identity};
use crate::base::json;
use crate::config;
use crate::store::SessionValue;
use crate::store::keys::Keys;

/// The member of a session that names what its tokens would have as `sid`.
const SID: &str = "sid";

/// Says who has a session.
#[derive(Debug)]
pub struct SessionVerifier {
    name: Arc<str>,
    /// Stands for the whole configuration, so that a reload that changes any of it starts with an
    /// empty memory.
    fingerprint: Fingerprint,
    qualifier: Option<Arc<str>>,
    revocation: bool,
    store_keys: Keys,
    claim_headers: Vec<ClaimHeader>,
}

/// A session that is in force.
#[derive(Debug)]
pub struct ReadClaims {
    /// SHA-256 of its cookie.
    pub digest: [u8; 32],
    /// What it is called in the store.
    pub id: String,
    /// What it says: a JSON object.
    pub text: Bytes,
    /// What the store has of it, which may be sealed.
    pub value: SessionValue,
    /// When it was created, Unix seconds.
    pub created_s: Option<i64>,
    /// When it must be judged anew at the latest, Unix seconds.
    pub until_s: i64,
}

impl SessionVerifier {
    /// Compiles what was written, or says everything that is wrong with it. `made`: the settings of
    /// sessions; `qualified`: callers of other verifiers could be confused with this one's.
    ///
    /// # Errors
    /// All mistakes.
    pub fn compile(
        name: &str,
        config: &config::Verifier,
        made: &config::Session,
        store_keys: &Keys,
        qualified: bool,
    ) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let claim_headers = compile_headers(config, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let mut context = Context::new(&SHA256);
        let whole = format!("{name:?} {qualified} {store_keys:?} {config:?} {made:?}");
        context.update(whole.as_bytes());
        let name: Arc<str> = name.into();
        Ok(Self {
            qualifier: qualified.then(|| Arc::clone(&name)),
            name,
            fingerprint: memory::bytes(&context.finish()),
            revocation: config.revocation,
            store_keys: store_keys.clone(),
            claim_headers,
        })
    }

    /// The name after `auth.`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name, where identities must be told apart by it.
    pub fn qualifier(&self) -> Option<Arc<str>> {
        self.qualifier.clone()
    }

    /// The headers that claims are written to; the gateway takes them out of what a client sends.
    pub fn owned_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.claim_headers.iter().map(|(header, _)| header)
    }

    /// The keys of the store that revoke its callers: those of all sessions, whoever asks.
    pub fn store_keys(&self) -> &Keys {
        &self.store_keys
    }

    /// Who has the session whose cookie has this SHA-256, and the value by which it is known; `now`
    /// in Unix seconds. Nothing where it is not known, or must be judged anew.
    pub(super) fn recall(
        &self,
        digest: [u8; 32],
        memory: &TokenMemory,
        now: i64,
    ) -> Option<Arc<Identity>> {
        let known = memory.sessions.get(&self.at(digest))?;
        (now < known.identity.expires_at).then_some(known.identity)
    }

    /// Whether this is the value by which a session is known.
    pub(super) fn is_known_by(
        &self,
        digest: [u8; 32],
        memory: &TokenMemory,
        value: &SessionValue,
    ) -> bool {
        memory.sessions.get(&self.at(digest)).is_some_and(|known| known.value == *value)
    }

    /// Forgets a session: it has ended, or changed.
    pub(super) fn forget(&self, digest: [u8; 32], memory: &TokenMemory) {
        memory.sessions.remove(&self.at(digest));
    }

    /// Who has a session, which is remembered.
    ///
    /// # Errors
    /// What it says cannot be used.
    pub(super) fn identify(
        &self,
        read: ReadClaims,
        memory: &TokenMemory,
    ) -> Result<Arc<Identity>, &'static str> {
        const UNREADABLE: &str = "it is no JSON object that names each member once";
        let ReadClaims { digest, id, text, value, created_s, until_s } = read;
        let (claims, exact) = json::exact_object(&text).map_err(|_| UNREADABLE)?;
        let subject = claims.get("sub").and_then(|sub| sub.as_str()).map(str::to_owned);
        // It becomes part of store keys, limits and logs, as the `sub` of a token does.
        let subject = subject.filter(|sub| !sub.is_empty() && !sub.contains(char::is_control));
        let subject = subject.ok_or("it does not say whose it is")?;
        let mut identity = Identity {
            exact,
            subject: Some(subject.clone()),
            issued_at: created_s,
            expires_at: until_s,
            credential: Credential::Session { digest },
            blacklist_keys: Vec::new(),
            not_before_key: None,
            verifier: Arc::clone(&self.name),
            qualifier: self.qualifier.clone(),
            headers: Vec::new(),
            claims,
        };
        if self.revocation {
            let sid = identity.claims.get(SID).and_then(|sid| sid.as_str());
            let names = std::iter::once(&*id).chain(sid);
            let keys = names.map(|name| self.store_keys.blacklist_session(name));
            identity.blacklist_keys = keys.collect();
            identity.not_before_key = Some(self.store_keys.not_before(&subject));
        }
        identity.headers = header_value::all(&self.claim_headers, &identity)
            .map_err(|_| "a field of it is too large for its header")?;
        let identity = Arc::new(identity);
        let read = ReadSession { identity: Arc::clone(&identity), value };
        memory.sessions.insert(self.at(digest), read);
        Ok(identity)
    }

    fn at(&self, digest: [u8; 32]) -> RecordId {
        RecordId { verifier: self.fingerprint, digest }
    }
}
