//! Which session ids the store has, as far as this node knows.
//!
//! An id in a cookie is a client's word. A limit by session counts an id that the store does not
//! have for the address, or each made-up id would have a counter of its own. The answer to a
//! request tells, and its charges are asked together with it, so this memory says what to charge
//! first; where the answer says otherwise, the charge is made anew. What is remembered wrongly
//! costs one more question, and nothing else.

use quick_cache::sync::Cache;
use xxhash_rust::xxh3::xxh3_128;

/// Most ids that are remembered; the least used give way.
const SESSIONS_MAX: usize = 65_536;

/// Ids of sessions that the store had when it was last asked, by their hashes.
#[derive(Debug)]
pub struct KnownSessions(Cache<u128, ()>);

impl Default for KnownSessions {
    fn default() -> Self {
        Self(Cache::new(SESSIONS_MAX))
    }
}

impl KnownSessions {
    /// Whether the store had this session.
    pub fn knows(&self, id: &str) -> bool {
        self.0.get(&xxh3_128(id.as_bytes())).is_some()
    }

    /// Whether the store has it now. True when that is news.
    pub fn note(&self, id: &str, is_there: bool) -> bool {
        let hash = xxh3_128(id.as_bytes());
        let is_news = self.0.get(&hash).is_some() != is_there;
        if is_news && is_there {
            self.0.insert(hash, ());
        } else if is_news {
            self.0.remove(&hash);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_while_the_store_has_it() {
        let known = KnownSessions::default();
        assert!(!known.knows("s1") && !known.note("s1", false));
        assert!(known.note("s1", true) && !known.note("s1", true) && known.knows("s1"));
        assert!(!known.knows("s2"));
        assert!(known.note("s1", false) && !known.knows("s1"));
    }
}
