//! Copies of requests for another upstream, which no client waits for. A copy has a place and a
//! task of its own: an upstream of copies that hangs holds up nobody but the next copies.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Body as _;

use super::connection::Snapshot;
use super::dispatch::{Dispatch, Fields, Outline};
use super::request::Request;
use crate::base::body::{Inbound, Upload};
use crate::base::copied::{Copied, TooLong};
use crate::forwarding::fields;
use crate::plan::{Plan, Route};
use crate::traffic::{Seat, is_drawn};
use crate::upstream::Download;
use crate::{auth, session};

/// What tells an upstream that nobody waits for its answer.
const X_MIRRORED: HeaderName = HeaderName::from_static("x-mirrored");
/// How much is read of the answer to a copy, in bytes, so that its connection can be used again.
const DRAINED_BYTES_MAX: usize = 64 * 1024;

/// A copy that is to be sent when its request leaves for its upstream.
pub(super) struct Mirrored {
    route: Arc<Route>,
    running: Snapshot,
    dispatch: Dispatch,
}

/// Sends a copy of a request that is about to leave for its upstream, where its route wants that.
/// Returns the body, which is copied while it is read.
pub(super) fn copy(request: &Request<'_>, head: &Parts, body: Inbound, added: &Fields) -> Inbound {
    match Mirrored::of(request) {
        None => body,
        Some(mirrored) => mirrored.copy(request, (head, added), body),
    }
}

impl Mirrored {
    /// The copy of this request, where its route wants one, and it is drawn.
    pub(super) fn of(request: &Request<'_>) -> Option<Box<Self>> {
        let upstream = request.route.edge.as_ref()?.mirror?;
        let mirror = request.route.written.mirror.as_ref()?;
        let may = mirror.unsafe_methods || request.received.method.is_safe();
        (may && is_drawn(mirror.share)).then(|| {
            Box::new(Self {
                route: Arc::clone(request.route),
                running: Arc::clone(&request.received.running),
                dispatch: Dispatch::aside(request, upstream),
            })
        })
    }

    /// Sends the copy of a request without a body, which leaves with this head.
    pub(super) fn leaves(self: Box<Self>, head: &http::Request<()>) {
        if let Some(seat) = self.seat() {
            self.send(seat, head.clone(), None);
        }
    }

    fn copy(
        self: Box<Self>,
        request: &Request<'_>,
        (head, added): (&Parts, &Fields),
        body: Inbound,
    ) -> Inbound {
        let (Some(mirror), Some(seat)) = (&self.route.written.mirror, self.seat()) else {
            return body;
        };
        if announced(&head.headers).is_some_and(|length| length > mirror.body) {
            seat.too_large();
            return body;
        }
        let most = usize::try_from(mirror.body).unwrap_or(usize::MAX);
        let head = Outline::new(request, Cow::Borrowed(&head.headers), added.clone()).head();
        let (body, copied) = if body.is_end_stream() {
            (body, None)
        } else {
            let (body, copied) = body.copied(most);
            (body, Some(copied))
        };
        self.send(seat, head, copied);
        body
    }

    /// A place for it; nothing, and counted, where there is none.
    fn seat(&self) -> Option<Seat> {
        let mirror = self.route.written.mirror.as_ref()?;
        let traffic = self.running.traffic_of(self.route.index)?;
        traffic.mirrors.as_ref()?.take(mirror.places)
    }

    fn send(self: Box<Self>, seat: Seat, mut head: http::Request<()>, copied: Option<Copied>) {
        if self.route.written.mirror.as_ref().is_none_or(|mirror| !mirror.identity) {
            strip(&self.running.plan, &mut head);
        }
        head.headers_mut().insert(X_MIRRORED, HeaderValue::from_static("1"));
        tokio::spawn(async move {
            let Some(copied) = whole(copied, &seat).await else { return };
            let (upload, _) =
                Upload::new(Inbound::Bytes(copied), self.running.plan.upload, false);
            let sent = self.dispatch.send(|| head.clone(), upload, &mut None).await;
            seat.ended(sent.is_ok());
            if let Ok(response) = sent {
                drain(response).await;
            }
        });
    }
}

/// The copy of a body, once it is whole.
async fn whole(copied: Option<Copied>, seat: &Seat) -> Option<Bytes> {
    let Some(copied) = copied else { return Some(Bytes::new()) };
    match copied.await {
        Ok(Ok(pieces)) => Some(pieces.concat().into()),
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

/// Takes out what says who calls on any route, and what lets the gateway itself in. Whoever gets
/// copies may be anybody, and a client may send on one route what another one asks for.
fn strip(plan: &Plan, head: &mut http::Request<()>) {
    auth::strip_places(plan.verifiers.values(), plan.key_verifiers.values(), head);
    let headers = head.headers_mut();
    for name in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE] {
        headers.remove(name);
    }
    if let Some(session) = &plan.config.session {
        session::strip_ids(&session.id_from, headers);
    }
    let policy = &plan.headers;
    let owned: Vec<HeaderName> =
        headers.keys().filter(|name| fields::is_owned(policy, name)).cloned().collect();
    for name in owned {
        headers.remove(name);
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
