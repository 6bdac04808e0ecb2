//! Parked connections: idle HTTP/1.1 connections without hyper, which costs 30 KiB each.
//!
//! hyper keeps its buffers and its state as long as it has a connection. When nothing is in
//! progress it can be made to let go of the socket; then the socket, its deadline and its place
//! wait in a small task, and hyper begins anew with the first bytes that come.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicI64;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::base::socket::Socket;

/// Most bytes of a head that are read before hyper is there; it reads the rest itself.
const FIRST_BYTES_MAX: usize = 4 * 1024;
/// Longer than mimalloc waits before it gives freed pages back (its `purge_delay`, 1 s).
const RECLAIM_AFTER: Duration = Duration::from_millis(1100);
/// A block that mimalloc frees at once, and not only for itself: it keeps nothing of more than
/// 512 KiB for later. None of its pages but the first is touched.
const RECLAIM_BYTES: usize = 1024 * 1024;

/// What became of a connection that hyper was to let go of.
#[derive(Debug)]
pub(super) enum Released {
    /// Its socket can be taken out of hyper, and the bytes that were read and not served.
    Free,
    /// A request was in progress that the clock did not know of; it is the last one.
    Busy,
    /// It ended just now.
    Over(hyper::Error),
}

/// Makes hyper let go of an idle connection. Nothing is read from the socket meanwhile: a byte is
/// among those that hyper gives back, or still to be read.
pub(super) async fn release<I, S>(connection: &mut http1::Connection<I, S>) -> Released
where
    I: Read + Write + Unpin,
    S: HttpService<Incoming, Error = Infallible, Future: Unpin> + Unpin,
    S::ResBody: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static,
{
    Pin::new(&mut *connection).graceful_shutdown();
    std::future::poll_fn(|cx| {
        Poll::Ready(match connection.poll_without_shutdown(cx) {
            Poll::Ready(Ok(())) => Released::Free,
            Poll::Ready(Err(error)) => Released::Over(error),
            Poll::Pending => Released::Busy,
        })
    })
    .await
}

/// A connection that is parked.
pub(super) struct Parked<'a> {
    socket: Socket,
    deadline: Instant,
    _count: Count<'a>,
}

/// One more in the gauge of parked connections, until it is dropped.
struct Count<'a>(&'a Gauge<i64, AtomicI64>);

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl<'a> Parked<'a> {
    /// Parks a connection until `deadline`.
    pub(super) fn new(socket: Socket, deadline: Instant, gauge: &'a Gauge<i64, AtomicI64>) -> Self {
        gauge.inc();
        Self { socket, deadline, _count: Count(gauge) }
    }

    /// Waits for the next request's first bytes. Nothing when there are none: the client has closed
    /// the connection, its deadline has passed, or `stop` was cancelled.
    ///
    /// What lives here lives as long as the connection is idle, so it is as little as can be: no
    /// future of its own for the socket, and nothing that was moved and left its room behind.
    #[allow(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
    pub(super) fn first_bytes(
        &mut self,
        stop: &CancellationToken,
    ) -> impl Future<Output = Option<Bytes>> + Send {
        async move {
            let mut expired = pin!(tokio::time::sleep_until(self.deadline));
            let mut stopped = pin!(stop.cancelled());
            std::future::poll_fn(|cx| {
                // First, so that what has come is served before anything ends the connection.
                if let Poll::Ready(bytes) = self.poll_first_bytes(cx) {
                    return Poll::Ready(bytes);
                }
                if expired.as_mut().poll(cx).is_ready() || stopped.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            })
            .await
        }
    }

    fn poll_first_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let tcp = match &mut self.socket {
            Socket::Plain(tcp) => tcp,
            // What comes may be no byte of a request: a key update, say (RFC 8446 §4.6.3).
            Socket::Tls(tls) => {
                let bytes = ready!(poll_decrypted(&mut tls.stream, cx));
                return Poll::Ready(bytes.ok().filter(|bytes| !bytes.is_empty()));
            }
        };
        loop {
            if ready!(tcp.poll_read_ready(cx)).is_err() {
                return Poll::Ready(None);
            }
            match read(tcp) {
                Ok(bytes) => return Poll::Ready(Some(bytes).filter(|bytes| !bytes.is_empty())),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // A client that goes away between two requests breaks nothing.
                Err(_) => return Poll::Ready(None),
            }
        }
    }

    /// The socket; the connection is not parked any more.
    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Ends it. Under TLS the client is told, as far as that fits into the socket: an end without
    /// a word could be an attacker's (RFC 8446 §6.1).
    pub(super) fn close(mut self) {
        if self.socket.encryption().is_some() {
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            let _ = Pin::new(&mut self.socket).poll_shutdown(cx);
        }
    }
}

