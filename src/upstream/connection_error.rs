//! What is wrong with a connection to a server, in whichever HTTP.

/// How a connection, or one exchange on it, broke.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// HTTP/2. Boxed, because it is large.
    #[error(transparent)]
    Http2(Box<h2::Error>),
    /// The server did not answer a PING (RFC 9113 §6.7).
    #[error("the server did not answer a PING")]
    PingLost,
}

impl ConnectionError {
    /// The code with which the server has reset a stream of HTTP/2 (RFC 9113 §7).
    pub(super) fn reset_code(&self) -> Option<u32> {
        let Self::Http2(error) = self else { return None };
        let error = Some(error).filter(|error| error.is_reset() && error.is_remote());
        error.and_then(|error| error.reason()).map(Into::into)
    }
}

impl From<h2::Error> for ConnectionError {
    fn from(error: h2::Error) -> Self {
        Self::Http2(Box::new(error))
    }
}
