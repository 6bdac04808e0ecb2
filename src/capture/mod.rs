//! A body that streams to its client while a copy of it is kept: read once from its source, at the
//! pace of the source, for everybody who wants it.
//!
//! What reads it is a task of its own, so a slow client holds up nobody, and a client that leaves
//! does not end it. A body that outgrows what may be kept is passed on at its client's pace
//! instead, and kept nowhere. What becomes of the copy is the affair of whoever wants it
//! ([`Keep`]): this room knows no cache.

mod shared_body;

use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::base::boxed;

pub use self::shared_body::{BodyReader, BodyWriter, CutOff, SharedBody};

/// How long a body is still read when nobody wants it any more: what is nearly here is kept.
const DESERTED_MAX: Duration = Duration::from_secs(30);

/// What wants a copy of a body.
pub trait Keep: Send + 'static {
    /// What became of the copy.
    type Kept: Send + 'static;

    /// Room for so many bytes more of a body that did not announce its length; none if there is
    /// none.
    fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit>;

    /// Whether somebody waits for the copy, or still may, beside the readers of the body.
    fn is_awaited(&self) -> bool;

    /// Takes the whole body. Its last piece waits for this: what its readers have seen whole is
    /// kept.
    fn complete(self, body: Bytes) -> impl Future<Output = Self::Kept> + Send;

    /// There will be no copy.
    fn is_not_kept(&mut self, why: NotKept);
}

/// Why no copy of a body is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotKept {
    /// It is longer than what may be kept; it is passed on all the same.
    TooLong,
    /// There is no room for more; it is passed on all the same.
    NoRoom,
    /// It ended before its end.
    CutOff,
    /// Nobody wanted it for too long.
    Deserted,
}

impl NotKept {
    /// Its name in metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::NoRoom => "room",
            Self::CutOff => "cut_off",
            Self::Deserted => "deserted",
        }
    }

    /// Whether the rest of the body is still passed on.
    pub fn is_passed_on(self) -> bool {
        matches!(self, Self::TooLong | Self::NoRoom)
    }
}

/// One body on its way.
#[derive(Debug)]
pub struct Capture<B, K> {
    /// The first to be dropped: nobody comes to wait for what was cut off.
    pub keeper: K,
    /// Where the body comes from.
    pub source: B,
    /// Where it goes.
    pub writer: BodyWriter,
    /// The length that it announced, in bytes: for so much there is room.
    pub announced: Option<u64>,
    /// Longest body that is kept, in bytes.
    pub bytes_max: u64,
}

/// How far a body has come.
pub enum Captured<T> {
    /// It is complete.
    Complete(T),
    /// It is not kept, and not complete: it broke off, or has become too long.
    Discarded,
    /// The rest is still to come. Whoever gets this keeps it running.
    Pending(Rest<T>),
}

/// What waits for the rest of a body.
pub type Rest<T> = Pin<Box<dyn Future<Output = Option<T>> + Send>>;

enum Next {
    Piece(Bytes),
    End,
    Broken,
    /// Nobody wanted it for too long.
    Late,
}

