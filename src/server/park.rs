//! Parked connections: idle HTTP/1.1 connections without hyper, which costs 30 KiB each.
//!
//! hyper keeps its buffers and its state as long as it has a connection. When nothing is in
//! progress it can be made to let go of the socket; then the socket, its deadline and its place
//! wait in a small task, and hyper begins anew with the first bytes that come.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::AtomicI64;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

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
    /// A request was in progress that the clock did not know of; hyper ends the connection after it.
    Busy,
    /// It ended just now.
    Over(hyper::Error),
}

/// Makes hyper let go of an idle connection. Nothing is read from the socket meanwhile, so a byte is
/// either among those that hyper gives back, or still to be read.
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
    stream: TcpStream,
    deadline: Instant,
    count: Count<'a>,
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
    pub(super) fn new(
        stream: TcpStream,
        deadline: Instant,
        gauge: &'a Gauge<i64, AtomicI64>,
    ) -> Self {
        gauge.inc();
        Self { stream, deadline, count: Count(gauge) }
    }

    /// Waits for the next request's first bytes. Nothing when there are none: the client has closed
    /// the connection, its deadline has passed, or `stopped` is ready.
    pub(super) async fn first_bytes(
        self,
        stopped: impl Future<Output = ()>,
    ) -> Option<(TcpStream, Bytes)> {
        let Self { stream, deadline, count } = self;
        let bytes = tokio::select! {
            biased;
            bytes = first_bytes(&stream) => bytes,
            () = tokio::time::sleep_until(deadline) => None,
            () = stopped => None,
        };
        drop(count);
        bytes.map(|bytes| (stream, bytes))
    }
}

async fn first_bytes(stream: &TcpStream) -> Option<Bytes> {
    loop {
        stream.readable().await.ok()?;
        match read(stream) {
            Ok(bytes) => return Some(bytes).filter(|bytes| !bytes.is_empty()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // A client that goes away between two requests breaks nothing.
            Err(_) => return None,
        }
    }
}

/// In a function of its own, so that the buffer is no part of a task.
fn read(stream: &TcpStream) -> std::io::Result<Bytes> {
    let mut buffer = [0; FIRST_BYTES_MAX];
    let length = stream.try_read(&mut buffer)?;
    Ok(Bytes::copy_from_slice(&buffer[..length]))
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
