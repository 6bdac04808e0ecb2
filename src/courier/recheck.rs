//! Asks, before a request is delivered, whether its caller's token or API key was revoked since it
//! was accepted.

use crate::deliver::Recheck;
use crate::runtime::Gateway;
use crate::store::{Questions, StoreError};

/// Whether a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was revoked.
    Good,
    /// Its caller may not have it sent any more.
    Revoked,
    /// The store has not said: it waits.
    Unknown,
}

/// Asks. What this node last knew does not count: nobody waits for a delivery, so it can wait for
/// the store.
pub(super) async fn ask(gateway: &Gateway, recheck: &Recheck) -> Standing {
    let questions = Questions { revocation: Some(recheck.keys()), ..Questions::default() };
    let reply = gateway.store.ask(&questions).await.revocation;
    match reply.unwrap_or(Err(StoreError::Unavailable)) {
        Ok(status) if recheck.is_revoked(status) => Standing::Revoked,
        Ok(_) => Standing::Good,
        Err(_) => Standing::Unknown,
    }
}
