//! Copies of requests for another upstream, which no client waits for. A copy has a place and a
//! task of its own: an upstream of copies that hangs holds up nobody but the next copies.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;
use tokio::time::timeout;

use super::connection::Snapshot;
use super::dispatch::{Dispatch, Fields, Outline};
use super::request::Request;
use crate::base::body::{Inbound, Upload};
use crate::base::copied::{Copied, TooLong};
use crate::forwarding::fields;
use crate::plan::{Plan, Route};
use crate::traffic::{Seat, is_drawn};
use crate::{auth, session};

/// What tells an upstream that nobody waits for its answer.
const X_MIRRORED: HeaderName = HeaderName::from_static("x-mirrored");
/// How long the body of a request may take to come for a copy to wait for it.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How much is read of the answer to a copy, in bytes, so that its connection can be used again.
const DRAINED_BYTES_MAX: usize = 64 * 1024;
/// How long it is read.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A copy that is to be sent when its request leaves for its upstream.
pub(super) struct Mirrored {
    route: Arc<Route>,
    running: Snapshot,
    dispatch: Dispatch,
}

/// Sends a copy of a request that is about to leave for its upstream, where its route wants that.
/// The body is copied while it is read.
pub(super) fn copy(request: &Request<'_>, head: &Parts, body: &mut Inbound, added: &Fields) {
    if let Some(mirrored) = Mirrored::of(request) {
        *body = mirrored.copy(request, (head, added), body.take());
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
            let (upload, _) = Upload::new(Inbound::Bytes(copied), self.running.plan.upload, false);
            let sent = self.dispatch.send(|| head.clone(), upload, &mut None).await;
            seat.ended(sent.is_ok());
            if let Ok(response) = sent
                && !response.body().is_stream()
            {
                drain(response.into_body()).await;
            }
        });
    }
}

/// The copy of a body, once it is whole.
async fn whole(copied: Option<Copied>, seat: &Seat) -> Option<Bytes> {
    let Some(copied) = copied else { return Some(Bytes::new()) };
    match timeout(BODY_TIMEOUT, copied).await {
        Ok(Ok(Ok(body))) => Some(body),
        Ok(Ok(Err(TooLong))) => {
            seat.too_large();
            None
        }
        // The request was answered before its body was read, or its client has gone or rests.
        Ok(Err(_)) | Err(_) => {
            seat.cut_off();
            None
        }
    }
}

/// Reads an answer that nobody wants, if it is short and comes soon.
async fn drain(mut body: impl Body<Data = Bytes> + Unpin) {
    let read = async {
        let mut read = 0_usize;
        while read <= DRAINED_BYTES_MAX {
            let next = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let Some(Ok(frame)) = next else { return };
            read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // Whatever is left is dropped, and the connection with it.
    let _ = timeout(DRAIN_TIMEOUT, read).await;
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use tokio::time::{Instant, Interval, interval};

    use super::*;
    use crate::traffic::Mirrors;

    /// A byte each second, without an end.
    struct Endless(Interval);

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_tick(cx).map(|_| Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_an_end_is_given_up() {
        let began = Instant::now();
        drain(Endless(interval(Duration::from_secs(1)))).await;
        assert_eq!(began.elapsed(), DRAIN_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_rests_is_waited_for_no_longer_than_a_copy_is_worth() {
        let mirrors = Arc::new(Mirrors::default());
        let seat = mirrors.take(1).unwrap();
        let (_never, copied) = tokio::sync::oneshot::channel();
        let began = Instant::now();
        assert_eq!(whole(Some(copied), &seat).await, None);
        assert_eq!(began.elapsed(), BODY_TIMEOUT);
        assert!(mirrors.counts().contains(&("cut_off", 1)));
    }
}
