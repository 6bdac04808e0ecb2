//! How others end a tunnel: they leave the reason, and its task finds it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use super::end::End;

/// One tunnel, as far as others may touch it.
#[derive(Debug, Default)]
pub struct Control(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    end: Option<End>,
    /// Who runs the tunnel.
    waker: Option<Waker>,
}

impl Control {
    /// Asks for the end of the tunnel. The first reason counts.
    pub fn end(&self, end: End) {
        let mut asked = self.lock();
        asked.end.get_or_insert(end);
        if let Some(waker) = asked.waker.take() {
            waker.wake();
        }
    }

    /// The reason, if its end was asked for; `cx` is woken then.
    pub fn poll(&self, cx: &Context<'_>) -> Option<End> {
        let mut asked = self.lock();
        if asked.end.is_none() && !asked.waker.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
            asked.waker = Some(cx.waker().clone());
        }
        asked.end
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
