//! gRPC-Web (PROTOCOL-WEB.md of the gRPC project): what browsers send in place of gRPC. Trailers
//! are the last frame of the body, and all of the body may be base64.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue};

/// The flag of the frame with the trailers.
const TRAILERS: u8 = 0x80;
/// How many characters of base64 stand together.
const GROUP: usize = 4;

/// One kind of gRPC-Web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Whether the body is base64.
    is_text: bool,
    /// Its type, as the client names it and reads it.
    content_type: HeaderValue,
    /// The type that gRPC has for the same.
    native: HeaderValue,
}

impl Web {
    /// What a request with this `Content-Type` speaks; nothing where that is not gRPC-Web.
    pub fn of(content_type: &HeaderValue) -> Option<Self> {
        let text = content_type.to_str().ok()?.to_ascii_lowercase();
        let rest = text.strip_prefix("application/grpc-web")?;
        let (is_text, rest) = match rest.strip_prefix("-text") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if !(rest.is_empty() || rest.starts_with(['+', ';', ' '])) {
            return None;
        }
        let native = HeaderValue::try_from(format!("application/grpc{rest}")).ok()?;
        Some(Self { is_text, content_type: content_type.clone(), native })
    }

    /// Whether the body is base64.
    pub fn is_text(&self) -> bool {
        self.is_text
    }

    /// Makes the head of a request one of gRPC.
    pub fn translate(&self, head: &mut HeaderMap) {
        head.insert(CONTENT_TYPE, self.native.clone());
        // A gRPC server refuses calls whose client seems unable to read trailers.
        head.insert(TE, HeaderValue::from_static("trailers"));
        head.remove("x-grpc-web");
    }

    /// Makes the head of an answer of gRPC one that the client reads, in scripts of other origins
    /// too.
    pub fn settle(&self, head: &mut HeaderMap) {
        head.insert(CONTENT_TYPE, self.content_type.clone());
        head.remove(CONTENT_LENGTH);
        let exposed = HeaderValue::from_static("grpc-status, grpc-message");
        head.append(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }

    /// A part of the body as the client reads it.
    pub fn encode(&self, data: Bytes) -> Bytes {
        if self.is_text { BASE64_STANDARD.encode(data).into() } else { data }
    }

    /// Trailers as the last frame of the body.
    pub fn trailers(&self, trailers: &HeaderMap) -> Bytes {
        let mut lines = BytesMut::new();
        for (name, value) in trailers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
        let mut frame = BytesMut::with_capacity(lines.len() + 5);
        frame.put_u8(TRAILERS);
        frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
        frame.extend_from_slice(&lines);
        self.encode(frame.freeze())
    }
}

/// Undoes base64 that comes in parts. Each group of four stands for itself, so padding may stand
/// wherever a part ended for the client.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The begun group.
    begun: Vec<u8>,
}

impl Decoder {
    /// Whether a group is begun and not ended.
    pub fn is_amid(&self) -> bool {
        !self.begun.is_empty()
    }

    /// What the next part says; nothing where it is no base64.
    pub fn read(&mut self, data: &[u8]) -> Option<Bytes> {
        self.begun.extend_from_slice(data);
        let whole = self.begun.len() / GROUP * GROUP;
        let mut decoded = Vec::with_capacity(whole / GROUP * 3);
        let mut rest = &self.begun[..whole];
        while !rest.is_empty() {
            // Up to the group with padding, which ends what can be decoded at once.
            let padded = rest.iter().position(|byte| *byte == b'=');
            let end = padded.map_or(rest.len(), |at| at / GROUP * GROUP + GROUP);
            BASE64_STANDARD.decode_vec(&rest[..end], &mut decoded).ok()?;
            rest = &rest[end..];
        }
        self.begun.drain(..whole);
        Some(decoded.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        for (value, expected) in [
            ("application/grpc-web", Some((false, "application/grpc"))),
            ("application/grpc-web+proto", Some((false, "application/grpc+proto"))),
            ("Application/gRPC-Web-Text", Some((true, "application/grpc"))),
            ("application/grpc-web-text+proto", Some((true, "application/grpc+proto"))),
            ("application/grpc-website", None),
            ("application/grpc", None),
        ] {
            let web = Web::of(&HeaderValue::from_static(value));
            let found = web.as_ref().map(|web| (web.is_text, web.native.to_str().unwrap()));
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn base64_is_undone_however_it_comes() {
        let text = [BASE64_STANDARD.encode("a message"), BASE64_STANDARD.encode("more")].concat();
        let text = [BASE64_STANDARD.encode("x"), text].concat();
        for at in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(at);
            let mut decoder = Decoder::default();
            let read = [decoder.read(first).unwrap(), decoder.read(second).unwrap()].concat();
            assert_eq!((read, decoder.is_amid()), (b"xa messagemore".to_vec(), false), "{at}");
        }
        let mut decoder = Decoder::default();
        assert_eq!(decoder.read(b"YQ").as_deref(), Some(&b""[..]));
        assert!(decoder.is_amid());
        assert_eq!(Decoder::default().read(b"Y%Q="), None);
        assert_eq!(Decoder::default().read(b"==YQ"), None);
    }
}
