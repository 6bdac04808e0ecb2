//! The handshake of a WebSocket (RFC 6455 §4.2.1): is it one, and is it well formed?

use http::header::{ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use hyper::ext::Protocol;

use crate::base::http::fields::connection_options;
use crate::config::Origin;

/// The version that there is.
pub const WEBSOCKET_VERSION: &str = "13";

/// Why a handshake is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHandshake {
    /// It breaks RFC 6455 §4.2.1.
    #[error("this is no WebSocket handshake: {0}")]
    Malformed(&'static str),
    /// Another version than 13 (RFC 6455 §4.4).
    #[error("WebSocket is spoken in version 13 alone")]
    Version,
    /// Its page is none of those that may.
    #[error("the page that opens this WebSocket is not one of those that may")]
    Origin,
}

/// A well-formed handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// What the client wants to be answered for; nothing over HTTP/2, which needs no proof.
    pub key: Option<HeaderValue>,
}

/// Makes a GET of the one CONNECT that is permitted: that of a WebSocket over HTTP/2 (RFC 8441 §4).
/// It is a handshake like any other from here on, see [`is_connect`].
pub fn settle_connect(head: &mut Parts) {
    let websocket = |protocol: &Protocol| protocol.as_str().eq_ignore_ascii_case("websocket");
    if head.version == Version::HTTP_2 && head.extensions.get::<Protocol>().is_some_and(websocket) {
        head.method = Method::GET;
    }
}

/// Whether a request came as a CONNECT for another protocol (RFC 8441 §4).
pub fn is_connect(head: &Parts) -> bool {
    head.version == Version::HTTP_2 && head.extensions.get::<Protocol>().is_some()
}

/// The handshake that a request is; nothing for any other request. An HTTP/1.0 client's `Upgrade`
/// is none (RFC 9110 §7.8).
///
/// # Errors
/// It asks for WebSocket, and not as it must.
pub fn handshake(
    origins: &[Origin],
    head: &Parts,
    has_body: bool,
) -> Result<Option<Handshake>, BadHandshake> {
    let headers = &head.headers;
    let malformed = |what| Err(BadHandshake::Malformed(what));
    let key = if is_connect(head) {
        let mut versions = headers.get_all(SEC_WEBSOCKET_VERSION).iter();
        // It may be left out: some browsers do.
        if versions.any(|version| version != WEBSOCKET_VERSION) {
            return Err(BadHandshake::Version);
        }
        None
    } else if head.version == Version::HTTP_11 && names_websocket(headers) {
        if head.method != Method::GET {
            return malformed("its method is not GET");
        }
        if !connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
            return malformed("its Connection does not say upgrade");
        }
        let version = only(headers, &SEC_WEBSOCKET_VERSION).map_err(BadHandshake::Malformed)?;
        if version != WEBSOCKET_VERSION {
            return Err(BadHandshake::Version);
        }
        let key = only(headers, &SEC_WEBSOCKET_KEY).map_err(BadHandshake::Malformed)?;
        if !is_sixteen_bytes(key.as_bytes()) {
            return malformed("its Sec-WebSocket-Key is not 16 bytes in base64");
        }
        Some(key.clone())
    } else {
        return Ok(None);
    };
    if has_body {
        return malformed("it has a body");
    }
    check_origin(origins, headers)?;
    Ok(Some(Handshake { key }))
}

/// May the page that this is opened from? Who names none is no browser, and could name any.
fn check_origin(origins: &[Origin], headers: &HeaderMap) -> Result<(), BadHandshake> {
    let mut given = headers.get_all(ORIGIN).iter();
    let may = |origin: &HeaderValue| origins.iter().any(|known| known.covers(origin.as_bytes()));
    let covered = match (given.next(), given.next()) {
        (None, _) => true,
        (Some(origin), None) => may(origin),
        (Some(_), Some(_)) => false,
    };
    if origins.is_empty() || covered { Ok(()) } else { Err(BadHandshake::Origin) }
}

/// Whether `Upgrade` offers WebSocket (RFC 9110 §7.8: a list).
fn names_websocket(headers: &HeaderMap) -> bool {
    let offers =
        headers.get_all(UPGRADE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    offers.into_iter().any(|offer| offer.trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

fn only<'h>(
    headers: &'h HeaderMap,
    name: &http::HeaderName,
) -> Result<&'h HeaderValue, &'static str> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(value), None) => Ok(value),
        _ if *name == SEC_WEBSOCKET_KEY => Err("it needs one Sec-WebSocket-Key"),
        _ => Err("it needs one Sec-WebSocket-Version"),
    }
}

/// 16 bytes in base64 are 22 digits, of which the last has four bits to spare, and two `=`.
fn is_sixteen_bytes(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(is_digit)
        && matches!(key[21], b'A' | b'Q' | b'g' | b'w')
}
