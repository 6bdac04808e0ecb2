//! Sessions that lie sealed in the store, and are opened by whoever reads them.

use std::borrow::Cow;

use bytes::Bytes;

use super::no_session::NoSession;
use crate::config::SealKey;
use crate::sealing::{self, Part, Place};
use crate::store::SessionValue;

/// What stands for the name of a queue or route.
const OF: &str = "session";
/// How much longer a sealed session is than it was, in bytes.
pub(super) const SEAL_BYTES: u64 = 64;

fn place(key: &str) -> Place<'_> {
    Place { of: OF, id: key, part: Part::Session }
}

/// What is stored of a session under this key.
///
/// # Errors
/// Cryptography failed.
pub fn seal(keys: &[SealKey], key: &str, text: Bytes) -> Result<Bytes, sealing::NotSealed> {
    match keys.first() {
        None => Ok(text),
        Some(first) => sealing::seal(first, place(key), &text).map(Bytes::from),
    }
}

/// What a session says that is stored under this key, sealed or not.
///
/// # Errors
/// It is sealed by another key, or was moved here from elsewhere.
pub fn open<'v>(
    keys: &[SealKey],
    key: &str,
    value: &'v SessionValue,
) -> Result<Cow<'v, SessionValue>, NoSession> {
    match value {
        SessionValue::Text(text) if sealing::is_sealed(text) => {
            let opened = sealing::open(keys, place(key), text);
            let opened = opened.map_err(|_| NoSession::Unreadable)?;
            Ok(Cow::Owned(SessionValue::Text(opened)))
        }
        SessionValue::Text(_) | SessionValue::Fields(_) => Ok(Cow::Borrowed(value)),
    }
}
