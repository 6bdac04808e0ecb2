//! The keys of a WebSocket handshake (RFC 6455 §4.1, §4.2.2).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// What the RFC appends to a key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A `Sec-WebSocket-Key` that nobody has used.
pub fn fresh() -> HeaderValue {
    value(&fastrand::u128(..).to_be_bytes())
}

/// The `Sec-WebSocket-Accept` that a key must be answered with.
pub fn accept(key: &HeaderValue) -> HeaderValue {
    value(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat()).as_ref())
}

fn value(bytes: &[u8]) -> HeaderValue {
    // Base64 is always a value.
    HeaderValue::try_from(STANDARD.encode(bytes)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
