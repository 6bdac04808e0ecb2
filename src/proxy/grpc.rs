//! gRPC calls on routes that have `grpc`: how long they may take, how long their messages may be,
//! and that each ends with a status, whatever the upstream does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body::{Body as _, Frame};
use tokio::time::{Instant, Sleep};

use super::rejection::Rejection;
use super::request::Request;
use super::standing::Standing;
use crate::base::body::{Progress, UploadFault};
use crate::base::grpc::{self, GRPC_MESSAGE, GRPC_STATUS, GRPC_TIMEOUT, Messages};
use crate::base::grpc_web::Web;
use crate::config;
use crate::runtime::{self, Kind};
use crate::upstream::{Download, DownloadFault, TimeLimit};

/// What one call keeps to.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) policy: &'a config::Grpc,
    /// When it is over; nothing where neither side bounds it.
    pub(super) deadline: Option<Deadline>,
    /// What it is translated from.
    pub(super) web: Option<&'a Web>,
    /// What let its caller in; nothing where nothing did that could end.
    pub(super) standing: Option<Box<Standing>>,
}

/// When a call is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    /// All of it, from the head of the call.
    time: Duration,
    /// Whether the client's own time was the shorter one.
    is_clients: bool,
}

impl Deadline {
    /// The time, where the route set it: a client may set one that no server can keep.
    pub(super) fn of_the_route(self) -> Option<TimeLimit> {
        (!self.is_clients).then(|| TimeLimit::until(self.at, self.time))
    }

    /// It, where the client set it.
    pub(super) fn of_the_client(self) -> Option<Self> {
        self.is_clients.then_some(self)
    }

    /// Whether the call is over.
    pub(super) fn has_passed(self) -> bool {
        Instant::now() >= self.at
    }

    /// What the call is told then.
    pub(super) fn exceeded(self) -> Rejection {
        Rejection::DeadlineExceeded { is_clients: self.is_clients }
    }
}

impl<'a> Terms<'a> {
    /// Of a request with these fields; nothing where it is no gRPC call, or the route has no rules
    /// for them. There are none over HTTP/1.1, whatever the content type says.
    pub(super) fn of(request: &Request<'a>, fields: &HeaderMap) -> Option<Self> {
        let policy = request.route.written.grpc.as_ref()?;
        let received = request.received;
        let web = received.web(request.route);
        let is_native = received.is_grpc && received.version == Version::HTTP_2;
        if received.method != Method::POST || !is_native && web.is_none() {
            return None;
        }
        let clients = fields.get(GRPC_TIMEOUT).and_then(grpc::parse_timeout);
        let routes = Some(policy.deadline).filter(|deadline| !deadline.is_zero());
        let is_clients = clients.is_some_and(|clients| routes.is_none_or(|it| clients <= it));
        let shorter = if is_clients { clients } else { routes };
        let at = |time| received.started + time;
        let deadline = shorter.map(|time| Deadline { at: at(time), time, is_clients });
        Some(Self { policy, deadline, web, standing: standing(request) })
    }

    /// Tells the upstream how long it has, and speaks to it of gRPC.
    pub(super) fn stamp(&self, head: &mut HeaderMap) {
        if let Some(web) = self.web {
            web.translate(head);
        }
        match self.deadline {
            Some(deadline) => {
                let left = deadline.at.saturating_duration_since(Instant::now());
                head.insert(GRPC_TIMEOUT, grpc::write_timeout(left));
            }
            // One that is malformed.
            None => drop(head.remove(GRPC_TIMEOUT)),
        }
    }
}

/// What let the caller in, where that can end before the call.
fn standing(request: &Request<'_>) -> Option<Box<Standing>> {
    let grant = request.grant();
    if grant.is_empty() {
        return None;
    }
    let terms = runtime::Terms {
        kind: Kind::Call,
        route: Arc::clone(request.route),
        client: request.client().address,
        grant,
    };
    Some(Box::new(Standing::new(request.received, terms)))
}

