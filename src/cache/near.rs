//! Copies of stored responses in this node's memory. A copy counts only while the epochs that the
//! store names for this request equal those under which it was stored, so it saves the transfer,
//! never the question.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Stored;

/// Copies held at first; the map grows with its weight.
const ENTRIES_ESTIMATE: usize = 4096;

/// Responses in memory, bounded by bytes.
#[derive(Debug)]
pub struct NearCache {
    entries: Cache<String, Arc<Stored>, ByBytes>,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<String, Arc<Stored>> for ByBytes {
    fn weight(&self, key: &String, stored: &Arc<Stored>) -> u64 {
        (key.len() + stored.weight()) as u64
    }
}

impl NearCache {
    /// At most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { entries: Cache::with_weighter(ENTRIES_ESTIMATE, bytes_max, ByBytes) }
    }

    /// The copy of one response that is still fresh by the clock.
    pub fn get(&self, key: &str, now_ms: u64) -> Option<Arc<Stored>> {
        self.entries.get(key).filter(|stored| stored.remaining_ms(now_ms) > 0)
    }

    /// Keeps a copy.
    pub fn put(&self, stored: Arc<Stored>) {
        self.entries.insert(stored.key.clone(), stored);
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }
}
