//! Why a log-in, or the news of a log-out, comes to nothing.

/// See the module. What it shows is for the log: a stranger reads what `proxy/rejection` says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The request is not one of OAuth.
    #[error("{0}")]
    Malformed(&'static str),
    /// No log-in was begun with this state by this browser, or it is over.
    #[error("no log-in of this browser has this state, or it is over")]
    StateUnknown,
    /// The log-in was begun at another provider.
    #[error("the log-in was begun at another provider")]
    OtherProvider,
    /// The answer is another issuer's, or does not say whose it is (RFC 9207 §2.4).
    #[error("the answer is of another issuer, or does not say of which")]
    OtherIssuer,
    /// The provider, or the user there, did not want it.
    #[error("the provider answered {0}")]
    Refused(String),
    /// The code is no good, or was used before.
    #[error("the provider refused the code: {0}")]
    Code(String),
    /// What the provider has said is not to be believed.
    #[error("the provider's answer is not to be believed: {0}")]
    Answer(String),
    /// The provider is not reached, or nothing is known of it.
    #[error("the provider cannot be asked: {0}")]
    Away(String),
    /// The store does not answer.
    #[error("{0}")]
    Store(String),
    /// A `logout_token` that is not to be believed.
    #[error("the logout_token is refused: {0}")]
    LogoutToken(String),
    /// The random source failed.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

impl Fault {
    /// An answer that is not to be believed.
    pub fn answer(why: impl Into<String>) -> Self {
        Self::Answer(why.into())
    }
}
