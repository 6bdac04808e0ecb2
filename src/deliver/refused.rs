//! Why a request is not accepted for later, or nothing is told of one that was.

use std::time::Duration;

use super::due::DueFault;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue has no room.
    #[error("the queue is full")]
    Full {
        /// When there may be some.
        retry_after: Duration,
    },
    /// The store does not answer.
    #[error("the store of deliveries does not answer: {0}")]
    Away(String),
    /// The store may evict what it was told to keep.
    #[error("the store of deliveries may evict what it keeps: maxmemory-policy is {0}")]
    Unsafe(String),
    /// The store cannot say what is on its disk, and that is to be waited for.
    #[error(
        "the store of deliveries cannot say what is on its disk: durability = \"fsync\" needs \
             appendonly yes, and Redis 7.2 or Valkey"
    )]
    NoDisk,
    /// It is queued, and fewer copies of it are known of than the operator wants.
    #[error("the delivery is queued, and not known to be as durable as it must be")]
    InDoubt,
    /// The stream has no room.
    #[error("the stream {0} is full")]
    StreamFull(String),
    /// The stream does not take it, and has stored nothing.
    #[error("the stream {stream} does not take it: {why}")]
    StreamAway {
        /// Its name.
        stream: String,
        /// What is known of the reason.
        why: String,
    },
    /// It was sent to the stream, which has not said that it stored it.
    #[error("the stream {0} has not said whether it stored the request")]
    StreamSilent(String),
    /// The request must have an `Idempotency-Key`.
    #[error("this needs an Idempotency-Key")]
    KeyMissing,
    /// Its `Idempotency-Key` is none.
    #[error("the Idempotency-Key cannot be read: {0}")]
    KeyInvalid(String),
    /// The key stands for another request.
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// It says when it is due, and not in a way that is understood or allowed.
    #[error(transparent)]
    Time(#[from] DueFault),
    /// The caller has no such delivery.
    #[error("there is no such delivery")]
    NotFound,
    /// Nothing is kept of the answer.
    #[error("no answer to this delivery is kept")]
    NotKept,
    /// It is under way.
    #[error("the delivery is in progress")]
    InProgress,
    /// It has come to an end.
    #[error("the delivery has ended")]
    Ended,
}
