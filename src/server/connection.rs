//! One client connection, from its first byte to its end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::{Tracked, Watch};
use super::clock::{Alarm, Clock, Expired, InProgress};
use super::drain::{Drain, Signals};
use super::park::{self, Parked, Reclaim, Released};
use super::places::{Full, Place};
use super::protocol::Protocol;
use super::proxied::{self, Failure};
use super::socket::{self, ClientIo};
use super::stream_tunnel::StreamTunnels;
use super::tls::{Handshakes, Shaken};
use crate::base::boxed;
use crate::base::facts::{ClientAddr, Peer};
use crate::base::socket::Socket;
use crate::config::{ClientLimits, Server};
use crate::proxy::{self, Unparsed};
use crate::runtime::Gateway;
use crate::tunnel::Begun;

/// How long a refused client may take to read its answer.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Refused clients that are served a 503 at a time; the others are just closed.
const REFUSALS_MAX: usize = 128;
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

/// The state of the server that all its connections share.
pub(super) struct ServerState {
    pub(super) gateway: Arc<Gateway>,
    pub(super) drain: Drain,
    pub(super) handshakes: Handshakes,
    pub(super) reclaim: Reclaim,
    refusals: Arc<Semaphore>,
}

impl ServerState {
    pub(super) fn new(gateway: &Arc<Gateway>) -> Self {
        let (drain, reclaim) = (Drain::default(), Reclaim::default());
        let handshakes = Handshakes::new(gateway.running().plan.config.server.tls.as_deref());
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        Self { gateway: Arc::clone(gateway), drain, handshakes, reclaim, refusals }
    }

    /// Counts a client that there is no place for. Returns what is left to do: to tell it, unless
    /// too many others are being told.
    pub(super) fn turn_away(
        &self,
        stream: TcpStream,
        client: ClientAddr,
        full: Full,
        speaks_tls: bool,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let local = stream.local_addr().ok()?;
        let unparsed = match full {
            Full::Total => Unparsed::ConnectionsFull,
            Full::Address => Unparsed::AddressFull,
        };
        self.gateway.observer.metrics.connection_refused(unparsed.code());
        if speaks_tls {
            // An answer in clear would be noise to it, and a handshake costs what there is no room
            // for.
            return None;
        }
        let permit = Arc::clone(&self.refusals).try_acquire_owned().ok()?;
        // The others get no answer, and are counted alone.
        proxy::log_turned_away(&self.gateway, &Peer::new(client, local, None), unparsed);
        Some(async move {
            let _ = tokio::time::timeout(REFUSAL_TIME, socket::refuse(stream)).await;
            drop(permit);
        })
    }
}

type Http1<S> = http1::Connection<TokioIo<ClientIo>, S>;

/// Serves a connection until it ends, is drained or is cut. What serves is boxed and gone while the
/// connection is parked, so that the task is small then.
#[allow(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
pub(super) fn serve(
    server: &ServerState,
    place: &mut Place,
    stream: std::net::TcpStream,
) -> impl Future<Output = ()> + Send {
    async move {
        let mut parked = Box::pin(begin(server, place, stream)).await;
        while let Some(waiting) = &mut parked {
            let Some(bytes) = waiting.first_bytes(server.drain.stop()).await else { break };
            let Some(socket) = parked.take().map(Parked::into_socket) else { return };
            parked = Box::pin(resume(server, place, socket, bytes)).await;
        }
        if let Some(parked) = parked {
            parked.close();
        }
    }
}

/// Serves a new connection; returns it when it is idle.
async fn begin<'c>(
    server: &'c ServerState,
    place: &mut Place,
    stream: std::net::TcpStream,
) -> Option<Parked<'c>> {
    let (began, mut stream) = (Instant::now(), TcpStream::from_std(stream).ok()?);
    if server.gateway.running().plan.config.server.is_proxied(place.client().ip()) {
        stream = Box::pin(introduce(server, place, stream, began)).await?;
    }
    if place.speaks_tls() {
        return begin_tls(server, place, stream).await;
    }
    let socket = Socket::Plain(stream);
    let clock = |config: &Server| Clock::since(began, config);
    let served = ServedConnection::new(server, place, &socket, clock)?;
    let ServedConnection { client, clock, signals, .. } = &served;
    let mut io = ClientIo::new(socket, clock, client.interim());
    let detected = tokio::select! {
        detected = io.detect() => detected,
        expired = clock.expired(Protocol::Http1) => {
            if expired == Expired::SlowHead {
                proxy::log_unparsed(client, Unparsed::SlowHead);
            }
            io.close();
            return None;
        }
        () = signals.stop.cancelled() => return None,
    };
    match detected.ok().flatten()? {
        Protocol::Http1 => return served.serve_http1(io).await,
        Protocol::Http2 => served.serve_http2(io).await,
        Protocol::Tls => refuse_tls(&server.gateway, client, io).await,
    }
    None
}

