//! A body that several readers share while it arrives.
//!
//! One writer, any number of readers, each at its own pace: a slow one holds nobody up, because the
//! whole body is kept until its last reader is done. That is bounded by what the route stores. A
//! body that outgrows the bound is no longer shared: it has one reader then, who sets the pace, and
//! what that one has read is let go.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

/// Bytes that may wait for the one reader of a body that is not kept.
const WINDOW_BYTES: u64 = 256 * 1024;

/// The body ended before its end: an upstream that broke off, a writer that was dropped. A reader
/// must never take it for complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response was cut off while it was read for several")]
pub struct CutOff;

/// The body, as writer and readers see it.
#[derive(Debug, Default)]
pub struct SharedBody {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    /// Pieces that were let go, and the offset at which the first of the kept ones begins.
    gone: usize,
    start: u64,
    /// Bytes that have arrived.
    end: u64,
    ending: Option<Result<(), CutOff>>,
    /// Whether the body is kept whole.
    kept: bool,
    readers: usize,
    waiting: Vec<Waker>,
    writer: Option<Waker>,
    /// Room that the body takes among all that are being read.
    room: Option<OwnedSemaphorePermit>,
}

impl State {
    fn wake_readers(&mut self) {
        for waker in self.waiting.drain(..) {
            waker.wake();
        }
    }

    /// Of a body that is not kept.
    fn give_room_back(&mut self) {
        if self.end - self.start <= WINDOW_BYTES {
            self.room = None;
        }
    }
}

impl SharedBody {
    /// An empty body and its one writer.
    pub fn begin() -> (Arc<Self>, BodyWriter) {
        let body = Arc::new(Self::default());
        body.lock().kept = true;
        (Arc::clone(&body), BodyWriter(body))
    }

    /// A reader of the bytes in `range`, from the beginning of the body; to its end where the range
    /// is [`ALL`](BodyReader::ALL).
    pub fn read(self: &Arc<Self>, range: Range<u64>) -> BodyReader {
        self.lock().readers += 1;
        BodyReader { body: Arc::clone(self), next: 0, at: 0, range, is_done: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the body there. Dropping it without [`BodyWriter::complete`] cuts the body off.
#[derive(Debug)]
pub struct BodyWriter(Arc<SharedBody>);

impl BodyWriter {
    /// Adds a piece.
    pub fn push(&self, piece: Bytes) {
        // It would be kept, and no bound counts it.
        if piece.is_empty() {
            return;
        }
        let mut state = self.0.lock();
        state.end += piece.len() as u64;
        state.pieces.push_back(piece);
        state.wake_readers();
    }

    /// Holds on to room for the body until its last reader is done.
    pub fn keep_room(&self, room: Option<OwnedSemaphorePermit>) {
        let mut state = self.0.lock();
        match (&mut state.room, room) {
            (Some(held), Some(more)) => held.merge(more),
            (held @ None, room) => *held = room,
            (Some(_), None) => {}
        }
    }

    /// Gives up keeping the body whole. What is read from now on is let go, and the room with it as
    /// soon as no more waits than any body's reader may leave waiting.
    pub fn let_go(&self) {
        let mut state = self.0.lock();
        state.kept = false;
        state.give_room_back();
    }

    /// Ready once there is room for more: at once, unless the body is not kept and its reader lags.
    ///
    /// # Errors
    /// Nobody reads any more what is not kept.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), CutOff>> {
        let mut state = self.0.lock();
        if state.kept {
            return Poll::Ready(Ok(()));
        }
        if state.readers == 0 {
            return Poll::Ready(Err(CutOff));
        }
        if state.end - state.start < WINDOW_BYTES {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready once nobody reads the body.
    pub fn poll_deserted(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.readers == 0 {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The body so far and what is still held back, in one piece. Only meaningful while the body is
    /// kept.
    pub fn collect(&self, held_back: &[u8]) -> Bytes {
        // Copied outside the lock: the readers go on meanwhile.
        let (pieces, end) = {
            let state = self.0.lock();
            (state.pieces.clone(), state.end)
        };
        // A copy even of one piece: that may be a view into a larger network buffer.
        let length = usize::try_from(end).unwrap_or(0).saturating_add(held_back.len());
        let mut whole = BytesMut::with_capacity(length);
        for piece in &pieces {
            whole.extend_from_slice(piece);
        }
        whole.extend_from_slice(held_back);
        whole.freeze()
    }

    /// The body is complete.
    pub fn complete(self) {
        self.end(Ok(()));
    }

    fn end(&self, ending: Result<(), CutOff>) {
        let mut state = self.0.lock();
        state.ending.get_or_insert(ending);
        state.wake_readers();
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        self.end(Err(CutOff));
    }
}

/// Reads the body, or a part of it, at its own pace.
#[derive(Debug)]
pub struct BodyReader {
    body: Arc<SharedBody>,
    /// Number of the next piece, counted from the first that ever arrived, and its offset.
    next: usize,
    at: u64,
    range: Range<u64>,
    is_done: bool,
}

impl BodyReader {
    /// The whole body, however long it will be.
    pub const ALL: Range<u64> = 0..u64::MAX;

    /// Bytes that are still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        let from = self.at.max(self.range.start);
        (self.range.end != Self::ALL.end).then(|| self.range.end.saturating_sub(from))
    }

    /// Whether nothing is to come.
    pub fn is_over(&self) -> bool {
        self.is_done || self.at >= self.range.end
    }

    /// The next bytes; none at the end of the range or of the body.
    ///
    /// # Errors
    /// [`CutOff`] when the body ended before its end.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        loop {
            if self.is_over() {
                self.is_done = true;
                return Poll::Ready(None);
            }
            let mut state = self.body.lock();
            let index = self.next.checked_sub(state.gone);
            // What was let go is gone for whoever came too late.
            let Some(index) = index else {
                self.is_done = true;
                return Poll::Ready(Some(Err(CutOff)));
            };
            let Some(piece) = state.pieces.get(index).cloned() else {
                let Some(ending) = state.ending else {
                    if !state.waiting.iter().any(|known| known.will_wake(cx.waker())) {
                        state.waiting.push(cx.waker().clone());
                    }
                    return Poll::Pending;
                };
                self.is_done = true;
                return Poll::Ready(ending.err().map(Err));
            };
            self.next += 1;
            let begin = self.at;
            self.at += piece.len() as u64;
            if !state.kept {
                while state.gone < self.next
                    && let Some(read) = state.pieces.pop_front()
                {
                    state.gone += 1;
                    state.start += read.len() as u64;
                }
                state.give_room_back();
                if let Some(writer) = state.writer.take() {
                    writer.wake();
                }
            }
            drop(state);
            let from = self.range.start.saturating_sub(begin).min(piece.len() as u64);
            let to = self.range.end.saturating_sub(begin).min(piece.len() as u64);
            if from < to {
                return Poll::Ready(Some(Ok(piece.slice(from as usize..to as usize))));
            }
        }
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let mut state = self.body.lock();
        state.readers -= 1;
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests;
