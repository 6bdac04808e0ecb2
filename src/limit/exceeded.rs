//! Why a request may not pass.

use std::time::Duration;

use super::headers::Quota;
use crate::store::StoreError;

/// Why a request may not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// The route refuses the client's address.
    #[error("the client's address is blocked")]
    Blocked,
    /// A limit is exhausted.
    #[error("the limit `{limit}` is exhausted")]
    Limit {
        /// Which one.
        limit: String,
        /// When a retry would pass, never earlier than the truth; while the store is away, when it
        /// is worth another try.
        retry_after: Duration,
        /// What to tell the client.
        quota: Box<Quota>,
        /// The key of the store, or of this node, that is exhausted: whose it is, for the log.
        key: String,
    },
    /// The store did not say, and the configuration says to refuse then.
    #[error("the store that counts limits does not answer")]
    Unknown(StoreError),
}

impl Exceeded {
    /// A limit is exhausted for `wait`. Clients are told of up to `jitter` more, so that those who
    /// were refused together do not come back together.
    pub(super) fn over(limit: &str, jitter: Duration, wait: Duration, quota: &Quota) -> Self {
        let retry_after = wait + jitter.mul_f64(fastrand::f64());
        let (limit, quota) = (limit.to_owned(), Box::new(quota.clone()));
        Self::Limit { limit, retry_after, quota, key: String::new() }
    }

    /// The same refusal, which names the exhausted key.
    pub(super) fn of(mut self, exhausted: &str) -> Self {
        if let Self::Limit { key, .. } = &mut self {
            exhausted.clone_into(key);
        }
        self
    }
}