/// Reads the PROXY header of a connection that began then, and hands its place over to the client
/// that it names. Nothing where the connection is over: without a header nobody knows whose it is.
async fn introduce(
    server: &ServerState,
    place: &mut Place,
    mut stream: TcpStream,
    began: Instant,
) -> Option<TcpStream> {
    let running = server.gateway.running();
    let limits = &running.plan.config.server.limits;
    let received = tokio::select! {
        received = proxied::receive(&mut stream, began + limits.header_timeout) => received,
        () = server.drain.stop().cancelled() => return None,
    };
    let told = match received {
        Ok(Some(told)) => told,
        Ok(None) => return Some(stream),
        Err(failure) => {
            report_header(&server.gateway, place.client(), &failure);
            return None;
        }
    };
    let client = ClientAddr::new(told.source);
    let exempt = running.plan.client.trusts(client.ip());
    match place.hand_over(client, told.destination_port, limits, exempt) {
        Ok(()) => Some(stream),
        Err(full) => {
            server.turn_away(stream, client, full, place.speaks_tls())?.await;
            None
        }
    }
}

/// Writes down why there is no PROXY header; one that was left out is also said once.
fn report_header(gateway: &Gateway, peer: ClientAddr, failure: &Failure) {
    tracing::debug!(%peer, %failure, "a connection was closed");
    let Some(reason) = failure.reason() else { return };
    gateway.observer.metrics.connection_failed(reason);
    if *failure == Failure::Missing && gateway.observer.logged.first(reason, "") {
        tracing::warn!(
            "a connection from {peer}, which is in server.proxy_protocol_from, does not begin with \
             a PROXY header, and was closed; this is said once, {reason} counts them\n    help: \
             let the balancer send it (send-proxy-v2 in HAProxy, proxy_protocol on in nginx), or \
             take its address out of server.proxy_protocol_from"
        );
    }
}

/// Begins with a handshake, which also tells the protocol.
async fn begin_tls<'c>(
    server: &'c ServerState,
    place: &Place,
    stream: TcpStream,
) -> Option<Parked<'c>> {
    let (running, observer) = (server.gateway.running(), &server.gateway.observer);
    let shaking = server.handshakes.shake(stream, place.client(), &running, observer);
    let shaken = tokio::select! {
        shaken = Box::pin(shaking) => shaken?,
        () = server.drain.stop().cancelled() => return None,
    };
    let Shaken { socket, protocol } = shaken;
    let served = ServedConnection::new(server, place, &socket, Clock::start)?;
    let io = ClientIo::new(socket, &served.clock, served.client.interim());
    match protocol {
        Protocol::Http2 => {
            served.serve_http2(io).await;
            None
        }
        Protocol::Http1 | Protocol::Tls => served.serve_http1(io).await,
    }
}

/// Serves a connection that was parked and has sent `bytes`; returns it when it is idle again.
async fn resume<'c>(
    server: &'c ServerState,
    place: &Place,
    socket: Socket,
    bytes: Bytes,
) -> Option<Parked<'c>> {
    let served = ServedConnection::new(server, place, &socket, Clock::resume)?;
    served.clock.received(&bytes);
    let mut io = ClientIo::new(socket, &served.clock, served.client.interim());
    io.unread(bytes);
    served.serve_http1(io).await
}

/// A connection while it is served.
struct ServedConnection<'a> {
    server: &'a ServerState,
    client: Arc<proxy::Connection>,
    clock: Arc<Clock>,
    limits: ClientLimits,
    signals: Signals,
}

