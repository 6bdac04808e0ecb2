//! Where a request goes that is sent as a message: its subject, and what stood for the parameters
//! of its path. What a stream is to store of it says so, too.

/// See the module. Whoever makes one answers for the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    /// The subject: no wildcard, no blank, no control character, no empty token.
    pub subject: String,
    /// The parameters of the path by their names, without escapes.
    pub parameters: Vec<(String, String)>,
}

/// A message that a stream of JetStream is to store: its answer is what the stream says of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The stream.
    pub stream: String,
    /// What two messages have in common of which it is to store one: visible ASCII.
    pub message_id: String,
}
