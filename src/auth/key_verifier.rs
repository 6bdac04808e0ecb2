//! A verifier of API keys, compiled: what `[auth.NAME]` with `api_keys` means, and what this node
//! remembers of the keys that were presented. The record of an unknown key stands in the store,
//! which somebody else asks. It must not know routes, nor what they require.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256, digest};
use bytes::Bytes;
use http::HeaderName;
use tokio::time::Instant;

use super::api_key::{Record, is_mistyped};
use super::carrier::Raw;
use super::challenge::{Denied, KeyFault};
use super::header_value::{self, ClaimHeader};
use super::memory::{self, Fingerprint, KeyMemory, ReadRecord, RecordId, TokenMemory};
use super::rules::{Mistake, compile_headers, unix_seconds};
use crate::base::facts::{Credential, Identity};
use crate::base::http::hex;
use crate::config::{self, TokenSource};
use crate::store::StoreError;
use crate::store::keys::Keys;

/// Longest time until a changed record is read again. A deleted key ends at once: that its record
/// exists is asked at every request.
pub const RECORD_FRESH: Duration = Duration::from_secs(60);
/// Longest time that a record serves while the store cannot be asked for it.
pub const RECORD_KEPT: Duration = Duration::from_secs(60 * 60);
/// Verifies API keys.
#[derive(Debug)]
pub struct KeyVerifier {
    name: Arc<str>,
    /// Stands for the whole configuration, so that a reload that changes any of it starts with an
    /// empty memory.
    fingerprint: Fingerprint,
    pub(super) from: Vec<TokenSource>,
    pub(super) forward_token: bool,
    key_bytes: usize,
    revocation: bool,
    store_keys: Keys,
    qualified: bool,
    claim_headers: Vec<ClaimHeader>,
}

/// A key whose record has to be read.
#[derive(Debug)]
pub struct Unread<'p> {
    verifier: &'p KeyVerifier,
    id: RecordId,
    record_key: String,
    /// What the record said when it was last read, no longer than [`RECORD_KEPT`] ago.
    former: Option<Arc<Identity>>,
}

/// Why it is not known who presents a key.
#[derive(Debug)]
pub(super) enum Unrecalled<'p> {
    /// It never will be.
    Denied(Denied),
    /// Its record has to be read from the store.
    Unread(Unread<'p>),
}

