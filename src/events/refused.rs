//! Why a webhook is not taken.

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It does not say what must be signed, or in no way that is understood.
    #[error("the webhook lacks {0}")]
    Incomplete(&'static str),
    /// Its time is too far from now.
    #[error("the webhook's timestamp is {0} s away from now")]
    Stale(u64),
    /// Nobody who may has signed it.
    #[error("no signature of the webhook is right")]
    Signature,
    /// The store has not taken what it means.
    #[error("the store does not take the event: {0}")]
    Away(String),
}
