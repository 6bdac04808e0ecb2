//! Where a request goes that is sent as a message: its subject, and what stood for the parameters
//! of its path.

/// See the module. Whoever makes one answers for the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    /// The subject: no wildcard, no blank, no control character, no empty token.
    pub subject: String,
    /// The parameters of the path by their names, without escapes.
    pub parameters: Vec<(String, String)>,
}
