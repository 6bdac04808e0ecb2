//! Why an errand came to nothing.

use std::error::Error;
use std::io;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection.
    #[error("{0}")]
    Connect(io::Error),
    /// This machine trusts no certificate authority at all.
    #[error("no certificate authority is trusted ({0})")]
    NoAuthorities(String),
    /// The server did not prove who it is.
    #[error("{0}")]
    Tls(io::Error),
    /// What came was no HTTP, or it broke off.
    #[error("{0}")]
    Broken(Box<dyn Error + Send + Sync>),
    /// The body has more than this many bytes.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
}
