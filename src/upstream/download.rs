//! A response body on its way from the upstream: it holds the permit and the server until its end,
//! and its connection returns to the pool then.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::capacity::Permit;
use super::conn::Body;
use super::endpoint::BusyGuard;
use super::failure::DownloadFault;

/// A response body.
#[derive(Debug)]
pub struct Download {
    body: Body,
    /// Until the body has ended.
    held: Option<Held>,
    read_timeout: Duration,
    /// Runs while the upstream pauses.
    pause: Option<Pin<Box<Sleep>>>,
}

/// What a body keeps others from.
#[derive(Debug)]
struct Held {
    endpoint: BusyGuard,
    _permit: Permit,
}

impl Download {
    /// A body that may pause for `read_timeout`. Boxed, because it moves along with its response.
    pub(super) fn new(
        body: Body,
        permit: Permit,
        endpoint: BusyGuard,
        read_timeout: Duration,
    ) -> Box<Self> {
        let held = Some(Held { endpoint, _permit: permit });
        let mut download = Box::new(Self { body, held, read_timeout, pause: None });
        download.release_at_end();
        download
    }

    /// Lets go of everything as soon as the last byte is here.
    fn release_at_end(&mut self) {
        if self.body.has_ended()
            && let Some(held) = self.held.take()
            && let Some(connection) = self.body.take_connection()
        {
            held.endpoint.pool().put(connection);
        }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<DownloadFault> {
        if self.held.is_none() {
            return Poll::Pending;
        }
        let timeout = self.read_timeout;
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        std::task::ready!(pause.as_mut().poll(cx));
        // Whoever reads on all the same, waits anew.
        self.pause = None;
        Poll::Ready(DownloadFault::Stalled)
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = DownloadFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadFault>>> {
        match self.body.poll_frame(cx) {
            Poll::Ready(frame) => {
                self.release_at_end();
                self.pause = None;
                Poll::Ready(frame.map(|frame| frame.map_err(DownloadFault::Broken)))
            }
            Poll::Pending => self.poll_pause(cx).map(|fault| Some(Err(fault))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
