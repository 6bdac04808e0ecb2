//! Why the store did not answer. What that means for a request is policy, decided elsewhere.

/// Why the store did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no connection now; nothing was waited for.
    #[error("no connection to the store")]
    Unavailable,
    /// Nothing was asked: the request has waited for the store as long as it may.
    #[error("this request has waited for the store for store.timeout already")]
    NotAsked,
    /// No answer within `store.timeout`.
    #[error("no answer from the store within store.timeout")]
    Timeout,
    /// The store serves nobody now, or not these keys, and has done nothing: what it said.
    #[error("the store does not serve now: {0}")]
    NotServing(String),
    /// The store answered with an error, or with something else than asked.
    #[error("the store refused: {0}")]
    Refused(String),
    /// The embedded store has no room for more of this kind; names the key of the bound.
    #[error("the embedded store is full; raise store.{0} or use Redis")]
    Full(&'static str),
}

impl StoreError {
    /// Whether the store is away, so that `[store.on_outage]` decides. Any other answer that cannot
    /// be used may mean anything.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable | Self::NotAsked | Self::Timeout | Self::NotServing(_))
    }

    /// Whether the store has surely done nothing, so that what it was asked may be asked again.
    pub fn is_undone(&self) -> bool {
        matches!(self, Self::Unavailable | Self::NotAsked | Self::NotServing(_))
    }

    /// Whether the store has no memory for a write. It may still delete then.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Refused(text) => text.trim_start_matches('"').starts_with("OOM"),
            Self::Unavailable | Self::NotAsked | Self::Timeout | Self::NotServing(_) => false,
        }
    }
}
