//! A response body on its way to the client, as hyper takes it: it keeps its connection's clock
//! informed, and is cut off only when everything before that is on its way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{Response, Version};
use http_body::{Body, Frame, SizeHint};

use super::clock::{Clock, Handed, InProgress};
use crate::proxy;

/// Bytes, and who wants to know when hyper has let go of them.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    handed: Option<Arc<Handed>>,
}

impl Piece {
    /// A piece; without `handed` nobody wants to know.
    pub(super) fn new(bytes: Bytes, handed: Option<Arc<Handed>>) -> Self {
        if let Some(handed) = &handed {
            handed.hold();
        }
        Self { bytes, handed }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(handed) = &self.handed {
            handed.let_go();
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

/// What the clock must know of a response while it is sent.
pub(super) enum Watch {
    /// Nothing beyond the socket: a cut-off message is told by its framing.
    Socket,
    /// An HTTP/1.0 client takes the connection's end for the message's.
    EndTellsAll(Arc<Clock>),
    /// An HTTP/2 client may take nothing while the socket is free.
    Window(Arc<Clock>, Option<Arc<Handed>>),
}

impl Watch {
    pub(super) fn of(clock: &Arc<Clock>, version: Version) -> Self {
        match version {
            Version::HTTP_10 => Self::EndTellsAll(Arc::clone(clock)),
            Version::HTTP_2 => Self::Window(Arc::clone(clock), None),
            _ => Self::Socket,
        }
    }

    /// A message whose length is announced needs no other end to be seen cut off.
    fn narrowed(self, has_length: bool) -> Self {
        match self {
            Self::EndTellsAll(_) if has_length => Self::Socket,
            other => other,
        }
    }

    /// More is asked for.
    fn asked(&self) {
        if let Self::Window(clock, Some(handed)) = self {
            clock.hand(handed, false);
        }
    }

    /// A piece was handed over, and it was not the last.
    fn handed(&mut self) {
        if let Self::Window(clock, handed) = self {
            let handed = handed.get_or_insert_with(|| clock.watch());
            clock.hand(handed, true);
        }
    }

    /// The message was cut off. Pending while what came before is not on its way to the client yet:
    /// hyper throws away what it holds when it is told of a fault.
    fn cut_off(&self, clock: &Clock, cx: &Context<'_>) -> Poll<()> {
        match self {
            Self::Socket => clock.poll_flushed(cx),
            Self::EndTellsAll(clock) => {
                let flushed = clock.poll_flushed(cx);
                if flushed.is_ready() {
                    clock.owe_reset();
                }
                flushed
            }
            Self::Window(_, None) => Poll::Ready(()),
            Self::Window(clock, Some(handed)) => {
                clock.hand(handed, true);
                handed.poll_taken(cx)
            }
        }
    }

    /// What tells when hyper has let go of a piece.
    fn ticket(&self) -> Option<Arc<Handed>> {
        match self {
            Self::Window(_, Some(handed)) => Some(Arc::clone(handed)),
            Self::Socket | Self::EndTellsAll(_) | Self::Window(_, None) => None,
        }
    }
}

/// A response body that keeps its connection's clock informed while it lives.
pub(super) struct Tracked {
    body: proxy::Body,
    watch: Watch,
    /// Why the body broke off, until everything before that is on its way to the client.
    fault: Option<proxy::BodyFault>,
    in_progress: InProgress,
}

impl Tracked {
    /// `response` as hyper sends it. `in_progress` lasts as long as its body.
    pub(super) fn of(
        response: Response<proxy::Body>,
        watch: Watch,
        in_progress: InProgress,
    ) -> Response<Self> {
        let watch = watch.narrowed(response.body().size_hint().exact().is_some());
        response.map(|body| Self { body, watch, fault: None, in_progress })
    }
}

impl Body for Tracked {
    type Data = Piece;
    type Error = proxy::BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Self::Error>>> {
        let this = &mut *self;
        if this.fault.is_none() {
            this.watch.asked();
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if !this.body.is_end_stream() {
                        this.watch.handed();
                    }
                    let watch = &this.watch;
                    let frame = frame.map_data(|bytes| Piece::new(bytes, watch.ticket()));
                    return Poll::Ready(Some(Ok(frame)));
                }
                None => return Poll::Ready(None),
                Some(Err(fault)) => {
                    this.in_progress.clock().want_flush();
                    this.fault = Some(fault);
                }
            }
        }
        ready!(this.watch.cut_off(this.in_progress.clock(), cx));
        Poll::Ready(this.fault.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
