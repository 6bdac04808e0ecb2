//! Why an exchange brought no response, or not all of one.

use crate::upstream::connection_error::ConnectionError;

/// Why there is no response.
#[derive(Debug)]
pub(in crate::upstream) enum Unanswered {
    /// Nothing of the request was written.
    Unsent,
    /// The server says that it has not looked at it: the stream was refused, or is above the last
    /// one of a GOAWAY (RFC 9113 §8.7). The request is put back where all of it is still there.
    TurnedAway(ConnectionError),
    /// It was written, and the connection ended.
    Lost(Option<ConnectionError>),
    /// It was written, and the exchange ended; the connection lives.
    Reset(ConnectionError),
    /// The client's body ended early.
    Withdrawn,
    /// No head in time.
    TimedOut,
    /// The same, while the client owed more of the body.
    Starved,
    /// The head has more fields than there may be.
    TooLarge,
    /// It was read, and the answer is an error of which no status is made.
    Failed(String),
    /// The head could be read in two ways.
    Malformed(&'static str),
    /// The body broke off before its first byte.
    CutOff(ConnectionError),
}
