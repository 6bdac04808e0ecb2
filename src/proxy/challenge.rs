//! An authority that asks over clear HTTP for the proof of a name (RFC 8555 §8.3). It is answered
//! before redirects, routes and their limits. What nobody here has ordered is a request like any
//! other: an upstream may have a client of its own.

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response};

use super::content::Content;
use super::deliver;
use super::request::{Received, Resolved};
use crate::guard::{self, Inspected};

/// Where it asks.
const PATH: &str = "/.well-known/acme-challenge/";
/// How long a token is, in bytes: at least 128 bits, and no more than we look for.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 20..=128;

/// The token that a request asks for, where certificates are ordered and it came in clear.
pub(super) fn token(received: &Received, head: &Parts) -> Option<String> {
    received.running.acme.as_ref()?;
    let peer = &received.connection.peer;
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    if !is_read || peer.encryption.is_some() || !head.uri.path().starts_with(PATH) {
        return None;
    }
    // Only what is well formed is answered.
    let Ok(Inspected::Route(target)) = guard::inspect(&received.plan().guard, peer, head) else {
        return None;
    };
    let token = target.path().strip_prefix(PATH)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_token = TOKEN_BYTES.contains(&token.len()) && token.bytes().all(allowed);
    is_token.then(|| token.to_owned())
}

/// The answer to a token; nothing where it is nobody's.
pub(super) async fn answer(
    received: &Received,
    resolved: &Resolved,
    token: String,
) -> Option<Response<Content>> {
    let answer = received.running.acme.as_ref()?.answer(&token).await?;
    let mut response = Response::new(Content::Bytes(answer));
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, octets);
    Some(deliver::own(response, received, resolved))
}
