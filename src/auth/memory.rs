//! Remembers tokens that were verified, so that a signature is checked once and not at every
//! request, and the records of API keys, so that one is read once a minute. What was refused is
//! never remembered. It must not know claims, nor revocation, which is asked every time.
//!
//! A token is found by its whole text. A digest of it would be shorter to keep, and dearer to make
//! at every request than the comparison; the hash of the map decides nothing by itself.

use std::sync::Arc;

use aws_lc_rs::digest::{Digest, SHA256_OUTPUT_LEN};
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use tokio::time::Instant;

use super::api_key::RECORD_BYTES_MAX;
use super::challenge::Reason;
use crate::base::facts::Identity;
use crate::store::SessionValue;

/// Most tokens that are remembered; the least used give way.
pub const TOKENS_MAX: usize = 16_384;
/// Most bytes of their texts.
const TOKEN_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Most records of API keys that are remembered; the least used give way.
const RECORDS_MAX: usize = 16_384;
/// Most bytes of them.
const RECORDS_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Most sessions of the gateway's own that are remembered; the least used give way.
const SESSIONS_MAX: usize = 16_384;
/// Most bytes of them.
const SESSIONS_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Most opaque tokens of which it is remembered what a server said; the least used give way.
const ANSWERS_MAX: usize = 16_384;
/// Most bytes of what it said.
const ANSWERS_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Tokens that were verified, by who verified them and their whole text.
#[derive(Debug)]
pub struct TokenMemory {
    tokens: Cache<VerifiedToken, Arc<Identity>, ByBytes>,
    /// API keys, whose records were read.
    pub(super) api_keys: KeyMemory,
    /// Opaque tokens, of which a server has said what they are worth.
    pub(super) answers: Arc<AnswerMemory>,
    /// Sessions that the gateway has made, by the SHA-256 of their cookies.
    pub(super) sessions: ByDigest<ReadSession>,
}

/// Whose a session is, and the value that said so.
#[derive(Debug, Clone)]
pub(super) struct ReadSession {
    pub(super) identity: Arc<Identity>,
    pub(super) value: SessionValue,
}

/// What servers said of opaque tokens.
#[derive(Debug)]
pub(super) struct AnswerMemory {
    answers: Cache<RecordId, Answered, ByBytes>,
}

/// What one said, and until when that counts.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub(super) verdict: Result<Arc<Identity>, Reason>,
    pub(super) until: Instant,
    /// Bytes of its text.
    pub(super) bytes: usize,
}

/// What was read of credentials that are found by their SHA-256.
#[derive(Debug)]
pub(super) struct ByDigest<V> {
    read: Cache<RecordId, V, ByBytes>,
}

/// The records of keys that were presented.
pub(super) type KeyMemory = ByDigest<ReadRecord>;

/// Of which credential: by whom it is verified, and its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RecordId {
    pub(super) verifier: Fingerprint,
    pub(super) digest: [u8; SHA256_OUTPUT_LEN],
}

/// What a record said.
#[derive(Debug, Clone)]
pub(super) struct ReadRecord {
    pub(super) identity: Arc<Identity>,
    /// When it was read from the store.
    pub(super) read: Instant,
    /// Bytes of its text.
    pub(super) bytes: usize,
}

/// Stands for everything that decided whether a token is good: the verifier's configuration and
/// keys.
pub(super) type Fingerprint = [u8; SHA256_OUTPUT_LEN];

#[derive(Clone, PartialEq, Eq, Hash)]
struct VerifiedToken {
    verifier: Fingerprint,
    token: Box<[u8]>,
}

impl std::fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VerifiedToken(***)")
    }
}

/// The same without owning it; hashed like [`VerifiedToken`], field by field.
#[derive(PartialEq, Eq, Hash)]
struct TokenRef<'a> {
    verifier: &'a Fingerprint,
    token: &'a [u8],
}

impl Equivalent<VerifiedToken> for TokenRef<'_> {
    fn equivalent(&self, key: &VerifiedToken) -> bool {
        *self.token == *key.token && *self.verifier == key.verifier
    }
}

#[derive(Debug, Clone)]
pub(super) struct ByBytes;

impl Weighter<VerifiedToken, Arc<Identity>> for ByBytes {
    fn weight(&self, key: &VerifiedToken, _: &Arc<Identity>) -> u64 {
        // The claims weigh about what the text weighs. The floor makes the bound on bytes a bound
        // on their number too.
        (2 * key.token.len() as u64).max(TOKEN_BYTES_MAX / TOKENS_MAX as u64)
    }
}

