//! The handshake of a WebSocket on both sides: the client's, and the gateway's own to the upstream.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

use super::content::Content;
use super::dispatch::{Dispatch, Fields, Outline};
use super::record::Record;
use super::rejection::Rejection;
use super::request::Request;
use super::tunnel::Opened;
use crate::base::http::fields::connection_options;
use crate::guard::{self, Handshake, Malformed, WEBSOCKET_VERSION};
use crate::tunnel;
use crate::upstream::Download;

/// The handshake that a request is, where its route allows one.
///
/// # Errors
/// It is none as it must be, or its page may not.
pub(super) fn asked(
    request: &Request<'_>,
    head: &Parts,
) -> Result<Option<Box<Handshake>>, Rejection> {
    let Some(tunnel) = &request.route.written.tunnel else {
        // As a GET it would be answered, and the answer taken for the beginning of a tunnel.
        let refused = guard::is_connect(head);
        return if refused { Err(Malformed::MethodRefused.into()) } else { Ok(None) };
    };
    let handshake = guard::handshake(&tunnel.origins, head, request.has_body)?;
    Ok(handshake.map(Box::new))
}

/// Asks the upstream for a WebSocket. Whatever else it answers is passed on.
///
/// # Errors
/// The upstream's failure, or a 101 that is none.
pub(super) async fn open(
    request: &Request<'_>,
    head: &mut Parts,
    added: Fields,
    handshake: Handshake,
    record: &mut Record,
) -> Result<Response<Content>, Rejection> {
    let key = tunnel::fresh_key();
    let fields = Cow::Owned(std::mem::take(&mut head.headers));
    let outline = Outline::new(request, fields, added);
    let outbound = || {
        let mut outbound = outline.head();
        let headers = outbound.headers_mut();
        offer(headers);
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(WEBSOCKET_VERSION));
        headers.insert(SEC_WEBSOCKET_KEY, key.clone());
        outbound
    };
    let dispatch = Dispatch::in_background(request);
    record.note_forwarded();
    record.note_attempts(dispatch.attempts());
    let response = dispatch.upgrade(outbound, record.upstream_time()).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        if handshake.key.is_none() && response.status().is_success() {
            // Over HTTP/2 that would be the beginning of a tunnel.
            return Err(Rejection::UpgradeRefused("it did not switch"));
        }
        return Ok(response.map(Content::Download));
    }
    confirm(&response, &key)?;
    let (head, download) = response.into_parts();
    let broken = Rejection::UpgradeRefused("its connection has ended");
    let upstream = download.into_switched().ok_or(broken)?;
    let accept = handshake.key.as_ref().map(tunnel::accept);
    let route = Arc::clone(request.route);
    let opened = Opened { upstream, route, accept };
    Ok(Response::from_parts(head, Content::Switched(Box::new(opened))))
}

/// Is it the answer to this key (RFC 6455 §4.1)?
fn confirm(response: &Response<Box<Download>>, key: &HeaderValue) -> Result<(), Rejection> {
    let headers = response.headers();
    let wrong = |what| Err(Rejection::UpgradeRefused(what));
    let is = |option: &[u8]| option.eq_ignore_ascii_case(b"upgrade");
    if headers.get(UPGRADE).is_none_or(|it| !it.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return wrong("its Upgrade is not websocket");
    }
    if !connection_options(headers).any(is) {
        return wrong("its Connection does not say upgrade");
    }
    if headers.get(SEC_WEBSOCKET_ACCEPT) != Some(&tunnel::accept(key)) {
        return wrong("its Sec-WebSocket-Accept does not answer the key");
    }
    Ok(())
}

/// Answers the client's handshake, where the response is that.
pub(super) fn stamp(mut response: Response<Content>) -> Response<Content> {
    if let Content::Switched(opened) = response.body() {
        let accept = opened.accept.clone();
        let headers = response.headers_mut();
        headers.remove(SEC_WEBSOCKET_ACCEPT);
        match accept {
            Some(accept) => {
                offer(headers);
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            }
            None => *response.status_mut() = StatusCode::OK,
        }
    }
    response
}

/// Ends an HTTP/1.1 connection behind the answer to a handshake, unless it has changed: what
/// follows may be frames, and must not be read as a request.
pub(super) fn end_unless_switched(
    mut response: Response<Content>,
    version: Version,
) -> Response<Content> {
    if version != Version::HTTP_2 && !matches!(response.body(), Content::Switched(_)) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn offer(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}
