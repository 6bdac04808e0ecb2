//! The head of an interim response, as one HTTP/1.1 client gets it.

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};

use super::fields::returning;

/// The bytes of an interim response's head (RFC 9110 §15.2), with the fields that a final response
/// would keep. `None` for those that are not forwarded: 100 asks for a body, which hyper does
/// by itself, and 101 changes a protocol that nobody asked to change.
pub fn interim(status: StatusCode, fields: &HeaderMap) -> Option<Vec<u8>> {
    let is_ours = matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS);
    if is_ours || !status.is_informational() {
        return None;
    }
    let mut fields = fields.clone();
    returning(&mut fields);
    // Without content there is no length (RFC 9110 §8.6), and a client that read one would wait.
    fields.remove(CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    fn head(status: u16, fields: &[(&'static str, &'static str)]) -> Option<String> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let fields = fields.iter().map(pair).collect();
        let head = interim(StatusCode::from_u16(status).unwrap(), &fields);
        head.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn only_interim_responses_of_the_upstreams_own_pass() {
        assert_eq!(head(102, &[]).unwrap(), "HTTP/1.1 102 Processing\r\n\r\n");
        assert_eq!(head(103, &[]).unwrap(), "HTTP/1.1 103 Early Hints\r\n\r\n");
        assert_eq!(head(199, &[]).unwrap(), "HTTP/1.1 199 \r\n\r\n");
        for status in [100, 101, 200, 204, 304, 502] {
            assert_eq!(head(status, &[]), None, "{status}");
        }
    }

    #[test]
    fn repeated_fields_pass_and_those_of_one_connection_do_not() {
        let fields = [
            ("link", "</a>; rel=preload"),
            ("link", "</b>; rel=preload"),
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("x-request-id", "theirs"),
        ];
        let expected = "HTTP/1.1 103 Early Hints\r\n\
                        link: </a>; rel=preload\r\nlink: </b>; rel=preload\r\n\r\n";
        assert_eq!(head(103, &fields).unwrap(), expected);
    }
}
