//! What a request goes by where the store does not answer: what other stores say, and what this
//! node last knew.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::facts::Identity;
use crate::observe::Took;
use crate::runtime::Gateway;
use crate::store::{
    Answers, Questions, Reply, RevocationKeys, RevocationStatus, SessionKeys, SessionReply,
    StoreError,
};

/// Asks the stores beside the main one, which has just not answered this request: it does not wait
/// for that one twice.
pub(super) async fn ask_others(
    gateway: &Gateway,
    all: &Questions<'_>,
    error: &StoreError,
) -> Box<Answers> {
    let mut answers = Box::new(Answers::failed(all, error));
    let others = gateway.store.beside_main(all);
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
        proof: None,
    }
}

/// Keeps what the store said of a session that was asked for at `asked`.
pub(super) fn keep_session(gateway: &Gateway, keys: &SessionKeys, answers: &Answers, took: Took) {
    if let Some(Ok(found)) = &answers.session {
        let now = took.began + took.time;
        gateway.sessions.note(&keys.session, found.as_ref(), took.began, now);
    }
}

/// Puts a session as this node last read it, less than `max_stale` ago, in the place of what the
/// store said, where that is away. True when there is one.
#[inline]
pub(super) fn recall_session(
    gateway: &Gateway,
    keys: Option<&SessionKeys>,
    said: &mut Option<Reply<Option<SessionReply>>>,
    max_stale: Duration,
) -> bool {
    // An answer that cannot be used is no outage.
    if !matches!(said, Some(Err(error)) if error.is_outage()) {
        return false;
    }
    let known = keys.and_then(|it| gateway.sessions.recall(&it.session, max_stale, Instant::now()));
    let is_known = known.is_some();
    if is_known {
        *said = Some(Ok(known));
    }
    is_known
}
