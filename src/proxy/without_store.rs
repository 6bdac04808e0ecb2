//! What a request goes by where the store does not answer: what other stores say, and what this
//! node last knew.

use std::time::Duration;

use crate::base::facts::Identity;
use crate::runtime::Gateway;
use crate::store::{Answers, Questions, Reply, RevocationKeys, RevocationStatus, StoreError};

/// Asks the stores beside the main one, which has just not answered this request: it does not wait
/// for that one twice.
pub(super) async fn ask_others(
    gateway: &Gateway,
    all: &Questions<'_>,
    error: &StoreError,
) -> Answers {
    let (mut answers, others) = (Answers::failed(all, error), gateway.store.beside_main(all));
    if !others.is_empty() {
        let said = gateway.cache.ask(&others).await;
        answers.charges = said.charges.or(answers.charges);
        answers.leases = said.leases.or(answers.leases);
        answers.cached = said.cached.or(answers.cached);
    }
    answers
}

/// What the store said of a token's revocation; while it is away, what this node last knew.
pub(super) fn recalled(
    gateway: &Gateway,
    identity: &Identity,
    reply: Reply<RevocationStatus>,
    max_stale: Duration,
) -> Reply<RevocationStatus> {
    reply.or_else(|error| {
        // An answer that cannot be used is no outage: it may mean a revocation of now.
        let known =
            error.is_outage().then(|| gateway.store.recall(revocation_keys(identity), max_stale));
        known.flatten().ok_or(error)
    })
}

/// The revocation keys of a token or API key.
pub(super) fn revocation_keys(identity: &Identity) -> RevocationKeys<'_> {
    RevocationKeys {
        blacklist: &identity.blacklist_keys,
        not_before: identity.not_before_key.as_deref(),
        record: identity.record_key(),
    }
}
