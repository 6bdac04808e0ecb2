//! A response that must be fetched: what is known of it, and with whom the fetch is shared.

use std::sync::Arc;

use http::HeaderMap;

use super::answer::CacheNotes;
use super::candidates::Candidate;
use super::coalesce::{EpochsUnknown, FetchKey, Joined, Leader};
use super::entry_key::KeyWithEpochs;
use super::http_cache::HttpCache;
use super::leases::LeaseOutcome;
use crate::cache::{self, CacheKey, Intent, Stored};
use crate::config;

/// See the module.
#[derive(Debug)]
pub struct Miss {
    pub(super) cache: Arc<HttpCache>,
    pub(super) key: KeyWithEpochs,
    pub(super) intent: Intent,
    /// What is stored: to be confirmed, or to stand in for a failure.
    pub(super) stale: Option<Arc<Stored>>,
    /// A soft purge made it stale.
    pub(super) purged: bool,
    pub(super) variant: String,
    /// Where the epochs are not known, so that nothing can be stored.
    pub(super) epochs_unknown: Option<EpochsUnknown>,
    /// Whether this request fetches for the fleet.
    pub(super) lease: LeaseOutcome,
    /// A credential was verified.
    pub(super) authenticated: bool,
    /// The entry is this caller's alone.
    pub(super) per_user: bool,
    /// What is told of it so far.
    pub(super) notes: CacheNotes,
}

/// A stored response that is to be fetched anew behind the client's back.
#[derive(Debug)]
pub struct Refresh {
    pub(super) miss: Box<Miss>,
    pub(super) leader: Leader,
}

impl Miss {
    /// The rules of the route.
    pub(super) fn policy(&self) -> &config::Cache {
        &self.key.origin.route.policy
    }

    /// Whether the answer to another request for the same will do, once it is there.
    pub(super) fn is_shareable(&self) -> bool {
        is_shareable(&self.intent)
    }

    /// Whether a response is another one than what is stored as far as this request knows.
    pub(super) fn is_other(&self, stored: &Stored) -> bool {
        self.stale.as_ref().is_none_or(|known| known.answered_ms != stored.answered_ms)
    }

    /// Makes it the variant that requests with these fields select of a response.
    pub(super) fn set_variant_of(&mut self, stored: &Stored, fields: &HeaderMap) {
        let set: Vec<_> = stored.vary.iter().map(|(name, _)| name.clone()).collect();
        self.variant = cache::variant_name(&set, fields);
    }

    /// The name of what is fetched.
    pub(super) fn response(&self) -> String {
        response_name(&self.key.key, &self.variant)
    }

    /// Joins those on this node who want the same response.
    pub(super) fn join(&self) -> Joined {
        self.cache.coalescer.join(self.fetch_key())
    }

    /// Fetches behind the client's back instead, unless somebody does already. Only a request whose
    /// answer may be stored can do that.
    pub(super) fn into_refresh(self: Box<Self>) -> Option<Box<Refresh>> {
        if !self.intent.store {
            return None;
        }
        let leader = self.cache.coalescer.refresh(self.fetch_key())?;
        Some(Box::new(Refresh { miss: self, leader }))
    }

    fn fetch_key(&self) -> FetchKey {
        let epochs = Arc::clone(&self.key.epochs);
        FetchKey { response: self.response(), epochs, epochs_unknown: self.epochs_unknown }
    }

    /// What is stored, where it may stand in for a failure.
    pub(super) fn stand_in(
        &self,
        failure: cache::Failure,
        stale: Option<Arc<Stored>>,
    ) -> Option<Arc<Stored>> {
        let (intent, policy, now_ms) = (&self.intent, self.policy(), self.cache.now_ms());
        stale.filter(|stale| {
            cache::usable_after(failure, (stale, self.purged), intent, policy, now_ms)
        })
    }

    /// Takes a candidate along that does not answer as it is.
    pub(super) fn with_stale(mut self: Box<Self>, stale: Option<Candidate>) -> Box<Self> {
        self.purged = stale.as_ref().is_some_and(|stale| stale.purged);
        self.stale = stale.map(|stale| stale.response);
        self
    }
}

/// The name of what one fetch gets: a variant of an entry.
pub(super) fn response_name(key: &CacheKey, variant: &str) -> String {
    [&*key.entry, "\n", variant].concat()
}

/// Whether the answer to another request for the same will do.
pub(super) fn is_shareable(intent: &Intent) -> bool {
    intent.read && intent.store && !intent.reload
}
