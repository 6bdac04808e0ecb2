//! What gRPC asks of whoever stands between a client and a server (PROTOCOL-HTTP2.md of the gRPC
//! project).

use std::fmt::Write as _;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

/// The field with the status of a call.
pub const GRPC_STATUS: &str = "grpc-status";
/// The field that explains it.
pub const GRPC_MESSAGE: &str = "grpc-message";

/// Whether a message is of a gRPC call: those need trailers, may rest, and get their errors as
/// `grpc-status`. gRPC-Web is another protocol.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.len() >= TYPE.len()
            && value[..TYPE.len()].eq_ignore_ascii_case(TYPE)
            && matches!(value.get(TYPE.len()), None | Some(b'+' | b';' | b' ' | b'\t'))
    })
}

/// Removes from the trailers of a call what is no metadata: fields of the connection, of framing
/// and of the content (RFC 9110 §6.5.1), and cookies.
pub fn keep_metadata(fields: &mut HeaderMap) {
    const REFUSED: [&str; 14] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "set-cookie",
        "set-cookie2",
    ];
    for name in REFUSED {
        fields.remove(name);
    }
}

/// A text as `grpc-message` carries it: percent-encoded UTF-8.
pub fn encode_message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;
