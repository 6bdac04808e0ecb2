//! One HTTP/2 connection to a server, which carries many exchanges at a time.
//!
//! h2 splits a connection into handles and a future that does the I/O. Many tasks have handles, so
//! here that future is a task of its own, on the thread that has dialed. What belongs to one
//! exchange is done by its own task (`branch`). h2 queues streams beyond the peer's bound without
//! one of its own, so the streams are counted here.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, Reason, SendStream};
use http::Request;
use http::uri::Scheme;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::count::Counted;
use crate::base::socket::Socket;
use crate::config;

/// Most streams at a time on one connection, however many more the server takes.
const STREAMS_MAX: usize = 100;
/// How many streams a server takes that has not said yet.
const UNSAID: usize = 0;
/// How much of one response may come before somebody reads it, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same of all responses on one connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Overhead of small DATA frames that wait for their readers, in bytes. Beyond it, h2 calls them
/// an attack and ends the connection with all its streams. It must hold some streams whose clients
/// read nothing, and whose servers fill [`STREAM_WINDOW_BYTES`] with small messages.
const DATA_FRAME_BUDGET: usize = 32 << 20;
/// How often a server with streams in progress is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How old a connection gets, give or take a tenth.
const AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// It takes streams.
const OPEN: u8 = 0;
/// It takes none any more, and those that it has go on.
const DRAINING: u8 = 1;
/// It has ended.
const DEAD: u8 = 2;
/// It has ended, because the server was silent.
const SILENT: u8 = 3;

/// A connection.
#[derive(Debug)]
pub(in crate::upstream) struct Trunk {
    sender: SendRequest<Bytes>,
    shared: Arc<Shared>,
    scheme: Scheme,
    /// Most fields in the head of a response.
    fields_max: usize,
    born: Instant,
    /// How old it gets.
    age_max: Duration,
    counted: Counted,
}

/// What its own task knows of it, too.
#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    /// Streams in progress.
    streams: AtomicUsize,
    has_answered: AtomicBool,
    /// When the last stream ended, in milliseconds since the connection was made.
    unused_since: AtomicU64,
}

/// The place of one stream, for as long as this lives.
#[derive(Debug)]
pub(in crate::upstream) struct Seat {
    trunk: Arc<Trunk>,
    is_reused: bool,
}

impl Trunk {
    /// Speaks HTTP/2 with a server, and waits until it has said how many streams it takes (RFC 9113
    /// §6.5.2): what came before could be refused, or would wait in h2 without an end. Must be
    /// called on the thread whose requests will use it most.
    ///
    /// # Errors
    /// h2's; no request was sent.
    pub(in crate::upstream) async fn over(
        socket: Socket,
        settings: &config::Upstream,
        counted: Counted,
    ) -> Result<Arc<Self>, h2::Error> {
        let scheme = if socket.is_secure() { Scheme::HTTPS } else { Scheme::HTTP };
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(UNSAID)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX));
        let (sender, connection) = builder.handshake(socket).await?;
        let shared = Arc::<Shared>::default();
        let (settled, said) = oneshot::channel();
        tokio::spawn(drive(connection, Arc::clone(&shared), settled));
        said.await.unwrap_or_else(|_| Err(Reason::CANCEL.into()))?;
        let tenth = AGE_MAX / 10;
        Ok(Arc::new(Self {
            sender,
            shared,
            scheme,
            fields_max: settings.headers,
            born: Instant::now(),
            age_max: AGE_MAX - tenth + (tenth * 2).mul_f64(fastrand::f64()),
            counted,
        }))
    }

    /// A place for one more stream, if there is one.
    pub(in crate::upstream) fn seat(self: &Arc<Self>) -> Option<Seat> {
        if !self.is_open() {
            return None;
        }
        let max = self.sender.current_max_send_streams().min(STREAMS_MAX);
        let one_more = |streams: usize| (streams < max).then_some(streams + 1);
        let streams = &self.shared.streams;
        streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        let is_reused = self.shared.has_answered.load(Ordering::Relaxed);
        Some(Seat { trunk: Arc::clone(self), is_reused })
    }

    /// Whether it takes new streams.
    pub(in crate::upstream) fn is_open(&self) -> bool {
        if self.shared.state.load(Ordering::Acquire) != OPEN {
            return false;
        }
        // h2 knows of a GOAWAY first.
        let mut nobody = Context::from_waker(Waker::noop());
        match self.sender.clone().poll_ready(&mut nobody) {
            Poll::Ready(Err(error)) => {
                self.note(&error);
                false
            }
            _ => true,
        }
    }

    /// Whether it has been unused for `idle_timeout`, or is too old.
    pub(in crate::upstream) fn is_to_go(&self, idle_timeout: Duration) -> bool {
        let age = self.born.elapsed();
        let used = Duration::from_millis(self.shared.unused_since.load(Ordering::Relaxed));
        let is_unused = self.streams() == 0;
        age >= self.age_max || (is_unused && age.saturating_sub(used) >= idle_timeout)
    }

    /// Streams in progress.
    pub(in crate::upstream) fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// Learns from an error whether it takes more streams.
    fn note(&self, error: &h2::Error) {
        let becomes = |next| {
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            self.shared.state.compare_exchange(OPEN, next, order.0, order.1).is_ok()
        };
        if error.is_go_away() && error.is_remote() {
            if becomes(DRAINING) {
                self.counted.note_goaway();
            }
        } else if !error.is_reset() {
            becomes(DEAD);
        }
    }
}

