//! What is to be fetched, and with whom: the same for all who may share the answer.

use std::sync::Arc;

use http::HeaderMap;

use super::keep::Site;
use super::lease::Turn;
use crate::base::facts::Caller;
use crate::cache::{self, Boarding, Flight, Forward, Intent, Lead, Place, Policy, Stored};
use crate::runtime::Gateway;

/// What is known of a response that must be fetched.
#[derive(Debug)]
pub(in crate::proxy) struct Errand {
    pub(super) policy: Arc<Policy>,
    pub(super) site: Site,
    pub(super) intent: Intent,
    /// What is stored: to be confirmed, or to stand in for a failure.
    pub(super) stale: Option<Arc<Stored>>,
    /// A soft purge made it stale.
    pub(super) purged: bool,
    pub(super) why: Forward,
    pub(super) variant: String,
    /// Where the epochs are not known, so that nothing can be kept: how many withdrawals had passed
    /// this node when the request came.
    pub(super) unkept: Option<u64>,
    /// Whether it is this request's turn to fetch, of all in the fleet.
    pub(super) turn: Turn,
}

impl Errand {
    /// Whether the answer to another request for the same will do, once it is there.
    pub(super) fn is_shareable(&self) -> bool {
        is_shareable(&self.intent)
    }

    /// The duty to fetch the answer behind the clients' backs, unless somebody has it.
    /// Only a request whose answer may be kept can do that.
    pub(in crate::proxy) fn refresh(&self, gateway: &Gateway) -> Option<Lead> {
        self.intent.store.then(|| gateway.flights.refresh(self.flight())).flatten()
    }

    /// Whether what is stored is this caller's alone.
    pub(in crate::proxy) fn is_per_user(&self, caller: &Caller) -> bool {
        self.policy.is_per_user(caller)
    }

    /// Whether a response is another one than what is stored as far as this request knows.
    pub(super) fn is_news(&self, stored: &Stored) -> bool {
        self.stale.as_ref().is_none_or(|known| known.answered_ms != stored.answered_ms)
    }

    /// Joins those on this node who want the same answer.
    pub(super) fn board(&self, gateway: &Gateway) -> Boarding {
        gateway.flights.board(self.flight())
    }

    /// Makes it the variant that requests with these fields select of a response.
    pub(super) fn set_variant_of(&mut self, stored: &Stored, fields: &HeaderMap) {
        let set: Vec<_> = stored.vary.iter().map(|(name, _)| name.clone()).collect();
        self.variant = cache::variant_name(&set, fields);
    }

    /// What may be shared: the same entry and variant, with nothing withdrawn between.
    pub(super) fn flight(&self) -> Flight {
        let answer = answer(&self.site.place, &self.variant);
        Flight { answer, epochs: Arc::clone(&self.site.epochs), unkept: self.unkept }
    }
}

/// The name of what one fetch gets: a variant of an entry.
pub(super) fn answer(place: &Place, variant: &str) -> String {
    [&*place.entry, "\n", variant].concat()
}

/// Whether the answer to another request for the same will do.
pub(super) fn is_shareable(intent: &Intent) -> bool {
    intent.read && intent.store && !intent.reload
}
