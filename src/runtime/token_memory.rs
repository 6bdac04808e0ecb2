//! What this node remembers of providers' access tokens, so that most requests ask for none.

use std::fmt;
use std::sync::Arc;

use quick_cache::sync::Cache;

/// Most access tokens that this node remembers.
const REMEMBERED_MAX: usize = 10_000;

/// Access tokens, by the ids of their sessions.
#[derive(Debug)]
pub struct ProviderTokens(Cache<String, Arc<Held>>);

impl Default for ProviderTokens {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED_MAX))
    }
}

impl ProviderTokens {
    pub(super) fn get(&self, session: &str) -> Option<Arc<Held>> {
        self.0.get(session)
    }

    pub(super) fn insert(&self, session: String, held: Held) {
        self.0.insert(session, Arc::new(held));
    }

    pub(super) fn forget(&self, session: &str) {
        self.0.remove(session);
    }
}

/// An access token as long as nothing has to be asked.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) access: String,
    /// Unix seconds.
    pub(super) renew_at: u64,
    pub(super) ends_at: u64,
}

/// Whoever has the token is its user, so nobody prints it.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("ends_at", &self.ends_at).finish_non_exhaustive()
    }
}
