//! What is to be fetched, and with whom: the same for all who may share the answer.

use std::sync::Arc;

use http::HeaderMap;

use super::keep::Site;
use crate::base::facts::Caller;
use crate::cache::{self, Boarding, Forward, Intent, Lead, Policy, Stored};
use crate::gateway::Gateway;

/// What is known of a response that must be fetched.
#[derive(Debug)]
pub(in crate::pipeline) struct Errand {
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
}

impl Errand {
    /// Whether the answer to another request for the same will do, once it is there.
    pub(super) fn is_shareable(&self) -> bool {
        is_shareable(&self.intent)
    }

    /// The duty to fetch the answer behind the clients' backs, unless somebody has it.
    /// Only a request whose answer may be kept can do that.
    pub(in crate::pipeline) fn refresh(&self, gateway: &Gateway) -> Option<Lead> {
        self.intent.store.then(|| gateway.flights.refresh(&self.flight())).flatten()
    }

    /// Whether what is stored is this caller's alone.
    pub(in crate::pipeline) fn is_per_user(&self, caller: &Caller) -> bool {
        self.policy.is_per_user(caller)
    }

    /// Whether a response is another one than what is stored as far as this request knows.
    pub(super) fn is_news(&self, stored: &Stored) -> bool {
        self.stale.as_ref().is_none_or(|known| known.answered_ms != stored.answered_ms)
    }

    /// Joins those on this node who want the same answer.
    pub(super) fn board(&self, gateway: &Gateway) -> Boarding {
        gateway.flights.board(&self.flight())
    }

    /// Makes it the variant that requests with these fields select of a response.
    pub(super) fn set_variant_of(&mut self, stored: &Stored, fields: &HeaderMap) {
        let set: Vec<_> = stored.vary.iter().map(|(name, _)| name.clone()).collect();
        self.variant = cache::variant_name(&set, fields);
    }

    /// Names what may be shared: of the same entry and variant, with nothing withdrawn between. A
    /// read that begins after a write must not get what was fetched before it. Where the epochs are
    /// not known, this node knows the withdrawals that passed it.
    pub(super) fn flight(&self) -> String {
        let moment = self.site.moment();
        let mut name = String::with_capacity(96 + self.site.place.entry.len() + moment.len() * 2);
        name.extend([&self.site.place.entry, "\n", &self.variant, "\n"]);
        match self.unkept {
            Some(withdrawals) => name.extend(["unkept ", &withdrawals.to_string()]),
            // Not for reading: each byte is one character.
            None => name.extend(moment.iter().map(|byte| char::from(*byte))),
        }
        name
    }
}

/// Whether the answer to another request for the same will do.
pub(super) fn is_shareable(intent: &Intent) -> bool {
    intent.read && intent.store && !intent.reload
}
