//! A request's body on its way into an HTTP/2 stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;

use crate::base::body::Upload;
use crate::base::copied::BoundedCopy;

/// How much is asked to be let go at a time, in bytes.
const RESERVED_BYTES: usize = 64 << 10;
/// Longest body that is kept until it is answered, in bytes, for a server that turns it away.
const KEPT_BYTES: usize = 64 << 10;

/// How the sending of a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// All of it is sent, or the server wants no more of it, and its answer says why.
    Over,
    /// The client's body ended early.
    Withdrawn,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pump {
    stream: SendStream<Bytes>,
    upload: Upload,
    /// Read, and not yet let go.
    waiting: Bytes,
    /// What was read of it, for reading it again.
    kept: BoundedCopy,
}

impl Pump {
    /// A body of which nothing was sent yet.
    pub(super) fn new(stream: SendStream<Bytes>, upload: Upload) -> Self {
        Self { stream, upload, waiting: Bytes::new(), kept: BoundedCopy::new(KEPT_BYTES) }
    }

    /// Sends what it can.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pumped> {
        loop {
            if !self.waiting.is_empty() {
                let Some(room) = ready!(self.poll_room(cx)) else {
                    return Poll::Ready(Pumped::Over);
                };
                let data = self.waiting.split_to(room.min(self.waiting.len()));
                if self.stream.send_data(data, false).is_err() {
                    return Poll::Ready(Pumped::Over);
                }
                continue;
            }
            match ready!(Pin::new(&mut self.upload).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.kept.add(&data);
                        self.waiting = data;
                    }
                }
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Pumped::Withdrawn);
                }
                None => {
                    // Fails only where the server wants no more.
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Pumped::Over);
                }
            }
        }
    }

    /// How many bytes may be sent now; none where no more will be taken.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        self.stream.reserve_capacity(self.waiting.len().min(RESERVED_BYTES));
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                return Poll::Ready(Some(room));
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
    }

    /// Ends the stream in the middle of the body, without an error.
    pub(super) fn stop(mut self) {
        self.stream.send_reset(Reason::NO_ERROR);
    }

    /// Nobody will want the body again.
    pub(super) fn forget(&mut self) {
        self.kept.forget();
    }

    /// The body as it was before anything was sent, where all of it is still here.
    pub(super) fn take_back(mut self) -> Option<Upload> {
        self.upload.put_back(self.kept.take()?);
        Some(self.upload)
    }
}
