//! What follows for a key from how its request ended, and for a request from what it finds.

use http::{Method, StatusCode};

use super::key::KeyError;
use crate::config::{Idempotency, UnknownOutcome};
use crate::store::StoreError;

/// Why a request with a key, or without one, may not pass.
#[derive(Debug, thiserror::Error)]
pub enum NotOnce {
    /// It has none, and needs one.
    #[error("the request needs an Idempotency-Key")]
    Missing,
    /// It is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The first request with it still runs.
    #[error("a request with this Idempotency-Key is still in progress")]
    InProgress,
    /// Nobody knows what the first one did.
    #[error("a request with this Idempotency-Key was sent, and its outcome is not known")]
    OutcomeUnknown,
    /// The first one was another request.
    #[error("this Idempotency-Key was used for another request")]
    Reused,
    /// The first one was answered, and its answer is not kept.
    #[error("a request with this Idempotency-Key was answered with {0}, and the answer not kept")]
    NotKept(StatusCode),
    /// The first one was answered, and no key of the route opens what is kept of that.
    #[error("a request with this Idempotency-Key was answered, and the answer cannot be read")]
    Unsealable,
    /// The store does not say whether there was a first one.
    #[error("whether the Idempotency-Key was used before is unknown: {0}")]
    Unknown(#[source] StoreError),
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has its answer.
    Answered,
    /// It is free again: nothing was done.
    Free,
    /// Nobody knows what was done.
    Unknown,
}

/// What becomes of the key of a request that was answered. `is_in_doubt`: another server may have
/// acted on it whose answer this is not.
pub fn after_answer(status: StatusCode, is_in_doubt: bool) -> Fate {
    let fate = match status {
        // They say that nothing was done: with 408 the request has not come whole (RFC 9110
        // §15.5.9), with 425 it was not risked to process it (RFC 8470 §5.2), and whoever has no
        // room for it, or is not there, has not begun.
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE => Fate::Free,
        // Whoever was asked behind the upstream may have acted, or may still act.
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Fate::Unknown,
        _ => Fate::Answered,
    };
    if is_in_doubt && fate == Fate::Free { Fate::Unknown } else { fate }
}

/// What becomes of the key of a request that was not answered.
pub fn after_failure(may_have_acted: bool) -> Fate {
    if may_have_acted { Fate::Unknown } else { Fate::Free }
}

/// Whether a request may be sent though nobody knows what the first one with its key did. What is
/// idempotent by its method may (RFC 9110 §9.2.2).
pub fn may_repeat(policy: &Idempotency, method: &Method) -> bool {
    method.is_idempotent() || policy.unknown == UnknownOutcome::Forward
}

/// Whether the keys of requests with this method are looked at.
pub fn covers(policy: &Idempotency, method: &Method) -> bool {
    policy.methods.contains(method)
}
