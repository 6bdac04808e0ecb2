//! Copies of requests for another upstream, which no client waits for. A copy has a place and a
//! task of its own: an upstream of copies that hangs holds up nobody but the next copies.

use std::borrow::Cow;
use std::pin::Pin;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Body as _;

use super::dispatch::{Dispatch, Fields, Outline};
use super::request::Request;
use crate::auth;
use crate::base::body::{Inbound, Upload};
use crate::base::copied::{Copied, TooLong};
use crate::forwarding::fields;
use crate::traffic::{Seat, is_drawn};
use crate::upstream::Download;

/// What tells an upstream that nobody waits for its answer.
const X_MIRRORED: HeaderName = HeaderName::from_static("x-mirrored");
/// How much is read of the answer to a copy, in bytes, so that its connection can be used again.
const DRAINED_BYTES_MAX: usize = 64 * 1024;

/// Sends a copy of a request that is about to leave for its upstream, where its route wants that.
/// Returns the body, which is copied while it is read.
pub(super) fn copy(request: &Request<'_>, head: &Parts, body: Inbound, added: &Fields) -> Inbound {
    match request.route.edge.as_ref().and_then(|edge| edge.mirror) {
        None => body,
        Some(upstream) => copy_to(upstream, request, (head, added), body),
    }
}

fn copy_to(
    upstream: usize,
    request: &Request<'_>,
    (head, added): (&Parts, &Fields),
    body: Inbound,
) -> Inbound {
    let Some(mirror) = &request.route.written.mirror else { return body };
    let may = mirror.unsafe_methods || request.received.method.is_safe();
    if !may || !is_drawn(mirror.share) {
        return body;
    }
    let mirrors =
        request.running().traffic_of(request.route.index).and_then(|it| it.mirrors.as_ref());
    let Some(seat) = mirrors.and_then(|mirrors| mirrors.take(mirror.places)) else { return body };
    let most = usize::try_from(mirror.body).unwrap_or(usize::MAX);
    if announced(&head.headers).is_some_and(|length| length > mirror.body) {
        seat.too_large();
        return body;
    }
    let outline = Outline::new(request, Cow::Borrowed(&head.headers), added.clone());
    let mut head = outline.head();
    if !mirror.identity {
        strip(request, head.headers_mut());
    }
    head.headers_mut().insert(X_MIRRORED, HeaderValue::from_static("1"));
    let (body, copied) = if body.is_end_stream() {
        (body, None)
    } else {
        let (body, copied) = body.copied(most);
        (body, Some(copied))
    };
    let dispatch = Dispatch::aside(request, upstream);
    let limits = request.plan().upload;
    tokio::spawn(async move {
        let Some(copied) = whole(copied, &seat).await else { return };
        let (upload, _) = Upload::new(Inbound::Bytes(copied), limits, false);
        let sent = dispatch.send(|| head.clone(), upload, &mut None).await;
        seat.ended(sent.is_ok());
        if let Ok(response) = sent {
            drain(response).await;
        }
    });
    body
}

/// The copy of a body, once it is whole.
async fn whole(copied: Option<Copied>, seat: &Seat) -> Option<Bytes> {
    let Some(copied) = copied else { return Some(Bytes::new()) };
    match copied.await {
        Ok(Ok(body)) => Some(body),
        Ok(Err(TooLong)) => {
            seat.too_large();
            None
        }
        // The request was answered before its body was read, or its client has gone.
        Err(_) => {
            seat.cut_off();
            None
        }
    }
}

/// Reads an answer that nobody wants, if it is short.
async fn drain(response: Response<Box<Download>>) {
    let (mut body, mut read) = (response.into_body(), 0_usize);
    while read <= DRAINED_BYTES_MAX {
        let next = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        let Some(Ok(frame)) = next else { return };
        read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
    }
}

/// Takes out what says who calls, and what lets the gateway itself in.
fn strip(request: &Request<'_>, headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE] {
        headers.remove(name);
    }
    if let Some(policy) = &request.route.auth {
        auth::strip_all(policy, headers);
    }
    let policy = &request.plan().headers;
    let owned: Vec<HeaderName> =
        headers.keys().filter(|name| fields::is_owned(policy, name)).cloned().collect();
    for name in owned {
        headers.remove(name);
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
