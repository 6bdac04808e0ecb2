//! Why a connection to Redis was not made.

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no answer within store.connect_timeout")]
    Timeout,
    #[error("READONLY: the server is a replica")]
    Replica,
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}
