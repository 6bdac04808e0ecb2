//! Why a request may not pass without a session that is in force. It must not know how one is
//! found.

use crate::store::StoreError;

/// Why a request may not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSession {
    /// The route requires one.
    #[error("this route needs a session, and there is none")]
    Required,
    /// The route requires one, and the one that is named ended because nobody used it.
    #[error("the session was not used for session.idle_timeout")]
    Idle,
    /// It is older than `session.absolute_timeout`.
    #[error("the session is older than session.absolute_timeout")]
    Expired,
    /// The application has not renewed it for `session.rolling_timeout`.
    #[error("the session was not renewed for session.rolling_timeout")]
    NotRenewed,
    /// A timeout counts from a time that the session does not say.
    #[error("the session's field {field:?} must be Unix seconds, a whole number not ahead of now")]
    Undated {
        /// The field.
        field: String,
    },
    /// `session.suspended_field` says so.
    #[error("the session is suspended")]
    Suspended,
    /// The stored value is longer than `session.max_bytes`.
    #[error("the session is longer than session.max_bytes")]
    TooLarge,
    /// The stored value is no JSON object and no hash.
    #[error("the session in the store is not a JSON object")]
    Unreadable,
    /// The store did not say, and the configuration says to refuse then.
    #[error("the store that holds sessions does not answer")]
    Unknown(StoreError),
}
