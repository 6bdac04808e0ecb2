//! The deadlines of one connection. hyper has no clock before the first byte, for a body or for a
//! slow reader; this one has, at the price of a few atomic stores per request and a timer that
//! sleeps as long as it can. And what the connection becomes, where that is a tunnel.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::protocol::Protocol;
use crate::config::Server;
use crate::proxy::Tunnel;

/// What the clock of a connection says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// Nothing has come for `park_after` since the last response: the connection can be parked.
    Idle,
    /// A deadline has passed.
    Expired(Expired),
}

/// Why a connection's time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nothing came: neither a first request nor, on a kept-alive connection, a next one.
    Silent,
    /// A head was begun and not finished.
    SlowHead,
    /// The client does not read what is sent.
    SlowReader,
}

/// What happened when on one connection. Times are milliseconds since it began, plus one; 0 is
/// "not".
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    park_after: Duration,
    header_timeout: Duration,
    idle_timeout: Duration,
    progress_timeout: Duration,
    progress_bytes: u64,
    /// Requests in progress.
    open: AtomicU32,
    /// Whether there has been a request.
    served: AtomicU32,
    /// Whether the socket must say 408 when it is dropped.
    owes_408: AtomicBool,
    /// Whether the socket must be reset when it is dropped, because a plain end would look like the
    /// end of a message.
    owes_reset: AtomicBool,
    /// Whether the last request had a body, whose rest may still arrive and is no head.
    had_body: AtomicBool,
    flush: Flush,
    /// HTTP/2 responses whose next piece waits for the client.
    handed: Mutex<Vec<Weak<Handed>>>,
    /// First byte of an unfinished head.
    head_since: AtomicU64,
    /// Bytes that came of it.
    head_bytes: AtomicU64,
    /// Since when nothing has been in progress.
    idle_since: AtomicU64,
    /// Since when the client has taken less than `progress_bytes` while there was something to
    /// send.
    blocked_since: AtomicU64,
    /// The tunnel that the connection becomes when hyper lets go of it.
    tunnel: Mutex<Option<Box<Tunnel>>>,
}

/// The pieces of one HTTP/2 response that were handed over.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// When the last one was, while nothing more was asked for.
    since: AtomicU64,
    /// How many hyper still holds.
    held: AtomicU32,
    /// Who waits until it holds none.
    waiting: Mutex<Option<Waker>>,
}

