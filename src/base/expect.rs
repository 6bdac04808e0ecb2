//! A body that its client holds back until it is asked for (`Expect: 100-continue`, RFC 9110
//! §10.1.1).
//!
//! hyper's server asks for it, with a 100 of its own, when the body is first polled. So the body is
//! not polled before the upstream has asked; an upstream that refuses at the head costs its client
//! no upload.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Sleep;

/// What the upstream's 100 opens.
#[derive(Debug, Default)]
pub struct Gate {
    is_open: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Gate {
    /// The upstream wants the body.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The wait of one body. Not without end: an upstream may not know `Expect`.
#[derive(Debug)]
pub(super) struct Wait {
    gate: Arc<Gate>,
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    /// A wait of at most `timeout`, from the first poll.
    pub(super) fn new(timeout: Duration) -> (Self, Arc<Gate>) {
        let gate = Arc::<Gate>::default();
        (Self { gate: Arc::clone(&gate), timeout, timer: None }, gate)
    }

    /// Ready when the body may be asked for.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.gate.poll_open(cx).is_ready() {
            return Poll::Ready(());
        }
        let timeout = self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_upstream_opens_it_or_the_time_is_up() {
        let (mut wait, gate) = Wait::new(Duration::from_secs(1));
        let began = Instant::now();
        tokio::join!(poll_fn(|cx| wait.poll(cx)), async { gate.open() });
        assert_eq!(began.elapsed(), Duration::ZERO);
        let (mut wait, _gate) = Wait::new(Duration::from_secs(1));
        poll_fn(|cx| wait.poll(cx)).await;
        assert!(began.elapsed() >= Duration::from_secs(1));
    }
}
