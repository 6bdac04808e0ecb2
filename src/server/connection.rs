//! One client connection, from its first byte to its end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::REFUSAL_TIME;
use super::clock::{Clock, Expired, Handed, InProgress};
use super::io::{ClientIo, Protocol};
use super::piece::Piece;
use crate::base::facts::Peer;
use crate::config::ClientLimits;
use crate::proxy::{self, Unparsed};
use crate::runtime::Gateway;

/// Room in hyper's read buffer beside the head, in bytes.
const BODY_BUFFER_BYTES: usize = 8 * 1024;
/// Resets that an HTTP/2 client may have pending (RUSTSEC-2023-0034).
const PENDING_RESETS_MAX: usize = 20;
/// Stream errors that an HTTP/2 client may provoke (RUSTSEC-2024-0003).
const LOCAL_RESETS_MAX: usize = 128;
/// Bytes buffered for one HTTP/2 stream that its client does not read.
const STREAM_SEND_BYTES: usize = 64 * 1024;
/// How much an HTTP/2 client may send on one stream, and on the connection, before we take it.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Serves a connection until it ends, is drained (`stop`) or is cut (`cut`).
pub(super) async fn serve(
    gateway: &Arc<Gateway>,
    peer: Peer,
    stream: TcpStream,
    (stop, cut): (CancellationToken, CancellationToken),
) {
    let limits = gateway.running().plan.config.server.limits.clone();
    let clock = Clock::start(&limits);
    let client = proxy::Connection::new(gateway, peer);
    let mut io = ClientIo::new(stream, &clock, client.interim());
    let detected = tokio::select! {
        detected = io.detect() => detected,
        expired = clock.expired(true) => {
            if expired == Expired::SlowHead {
                proxy::log_unparsed(&client, Unparsed::SlowHead);
            }
            return;
        }
        () = stop.cancelled() => return,
    };
    let Ok(Some(protocol)) = detected else { return };
    let service = service_fn({
        let (client, clock) = (Arc::clone(&client), Arc::clone(&clock));
        move |request: Request<Incoming>| {
            let client = Arc::clone(&client);
            let in_progress = clock.request(!request.body().is_end_stream());
            let watch = Watch::of(&clock, request.version());
            // hyper keeps room for this future as long as the connection lives: boxed, an idle
            // connection is small.
            Box::pin(async move {
                Ok::<_, Infallible>(answer(&client, request, (in_progress, watch)).await)
            })
        }
    });
    if protocol == Protocol::Tls {
        refuse_tls(gateway, &client, io).await;
        return;
    }
    let io = TokioIo::new(io);
    let ended = match protocol {
        Protocol::Tls => return,
        Protocol::Http1 => {
            let connection = http1(&limits).serve_connection(io, service);
            drive(connection, &clock, (stop, cut), true).await
        }
        Protocol::Http2 => {
            let connection = http2(&limits).serve_connection(io, service);
            drive(connection, &clock, (stop, cut), false).await
        }
    };
    report(&limits, &client, &clock, ended);
}

/// Ends a connection that speaks TLS, and says once what to do about such clients.
async fn refuse_tls(gateway: &Gateway, client: &proxy::Connection, mut io: ClientIo) {
    gateway.observer.metrics.connection_failed(Unparsed::Tls.code());
    proxy::log_unparsed(client, Unparsed::Tls);
    if gateway.observer.logged.first(Unparsed::Tls.code(), "") {
        tracing::warn!(
            "a client ({}) speaks TLS to a listener of server.listen, which serves in clear; this \
             is said once, tls_on_clear_port counts them\n    help: let clients use http://, or \
             put what ends TLS in front of the gateway; [server.tls] is not built yet",
            client.address()
        );
    }
    let _ = tokio::time::timeout(REFUSAL_TIME, io.refuse_tls()).await;
}

async fn answer(
    client: &Arc<proxy::Connection>,
    request: Request<Incoming>,
    (in_progress, watch): (InProgress, Watch),
) -> Response<Tracked> {
    let response = proxy::handle(client, request).await;
    client.interim().close().await;
    let watch = watch.narrowed(response.body().size_hint().exact().is_some());
    response.map(|body| Tracked { body, watch, fault: None, in_progress })
}

fn http1(limits: &ClientLimits) -> http1::Builder {
    let head = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
    let mut builder = http1::Builder::new();
    // The clock around the connection has every deadline; hyper's own would be a second one.
    builder.header_read_timeout(None);
    builder.max_buf_size(head.saturating_add(BODY_BUFFER_BYTES));
    builder.max_header_size(head);
    if limits.headers != 100 {
        // Another number than hyper's default moves its parser to the heap.
        builder.max_headers(limits.headers);
    }
    builder
}

fn http2(limits: &ClientLimits) -> http2::Builder<TokioExecutor> {
    let head = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(head)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_send_buf_size(STREAM_SEND_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.header_timeout);
    builder
}

/// How a connection ended.
enum Ended {
    /// hyper is done with it.
    Over(Result<(), hyper::Error>),
    /// A deadline passed.
    Expired(Expired),
    /// The drain was over.
    Cut,
}

/// A connection that can be asked to finish what it has begun.
trait Graceful: Future<Output = Result<(), hyper::Error>> {
    fn finish(self: Pin<&mut Self>);
}

impl<S> Graceful for http1::Connection<TokioIo<ClientIo>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = Tracked>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Graceful for http2::Connection<TokioIo<ClientIo>, S, TokioExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = Tracked>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    TokioExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, Tracked>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