/// In a function of its own, so that the buffer is no part of a task.
fn read(stream: &TcpStream) -> std::io::Result<Bytes> {
    let mut buffer = [0; FIRST_BYTES_MAX];
    let length = stream.try_read(&mut buffer)?;
    Ok(Bytes::copy_from_slice(&buffer[..length]))
}

/// See [`read`].
fn poll_decrypted(
    stream: &mut TlsStream<TcpStream>,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<Bytes>> {
    let mut buffer = [0; FIRST_BYTES_MAX];
    let mut buffer = ReadBuf::new(&mut buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
}

/// Gives memory back to the system after connections were parked.
///
/// mimalloc gives a page back a second after it was freed, and only when another one is freed then.
/// After a burst of connections nothing may be freed for long: 18 KiB of each stayed.
#[derive(Debug, Default)]
pub(super) struct Reclaim(Notify);

impl Reclaim {
    /// A connection was parked.
    pub(super) fn parked(&self) {
        self.0.notify_one();
    }

    /// Does the work, for ever.
    pub(super) async fn run(&self) {
        loop {
            self.0.notified().await;
            tokio::time::sleep(RECLAIM_AFTER).await;
            // Hidden from the compiler, which leaves out what nobody looks at.
            drop(std::hint::black_box(Vec::<u8>::with_capacity(RECLAIM_BYTES)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::server::clock::Clock;
    use crate::server::socket::ClientIo;

    const REQUEST: &[u8] = b"GET /next HTTP/1.1\r\nhost: shop.test\r\n\r\n";

    type Text = Full<Bytes>;
    type Served<S> = http1::Connection<TokioIo<DuplexStream>, S>;

    /// Answers each request with its path.
    fn service()
    -> impl Unpin + HttpService<Incoming, ResBody = Text, Error = Infallible, Future: Unpin> {
        service_fn(|request: Request<Incoming>| {
            let path = Bytes::copy_from_slice(request.uri().path().as_bytes());
            Box::pin(async move {
                if path == "/never" {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(path)))
            })
        })
    }

    /// The client's end of a connection to hyper.
    fn served() -> (
        DuplexStream,
        Served<
            impl Unpin + HttpService<Incoming, ResBody = Text, Error = Infallible, Future: Unpin>,
        >,
    ) {
        let (client, server) = tokio::io::duplex(4096);
        (client, http1::Builder::new().serve_connection(TokioIo::new(server), service()))
    }

    /// Lets hyper do what it can with what has come.
    async fn work<C: Future + Unpin>(connection: &mut C) {
        std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut *connection).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    /// Everything that the client was sent so far.
    async fn received(client: &mut DuplexStream) -> String {
        let mut buffer = [0; 4096];
        let length = client.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[tokio::test]
    async fn no_byte_is_lost_at_the_moment_of_parking() {
        for seen in 0..REQUEST.len() {
            // tokio lets a task do so much in one go, and then has everything wait.
            tokio::task::yield_now().await;
            let (mut client, mut connection) = served();
            client.write_all(b"GET /first HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
            work(&mut connection).await;
            assert!(received(&mut client).await.ends_with("\r\n\r\n/first"));
            // So much comes while hyper still looks, and the rest once the decision was made.
            client.write_all(&REQUEST[..seen]).await.unwrap();
            work(&mut connection).await;
            client.write_all(&REQUEST[seen..]).await.unwrap();
            let released = release(&mut connection).await;
            assert!(matches!(released, Released::Free), "{seen}: {released:?}");
            let parts = connection.into_parts();
            assert_eq!(parts.read_buf, REQUEST[..seen]);
            let mut rest = vec![0; REQUEST.len() - seen];
            parts.io.into_inner().read_exact(&mut rest).await.unwrap();
            assert_eq!(rest, REQUEST[seen..]);
        }
    }

    /// The two ends of a connection over TCP.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn no_byte_is_lost_between_our_socket_and_hyper() {
        let first = b"GET /first HTTP/1.1\r\nhost: shop.test\r\n\r\n";
        for (lines, seen) in [0, 2]
            .into_iter()
            .flat_map(|lines| (0..lines + REQUEST.len()).map(move |seen| (lines, seen)))
        {
            let next = [&b"\r\n"[..lines], REQUEST].concat();
            let (mut client, stream) = connected().await;
            let clock = Clock::start(&crate::config::Server::default());
            let io = ClientIo::new(Socket::Plain(stream), &clock, &Arc::default());
            let mut connection =
                http1::Builder::new().serve_connection(TokioIo::new(io), service());
            // What comes while hyper still looks.
            client.write_all(first).await.unwrap();
            client.write_all(&next[..seen]).await.unwrap();
            std::future::poll_fn(|cx| {
                assert!(Pin::new(&mut connection).poll(cx).is_pending());
                // Nobody tells this clock of requests, so it counts all that was read.
                let is_read = clock.head_bytes() == (first.len() + seen) as u64;
                if is_read { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            client.write_all(&next[seen..]).await.unwrap();
            assert!(matches!(release(&mut connection).await, Released::Free), "{lines} {seen}");
            let parts = connection.into_parts();
            let mut io = parts.io.into_inner();
            io.take_back(parts.read_buf);
            assert_eq!(io.is_bare(), seen <= lines, "{lines} {seen}");
            let mut bytes = vec![0; next.len() - seen.min(lines)];
            if io.is_bare() {
                io.into_socket().read_exact(&mut bytes).await.unwrap();
            } else {
                io.read_exact(&mut bytes).await.unwrap();
            }
            assert_eq!(bytes, next[seen.min(lines)..], "{lines} {seen}");
        }
    }

    #[tokio::test]
    async fn a_connection_with_a_request_in_progress_is_not_let_go() {
        let (mut client, mut connection) = served();
        client.write_all(b"GET /never HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
        work(&mut connection).await;
        assert!(matches!(release(&mut connection).await, Released::Busy));
    }

    /// A client, and its connection, which is parked for ten seconds.
    async fn parked(gauge: &Gauge<i64, AtomicI64>) -> (TcpStream, Parked<'_>) {
        let (client, stream) = connected().await;
        (
            client,
            Parked::new(Socket::Plain(stream), Instant::now() + Duration::from_secs(10), gauge),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_end_the_rest_and_come_first() {
        let gauge = Gauge::default();
        let (mut client, mut parked) = parked(&gauge).await;
        assert_eq!(gauge.get(), 1);
        client.write_all(REQUEST).await.unwrap();
        let stop = CancellationToken::new();
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        parked.socket.tcp().readable().await.unwrap();
        assert_eq!(parked.first_bytes(&cancelled).await.unwrap(), REQUEST, "before the drain");
        client.write_all(b"more").await.unwrap();
        assert_eq!(parked.first_bytes(&stop).await.unwrap(), "more");
        let stream = parked.into_socket();
        assert_eq!(gauge.get(), 0);
        drop(stream);
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_connection_ends_by_its_deadline_its_client_or_the_drain() {
        let gauge = Gauge::default();
        let stop = CancellationToken::new();
        let (client, mut waiting) = parked(&gauge).await;
        let began = Instant::now();
        assert_eq!(waiting.first_bytes(&stop).await, None);
        assert!(began.elapsed() >= Duration::from_secs(9), "it had ten seconds");
        drop((client, waiting));

        let (mut client, mut waiting) = parked(&gauge).await;
        client.shutdown().await.unwrap();
        assert_eq!(waiting.first_bytes(&stop).await, None, "the client says no more");
        drop(waiting);

        let (client, mut waiting) = parked(&gauge).await;
        let began = Instant::now();
        stop.cancel();
        assert_eq!(waiting.first_bytes(&stop).await, None);
        assert_eq!(began.elapsed(), Duration::ZERO, "at once");
        drop((client, waiting));
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn a_parked_connection_is_small() {
        let gauge = Gauge::default();
        let (_client, mut parked) = parked(&gauge).await;
        let stop = CancellationToken::new();
        let waiting = parked.first_bytes(&stop);
        assert!(size_of_val(&waiting) <= 256, "{} bytes", size_of_val(&waiting));
    }
}
