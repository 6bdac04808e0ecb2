//! Copies of stored responses in this node's memory. A copy counts only while the epochs of now
//! equal those under which it was stored, so it saves the transfer, never the question.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::entry::{Stored, may_replace};

/// Copies held at first; the map grows with its weight.
const ENTRIES_ESTIMATE: usize = 4096;
/// Most variants of one response that are held; the store has more.
const VARIANTS_MAX: usize = 8;
/// Longest body that is held in memory, in bytes: a few large ones must not evict all others.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// The variants of one response, the newest first.
pub type Variants = Arc<[Arc<Stored>]>;

/// Responses in memory, bounded by bytes.
#[derive(Debug)]
pub struct NearCache {
    entries: Cache<String, Variants, ByBytes>,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<String, Variants> for ByBytes {
    fn weight(&self, key: &String, variants: &Variants) -> u64 {
        (key.len() + variants.iter().map(|stored| stored.weight()).sum::<usize>()) as u64
    }
}

impl NearCache {
    /// At most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { entries: Cache::with_weighter(ENTRIES_ESTIMATE, bytes_max, ByBytes) }
    }

    /// What is held of one response.
    pub fn get(&self, key: &str) -> Option<Variants> {
        self.entries.get(key)
    }

    /// Keeps a copy, in place of the one that answered the same requests, unless it is an error
    /// and that one is still good.
    pub fn offer(&self, stored: &Arc<Stored>, now_ms: u64) {
        if stored.body.inline().is_none_or(|body| body.len() > BODY_BYTES_MAX) {
            return;
        }
        let known = self.entries.get(&stored.key);
        let known = known.as_deref().unwrap_or_default();
        let same = known.iter().find(|other| other.vary == stored.vary);
        if same.is_some_and(|same| Arc::ptr_eq(same, stored))
            || !may_replace(stored.status, same.map(AsRef::as_ref), now_ms)
        {
            return;
        }
        // Of two that are put at once one may be lost; the store has it.
        let others = known.iter().filter(|other| other.vary != stored.vary);
        let variants = std::iter::once(stored).chain(others).take(VARIANTS_MAX).cloned();
        self.entries.insert(stored.key.clone(), variants.collect());
    }

    /// Forgets one response.
    pub fn forget(&self, key: &str) {
        self.entries.remove(key);
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }
}