/// What `sent` returns, unless the deadline comes first, or the end of what let the caller in.
/// Pinned by the caller: it is large, and would be moved and kept room for twice.
///
/// # Errors
/// What came first; dropping `sent` cancels it then.
pub(super) async fn within<T>(
    mut sent: Pin<&mut impl Future<Output = T>>,
    deadline: Option<Deadline>,
    standing: &mut Option<Box<Standing>>,
) -> Result<T, Rejection> {
    let mut late = deadline.map(|it| (it, Box::pin(tokio::time::sleep_until(it.at))));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = sent.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if let Some(standing) = standing
            && let Poll::Ready(end) = standing.poll(cx)
        {
            return Poll::Ready(Err(Rejection::CallEnded(end)));
        }
        match &mut late {
            Some((deadline, sleep)) => sleep.as_mut().poll(cx).map(|()| Err(deadline.exceeded())),
            None => Poll::Pending,
        }
    })
    .await
}

/// Why a call was cut short after its head.
#[derive(Debug)]
pub(super) enum Cut {
    /// It has met a bound.
    Rejected(Rejection),
    /// The upstream's answer broke off.
    Broken(DownloadFault),
    /// Nothing moved for `idle_timeout`.
    Stalled(DownloadFault),
}

/// The answer to a call.
#[derive(Debug)]
pub(super) struct Call {
    /// None once it has ended.
    download: Option<Box<Download>>,
    /// The call's other direction.
    progress: Arc<Progress>,
    messages: Messages,
    late: Option<(Deadline, Pin<Box<Sleep>>)>,
    /// What let its caller in.
    standing: Option<Box<Standing>>,
    /// What the head said, as HTTP has it.
    status: StatusCode,
    /// Whether the head told the call's status, so that no trailers are needed.
    is_told: bool,
    /// How its client reads it.
    web: Option<Web>,
    /// The status, once trailers have told it.
    ended: Option<u16>,
    cut: Option<Cut>,
}

impl Call {
    /// The answer of which the head is there.
    pub(super) fn new(download: Box<Download>, progress: Arc<Progress>, terms: Terms<'_>) -> Self {
        let sleep = |it: Deadline| (it, Box::pin(tokio::time::sleep_until(it.at)));
        Self {
            download: Some(download),
            progress,
            messages: Messages::new(terms.policy.message_bytes),
            late: terms.deadline.map(sleep),
            standing: terms.standing,
            status: StatusCode::OK,
            is_told: false,
            web: terms.web.cloned(),
            ended: None,
            cut: None,
        }
    }

    /// Makes the head of the answer one of gRPC: what the upstream said in HTTP's words becomes a
    /// status, and its body goes nowhere.
    pub(super) fn settle(&mut self, head: &mut Parts) {
        self.settle_native(head);
        if let Some(web) = &self.web {
            web.settle(&mut head.headers);
        }
    }

    fn settle_native(&mut self, head: &mut Parts) {
        self.status = head.status;
        self.is_told = head.headers.contains_key(GRPC_STATUS);
        if !self.is_told && !grpc::is_grpc(&head.headers) {
            self.download = None;
            let message = format!("the answer was none of gRPC: HTTP {}", head.status.as_u16());
            head.headers = told(grpc::status_of_http(head.status), &message);
            let grpc = HeaderValue::from_static("application/grpc");
            head.headers.insert(CONTENT_TYPE, grpc);
            head.status = StatusCode::OK;
            return;
        }
        if self.is_told && self.download.as_ref().is_some_and(|it| it.is_end_stream()) {
            self.download = None;
        }
        // Trailers may be the gateway's own.
        head.headers.remove(CONTENT_LENGTH);
    }