async fn drive(
    connection: impl Graceful,
    clock: &Clock,
    (stop, cut): (CancellationToken, CancellationToken),
    head_deadline: bool,
) -> Ended {
    let mut connection = std::pin::pin!(connection);
    let mut expired = std::pin::pin!(clock.expired(head_deadline));
    tokio::select! {
        biased;
        result = connection.as_mut() => return Ended::Over(result),
        reason = expired.as_mut() => return Ended::Expired(reason),
        () = stop.cancelled() => connection.as_mut().finish(),
    }
    tokio::select! {
        biased;
        result = connection.as_mut() => Ended::Over(result),
        reason = expired.as_mut() => Ended::Expired(reason),
        () = cut.cancelled() => Ended::Cut,
    }
}

/// Writes down what no request wrote down: heads that never became one.
fn report(limits: &ClientLimits, client: &proxy::Connection, clock: &Clock, ended: Ended) {
    let gateway = client.gateway();
    let unparsed = match ended {
        Ended::Expired(Expired::SlowHead) => Unparsed::SlowHead,
        Ended::Expired(Expired::SlowReader) => {
            gateway.observer.metrics.connection_failed("slow_reader");
            return;
        }
        Ended::Expired(Expired::Silent) => return,
        Ended::Cut => {
            gateway.observer.metrics.connection_failed("cut_at_drain");
            return;
        }
        Ended::Over(Ok(())) => return,
        Ended::Over(Err(error)) if error.is_parse_too_large() => {
            // hyper tells the bounds apart in its text and its answer alone.
            if error.to_string().starts_with("URI too long") {
                Unparsed::TargetTooLong
            } else if clock.head_bytes() < limits.header_bytes {
                Unparsed::TooManyHeaders
            } else {
                Unparsed::TooLarge
            }
        }
        Ended::Over(Err(error)) if error.is_parse() => Unparsed::Malformed,
        Ended::Over(Err(error)) => {
            // The client went away or broke a body's framing; its requests have lines of their own.
            tracing::debug!(client = %client.address(), %error, "a connection ended");
            gateway.observer.metrics.connection_failed("broken");
            return;
        }
    };
    gateway.observer.metrics.connection_failed(unparsed.code());
    proxy::log_unparsed(client, unparsed);
}

/// What the clock must know of a response while it is sent.
enum Watch {
    /// Nothing beyond the socket: a cut-off message is told by its framing.
    Socket,
    /// An HTTP/1.0 client takes the connection's end for the message's.
    EndTellsAll(Arc<Clock>),
    /// An HTTP/2 client may take nothing while the socket is free.
    Window(Arc<Clock>, Option<Arc<Handed>>),
}

impl Watch {
    fn of(clock: &Arc<Clock>, version: Version) -> Self {
        match version {
            Version::HTTP_10 => Self::EndTellsAll(Arc::clone(clock)),
            Version::HTTP_2 => Self::Window(Arc::clone(clock), None),
            _ => Self::Socket,
        }
    }

    /// A message whose length is announced needs no other end to be seen cut off.
    fn narrowed(self, has_length: bool) -> Self {
        match self {
            Self::EndTellsAll(_) if has_length => Self::Socket,
            other => other,
        }
    }

    /// More is asked for.
    fn asked(&self) {
        if let Self::Window(clock, Some(handed)) = self {
            clock.hand(handed, false);
        }
    }

    /// A piece was handed over, and it was not the last.
    fn handed(&mut self) {
        if let Self::Window(clock, handed) = self {
            let handed = handed.get_or_insert_with(|| clock.watch());
            clock.hand(handed, true);
        }
    }

    /// The message was cut off. Pending while what came before is not on its way to the client yet:
    /// hyper throws away what it holds when it is told of a fault.
    fn cut_off(&self, clock: &Clock, cx: &Context<'_>) -> Poll<()> {
        match self {
            Self::Socket => clock.poll_flushed(cx),
            Self::EndTellsAll(clock) => {
                let flushed = clock.poll_flushed(cx);
                if flushed.is_ready() {
                    clock.owe_reset();
                }
                flushed
            }
            Self::Window(_, None) => Poll::Ready(()),
            Self::Window(clock, Some(handed)) => {
                clock.hand(handed, true);
                handed.poll_taken(cx)
            }
        }
    }

    /// What tells when hyper has let go of a piece.
    fn ticket(&self) -> Option<Arc<Handed>> {
        match self {
            Self::Window(_, Some(handed)) => Some(Arc::clone(handed)),
            Self::Socket | Self::EndTellsAll(_) | Self::Window(_, None) => None,
        }
    }
}

/// A response body that keeps its connection's clock informed while it lives.
struct Tracked {
    body: proxy::Body,
    watch: Watch,
    /// Why the body broke off, until everything before that is on its way to the client.
    fault: Option<proxy::BodyFault>,
    in_progress: InProgress,
}

impl http_body::Body for Tracked {
    type Data = Piece;
    type Error = proxy::BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Self::Error>>> {
        let this = &mut *self;
        if this.fault.is_none() {
            this.watch.asked();
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if !this.body.is_end_stream() {
                        this.watch.handed();
                    }
                    let watch = &this.watch;
                    let frame = frame.map_data(|bytes| Piece::new(bytes, watch.ticket()));
                    return Poll::Ready(Some(Ok(frame)));
                }
                None => return Poll::Ready(None),
                Some(Err(fault)) => {
                    this.in_progress.clock().want_flush();
                    this.fault = Some(fault);
                }
            }
        }
        ready!(this.watch.cut_off(this.in_progress.clock(), cx));
        Poll::Ready(this.fault.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
