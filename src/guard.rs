//! Is the request well formed? What two parsers could read differently is refused here or made
//! canonical, once, before anything else looks at it: the [`Target`] is what is matched,
//! authorised, limited, cached and forwarded.

mod upgrade;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Version};

pub use upgrade::{
    BadHandshake, Handshake, WEBSOCKET_VERSION, handshake, is_connect, settle_connect,
};

use crate::base::facts::{Peer, Target};
use crate::base::http::authority::Authority;
use crate::base::http::path::canonical;

/// The bounds of a request head.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// `server.limits.headers`
    pub headers_max: usize,
    /// `server.limits.body_bytes`
    pub body_bytes_max: u64,
    /// `server.limits.encoded_slash`
    pub encoded_slash: bool,
}

/// Why a request is refused before it has a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// RFC 9112 §3.2: exactly one valid `Host`.
    #[error("the request needs exactly one valid Host header")]
    Host,
    /// RFC 9113 §8.3.1: `:authority` and `Host` must not differ.
    #[error(":authority and the Host header name different authorities")]
    Authority,
    /// RFC 9112 §3.2: origin-form or absolute-form.
    #[error("the request target must be a path that begins with / (or an absolute http URL)")]
    TargetForm,
    /// See [`crate::base::http::path`].
    #[error("the path holds an encoded or raw character that is refused: {0}")]
    Path(&'static str),
    /// RFC 9112 §6.1.
    #[error("Transfer-Encoding must be exactly one `chunked`")]
    TransferEncoding,
    /// RFC 9110 §8.6.
    #[error("Content-Length is not one plain decimal number")]
    ContentLength,
    /// RFC 9110 §10.1.1.
    #[error("only `Expect: 100-continue` is supported")]
    Expectation,
    /// More fields than `server.limits.headers`.
    #[error("the request has more header fields than the limit")]
    TooManyHeaders,
    /// Announced longer than `server.limits.body_bytes`.
    #[error("the request body is longer than the limit")]
    BodyTooLarge,
    /// TRACE and CONNECT.
    #[error("this method is not available through the gateway")]
    MethodRefused,
}

/// What to do with a well-formed request.
#[derive(Debug)]
pub enum Inspected {
    /// Look for its route.
    Route(Target),
    /// `OPTIONS *` asks the server itself (RFC 9110 §9.3.7).
    ServerOptions,
}

/// Checks a request head. The ports of the peer's scheme and of its listener need no mention in a
/// `Host`.
pub fn inspect(policy: &Policy, peer: &Peer, head: &Parts) -> Result<Inspected, Malformed> {
    if head.headers.len() > policy.headers_max {
        return Err(Malformed::TooManyHeaders);
    }
    if matches!(head.method, Method::TRACE | Method::CONNECT) {
        return Err(Malformed::MethodRefused);
    }
    framing(policy, head)?;
    let authority = authority_of(peer, head)?.with_default_ports(peer.scheme(), peer.local.port());
    if head.uri.path() == "*" || head.uri.path_and_query().is_some_and(|p| p.as_str() == "*") {
        return if head.method == Method::OPTIONS {
            Ok(Inspected::ServerOptions)
        } else {
            Err(Malformed::TargetForm)
        };
    }
    if head.method == Method::OPTIONS && lacks_path(head) {
        // RFC 9112 §3.2.4: an absolute-form without a path is how a proxy is told `OPTIONS *`.
        return Ok(Inspected::ServerOptions);
    }
    let given = head.uri.path_and_query().ok_or(Malformed::TargetForm)?;
    let rooted = match given.as_str() {
        text if text.starts_with('/') => None,
        // `http://host?query`: an empty path is `/` (RFC 9110 §4.2.3).
        query if query.starts_with('?') && head.uri.authority().is_some() => {
            let path = PathAndQuery::try_from(format!("/{query}"));
            Some(path.map_err(|_| Malformed::TargetForm)?)
        }
        _ => return Err(Malformed::TargetForm),
    };
    let given = rooted.as_ref().unwrap_or(given);
    let path_and_query = canonical(given, policy.encoded_slash).map_err(Malformed::Path)?;
    Ok(Inspected::Route(Target { authority, path_and_query }))
}

