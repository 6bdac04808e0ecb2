//! The head of a response: refused where it could be read in two ways.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Response, StatusCode, Version};

use super::content_length;

/// What a head says about its message and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// The server has answered in HTTP/1.0.
    pub(super) is_http_10: bool,
    /// It is the answer to a gRPC call and trailers may follow it: only chunked messages have any.
    pub(super) has_grpc_trailers: bool,
}

/// The fields that say how long a message is.
#[derive(Debug, Default)]
struct Framing<'a> {
    codings: usize,
    coding: Option<&'a HeaderValue>,
    lengths: usize,
    length: Option<&'a HeaderValue>,
}

impl<'a> Framing<'a> {
    /// In one pass: looking up each name costs several times as much.
    fn of(headers: &'a HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            if name == TRANSFER_ENCODING {
                found.codings += 1;
                found.coding = Some(value);
            } else if name == CONTENT_LENGTH {
                found.lengths += 1;
                found.length = Some(value);
            }
        }
        found
    }
}

/// Leaves a head that can be read in one way only, in the gateway's own version: what the client
/// gets is in that (RFC 9112 §2.3).
///
/// # Errors
/// Why it is refused: it switches protocols, or its framing is faulty (RFC 9112 §6.1, §6.3).
pub(super) fn settle<B>(response: &mut Response<B>) -> Result<Said, &'static str> {
    let (status, version) = (response.status(), response.version());
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("it switches protocols, which nobody asked for");
    }
    let found = Framing::of(response.headers());
    let is_chunked = match found.coding {
        None => false,
        Some(coding) if found.codings == 1 && is_word(coding, b"chunked") => true,
        Some(_) => return Err("its Transfer-Encoding is not one `chunked`"),
    };
    let is_http_10 = version == Version::HTTP_10;
    if is_http_10 && is_chunked {
        return Err("it is HTTP/1.0 and has a Transfer-Encoding");
    }
    let has_grpc_trailers = is_chunked && crate::base::grpc::is_grpc(response.headers());
    let is_settled = match found.length {
        None => true,
        Some(length) => {
            found.lengths == 1
                && !is_chunked
                && status != StatusCode::NO_CONTENT
                && content_length::is_canonical(length.as_bytes())
        }
    };
    if !is_settled {
        content_length::settle(status, response.headers_mut())
            .map_err(|_| "its Content-Length is not one number")?;
    }
    *response.version_mut() = Version::HTTP_11;
    Ok(Said { is_http_10, has_grpc_trailers })
}

fn is_word(value: &HeaderValue, word: &[u8]) -> bool {
    value.as_bytes().eq_ignore_ascii_case(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(head: &str) -> Result<(Said, String), &'static str> {
        let (first, fields) = head.split_once('\n').unwrap_or((head, ""));
        let (version, status) = first.split_once(' ').unwrap();
        let mut response = Response::builder().status(status).body(()).unwrap();
        let is_old = version == "1.0";
        *response.version_mut() = if is_old { Version::HTTP_10 } else { Version::HTTP_11 };
        for field in fields.lines() {
            let (name, value) = field.split_once(": ").unwrap();
            let name: http::HeaderName = name.parse().unwrap();
            response.headers_mut().append(name, value.parse().unwrap());
        }
        let said = settle(&mut response)?;
        assert_eq!(response.version(), Version::HTTP_11);
        let left = response.headers().iter();
        let left: Vec<String> =
            left.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        Ok((said, left.join("\n")))
    }

    #[test]
    fn one_framing_is_left() {
        for (head, left) in [
            ("1.1 200\ncontent-length: 5", "content-length: 5"),
            ("1.1 200\ncontent-length: 5\ncontent-length: 5", "content-length: 5"),
            ("1.1 200\ncontent-length: 05", "content-length: 5"),
            ("1.1 204\ncontent-length: 5", ""),
            ("1.1 200\ntransfer-encoding: Chunked", "transfer-encoding: Chunked"),
            (
                "1.1 200\ntransfer-encoding: chunked\ncontent-length: 5",
                "transfer-encoding: chunked",
            ),
            ("1.0 200\ncontent-length: 5", "content-length: 5"),
        ] {
            let (said, fields) = settled(head).unwrap();
            assert_eq!(fields, left, "{head}");
            assert_eq!(said.is_http_10, head.starts_with("1.0"), "{head}");
            assert!(!said.has_grpc_trailers, "{head}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for head in [
            "1.1 101",
            "1.1 200\ntransfer-encoding: gzip",
            "1.1 200\ntransfer-encoding: gzip, chunked",
            "1.1 200\ntransfer-encoding: chunked\ntransfer-encoding: chunked",
            "1.0 200\ntransfer-encoding: chunked",
            "1.1 200\ncontent-length: 5\ncontent-length: 6",
            "1.1 200\ncontent-length: -5",
        ] {
            assert!(settled(head).is_err(), "{head}");
        }
    }

    #[test]
    fn trailers_follow_chunks_of_a_grpc_call_alone() {
        let chunked = "transfer-encoding: chunked";
        let grpc = "content-type: application/grpc+proto";
        let (said, _) = settled(&format!("1.1 200\n{chunked}\n{grpc}")).unwrap();
        assert!(said.has_grpc_trailers);
        for head in [
            format!("1.1 200\ncontent-length: 5\n{grpc}"),
            format!("1.1 200\n{chunked}\ncontent-type: text/plain"),
        ] {
            assert!(!settled(&head).unwrap().0.has_grpc_trailers, "{head}");
        }
    }
}
