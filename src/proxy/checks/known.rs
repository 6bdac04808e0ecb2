//! What is known of a caller by a session of the gateway's own.

use std::time::Duration;

use crate::base::facts::{Caller, Credential};
use crate::proxy::rejection::Rejection;
use crate::store::StoreError;

/// What a session is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum By {
    /// What this node remembers, where it does.
    Memory,
    /// The store alone.
    Store,
}

/// Who calls, as far as that could be found out.
pub(in crate::proxy) struct Known {
    pub(in crate::proxy) caller: Result<Caller, Box<Rejection>>,
    /// How long the store was waited for.
    pub(in crate::proxy) waited: Duration,
    /// Why it did not answer, if it did not.
    pub(in crate::proxy) outage: Option<StoreError>,
}

impl Known {
    pub(super) fn at_once(caller: Result<Caller, Rejection>) -> Self {
        Self { caller: caller.map_err(Box::new), waited: Duration::ZERO, outage: None }
    }
}

/// Until when the session of a caller was judged to be in force, Unix seconds.
pub(super) fn until_s(caller: &Caller) -> Option<i64> {
    let identity = caller.as_deref()?;
    matches!(identity.credential, Credential::Session { .. }).then_some(identity.expires_at)
}

/// The digest of the cookie of a caller who is known by a session.
pub(super) fn digest_of(caller: &Caller) -> Option<[u8; 32]> {
    match caller.as_deref()?.credential {
        Credential::Session { digest } => Some(digest),
        Credential::Token { .. } | Credential::ApiKey { .. } | Credential::Certificate => None,
    }
}
