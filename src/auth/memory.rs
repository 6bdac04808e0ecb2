//! Remembers tokens that were verified, so that a signature is checked once and not at every
//! request. A token that was refused is never remembered. It must not know claims, nor revocation,
//! which is asked every time.
//!
//! A token is found by its whole text. A digest of it would be shorter to keep, and dearer to make
//! at every request than the comparison; the hash of the map decides nothing by itself.

use std::sync::Arc;

use aws_lc_rs::digest::{Digest, SHA256_OUTPUT_LEN};
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::key_verifier::KeyMemory;
use crate::base::facts::Identity;

/// Most tokens that are remembered; the least used give way.
pub const TOKENS_MAX: usize = 16_384;
/// Most bytes of their texts.
const TOKEN_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Tokens that were verified, by who verified them and their whole text.
#[derive(Debug)]
pub struct TokenMemory {
    tokens: Cache<Remembered, Arc<Identity>, ByBytes>,
    /// API keys, whose records were read.
    pub(super) api_keys: KeyMemory,
}

/// Stands for everything that decided whether a token is good: the verifier's configuration and
/// keys.
pub(super) type Fingerprint = [u8; SHA256_OUTPUT_LEN];

#[derive(Clone, PartialEq, Eq, Hash)]
struct Remembered {
    verifier: Fingerprint,
    token: Box<[u8]>,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remembered(***)")
    }
}

/// The same without owning it; hashed like [`Remembered`], field by field.
#[derive(PartialEq, Eq, Hash)]
struct Asked<'a> {
    verifier: &'a Fingerprint,
    token: &'a [u8],
}

impl Equivalent<Remembered> for Asked<'_> {
    fn equivalent(&self, key: &Remembered) -> bool {
        *self.token == *key.token && *self.verifier == key.verifier
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Remembered, Arc<Identity>> for ByBytes {
    fn weight(&self, key: &Remembered, _: &Arc<Identity>) -> u64 {
        // The claims weigh about what the text weighs. The floor makes the bound on bytes a bound
        // on their number too.
        (2 * key.token.len() as u64).max(TOKEN_BYTES_MAX / TOKENS_MAX as u64)
    }
}

impl TokenMemory {
    /// Remembers nothing yet.
    pub fn new() -> Self {
        let tokens = Cache::with_weighter(TOKENS_MAX, TOKEN_BYTES_MAX, ByBytes);
        Self { tokens, api_keys: KeyMemory::new() }
    }

    /// What the token said, while `now < exp + leeway`; both in seconds.
    pub(super) fn get(
        &self,
        verifier: &Fingerprint,
        token: &[u8],
        (now, leeway): (i64, i64),
    ) -> Option<Arc<Identity>> {
        let asked = Asked { verifier, token };
        let identity = self.tokens.get(&asked)?;
        if now < identity.expires_at.saturating_add(leeway) {
            return Some(identity);
        }
        self.tokens.remove(&asked);
        None
    }

    pub(super) fn insert(&self, verifier: &Fingerprint, token: &[u8], identity: Arc<Identity>) {
        self.tokens.insert(Remembered { verifier: *verifier, token: token.into() }, identity);
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