impl Handed {
    /// One more piece.
    pub(super) fn hold(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// A piece is on its way to the client, or its stream is gone.
    pub(super) fn let_go(&self) {
        if self.held.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(waker) = lock(&self.waiting).take()
        {
            waker.wake();
        }
    }

    /// Ready once hyper holds no piece. What it lets go of stands in the connection's buffer, and
    /// nothing that comes later overtakes it.
    pub(super) fn poll_taken(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = lock(&self.waiting);
        if self.held.load(Ordering::Acquire) == 0 {
            return Poll::Ready(());
        }
        *waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Where an HTTP/1 response that broke off waits for its socket.
#[derive(Debug, Default)]
struct Flush {
    /// Whether somebody waits; looked at by every flush.
    wanted: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request in progress; dropping it ends that.
#[derive(Debug)]
pub(super) struct InProgress(Arc<Clock>);

impl InProgress {
    /// The clock of its connection.
    pub(super) fn clock(&self) -> &Clock {
        &self.0
    }

    /// One more, for what goes on behind the response.
    pub(super) fn another(&self) -> Self {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Clock {
    /// The clock of a connection that begins now.
    pub(super) fn start(config: &Server) -> Arc<Self> {
        Self::since(Instant::now(), config)
    }

    /// The clock of a connection that began then, and has sent nothing of a request yet.
    pub(super) fn since(began: Instant, config: &Server) -> Arc<Self> {
        Self::new(began, config, false)
    }

    /// The clock of a connection that was parked and goes on now.
    pub(super) fn resume(config: &Server) -> Arc<Self> {
        Self::new(Instant::now(), config, true)
    }

    fn new(began: Instant, config: &Server, served: bool) -> Arc<Self> {
        let limits = &config.limits;
        Arc::new(Self {
            began,
            park_after: config.park_after,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            progress_timeout: limits.progress_timeout,
            progress_bytes: limits.progress_bytes,
            open: AtomicU32::new(0),
            served: AtomicU32::new(served.into()),
            owes_408: AtomicBool::new(false),
            owes_reset: AtomicBool::new(false),
            had_body: AtomicBool::new(false),
            flush: Flush::default(),
            handed: Mutex::default(),
            head_since: AtomicU64::new(0),
            head_bytes: AtomicU64::new(0),
            idle_since: AtomicU64::new(1),
            blocked_since: AtomicU64::new(0),
            tunnel: Mutex::default(),
        })
    }

    /// Bytes arrived. Between requests they begin a head, but for an empty line behind a body,
    /// which belongs to nothing (RFC 9112 §2.2).
    pub(super) fn received(&self, bytes: &[u8]) {
        if self.open.load(Ordering::Relaxed) > 0 {
            return;
        }
        let is_begun = self.head_since.load(Ordering::Relaxed) != 0;
        if !is_begun
            && self.had_body.load(Ordering::Relaxed)
            && bytes.iter().all(|byte| is_line_end(*byte))
        {
            return;
        }
        self.head_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if !is_begun {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// How much of a head came that was not finished.
    pub(super) fn head_bytes(&self) -> u64 {
        self.head_bytes.load(Ordering::Relaxed)
    }

    /// A head is complete.
    pub(super) fn request(self: &Arc<Self>, has_body: bool) -> InProgress {
        self.had_body.store(has_body, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.served.store(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        self.head_bytes.store(0, Ordering::Relaxed);
        InProgress(Arc::clone(self))
    }

    /// The client does not take more for now.
    pub(super) fn blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Leaves a tunnel for whoever gets the socket out of hyper.
    pub(super) fn leave_tunnel(&self, tunnel: Box<Tunnel>) {
        *lock(&self.tunnel) = Some(tunnel);
    }

    /// The tunnel that was left, if one was.
    pub(super) fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        lock(&self.tunnel).take()
    }

    /// Whether something waits that the client does not take.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.load(Ordering::Relaxed) != 0
    }

    /// The client has taken enough, or everything.
    pub(super) fn unblocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) != 0 {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }

    /// Everything that was written is in the kernel's hands.
    pub(super) fn flushed(&self) {
        self.unblocked();
        if self.flush.wanted.load(Ordering::Relaxed) {
            self.flush.wanted.store(false, Ordering::Relaxed);
            if let Some(waker) = lock(&self.flush.waiting).take() {
                waker.wake();
            }
        }
    }

    /// An HTTP/1 response broke off: see [`Self::poll_flushed`].
    pub(super) fn want_flush(&self) {
        self.flush.wanted.store(true, Ordering::Relaxed);
    }

    /// Ready once everything was flushed that stood in hyper's buffer when [`Self::want_flush`] was
    /// called. hyper flushes whenever a body has nothing to give.
    pub(super) fn poll_flushed(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.flush.wanted.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *lock(&self.flush.waiting) = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A message was cut off whose end only the connection's end tells.
    pub(super) fn owe_reset(&self) {
        self.owes_reset.store(true, Ordering::Relaxed);
    }

    /// See [`Self::owe_reset`].
    pub(super) fn owes_reset(&self) -> bool {
        self.owes_reset.load(Ordering::Relaxed)
    }

    /// Watches an HTTP/2 response: its client can shut the stream's window while the socket stays
    /// free.
    pub(super) fn watch(&self) -> Arc<Handed> {
        let handed = Arc::new(Handed::default());
        let mut watched = lock(&self.handed);
        watched.retain(|known| known.strong_count() > 0);
        watched.push(Arc::downgrade(&handed));
        handed
    }

    /// Notes that a piece was handed over, or that more was asked for.
    pub(super) fn hand(&self, handed: &Handed, waiting: bool) {
        handed.since.store(if waiting { self.now() } else { 0 }, Ordering::Relaxed);
    }

    /// Since when the longest waiting piece has been waiting; 0 when none is.
    fn handed_since(&self) -> u64 {
        let watched = lock(&self.handed);
        let since =
            |known: &Weak<Handed>| known.upgrade().map(|it| it.since.load(Ordering::Relaxed));
        watched.iter().filter_map(since).filter(|since| *since != 0).min().unwrap_or(0)
    }

    /// Whether a head took too long, which the client is told before the socket closes.
    pub(super) fn owes_408(&self) -> bool {
        self.owes_408.load(Ordering::Relaxed)
    }

    /// The bytes that count as progress.
    pub(super) fn progress_bytes(&self) -> u64 {
        self.progress_bytes
    }

    /// Returns when a deadline has passed. HTTP/2 has no deadline of a head: its frames between
    /// requests are no heads.
    pub(super) async fn expired(&self, protocol: Protocol) -> Expired {
        loop {
            let (deadline, reason) = self.next_deadline(protocol);
            let now = Instant::now();
            if deadline <= now {
                return self.expire(reason);
            }
            tokio::time::sleep_until(deadline.min(now + self.shortest())).await;
        }
    }

    /// Returns when a deadline of an HTTP/1 connection has passed, or when it can be parked.
    ///
    /// While a request is in progress, nothing wakes it but the deadlines. It must be polled when a
    /// response has ended, which it is by the task that wrote that: then the time to park is due
    /// sooner than the timer. The timer is moved forward only then, and not again before it has
    /// fired, so requests that follow each other closely do not move it.
    pub(super) async fn alarm(&self) -> Alarm {
        let next = match self.look() {
            Ok(next) => next,
            Err(alarm) => return alarm,
        };
        let mut timer = pin!(tokio::time::sleep_until(next));
        std::future::poll_fn(|cx| {
            if let Some(idle_since) = self.idle_since()
                && idle_since + self.park_after < timer.deadline()
            {
                timer.as_mut().reset(idle_since + self.park_after);
            }
            loop {
                ready!(timer.as_mut().poll(cx));
                match self.look() {
                    Ok(next) => timer.as_mut().reset(next),
                    Err(alarm) => return Poll::Ready(alarm),
                }
            }
        })
        .await
    }

    /// What an HTTP/1 connection has come to, or when to look again.
    fn look(&self) -> Result<Instant, Alarm> {
        let (deadline, reason) = self.next_deadline(Protocol::Http1);
        let now = Instant::now();
        if deadline <= now {
            return Err(Alarm::Expired(self.expire(reason)));
        }
        let next = deadline.min(now + self.shortest());
        match self.idle_since().map(|since| since + self.park_after) {
            Some(park_at) if park_at <= now => Err(Alarm::Idle),
            Some(park_at) => Ok(next.min(park_at)),
            None => Ok(next),
        }
    }

    fn expire(&self, reason: Expired) -> Expired {
        self.owes_408.store(reason == Expired::SlowHead, Ordering::Relaxed);
        reason
    }

    /// The longest sleep: something with a shorter deadline than the next one may begin meanwhile.
    fn shortest(&self) -> Duration {
        self.header_timeout.min(self.progress_timeout)
    }

    fn next_deadline(&self, protocol: Protocol) -> (Instant, Expired) {
        let is_http1 = protocol == Protocol::Http1;
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked != 0 {
            return (self.at(blocked) + self.progress_timeout, Expired::SlowReader);
        }
        if self.open.load(Ordering::Relaxed) > 0 {
            let handed = if is_http1 { 0 } else { self.handed_since() };
            if handed != 0 {
                return (self.at(handed) + self.progress_timeout, Expired::SlowReader);
            }
            return (Instant::now() + self.idle_timeout, Expired::Silent);
        }
        let head = self.head_since.load(Ordering::Relaxed);
        let known_head = !self.had_body.load(Ordering::Relaxed);
        if head != 0 && is_http1 && known_head {
            return (self.at(head) + self.header_timeout, Expired::SlowHead);
        }
        let first = self.served.load(Ordering::Relaxed) == 0;
        let timeout = if first { self.header_timeout } else { self.idle_timeout };
        (self.at(self.idle_since.load(Ordering::Relaxed)) + timeout, Expired::Silent)
    }

    /// Since when an HTTP/1 connection is idle: it has served a request, everything was sent, and
    /// nothing of another one has come.
    fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.served.load(Ordering::Relaxed) != 0
            && self.open.load(Ordering::Relaxed) == 0
            && self.blocked_since.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0;
        is_idle.then(|| self.at(self.idle_since.load(Ordering::Relaxed)))
    }

    /// When a connection that is idle now ends.
    pub(super) fn idle_deadline(&self) -> Instant {
        self.at(self.idle_since.load(Ordering::Relaxed)) + self.idle_timeout
    }

    fn at(&self, stamp: u64) -> Instant {
        self.began + Duration::from_millis(stamp.saturating_sub(1))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}

/// Whether the byte is of an empty line. A server ignores such lines before a head (RFC 9112 §2.2).
pub(super) fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Arc<Clock> {
        let mut config = Server::default();
        config.limits.header_timeout = Duration::from_secs(10);
        config.limits.idle_timeout = Duration::from_secs(75);
        config.limits.progress_timeout = Duration::from_secs(30);
        Clock::start(&Server { park_after: Duration::from_secs(2), ..config })
    }

    async fn rings(clock: &Clock) -> (Alarm, u64) {
        let began = Instant::now();
        let alarm = clock.alarm().await;
        (alarm, began.elapsed().as_secs())
    }

    async fn expires(clock: &Clock) -> (Expired, u64) {
        match rings(clock).await {
            (Alarm::Expired(reason), after) => (reason, after),
            (Alarm::Idle, after) => panic!("parked after {after} s"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_has_the_header_timeout_at_first() {
        assert_eq!(expires(&clock()).await, (Expired::Silent, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_begun_head_is_due_from_its_first_byte() {
        let clock = clock();
        drop(clock.request(false));
        tokio::time::advance(Duration::from_secs(20)).await;
        clock.received(b"G");
        tokio::time::advance(Duration::from_secs(4)).await;
        clock.received(b"G");
        assert_eq!(expires(&clock).await, (Expired::SlowHead, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_line_behind_a_body_is_no_head() {
        let clock = clock();
        drop(clock.request(true));
        clock.received(b"\r");
        clock.received(b"\n\r\n");
        assert_eq!((clock.head_bytes(), rings(&clock).await), (0, (Alarm::Idle, 2)));
        clock.received(b"\r\nG");
        clock.received(b"\r\n");
        assert_eq!(clock.head_bytes(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_begun_while_waiting_is_due_in_time() {
        let clock = clock();
        drop(clock.request(false));
        let other = Arc::clone(&clock);
        let begin = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            other.received(b"G");
        });
        assert_eq!(expires(&clock).await, (Expired::SlowHead, 11));
        begin.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_a_client_may_idle() {
        let clock = clock();
        drop(clock.request(false));
        let began = Instant::now();
        for protocol in [Protocol::Http1, Protocol::Http2] {
            assert_eq!(clock.expired(protocol).await, Expired::Silent);
            assert_eq!(began.elapsed().as_secs(), 75);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_parked_and_keeps_its_deadline() {
        let clock = clock();
        let began = Instant::now();
        let request = clock.request(true);
        tokio::time::advance(Duration::from_secs(60)).await;
        drop(request);
        assert_eq!(rings(&clock).await, (Alarm::Idle, 2));
        assert_eq!(clock.idle_deadline(), began + Duration::from_secs(60 + 75));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_progress_wakes_nobody_to_park() {
        let clock = clock();
        let request = clock.request(false);
        let mut alarm = std::pin::pin!(clock.alarm());
        let mut polls = 0;
        let counted = std::future::poll_fn(|cx| {
            polls += 1;
            alarm.as_mut().poll(cx)
        });
        assert!(tokio::time::timeout(Duration::from_secs(3595), counted).await.is_err());
        assert!(polls <= 361, "woken {polls} times in an hour, for deadlines of 10 s and more");
        // Its end is seen by whoever looks then: the task that has written it.
        drop(request);
        let began = Instant::now();
        assert_eq!(alarm.await, Alarm::Idle);
        assert_eq!(began.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_follow_each_other_are_not_parked_between() {
        let clock = clock();
        let mut alarm = std::pin::pin!(clock.alarm());
        for _ in 0..1000 {
            drop(clock.request(false));
            tokio::time::advance(Duration::from_millis(10)).await;
            let look = std::future::poll_fn(|cx| Poll::Ready(alarm.as_mut().poll(cx)));
            assert!(look.await.is_pending());
        }
        let began = Instant::now();
        assert_eq!(alarm.await, Alarm::Idle);
        // 10 ms have passed since the last one.
        assert_eq!(began.elapsed(), Duration::from_millis(1990));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_goes_on_has_the_deadline_of_a_head() {
        let clock = Clock::resume(&Server::default());
        clock.received(b"G");
        assert_eq!(expires(&clock).await, (Expired::SlowHead, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_before_the_first_head_is_within_its_time() {
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(4)).await;
        let clock = Clock::since(began, &Server::default());
        assert_eq!(expires(&clock).await, (Expired::Silent, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_before_parking_comes_first() {
        let mut config = Server::default();
        config.limits.idle_timeout = config.park_after;
        let clock = Clock::start(&config);
        drop(clock.request(false));
        assert_eq!(expires(&clock).await, (Expired::Silent, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_progress_has_no_deadline_but_a_blocked_one_has() {
        let clock = clock();
        let request = clock.request(false);
        let long = Duration::from_secs(3600);
        assert!(tokio::time::timeout(long, clock.alarm()).await.is_err());
        clock.blocked();
        assert_eq!(expires(&clock).await, (Expired::SlowReader, 30));
        drop(request);
    }
}
