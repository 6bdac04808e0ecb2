//! Why there is no certificate.

use crate::store::StoreError;
use crate::tls::WrapError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The store did not take or give what an order needs.
    #[error("the store is needed for it: {0}")]
    Store(#[from] StoreError),
    /// The authority cannot be reached, or refuses.
    #[error("the authority: {0}")]
    Authority(#[from] instant_acme::Error),
    /// It could not see that a name is ours.
    #[error("the authority could not see that {name} is ours: {why}")]
    Unproved {
        /// The name.
        name: String,
        /// What it says.
        why: String,
    },
    /// It offers no challenge that is configured.
    #[error(
        "the authority offers for {0} no challenge that server.tls.acme.challenges names and a \
         listener can answer"
    )]
    NoChallenge(String),
    /// What it issued is of no use.
    #[error("what the authority issued cannot be used: {0}")]
    Unusable(String),
    /// A private key cannot be wrapped, or not be read again.
    #[error(transparent)]
    Wrapped(#[from] WrapError),
    /// The whole order took too long.
    #[error("the order took longer than server.tls.acme.order_timeout")]
    TimedOut,
    /// Another gateway may order now.
    #[error("the lease went to another gateway")]
    LeaseLost,
    /// The fleet has ordered enough.
    #[error("server.tls.acme.{0} is used up")]
    Budget(&'static str),
    /// Cryptography failed.
    #[error("{0} failed")]
    Crypto(&'static str),
}

impl Failure {
    /// Whether the authority does not know the account (RFC 8555 §6.7).
    pub(super) fn is_of_no_account(&self) -> bool {
        let Self::Authority(instant_acme::Error::Api(problem)) = self else { return false };
        problem.r#type.as_deref().is_some_and(|it| it.ends_with(":accountDoesNotExist"))
    }

    /// The name in the metrics.
    pub(super) fn result(&self) -> &'static str {
        match self {
            Self::Store(_) | Self::Wrapped(_) => "store",
            Self::Authority(_) | Self::NoChallenge(_) | Self::Unusable(_) | Self::Crypto(_) => {
                "failed"
            }
            Self::Unproved { .. } => "unproved",
            Self::TimedOut => "timeout",
            Self::LeaseLost => "lease_lost",
            Self::Budget(_) => "over_budget",
        }
    }
}
