//! Copies of stored responses in this node's memory. A copy counts only while the epochs of now
//! equal those under which it was stored, so it saves the transfer, never the question: the first
//! level of the cache, before the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};

use crate::cache::{CacheKey, Stored, may_replace};

/// Copies held at first; the map grows with its weight.
const ENTRIES_ESTIMATE: usize = 4096;
/// Most variants of one response that are held; the store has more.
const VARIANTS_MAX: usize = 8;
/// Longest body that is held in memory, in bytes: a few large ones must not evict all others.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// All that this node holds of one response.
#[derive(Debug)]
pub(super) struct L1Entry {
    /// Its keys, so that a hit need not make them anew.
    pub(super) key: Arc<CacheKey>,
    /// Its variants, the newest first.
    pub(super) variants: Vec<Arc<Stored>>,
}

/// Responses in memory, bounded by bytes.
#[derive(Debug)]
pub(super) struct NearCache {
    entries: Cache<String, Arc<L1Entry>, ByBytes, DefaultHashBuilder, Removed>,
    /// How many have given way to others.
    evictions: AtomicU64,
}

/// Hands over what an insertion has removed, so that it can be counted, and is dropped behind the
/// cache's lock.
#[derive(Debug, Clone)]
struct Removed;

impl Lifecycle<String, Arc<L1Entry>> for Removed {
    type RequestState = Vec<(String, Arc<L1Entry>)>;

    fn on_evict(&self, removed: &mut Self::RequestState, key: String, entry: Arc<L1Entry>) {
        removed.push((key, entry));
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<String, Arc<L1Entry>> for ByBytes {
    fn weight(&self, key: &String, entry: &Arc<L1Entry>) -> u64 {
        let keys = entry.key.epochs.iter().map(|epoch| epoch.len() + 24).sum::<usize>();
        let variants = entry.variants.iter().map(|stored| stored.weight()).sum::<usize>();
        (key.len() * 2 + keys + variants) as u64
    }
}

impl NearCache {
    /// At most `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let hasher = DefaultHashBuilder::default();
        let entries = Cache::with(ENTRIES_ESTIMATE, bytes_max, ByBytes, hasher, Removed);
        Self { entries, evictions: AtomicU64::new(0) }
    }

    /// What is held of one response.
    pub(super) fn get(&self, key: &str) -> Option<Arc<L1Entry>> {
        self.entries.get(key)
    }

    /// Keeps a copy, in place of the one that answered the same requests, unless it is an error
    /// and that one is still good.
    pub(super) fn offer(&self, key: &Arc<CacheKey>, stored: &Arc<Stored>, now_ms: u64) {
        if stored.body.inline().is_none_or(|body| body.len() > BODY_BYTES_MAX) {
            return;
        }
        let known = self.entries.get(&stored.key);
        let known = known.as_deref().map_or(&[][..], |entry| &entry.variants);
        let same = known.iter().find(|other| other.vary == stored.vary);
        if !may_replace(stored.status, same.map(AsRef::as_ref), now_ms) {
            return;
        }
        // Of two that are put at once one may be lost; the store has it.
        let others = known.iter().filter(|other| other.vary != stored.vary);
        let variants = std::iter::once(stored).chain(others).take(VARIANTS_MAX).cloned().collect();
        let entry = L1Entry { key: Arc::clone(key), variants };
        let mut removed = Vec::new();
        let key = stored.key.clone();
        self.entries.insert_with_lifecycle(key, Arc::new(entry), &mut removed);
        // Also removed is what this replaces, and this itself where there is no room for it.
        let evicted = removed.iter().filter(|(key, _)| *key != stored.key).count();
        self.evictions.fetch_add(evicted as u64, Ordering::Relaxed);
    }

    /// How many have given way to others.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Forgets one response.
    pub(super) fn forget(&self, key: &str) {
        self.entries.remove(key);
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.weight()
    }
}
