//! One exchange on a stream of an HTTP/2 connection, done by the task of its request: it sends the
//! body, hears interim responses and waits for the final one. Dropping it cancels the stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response};
use tokio::time::{Instant, Sleep};

use super::body::Body;
use super::head;
use super::pump::{Pump, Pumped};
use super::received::Received;
use super::trunk::Seat;
use super::unanswered::Unanswered;
use crate::base::body::{Progress, Upload};
use crate::base::grpc::is_grpc;
use crate::upstream::connection_error::ConnectionError;
use crate::upstream::outgoing::OnInterim;

/// Sends the request and returns once the head of its response is there.
///
/// # Errors
/// [`Unanswered`]; what the server has not looked at is put back where all of it is still here.
pub(super) async fn exchange(
    seat: Seat,
    request: &mut Option<Request<Upload>>,
    on_interim: Option<&impl OnInterim>,
    timeout: Duration,
) -> Result<Response<Body>, Unanswered> {
    let Some(outgoing) = request.take() else { return Err(Unanswered::Lost(None)) };
    let (parts, upload) = outgoing.into_parts();
    let Ok(head) = head_of(&parts, &seat) else { return Err(Unanswered::Lost(None)) };
    let (response, stream) = match seat.open(head, upload.is_none()) {
        Ok(opened) => opened,
        Err(error) => {
            *request = Some(Request::from_parts(parts, upload));
            let is_goaway = error.is_go_away() && error.is_remote();
            let turned_away = || Unanswered::TurnedAway(error.into());
            return Err(if is_goaway { turned_away() } else { Unanswered::Unsent });
        }
    };
    let mut waiting = Waiting {
        response,
        progress: upload.progress(),
        sending: Sending::new(stream, upload),
        on_interim,
        timeout,
        timer: Box::pin(tokio::time::sleep(timeout)),
    };
    let answered = poll_fn(|cx| waiting.poll(cx)).await;
    let sending = waiting.sending;
    match answered {
        Ok(response) => {
            seat.note_answer();
            received(response, sending, seat, parts.method == Method::HEAD).await
        }
        Err(NoHead::TimedOut) => Err(Unanswered::TimedOut),
        Err(NoHead::Starved) => Err(Unanswered::Starved),
        Err(NoHead::Withdrawn) => Err(Unanswered::Withdrawn),
        Err(NoHead::Ended(error)) => {
            let why = unanswered(error, &seat);
            if matches!(why, Unanswered::TurnedAway(_)) {
                let upload = sending.take_back();
                *request = upload.map(|upload| Request::from_parts(parts, upload));
            }
            Err(why)
        }
    }
}

/// What the end of a stream without a response means (RFC 9113 §8.7).
fn unanswered(error: h2::Error, seat: &Seat) -> Unanswered {
    seat.note(&error);
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    // h2 gives a GOAWAY to those streams alone that are above its last one.
    if error.is_remote() && (error.is_go_away() || is_refused) {
        Unanswered::TurnedAway(error.into())
    } else if error.is_reset() {
        Unanswered::Reset(error.into())
    } else if seat.was_silent() {
        Unanswered::Lost(Some(ConnectionError::PingLost))
    } else {
        Unanswered::Lost(Some(error.into()))
    }
}

/// A response that can be passed on.
async fn received(
    mut response: Response<RecvStream>,
    sending: Sending,
    seat: Seat,
    is_head: bool,
) -> Result<Response<Body>, Unanswered> {
    if response.headers().len() > seat.fields_max() {
        return Err(Unanswered::TooLarge);
    }
    head::settle(&mut response).map_err(Unanswered::Malformed)?;
    let trailers = is_grpc(response.headers()) && !is_head;
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let pump = sending.into_pump();
    let mut response = response
        .map(|stream| Body::branch(Box::new(Received::new(stream, pump, seat, length)), trailers));
    let begin = poll_fn(|cx| Poll::Ready(response.body_mut().begin(cx)));
    begin.await.map_err(Unanswered::CutOff)?;
    Ok(response)
}

/// The same head for HTTP/2: its target in pseudo-header fields, and none about the connection
/// (RFC 9113 §8.2.2, §8.3.1).
fn head_of(parts: &Parts, seat: &Seat) -> Result<Request<()>, http::Error> {
    let path = parts.uri.path_and_query().cloned();
    let mut uri = Uri::builder()
        .scheme(seat.scheme().clone())
        .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Some(host) = parts.headers.get(HOST) {
        uri = uri.authority(host.as_bytes());
    }
    let mut head = Request::new(());
    *head.uri_mut() = uri.build()?;
    head.method_mut().clone_from(&parts.method);
    head.headers_mut().clone_from(&parts.headers);
    head.headers_mut().remove(HOST);
    head.headers_mut().remove(TRANSFER_ENCODING);
    Ok(head)
}

/// What is sent behind the head.
struct Sending {
    /// None where there is no body.
    pump: Option<Pump>,
    is_over: bool,
}

impl Sending {
    fn new(stream: SendStream<Bytes>, upload: Upload) -> Self {
        let pump = (!upload.is_none()).then(|| Pump::new(stream, upload));
        Self { is_over: pump.is_none(), pump }
    }

    /// What is left to be sent while the response is read.
    fn into_pump(self) -> Option<Pump> {
        let mut pump = self.pump.filter(|_| !self.is_over)?;
        pump.forget();
        Some(pump)
    }

    /// The body as it was, where all of it is still here.
    fn take_back(self) -> Option<Upload> {
        self.pump.map_or_else(|| Some(Upload::none()), Pump::take_back)
    }

    /// Sends what it can; ready where the client's body ended early.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pump) = self.pump.as_mut().filter(|_| !self.is_over) else {
            return Poll::Pending;
        };
        match ready!(pump.poll(cx)) {
            Pumped::Withdrawn => Poll::Ready(()),
            Pumped::Over => {
                self.is_over = true;
                Poll::Pending
            }
        }
    }
}

/// Why there is no head.
enum NoHead {
    TimedOut,
    Starved,
    Withdrawn,
    Ended(h2::Error),
}

/// A request whose response is waited for.
struct Waiting<'i, I> {
    response: ResponseFuture,
    sending: Sending,
    on_interim: Option<&'i I>,
    progress: Option<Arc<Progress>>,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
}

impl<I: OnInterim> Waiting<'_, I> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, NoHead>> {
        if self.sending.poll(cx).is_ready() {
            return Poll::Ready(Err(NoHead::Withdrawn));
        }
        while let Poll::Ready(Some(Ok(interim))) = self.response.poll_informational(cx) {
            if let Some(on_interim) = self.on_interim {
                on_interim(interim.status(), interim.headers());
            }
        }
        if let Poll::Ready(answered) = Pin::new(&mut self.response).poll(cx) {
            return Poll::Ready(answered.map_err(NoHead::Ended));
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            // A server that still takes the body is not expected to answer yet.
            let is = |what: fn(&Progress) -> bool| self.progress.as_deref().is_some_and(what);
            if !is(Progress::has_moved) {
                let is_starved = is(Progress::is_awaited);
                let why = if is_starved { NoHead::Starved } else { NoHead::TimedOut };
                return Poll::Ready(Err(why));
            }
            self.timer.as_mut().reset(Instant::now() + self.timeout);
        }
    }
}