impl Seat {
    /// Whether the connection has answered a request before.
    pub(in crate::upstream) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// The scheme of what is asked for on it.
    pub(super) fn scheme(&self) -> &Scheme {
        &self.trunk.scheme
    }

    /// Most fields in the head of a response.
    pub(super) fn fields_max(&self) -> usize {
        self.trunk.fields_max
    }

    /// Begins a stream.
    ///
    /// # Errors
    /// h2's; nothing was sent then.
    pub(super) fn open(
        &self,
        head: Request<()>,
        is_whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let opened = self.trunk.sender.clone().send_request(head, is_whole);
        opened.inspect_err(|error| self.trunk.note(error))
    }

    /// The head of a response is here.
    pub(super) fn note_answer(&self) {
        if !self.trunk.shared.has_answered.load(Ordering::Relaxed) {
            self.trunk.shared.has_answered.store(true, Ordering::Relaxed);
        }
    }

    /// A stream has ended early.
    pub(super) fn note(&self, error: &h2::Error) {
        self.trunk.note(error);
    }

    /// Whether the connection has ended because the server was silent.
    pub(super) fn was_silent(&self) -> bool {
        self.trunk.shared.state.load(Ordering::Acquire) == SILENT
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let shared = &self.trunk.shared;
        let age = u64::try_from(self.trunk.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.unused_since.store(age, Ordering::Relaxed);
        shared.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Hears once whether the server takes streams.
type Settled = oneshot::Sender<Result<(), h2::Error>>;

/// Does the I/O of a connection until its end, and looks whether the server is still there.
async fn drive<T>(mut connection: Connection<T, Bytes>, shared: Arc<Shared>, settled: Settled)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let Some(mut pings) = connection.ping_pong() else { return };
    let mut connection = pin!(connection);
    let mut timer = pin!(sleep(PING_INTERVAL));
    let mut is_awaited = false;
    let mut settled = Some(settled);
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = connection.as_mut().poll(cx) {
            if let Some(settled) = settled.take() {
                // Whoever has begun HTTP/2 and ends it at once says good-bye.
                let has_begun = connection.max_concurrent_send_streams() != UNSAID;
                let why = if has_begun { Reason::NO_ERROR } else { Reason::CANCEL };
                let _ = settled.send(end.and(Err(why.into())));
            }
            return Poll::Ready(DEAD);
        }
        if connection.max_concurrent_send_streams() != UNSAID
            && let Some(settled) = settled.take()
        {
            let _ = settled.send(Ok(()));
        }
        loop {
            if is_awaited && pings.poll_pong(cx).is_ready() {
                is_awaited = false;
                timer.as_mut().reset(Instant::now() + PING_INTERVAL);
            }
            ready!(timer.as_mut().poll(cx));
            if is_awaited {
                return Poll::Ready(SILENT);
            }
            is_awaited = shared.streams.load(Ordering::Acquire) > 0
                && pings.send_ping(Ping::opaque()).is_ok();
            let wait = if is_awaited { PING_TIMEOUT } else { PING_INTERVAL };
            timer.as_mut().reset(Instant::now() + wait);
        }
    });
    let end = end.await;
    // Before the streams hear of it, which is when the connection is dropped.
    shared.state.store(end, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that reads all and says nothing but its SETTINGS.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_no_ping_is_given_up() {
        for (streams, ends_after) in [(1, Some(PING_INTERVAL + PING_TIMEOUT)), (0, None)] {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let (mut sender, connection) = h2::client::handshake(near).await.unwrap();
            let shared = Arc::<Shared>::default();
            shared.streams.store(streams, Ordering::Relaxed);
            let began = Instant::now();
            let driver = tokio::spawn(drive(connection, Arc::clone(&shared), oneshot::channel().0));
            let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
            tokio::io::AsyncWriteExt::write_all(&mut far, &settings).await.unwrap();
            let (response, _) = sender.send_request(Request::new(()), true).unwrap();
            let waits = tokio::time::timeout(Duration::from_secs(60), response).await;
            assert_eq!(waits.ok().map(|end| end.is_err()), ends_after.map(|_| true));
            if let Some(after) = ends_after {
                assert_eq!(began.elapsed().as_secs(), after.as_secs());
                assert_eq!(shared.state.load(Ordering::Relaxed), SILENT);
            }
            driver.abort();
        }
    }
}