impl From<Denied> for Unrecalled<'_> {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl KeyVerifier {
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
        let mut context = Context::new(&SHA256);
        context.update(format!("{name:?} {qualified} {store_keys:?} {config:?}").as_bytes());
        Ok(Self {
            name: name.into(),
            fingerprint: memory::bytes(&context.finish()),
            from: config.from.clone(),
            forward_token: config.forward_token,
            key_bytes: config.token_bytes,
            revocation: config.revocation,
            store_keys: store_keys.clone(),
            qualified,
            claim_headers,
        })
    }

    /// The name after `auth.`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name, where identities must be told apart by it.
    pub fn qualifier(&self) -> Option<Arc<str>> {
        self.qualified.then(|| Arc::clone(&self.name))
    }

    /// The headers that claims are written to; the gateway takes them out of what a client sends.
    pub fn owned_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.claim_headers.iter().map(|(header, _)| header)
    }

    /// Who presents this key, if its record was read of late: `now` in Unix seconds, and the same
    /// moment on the clock that never turns back.
    pub(super) fn recall(
        &self,
        key: &Raw<'_>,
        memory: &KeyMemory,
        now: i64,
        at: Instant,
    ) -> Result<Arc<Identity>, Unrecalled<'_>> {
        // The bound comes before any work on the key.
        if key.bytes.len() > self.key_bytes {
            return Err(Denied::ApiKey(KeyFault::TooLarge).into());
        }
        if is_mistyped(&key.bytes) {
            return Err(Denied::ApiKey(KeyFault::Mistyped).into());
        }
        let digest = memory::bytes(&digest(&SHA256, &key.bytes));
        let id = RecordId { verifier: self.fingerprint, digest };
        let known = memory.get(&id);
        let known = known.map(|it| (it.identity, at.saturating_duration_since(it.read)));
        if let Some((identity, age)) = &known
            && *age < RECORD_FRESH
        {
            return Ok(live(Arc::clone(identity), now)?);
        }
        let former = known.filter(|(_, age)| *age < RECORD_KEPT).map(|(identity, _)| identity);
        let record_key = self.store_keys.api_key(&hex::encode(&digest));
        Err(Unrecalled::Unread(Unread { verifier: self, id, record_key, former }))
    }

    /// Forgets the record under this key: it was deleted or revoked, and must not serve again when
    /// the store is away.
    pub fn forget(&self, record_key: &str, memory: &TokenMemory) {
        let digest = record_key
            .get(record_key.len().saturating_sub(64)..)
            .and_then(|text| hex::decode(text.as_bytes()));
        if let Some(digest) = digest {
            memory.api_keys.remove(&RecordId { verifier: self.fingerprint, digest });
        }
    }

    fn identity(&self, record: Record, record_key: &str) -> Result<Identity, &'static str> {
        let mut identity = Identity {
            subject: Some(record.owner.clone()),
            issued_at: record.created,
            expires_at: record.expires.unwrap_or(i64::MAX),
            credential: Credential::ApiKey { record: None },
            blacklist_keys: Vec::new(),
            // Whoever logs out everywhere does not mean his keys, and a not-before time ends long
            // before they do.
            not_before_key: None,
            verifier: Arc::clone(&self.name),
            qualifier: self.qualified.then(|| Arc::clone(&self.name)),
            headers: Vec::new(),
            claims: serde_json::Map::new(),
            exact: record.exact.clone(),
        };
        if self.revocation {
            identity.blacklist_keys.push(self.store_keys.blacklist_key(&record.id));
            identity.credential = Credential::ApiKey { record: Some(record_key.to_owned()) };
        }
        identity.claims = record.into_claims();
        identity.headers = header_value::all(&self.claim_headers, &identity)
            .map_err(|_| "a claim of an API key is too large for its header")?;
        Ok(identity)
    }
}

impl Unread<'_> {
    /// The key of its record.
    pub fn record_key(&self) -> &str {
        &self.record_key
    }

    /// Who presents the key, as the store says. While it does not answer, what it said last.
    pub(super) fn judge(
        self,
        reply: Result<Option<Bytes>, StoreError>,
        memory: &KeyMemory,
        now: SystemTime,
        at: Instant,
    ) -> Result<Arc<Identity>, Denied> {
        let Self { verifier, id, record_key, former } = self;
        let now = unix_seconds(now);
        let record = match (reply, former) {
            (Ok(record), _) => record,
            (Err(error), Some(known)) if error.is_outage() => return live(known, now),
            (Err(error), _) => return Err(Denied::KeyUnread(error)),
        };
        let Some(text) = record else {
            memory.remove(&id);
            return Err(Denied::ApiKey(KeyFault::Unknown));
        };
        // What was remembered holds no longer, whatever this record says.
        memory.remove(&id);
        // What cannot be read may be anybody's key, so nobody is told that it is bad.
        let unread = |what: &str| Denied::KeyUnread(StoreError::Refused(what.to_owned()));
        let record = Record::read(&text).map_err(unread)?;
        if record.auth.as_deref().is_some_and(|name| name != &*verifier.name) {
            return Err(Denied::ApiKey(KeyFault::Unknown));
        }
        let identity = Arc::new(verifier.identity(record, &record_key).map_err(unread)?);
        let read = ReadRecord { identity: Arc::clone(&identity), read: at, bytes: text.len() };
        memory.insert(id, read);
        live(identity, now)
    }
}

fn live(identity: Arc<Identity>, now: i64) -> Result<Arc<Identity>, Denied> {
    if now < identity.expires_at { Ok(identity) } else { Err(Denied::ApiKey(KeyFault::Expired)) }
}
