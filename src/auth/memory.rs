//! Remembers tokens that were verified, so that a signature is checked once and not at every
//! request. A token that was refused is never remembered. It must not know claims, nor revocation,
//! which is asked every time.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, Digest, SHA256, SHA256_OUTPUT_LEN};
use quick_cache::sync::Cache;

use crate::base::facts::Identity;

/// Most tokens that are remembered; the least used give way.
pub const TOKENS_MAX: usize = 16_384;

/// Tokens that were verified, by the digest of who verified them and of their whole text.
#[derive(Debug)]
pub struct TokenMemory {
    tokens: Cache<Fingerprint, Arc<Identity>>,
}

/// What a remembered token is found by.
pub(super) type Fingerprint = [u8; SHA256_OUTPUT_LEN];

impl TokenMemory {
    /// Remembers nothing yet.
    pub fn new() -> Self {
        Self { tokens: Cache::new(TOKENS_MAX) }
    }

    /// Forgets everything: for keys that change while their verifier stays.
    pub fn clear(&self) {
        self.tokens.clear();
    }

    /// What the token said, while `now < exp + leeway`; all three in seconds.
    pub(super) fn get(&self, token: &Fingerprint, now: i64, leeway: i64) -> Option<Arc<Identity>> {
        let identity = self.tokens.get(token)?;
        if now < identity.expires_at.saturating_add(leeway) {
            return Some(identity);
        }
        self.tokens.remove(token);
        None
    }

    pub(super) fn insert(&self, token: Fingerprint, identity: Arc<Identity>) {
        self.tokens.insert(token, identity);
    }
}

impl Default for TokenMemory {
    fn default() -> Self {
        Self::new()
    }
}

/// The name of `token` in the memory. `verifier` stands for everything that decided whether the
/// token is good.
pub(super) fn fingerprint(verifier: &Fingerprint, token: &str) -> Fingerprint {
    let mut context = Context::new(&SHA256);
    context.update(verifier);
    context.update(token.as_bytes());
    bytes(&context.finish())
}

/// A SHA-256 digest as an array.
pub(super) fn bytes(digest: &Digest) -> Fingerprint {
    let mut out = [0; SHA256_OUTPUT_LEN];
    out.copy_from_slice(digest.as_ref());
    out
}
