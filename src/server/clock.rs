//! The deadlines of one connection. hyper has no clock before the first byte, for a body or for a
//! slow reader; this one has, at the price of a few atomic stores per request and a timer that
//! sleeps as long as it can.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::ClientLimits;

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
}

impl Clock {
    pub(super) fn start(limits: &ClientLimits) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            progress_timeout: limits.progress_timeout,
            progress_bytes: limits.progress_bytes,
            open: AtomicU32::new(0),
            served: AtomicU32::new(0),
            owes_408: AtomicBool::new(false),
            owes_reset: AtomicBool::new(false),
            had_body: AtomicBool::new(false),
            flush: Flush::default(),
            handed: Mutex::default(),
            head_since: AtomicU64::new(0),
            head_bytes: AtomicU64::new(0),
            idle_since: AtomicU64::new(1),
            blocked_since: AtomicU64::new(0),
        })
    }

    /// Bytes arrived. Between requests they begin a head.
    pub(super) fn received(&self, bytes: usize) {
        if self.open.load(Ordering::Relaxed) > 0 {
            return;
        }
        self.head_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.head_since.load(Ordering::Relaxed) == 0 {
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

    /// Returns when a deadline has passed. `head_deadline` is off for HTTP/2, whose frames between
    /// requests are no heads.
    pub(super) async fn expired(&self, head_deadline: bool) -> Expired {
        loop {
            let (deadline, reason) = self.next_deadline(head_deadline);
            let now = Instant::now();
            if deadline <= now {
                self.owes_408.store(reason == Expired::SlowHead, Ordering::Relaxed);
                return reason;
            }
            // Something with a shorter deadline may begin at any time, so the sleep is no longer
            // than that deadline.
            let step = now + self.header_timeout.min(self.progress_timeout);
            tokio::time::sleep_until(deadline.min(step)).await;
        }
    }

    fn next_deadline(&self, head_deadline: bool) -> (Instant, Expired) {
        let at =
            |stamp: u64, timeout: Duration| self.began + Duration::from_millis(stamp - 1) + timeout;
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked != 0 {
            return (at(blocked, self.progress_timeout), Expired::SlowReader);
        }
        if self.open.load(Ordering::Relaxed) > 0 {
            let handed = if head_deadline { 0 } else { self.handed_since() };
            if handed != 0 {
                return (at(handed, self.progress_timeout), Expired::SlowReader);
            }
            return (Instant::now() + self.idle_timeout, Expired::Silent);
        }
        let head = self.head_since.load(Ordering::Relaxed);
        let known_head = !self.had_body.load(Ordering::Relaxed);
        if head != 0 && head_deadline && known_head {
            return (at(head, self.header_timeout), Expired::SlowHead);
        }
        let first = self.served.load(Ordering::Relaxed) == 0;
        let timeout = if first { self.header_timeout } else { self.idle_timeout };
        (at(self.idle_since.load(Ordering::Relaxed).max(1), timeout), Expired::Silent)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
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
        Clock::start(&ClientLimits {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            progress_timeout: Duration::from_secs(30),
            ..crate::config::Server::default().limits
        })
    }

    async fn expires(clock: &Clock) -> (Expired, u64) {
        let began = Instant::now();
        let reason = clock.expired(true).await;
        (reason, began.elapsed().as_secs())
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
        clock.received(1);
        tokio::time::advance(Duration::from_secs(4)).await;
        clock.received(1);
        assert_eq!(expires(&clock).await, (Expired::SlowHead, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_begun_while_waiting_is_due_in_time() {
        let clock = clock();
        drop(clock.request(false));
        let other = Arc::clone(&clock);
        let begin = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(7)).await;
            other.received(1);
        });
        assert_eq!(expires(&clock).await, (Expired::SlowHead, 17));
        begin.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_a_client_may_idle() {
        let clock = clock();
        drop(clock.request(false));
        assert_eq!(expires(&clock).await, (Expired::Silent, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_progress_has_no_deadline_but_a_blocked_one_has() {
        let clock = clock();
        let request = clock.request(false);
        let long = Duration::from_secs(3600);
        assert!(tokio::time::timeout(long, clock.expired(true)).await.is_err());
        clock.blocked();
        assert_eq!(expires(&clock).await, (Expired::SlowReader, 30));
        drop(request);
    }
}
