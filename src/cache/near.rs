//! Copies of stored responses in this node's memory. A copy counts only while the epochs of now
//! equal those under which it was stored, so it saves the transfer, never the question.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Place;
use super::entry::{Stored, may_replace};

/// Copies held at first; the map grows with its weight.
const ENTRIES_ESTIMATE: usize = 4096;
/// Most variants of one response that are held; the store has more.
const VARIANTS_MAX: usize = 8;
/// Longest body that is held in memory, in bytes: a few large ones must not evict all others.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// One response.
#[derive(Debug)]
pub struct Held {
    /// Its keys, so that a hit need not make them anew.
    pub place: Arc<Place>,
    /// Its variants, the newest first.
    pub variants: Vec<Arc<Stored>>,
}

/// Responses in memory, bounded by bytes.
#[derive(Debug)]
pub struct NearCache {
    entries: Cache<String, Arc<Held>, ByBytes>,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<String, Arc<Held>> for ByBytes {
    fn weight(&self, key: &String, held: &Arc<Held>) -> u64 {
        let keys = held.place.epochs.iter().map(|epoch| epoch.len() + 24).sum::<usize>();
        let variants = held.variants.iter().map(|stored| stored.weight()).sum::<usize>();
        (key.len() * 2 + keys + variants) as u64
    }
}

impl NearCache {
    /// At most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { entries: Cache::with_weighter(ENTRIES_ESTIMATE, bytes_max, ByBytes) }
    }

    /// What is held of one response.
    pub fn get(&self, key: &str) -> Option<Arc<Held>> {
        self.entries.get(key)
    }

    /// Keeps a copy, in place of the one that answered the same requests, unless it is an error
    /// and that one is still good.
    pub fn offer(&self, place: &Arc<Place>, stored: &Arc<Stored>, now_ms: u64) {
        if stored.body.inline().is_none_or(|body| body.len() > BODY_BYTES_MAX) {
            return;
        }
        let known = self.entries.get(&stored.key);
        let known = known.as_deref().map_or(&[][..], |held| &held.variants);
        let same = known.iter().find(|other| other.vary == stored.vary);
        if !may_replace(stored.status, same.map(AsRef::as_ref), now_ms) {
            return;
        }
        // Of two that are put at once one may be lost; the store has it.
        let others = known.iter().filter(|other| other.vary != stored.vary);
        let variants = std::iter::once(stored).chain(others).take(VARIANTS_MAX).cloned().collect();
        let held = Held { place: Arc::clone(place), variants };
        self.entries.insert(stored.key.clone(), Arc::new(held));
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
