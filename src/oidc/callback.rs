//! What a browser brings back from the provider (RFC 6749 §4.1.2, RFC 9207).

use super::fault::Fault;
use crate::base::http::form::{self, Misread};

/// Longest code, in bytes.
const CODE_BYTES_MAX: usize = 4096;
/// Longest error that is told, in bytes.
const ERROR_BYTES_MAX: usize = 64;

/// The answer to an authorization request.
#[derive(Debug, PartialEq, Eq)]
pub struct Callback {
    /// `state`
    pub state: String,
    /// `iss`
    issuer: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a log-in.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A code, which is exchanged once.
    Code(String),
    /// An error, by its name alone: what else an answer says, whoever wrote the link may have
    /// chosen.
    Error(String),
}

impl Callback {
    /// Reads the query of a request.
    ///
    /// # Errors
    /// It is no answer of a provider.
    pub fn parse(query: &str) -> Result<Self, Fault> {
        const NAMES: [&str; 5] = ["state", "code", "error", "iss", "response"];
        let values = form::read(query.as_bytes(), NAMES).map_err(|misread| match misread {
            Misread::Repeated => Fault::Malformed("a parameter stands twice"),
            Misread::Escape => Fault::Malformed("the query has an escape that is none"),
        })?;
        let [state, code, error, issuer, response] = values;
        if response.is_some() {
            return Err(Fault::Malformed("an answer as a token was not asked for"));
        }
        let state = state.ok_or(Fault::Malformed("the answer has no state"))?;
        let outcome = match (code, error) {
            (Some(code), None) if is_code(&code) => Outcome::Code(code),
            (None, Some(error)) => Outcome::Error(error_name(&error)),
            _ => return Err(Fault::Malformed("the answer has not one code or one error")),
        };
        Ok(Self { state, issuer, outcome })
    }

    /// Whether the answer is of this issuer, byte for byte (RFC 9207 §2.4). `says_so`: it always
    /// says whose an answer is.
    ///
    /// # Errors
    /// It is another's.
    pub fn is_of(&self, issuer: &str, says_so: bool) -> Result<(), Fault> {
        match &self.issuer {
            Some(found) if found == issuer => Ok(()),
            None if !says_so => Ok(()),
            _ => Err(Fault::OtherIssuer),
        }
    }
}

/// RFC 6749, appendix A.11.
fn is_code(text: &str) -> bool {
    (1..=CODE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|it| (0x20..=0x7e).contains(&it))
}

/// A name of RFC 6749 §4.1.2.1 or of an extension; what is none has none.
pub(super) fn error_name(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match (1..=ERROR_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => "an error without a name".to_owned(),
    }
}