impl<B, K> Capture<B, K>
where
    B: Body<Data = Bytes, Error: Display> + Unpin + Send + 'static,
    K: Keep,
{
    /// Reads what is here already: a small body has mostly come along with its head, and then
    /// nothing is left to wait for, or only [`Keep::complete`]. The last byte waits for that, too,
    /// and the head need not promise what does not come.
    pub async fn begin(self) -> Captured<K::Kept> {
        let is_whole = Arc::new(AtomicBool::new(false));
        let mut rest: Rest<K::Kept> = boxed::pin(|| self.run(Arc::clone(&is_whole)));
        let ended = match std::future::poll_fn(|cx| Poll::Ready(rest.as_mut().poll(cx))).await {
            Poll::Ready(ended) => ended,
            // A client that leaves now does not end it.
            Poll::Pending if is_whole.load(Ordering::Acquire) => {
                tokio::spawn(rest).await.unwrap_or_default()
            }
            Poll::Pending => return Captured::Pending(rest),
        };
        ended.map_or(Captured::Discarded, Captured::Complete)
    }

    /// Reads to the end; none where the body did not come to its end, or is not to be kept.
    /// `is_whole` is set once all of it is here.
    async fn run(mut self, is_whole: Arc<AtomicBool>) -> Option<K::Kept> {
        let mut arrived = 0u64;
        let mut deserted = None;
        loop {
            match self.next_while_wanted(&mut deserted).await {
                Next::Piece(piece) => {
                    arrived = arrived.saturating_add(piece.len() as u64);
                    if arrived > self.bytes_max {
                        self.pass_on(piece, NotKept::TooLong).await;
                        return None;
                    }
                    if self.announced.is_none() && !self.take_room(piece.len() as u64) {
                        self.pass_on(piece, NotKept::NoRoom).await;
                        return None;
                    }
                    if self.announced == Some(arrived) {
                        is_whole.store(true, Ordering::Release);
                        return Some(self.complete(Some(piece)).await);
                    }
                    self.writer.push(piece);
                }
                Next::End if self.announced.is_none_or(|length| length == arrived) => {
                    is_whole.store(true, Ordering::Release);
                    return Some(self.complete(None).await);
                }
                // Shorter than announced, or broken off: dropping the writer says so.
                Next::End | Next::Broken => {
                    self.keeper.is_not_kept(NotKept::CutOff);
                    return None;
                }
                Next::Late => {
                    self.keeper.is_not_kept(NotKept::Deserted);
                    return None;
                }
            }
        }
    }

    /// What comes next, unless nobody has wanted the body for too long by then. Whether its readers
    /// have left is noticed while it waits, however quiet the source is.
    async fn next_while_wanted(&mut self, deserted: &mut Option<Instant>) -> Next {
        let mut look: Option<Pin<Box<Sleep>>> = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(next) = self.poll_next(cx) {
                return Poll::Ready(next);
            }
            loop {
                if self.writer.poll_deserted(cx).is_pending() {
                    (*deserted, look) = (None, None);
                    return Poll::Pending;
                }
                let now = Instant::now();
                let since = match self.keeper.is_awaited() {
                    // That ends untold: it is looked for again.
                    true => now,
                    false => *deserted.get_or_insert(now),
                };
                let end = since + DESERTED_MAX;
                if now >= end {
                    return Poll::Ready(Next::Late);
                }
                let look = look.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
                ready!(look.as_mut().poll(cx));
                look.as_mut().reset(end);
            }
        })
        .await
    }

    /// Room for more bytes, until the last reader of the body is done.
    fn take_room(&self, bytes: u64) -> bool {
        let room = self.keeper.room(bytes);
        let is_there = room.is_some();
        self.writer.keep_room(room);
        is_there
    }

    /// Hands over the whole body, then lets its readers have the last piece.
    async fn complete(self, last: Option<Bytes>) -> K::Kept {
        let Self { keeper, writer, .. } = self;
        let body = writer.collect(last.as_deref().unwrap_or_default());
        let kept = keeper.complete(body).await;
        if let Some(last) = last {
            writer.push(last);
        }
        writer.complete();
        kept
    }

    /// The rest of a body that cannot be kept, at the pace of its one reader.
    async fn pass_on(mut self, piece: Bytes, why: NotKept) {
        self.keeper.is_not_kept(why);
        self.writer.let_go();
        self.writer.push(piece);
        loop {
            if std::future::poll_fn(|cx| self.writer.poll_room(cx)).await == Err(CutOff) {
                return;
            }
            match self.next().await {
                Next::Piece(piece) => self.writer.push(piece),
                Next::End => return self.writer.complete(),
                Next::Broken | Next::Late => return,
            }
        }
    }

    async fn next(&mut self) -> Next {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        Poll::Ready(match ready!(Pin::new(&mut self.source).poll_frame(cx)) {
            None => Next::End,
            // Trailers cannot be kept, and what they say may change what the body means.
            Some(Ok(frame)) => frame.into_data().map_or(Next::Broken, Next::Piece),
            Some(Err(error)) => {
                tracing::debug!(%error, "a response that was to be kept broke off");
                Next::Broken
            }
        })
    }
}

#[cfg(test)]
mod tests;