impl<'a> ServedConnection<'a> {
    /// Nothing when the client is gone already.
    fn new(
        server: &'a ServerState,
        place: &Place,
        socket: &Socket,
        clock: impl FnOnce(&Server) -> Arc<Clock>,
    ) -> Option<Self> {
        let running = server.gateway.running();
        let config = &running.plan.config.server;
        let local = place.local(socket.tcp().local_addr().ok()?);
        let peer = Peer::new(place.client(), local, socket.encryption().cloned());
        Some(Self {
            server,
            client: proxy::Connection::new(&server.gateway, peer),
            clock: clock(config),
            limits: config.limits.clone(),
            signals: server.drain.signals(),
        })
    }

    /// What hyper calls for each request. `streams`: where tunnels over HTTP/2 are started.
    fn service(
        &self,
        streams: Option<Arc<StreamTunnels>>,
    ) -> impl HttpService<
        Incoming,
        ResBody = Tracked,
        Error = Infallible,
        Future: Unpin + Send + 'static,
    > + Unpin
    + use<> {
        let (client, clock) = (Arc::clone(&self.client), Arc::clone(&self.clock));
        service_fn(move |mut request: Request<Incoming>| {
            let in_progress = clock.request(!request.body().is_end_stream());
            let watch = Watch::of(&clock, request.version());
            // hyper keeps room for this future as long as it has the connection: boxed, it is small
            // between two requests.
            let upgrade = upgrade(streams.as_ref(), &mut request);
            let client = Arc::clone(&client);
            boxed::pin(|| answer(client, request, upgrade, (in_progress, watch)))
        })
    }

    /// Serves HTTP/1; returns the connection when it is idle.
    async fn serve_http1(self, io: ClientIo) -> Option<Parked<'a>> {
        let builder = http1(&self.limits);
        let mut connection = builder.serve_connection(TokioIo::new(io), self.service(None));
        loop {
            let ended = drive_http1(&mut connection, &self.clock, &self.signals).await;
            let parts = connection.into_parts();
            let mut io = parts.io.into_inner();
            if let Some(tunnel) = self.clock.take_tunnel() {
                io.unread(parts.read_buf);
                Box::pin(self.serve_tunnel(ended, io, tunnel)).await;
                return None;
            }
            if !matches!(ended, Ended::Idle) {
                io.close();
                self.report(ended);
                return None;
            }
            // The next head may have been begun together with the end of the last request.
            io.take_back(parts.read_buf);
            if io.is_bare() {
                return Some(self.park(io.into_socket()));
            }
            connection = builder.serve_connection(TokioIo::new(io), parts.service);
        }
    }

    /// Serves a connection that has changed to WebSocket.
    async fn serve_tunnel(self, ended: Ended, io: ClientIo, tunnel: Box<proxy::Tunnel>) {
        // What hyper could not write of the 101 went with it.
        if !matches!(ended, Ended::Over(Ok(()))) || self.clock.is_blocked() {
            tunnel.abandon();
            io.close();
            return self.report(ended);
        }
        let (carrier, early) = io.into_parts();
        tunnel.run(Begun { carrier, early }, &self.signals.cut).await;
    }

    fn park(&self, socket: Socket) -> Parked<'a> {
        let ServerState { gateway, reclaim, .. } = self.server;
        reclaim.parked();
        Parked::new(
            socket,
            self.clock.idle_deadline(),
            &gateway.observer.metrics.connections_parked,
        )
    }

    async fn serve_http2(&self, io: ClientIo) {
        let mut builder = http2(&self.limits);
        // Who offers tunnels is asked for them.
        let streams = self.client.gateway().running().plan.upgrades.then(|| {
            builder.enable_connect_protocol();
            let (token, cut) = (self.server.drain.token(), self.signals.cut.clone());
            Arc::new(StreamTunnels { token, cut })
        });
        let connection = builder.serve_connection(TokioIo::new(io), self.service(streams));
        let mut connection = std::pin::pin!(connection);
        // GOAWAY loses no stream: there is no reason to wait for an answer.
        let left = self.server.drain.left().child_token();
        let ended = tokio::select! {
            biased;
            result = connection.as_mut() => Ended::Over(result),
            reason = self.clock.expired(Protocol::Http2) => Ended::Expired(reason),
            () = left.cancelled() => {
                connection.as_mut().graceful_shutdown();
                finish(connection, &self.clock, Protocol::Http2, &self.signals.cut).await
            }
        };
        self.report(ended);
    }

    /// Writes down what no request wrote down: heads that never became one.
    fn report(&self, ended: Ended) {
        let Self { client, clock, limits, .. } = self;
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
            Ended::Over(Ok(())) | Ended::Idle => return,
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
                // The client went away or broke a body's framing; requests have their own lines.
                tracing::debug!(client = %client.address(), %error, "a connection ended");
                gateway.observer.metrics.connection_failed("broken");
                return;
            }
        };
        gateway.observer.metrics.connection_failed(unparsed.code());
        proxy::log_unparsed(client, unparsed);
    }
}

