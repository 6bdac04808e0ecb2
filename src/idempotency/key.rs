//! The field `Idempotency-Key`, as its draft and as clients in use write it.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use sfv::{BareItem, Item, Parser};

/// The field.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// A key that a client chose: 1 to 255 bytes of 0x21 to 0x7E.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Box<str>);

/// The field names no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There are several.
    #[error("a request has one Idempotency-Key")]
    Several,
    /// It is none.
    #[error("an Idempotency-Key is 1 to 255 visible characters of ASCII, in quotes or not")]
    Malformed,
}

impl Key {
    /// The key of a request; nothing where it has none. The draft has a string in quotes, and most
    /// clients send it bare: both name the same key.
    ///
    /// # Errors
    /// The field is there, and names no key.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, KeyError> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(KeyError::Several);
        }
        Self::parse(value).map(Some).ok_or(KeyError::Malformed)
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let text = if text.starts_with('"') { unquoted(text)? } else { text.to_owned() };
        let is_key = (1..=KEY_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_key.then(|| Self(text.into()))
    }

    /// Its text, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The string of a structured field (RFC 9651 §3.3.3), whatever parameters it has.
fn unquoted(text: &str) -> Option<String> {
    match Parser::new(text).parse::<Item>().ok()?.bare_item {
        BareItem::String(text) => Some(text.into()),
        _ => None,
    }
}