/// The message's length must be beyond doubt. hyper re-frames what we forward; this refuses what a
/// front proxy might have read in another way than hyper did.
fn framing(policy: &Policy, head: &Parts) -> Result<(), Malformed> {
    let headers = &head.headers;
    let says = |name: &HeaderName| matches!(*name, TRANSFER_ENCODING | CONTENT_LENGTH | EXPECT);
    // Most requests say nothing of it, and one look over the names is cheaper than asking for each.
    if !headers.keys().any(says) {
        return Ok(());
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
        let chunked = lines.next().is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !chunked || lines.next().is_some() || head.version != Version::HTTP_11 {
            return Err(Malformed::TransferEncoding);
        }
    }
    let mut length = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        let digits = line.as_bytes();
        // hyper has parsed it; only repetition is left to refuse when it disagrees.
        let same = length.replace(digits).is_none_or(|earlier| earlier == digits);
        if !same || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Malformed::ContentLength);
        }
    }
    if let Some(digits) = length {
        let text = std::str::from_utf8(digits).map_err(|_| Malformed::ContentLength)?;
        let bytes: u64 = text.parse().map_err(|_| Malformed::ContentLength)?;
        if bytes > policy.body_bytes_max {
            return Err(Malformed::BodyTooLarge);
        }
    }
    let mut expectations =
        headers.get_all(EXPECT).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    // A list (RFC 9110 §10.1.1), whose empty members mean nothing (§5.6.1.2).
    let known = |member: &[u8]| {
        let member = member.trim_ascii();
        member.is_empty() || member.eq_ignore_ascii_case(b"100-continue")
    };
    if expectations.all(known) { Ok(()) } else { Err(Malformed::Expectation) }
}

/// Whether an absolute-form target ends behind its authority. [`http::Uri`] puts a `/` in place of
/// a path that is not there; a path that was written lies right behind the authority, in the one
/// buffer that both were read from. Not so in HTTP/2, where `:path` is a field of its own.
fn lacks_path(head: &Parts) -> bool {
    let (Some(authority), Some(path)) = (head.uri.authority(), head.uri.path_and_query()) else {
        return false;
    };
    let follows = authority.as_str().as_bytes().as_ptr_range().end == path.as_str().as_ptr();
    head.version != Version::HTTP_2 && path.as_str() == "/" && !follows
}

/// One authority: an absolute-form target's, whatever `Host` says (RFC 9112 §3.2.2), or `Host`'s.
/// In HTTP/2 they must agree where both are given (RFC 9113 §8.3.1).
fn authority_of(peer: &Peer, head: &Parts) -> Result<Authority, Malformed> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let authority = peer.host.of(host, || Authority::of_header(host));
            Some(authority.ok_or(Malformed::Host)?)
        }
        (None, _) => None,
        (Some(_), Some(_)) => return Err(Malformed::Host),
    };
    let uri = &head.uri;
    let http2 = head.version == Version::HTTP_2;
    let target = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => {
            if scheme != peer.scheme() && !(http2 && scheme == "https") {
                return Err(Malformed::TargetForm);
            }
            Some(Authority::parse(authority.as_str().as_bytes()).ok_or(Malformed::Host)?)
        }
        // `GET foo` and `GET host:80` arrive as an authority without a path.
        (None, Some(_)) => return Err(Malformed::TargetForm),
        (Some(_), None) => return Err(Malformed::TargetForm),
        (None, None) => None,
    };
    match (target, host) {
        (Some(target), Some(host)) if http2 && target != host => Err(Malformed::Authority),
        (Some(target), None) if !http2 => {
            // RFC 9112 §3.2: an HTTP/1.1 request without Host is an error even in absolute-form.
            if head.version == Version::HTTP_11 { Err(Malformed::Host) } else { Ok(target) }
        }
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) if head.version == Version::HTTP_10 => Ok(Authority::none()),
        (None, None) => Err(Malformed::Host),
    }
}

#[cfg(test)]
mod tests;
