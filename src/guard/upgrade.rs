//! The handshake of a WebSocket (RFC 6455 §4.2.1): is it one, and is it well formed?

use http::header::{ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};

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
    /// What the client wants to be answered for.
    pub key: HeaderValue,
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
    if head.version != Version::HTTP_11 || !names_websocket(headers) {
        return Ok(None);
    }
    let malformed = |what| Err(BadHandshake::Malformed(what));
    if head.method != Method::GET {
        return malformed("its method is not GET");
    }
    let mut options = connection_options(headers);
    if !options.any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
        return malformed("its Connection does not say upgrade");
    }
    if has_body {
        return malformed("it has a body");
    }
    let version = only(headers, &SEC_WEBSOCKET_VERSION).map_err(BadHandshake::Malformed)?;
    if version != WEBSOCKET_VERSION {
        return Err(BadHandshake::Version);
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).map_err(BadHandshake::Malformed)?;
    if !is_sixteen_bytes(key.as_bytes()) {
        return malformed("its Sec-WebSocket-Key is not 16 bytes in base64");
    }
    check_origin(origins, headers)?;
    Ok(Some(Handshake { key: key.clone() }))
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