    /// Whether nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.download.is_none()
    }

    /// Why it was cut short, once.
    pub(super) fn take_cut(&mut self) -> Option<Cut> {
        self.cut.take()
    }

    /// The status, once trailers have told it.
    pub(super) fn ended(&self) -> Option<u16> {
        self.ended
    }

    /// The next frame; the last one has the status. It never fails: what goes wrong is a status.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some(frame) = ready!(self.poll_native(cx)) else { return Poll::Ready(None) };
        if let Some(trailers) = frame.trailers_ref() {
            self.ended = grpc::status(trailers);
        }
        let Some(web) = &self.web else { return Poll::Ready(Some(frame)) };
        Poll::Ready(Some(Frame::data(match frame.into_data() {
            Ok(data) => web.encode(data),
            Err(frame) => web.trailers(&frame.into_trailers().unwrap_or_default()),
        })))
    }

    fn poll_native(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some(download) = &mut self.download else { return Poll::Ready(None) };
        if let Some((deadline, sleep)) = &mut self.late
            && sleep.as_mut().poll(cx).is_ready()
        {
            let exceeded = deadline.exceeded();
            return Poll::Ready(Some(self.reject(exceeded)));
        }
        if let Some(standing) = &mut self.standing
            && let Poll::Ready(end) = standing.poll(cx)
        {
            return Poll::Ready(Some(self.reject(Rejection::CallEnded(end))));
        }
        let frame = loop {
            match ready!(Pin::new(&mut **download).poll_frame(cx)) {
                // The other direction moves.
                Some(Err(DownloadFault::Stalled | DownloadFault::Silent))
                    if self.progress.has_moved() => {}
                frame => break frame,
            }
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(self.passed(frame)),
            Some(Err(fault)) => Some(self.failed(fault)),
            None if self.is_told => {
                self.download = None;
                None
            }
            None => Some(self.without_status(HeaderMap::new())),
        })
    }

    fn passed(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                if trailers.contains_key(GRPC_STATUS) {
                    self.download = None;
                    return Frame::trailers(trailers);
                }
                return self.without_status(trailers);
            }
        };
        if self.messages.read(&data).is_err() {
            return self.reject(UploadFault::MessageTooLarge.into());
        }
        Frame::data(data)
    }

    fn failed(&mut self, fault: DownloadFault) -> Frame<Bytes> {
        if let Some(fault) = self.progress.fault() {
            return self.reject(fault.into());
        }
        match fault {
            DownloadFault::Stalled | DownloadFault::Silent => {
                let trailers = told(DEADLINE_EXCEEDED, "nothing moved within idle_timeout");
                self.end(Some(Cut::Stalled(fault)), trailers)
            }
            DownloadFault::Broken(_) => {
                let reset = fault.reset_code().map(grpc::status_of_reset);
                let status = reset.unwrap_or_else(|| grpc::status_of_http(self.status));
                let trailers = told(status, "the answer broke off");
                self.end(Some(Cut::Broken(fault)), trailers)
            }
        }
    }

    fn without_status(&mut self, mut trailers: HeaderMap) -> Frame<Bytes> {
        let status = grpc::status_of_http(self.status);
        trailers.extend(told(status, "the answer ended without a status"));
        self.end(None, trailers)
    }

    fn reject(&mut self, rejection: Rejection) -> Frame<Bytes> {
        let trailers = rejection.trailers();
        self.end(Some(Cut::Rejected(rejection)), trailers)
    }

    /// Ends the call; what is left of it upstream is cancelled.
    fn end(&mut self, cut: Option<Cut>, trailers: HeaderMap) -> Frame<Bytes> {
        self.download = None;
        self.cut = cut;
        Frame::trailers(trailers)
    }
}

/// The status of a call that took too long.
const DEADLINE_EXCEEDED: u16 = 4;

fn told(status: u16, message: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(GRPC_STATUS, HeaderValue::from(status));
    fields.insert(GRPC_MESSAGE, grpc::encode_message(message));
    fields
}
