//! What the configuration of a route says about caching.
//!
//! Values only; what they decide is in the files beside this one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::query::Query;
use crate::base::claim::Found;
use crate::base::facts::Caller;

/// What the configuration of a route says about caching. The default is the safe choice for every
/// key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Lifetime of responses that state none of their own.
    pub ttl: Option<Duration>,
    /// The operator's word that the upstream ignores who is asking.
    pub shared: bool,
    /// Names of the claims whose values are part of the key, so that each has entries of its own.
    pub partition: Vec<String>,
    /// The longest body that is kept.
    pub max_bytes: usize,
    /// How long after its lifetime a response is still sent while a new one is fetched, where it
    /// does not say so itself (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// How long after its lifetime a response is still sent in place of an error, where it does
    /// not say so itself (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
    /// How long after its lifetime a response is still sent when the upstream gives no answer at
    /// all (RFC 9111 §4.2.4).
    pub stale_when_disconnected: Duration,
    /// The last part of its life, in percent, in which a response that is asked for again is
    /// fetched anew behind the client's back.
    pub refresh_ahead: Option<u8>,
    /// Whether a response without a lifetime gets a tenth of its age (RFC 9111 §4.2.2).
    pub heuristic: bool,
    /// What becomes of responses that set a cookie.
    pub set_cookie: SetCookie,
    /// The longest that a status from 400 on is kept.
    pub error_ttl: Duration,
    /// Lifetimes of error statuses that state none of their own.
    pub negative: BTreeMap<u16, Duration>,
    /// Whether clients cannot ask for newer, or take older, answers than others get.
    pub ignore_request_directives: bool,
    /// Which parameters of a query make no difference; none: it is taken byte for byte.
    pub query: Option<Query>,
    /// Whether the upstream judges If-None-Match and If-Modified-Since where nothing is stored
    /// (RFC 9111 §4.3.2). Otherwise the whole is asked for and kept, and judged by.
    pub forward_conditions: bool,
}

/// What becomes of responses that set a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCookie {
    /// Kept, cookie and all, where the response says that it is for everybody: `public`,
    /// `s-maxage` or CDN-Cache-Control.
    Explicit,
    /// Kept, cookie and all, wherever the response states a lifetime.
    Store,
    /// Never kept.
    Never,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: None,
            shared: false,
            partition: Vec::new(),
            max_bytes: 1 << 20,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_when_disconnected: Duration::from_secs(60),
            refresh_ahead: None,
            heuristic: false,
            set_cookie: SetCookie::Explicit,
            error_ttl: Duration::from_secs(10),
            negative: BTreeMap::new(),
            ignore_request_directives: false,
            query: None,
            forward_conditions: false,
        }
    }
}

impl Policy {
    /// Whether the operator has settled who may see an answer given to an identified caller.
    pub(super) fn settles_identity(&self) -> bool {
        self.shared || !self.partition.is_empty()
    }

    /// Whether this caller's entries are nobody else's: the partition names the subject, and the
    /// caller has one. Only then may what is `private` be kept.
    #[must_use]
    pub fn is_per_user(&self, caller: &Caller) -> bool {
        let names_subject = self.partition.iter().any(|name| name == "sub");
        let has_subject = |caller: &crate::base::facts::Identity| {
            caller.find("sub").and_then(Found::scalar).is_some_and(|subject| !subject.is_empty())
        };
        names_subject && caller.as_deref().is_some_and(has_subject)
    }
}