impl TokenMemory {
    /// Remembers nothing yet.
    pub fn new() -> Self {
        let tokens = Cache::with_weighter(TOKENS_MAX, TOKEN_BYTES_MAX, ByBytes);
        let answers = Arc::new(AnswerMemory::new());
        Self {
            tokens,
            api_keys: KeyMemory::new(),
            answers,
            sessions: ByDigest::holding(SESSIONS_MAX, SESSIONS_BYTES_MAX),
        }
    }

    /// What the token said, unless its time is over, when it is forgotten.
    pub(super) fn get(
        &self,
        verifier: &Fingerprint,
        token: &[u8],
        is_over: impl FnOnce(&Identity) -> bool,
    ) -> Option<Arc<Identity>> {
        let key = TokenRef { verifier, token };
        let identity = self.tokens.get(&key)?;
        if !is_over(&identity) {
            return Some(identity);
        }
        self.tokens.remove(&key);
        None
    }

    pub(super) fn insert(&self, verifier: &Fingerprint, token: &[u8], identity: Arc<Identity>) {
        self.tokens.insert(VerifiedToken { verifier: *verifier, token: token.into() }, identity);
    }
}

impl KeyMemory {
    /// Remembers nothing yet.
    pub(super) fn new() -> Self {
        Self::holding(RECORDS_MAX, RECORDS_BYTES_MAX)
    }
}

impl<V: Clone> ByDigest<V>
where
    ByBytes: Weighter<RecordId, V>,
{
    /// Room for so many, and for so many bytes of them.
    fn holding(most: usize, bytes: u64) -> Self {
        Self { read: Cache::with_weighter(most, bytes, ByBytes) }
    }

    pub(super) fn get(&self, id: &RecordId) -> Option<V> {
        self.read.get(id)
    }

    pub(super) fn insert(&self, id: RecordId, read: V) {
        self.read.insert(id, read);
    }

    pub(super) fn remove(&self, id: &RecordId) {
        self.read.remove(id);
    }
}

impl AnswerMemory {
    fn new() -> Self {
        Self { answers: Cache::with_weighter(ANSWERS_MAX, ANSWERS_BYTES_MAX, ByBytes) }
    }

    /// What was said of a token, while that counts.
    pub(super) fn get(&self, id: &RecordId, at: Instant) -> Option<Result<Arc<Identity>, Reason>> {
        let known = self.answers.get(id)?;
        if at < known.until {
            return Some(known.verdict);
        }
        self.answers.remove(id);
        None
    }

    pub(super) fn insert(&self, id: RecordId, answered: Answered) {
        self.answers.insert(id, answered);
    }
}

impl Weighter<RecordId, Answered> for ByBytes {
    fn weight(&self, _: &RecordId, answered: &Answered) -> u64 {
        // The claims weigh about twice the text. The floor bounds their number too.
        (2 * answered.bytes as u64).max(ANSWERS_BYTES_MAX / ANSWERS_MAX as u64)
    }
}

impl Weighter<RecordId, ReadSession> for ByBytes {
    fn weight(&self, _: &RecordId, read: &ReadSession) -> u64 {
        let bytes = match &read.value {
            SessionValue::Text(text) => text.len(),
            SessionValue::Fields(fields) => fields.iter().map(|(a, b)| a.len() + b.len()).sum(),
        };
        // The value, and claims that weigh about twice of it. The floor bounds their number too.
        (3 * bytes as u64).max(SESSIONS_BYTES_MAX / SESSIONS_MAX as u64)
    }
}

impl Weighter<RecordId, ReadRecord> for ByBytes {
    fn weight(&self, _: &RecordId, record: &ReadRecord) -> u64 {
        // The claims weigh about twice the text. The floor bounds their number too.
        (2 * record.bytes.min(RECORD_BYTES_MAX) as u64).max(RECORDS_BYTES_MAX / RECORDS_MAX as u64)
    }
}

impl Default for TokenMemory {
    fn default() -> Self {
        Self::new()
    }
}

/// A SHA-256 digest as an array.
pub(super) fn bytes(digest: &Digest) -> Fingerprint {
    let mut out = [0; SHA256_OUTPUT_LEN];
    out.copy_from_slice(digest.as_ref());
    out
}
