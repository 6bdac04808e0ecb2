//! What a stream of JetStream says of a message that it was to store.

use serde::Deserialize;

/// The stream has no room, and is told to turn away what is new.
const STORE_FAILED: u32 = 10077;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ack {
    /// It is stored.
    Stored {
        /// Its number in the stream.
        seq: u64,
        /// Whether the stream had it already.
        is_again: bool,
    },
    /// There is no room in the stream.
    Full,
    /// JetStream does not take it.
    Refused {
        /// The number of the error.
        code: u32,
        /// What it says in words.
        why: String,
    },
    /// It is no answer of this stream.
    Foreign,
}

/// An error of the API of JetStream.
#[derive(Debug, Deserialize)]
pub(super) struct ApiError {
    pub(super) err_code: u32,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Deserialize)]
struct Written {
    error: Option<ApiError>,
    stream: Option<String>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
}

impl Ack {
    /// Reads the payload of an answer that is to be of this stream.
    pub fn read(payload: &[u8], stream: &str) -> Self {
        let Ok(written) = serde_json::from_slice::<Written>(payload) else { return Self::Foreign };
        match written {
            Written { error: Some(ApiError { err_code: STORE_FAILED, .. }), .. } => Self::Full,
            Written { error: Some(ApiError { err_code, description }), .. } => {
                Self::Refused { code: err_code, why: description }
            }
            Written { stream: Some(name), seq: Some(seq), duplicate, .. }
                if name == stream && seq > 0 =>
            {
                Self::Stored { seq, is_again: duplicate }
            }
            _ => Self::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_itself_says_that_it_has_stored_something() {
        let read = |text: &str| Ack::read(text.as_bytes(), "JOBS");
        let stored = |seq, is_again| Ack::Stored { seq, is_again };
        assert_eq!(read(r#"{"stream":"JOBS","seq":7}"#), stored(7, false));
        assert_eq!(
            read(r#"{"stream":"JOBS","domain":"d","seq":7,"duplicate":true}"#),
            stored(7, true)
        );
        let error = r#"{"code":503,"err_code":10077,"description":"maximum messages exceeded"}"#;
        let full = format!(r#"{{"error":{error},"stream":"JOBS","seq":0}}"#);
        assert_eq!(read(&full), Ack::Full);
        let other = r#"{"error":{"code":400,"err_code":10060,"description":"no"},"seq":0}"#;
        assert_eq!(read(other), Ack::Refused { code: 10060, why: "no".into() });
        for foreign in [
            "",
            "stored",
            "{}",
            "[]",
            r#"{"stream":"JOBS"}"#,
            r#"{"stream":"JOBS","seq":0}"#,
            r#"{"stream":"OTHER","seq":7}"#,
            r#"{"seq":7}"#,
            r#"{"error":"no"}"#,
            r#"{"error":{"code":400}}"#,
        ] {
            assert_eq!(read(foreign), Ack::Foreign, "{foreign}");
        }
    }
}
