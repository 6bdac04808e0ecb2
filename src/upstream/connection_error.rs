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

impl From<h2::Error> for ConnectionError {
    fn from(error: h2::Error) -> Self {
        Self::Http2(Box::new(error))
    }
}
