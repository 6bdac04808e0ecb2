//! Interim responses (1xx, RFC 9110 §15.2) on their way from an upstream to one HTTP/1.1 client.
//!
//! hyper's server cannot send them, so they go beside it: whoever reads them from the upstream
//! leaves them here, and the socket under hyper writes them when hyper has nothing of an earlier
//! response left to write. The final response waits until the socket has taken them, so nothing of
//! it can come first. All of this happens within the one task of the client's connection; the lock
//! is never waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

/// Most bytes of interim heads that wait for the socket. A head that does not fit is dropped: what
/// an interim response says is never needed, and a client that does not read must not fill memory.
pub const WAITING_BYTES_MAX: usize = 16 * 1024;

/// The interim responses of the request that a connection is serving.
#[derive(Debug, Default)]
pub struct Interim {
    /// Whether `Waiting::heads` has any, for a look without the lock at each flush.
    due: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// How many more the current request may have.
    left: usize,
    /// Whole heads.
    heads: BytesMut,
    /// Who waits for the socket to take them.
    final_response: Option<Waker>,
}

impl Interim {
    /// Opens the way for at most `most` interim responses to the request that is now forwarded.
    pub fn open(&self, most: usize) {
        self.waiting().left = most;
    }

    /// Whether another one may be offered: making its head would be in vain otherwise.
    pub fn is_open(&self) -> bool {
        self.waiting().left > 0
    }

    /// Adds a whole head; or drops it when there were enough, when it does not fit, or when the
    /// final response has begun.
    pub fn offer(&self, head: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.left == 0 || waiting.heads.len() + head.len() > WAITING_BYTES_MAX {
            return;
        }
        waiting.left -= 1;
        waiting.heads.extend_from_slice(head);
        self.due.store(true, Ordering::Relaxed);
    }

    /// The heads that wait, if any: the caller writes them whole and before anything else.
    pub fn take(&self) -> Option<Bytes> {
        if !self.due.load(Ordering::Relaxed) {
            return None;
        }
        let mut waiting = self.waiting();
        self.due.store(false, Ordering::Relaxed);
        if let Some(waker) = waiting.final_response.take() {
            waker.wake();
        }
        Some(std::mem::take(&mut waiting.heads).freeze())
    }

    /// Waits until everything was taken, and closes the way: the final response may begin.
    pub async fn close(&self) {
        std::future::poll_fn(|cx| self.poll_close(cx)).await;
    }

    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting();
        waiting.left = 0;
        if waiting.heads.is_empty() {
            return Poll::Ready(());
        }
        waiting.final_response = Some(cx.waker().clone());
        Poll::Pending
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closes(interim: &Interim) -> bool {
        interim.poll_close(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn nothing_passes_before_the_way_is_open_or_after_it_is_closed() {
        let interim = Interim::default();
        interim.offer(b"early");
        assert_eq!(interim.take(), None);
        interim.open(2);
        interim.offer(b"one");
        assert!(!closes(&interim), "the final response would overtake what waits");
        interim.offer(b"late");
        assert_eq!(interim.take().as_deref(), Some(&b"one"[..]));
        assert!(closes(&interim) && !interim.is_open());
        interim.offer(b"later still");
        assert_eq!(interim.take(), None);
    }

    #[test]
    fn there_are_no_more_than_allowed() {
        let interim = Interim::default();
        interim.open(2);
        for head in ["a", "b", "c"] {
            interim.offer(head.as_bytes());
        }
        assert_eq!(interim.take().as_deref(), Some(&b"ab"[..]));
        interim.offer(b"d");
        assert_eq!(interim.take(), None);
        interim.open(1);
        interim.offer(b"of the next request");
        assert_eq!(interim.take().as_deref(), Some(&b"of the next request"[..]));
    }

    #[test]
    fn a_client_that_does_not_read_fills_no_memory() {
        let interim = Interim::default();
        interim.open(usize::MAX);
        let head = [b'x'; 1000];
        for _ in 0..1000 {
            interim.offer(&head);
        }
        let waiting = interim.take().unwrap();
        assert_eq!(waiting.len(), WAITING_BYTES_MAX / head.len() * head.len());
    }

    #[tokio::test]
    async fn whoever_takes_wakes_the_final_response() {
        let interim = std::sync::Arc::new(Interim::default());
        interim.open(1);
        interim.offer(b"one");
        let socket = std::sync::Arc::clone(&interim);
        let ((), taken) = tokio::join!(interim.close(), async move { socket.take() });
        assert_eq!(taken.as_deref(), Some(&b"one"[..]));
    }
}