/// Ends a connection that speaks TLS, and says once what to do about such clients.
async fn refuse_tls(gateway: &Gateway, client: &proxy::Connection, mut io: ClientIo) {
    gateway.observer.metrics.connection_failed(Unparsed::Tls.code());
    proxy::log_unparsed(client, Unparsed::Tls);
    if gateway.observer.logged.first(Unparsed::Tls.code(), "") {
        tracing::warn!(
            "a client ({}) speaks TLS to a listener of server.listen, which serves in clear; this \
             is said once, tls_on_clear_port counts them\n    help: let clients use http://, or \
             add [server.tls] with their certificate",
            client.address()
        );
    }
    let _ = tokio::time::timeout(REFUSAL_TIME, io.refuse_tls()).await;
}

/// What a tunnel over HTTP/2 needs to begin.
type Upgrade = Option<(Arc<StreamTunnels>, OnUpgrade)>;

fn upgrade(streams: Option<&Arc<StreamTunnels>>, request: &mut Request<Incoming>) -> Upgrade {
    let streams = streams.filter(|_| *request.method() == Method::CONNECT)?;
    Some((Arc::clone(streams), hyper::upgrade::on(request)))
}

/// Answers one request. No `async fn`, which would have room for what it is given twice. Nothing
/// can fail before there is a future: only then it is made in its box (see [`boxed`]).
#[allow(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
fn answer(
    client: Arc<proxy::Connection>,
    request: Request<Incoming>,
    upgrade: Upgrade,
    (in_progress, watch): (InProgress, Watch),
) -> impl Future<Output = Result<Response<Tracked>, Infallible>> + Send {
    async move {
        let is_http1 = request.version() < Version::HTTP_2;
        let mut response = proxy::handle(&client, request).await;
        client.interim().close().await;
        let is_last = is_http1 && client.gateway().is_handed_over();
        if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // The next request belongs to the process that accepts now; an end without a word could
            // meet it on its way.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(tunnel) = response.body_mut().take_tunnel() {
            match upgrade {
                Some((streams, upgrade)) => streams.start(upgrade, tunnel, in_progress.another()),
                None => in_progress.clock().leave_tunnel(tunnel),
            }
        }
        Ok(Tracked::of(response, watch, in_progress))
    }
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

/// How hyper's part in a connection ended.
enum Ended {
    /// hyper is done with it.
    Over(Result<(), hyper::Error>),
    /// Nothing is in progress, and hyper was told to let go of the socket.
    Idle,
    /// A deadline passed.
    Expired(Expired),
    /// The drain was over.
    Cut,
}

async fn drive_http1<S>(connection: &mut Http1<S>, clock: &Clock, signals: &Signals) -> Ended
where
    S: HttpService<Incoming, ResBody = Tracked, Error = Infallible, Future: Unpin> + Unpin,
{
    let mut connection = Pin::new(connection);
    tokio::select! {
        biased;
        result = connection.as_mut() => return Ended::Over(result),
        alarm = clock.alarm() => match alarm {
            Alarm::Expired(reason) => return Ended::Expired(reason),
            Alarm::Idle => {
                match park::release(&mut connection).await {
                    Released::Free => return Ended::Idle,
                    Released::Over(error) => return Ended::Over(Err(error)),
                    Released::Busy => {}
                }
            }
        },
        () = signals.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    finish(connection, clock, Protocol::Http1, &signals.cut).await
}

/// Drives a connection that takes no more requests to its end.
async fn finish<C>(
    mut connection: Pin<&mut C>,
    clock: &Clock,
    protocol: Protocol,
    cut: &CancellationToken,
) -> Ended
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    tokio::select! {
        biased;
        result = connection.as_mut() => Ended::Over(result),
        reason = clock.expired(protocol) => Ended::Expired(reason),
        () = cut.cancelled() => Ended::Cut,
    }
}
