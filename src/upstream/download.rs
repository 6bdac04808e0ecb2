//! A response body on its way from the upstream: it holds the permit and the server until its end,
//! and its connection returns to the pool then.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::capacity::Permit;
use super::conn::{Body, Counted};
use super::connection_error::ConnectionError;
use super::failure::DownloadFault;
use super::visit::Visit;
use crate::base::socket::Socket;

/// A response body.
#[derive(Debug)]
pub struct Download {
    body: Body,
    /// Until the body has ended.
    held: Option<Held>,
    read_timeout: Duration,
    /// Whether it is a stream of events, which pauses as a rule.
    is_stream: bool,
    /// See [`Self::is_in_doubt`].
    is_in_doubt: bool,
    /// Runs while the upstream pauses.
    pause: Option<Pin<Box<Sleep>>>,
}

/// A connection that has changed to another protocol. It counts as one request in progress for as
/// long as this lives.
#[derive(Debug)]
pub struct Switched {
    /// The connection.
    pub socket: Socket,
    /// What was read from it behind the response's head.
    pub early: Bytes,
    /// What it keeps others from.
    pub held: Held,
}

/// What a body, or a connection, keeps others from.
#[derive(Debug)]
pub struct Held {
    visit: Visit,
    _permit: Permit,
    /// The connection, where nothing else counts it.
    _counted: Option<Counted>,
}

impl Download {
    /// A body that may pause for `read_timeout`. Boxed, because it moves along with its response.
    pub(super) fn new(
        body: Body,
        permit: Permit,
        mut visit: Visit,
        read_timeout: Duration,
    ) -> Box<Self> {
        if let Some(fields) = body.first_trailers() {
            visit.trailers(fields);
        }
        let held = Some(Held { visit, _permit: permit, _counted: None });
        let (is_stream, is_in_doubt, pause) = (false, false, None);
        let mut download =
            Box::new(Self { body, held, read_timeout, is_stream, is_in_doubt, pause });
        download.release_at_end();
        download
    }

    /// It is a stream of events: it may pause for so long.
    pub fn set_stream(&mut self, timeout: Duration) {
        (self.is_stream, self.read_timeout) = (true, timeout);
    }

    /// Whether it is a stream of events.
    pub fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// The request was sent more than once, and this answers only the last time.
    pub(super) fn set_in_doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// Whether a server may have acted on the request whose answer this is not: an answer that says
    /// that nothing was done is no proof then.
    pub fn is_in_doubt(&self) -> bool {
        self.is_in_doubt
    }

    /// The connection below a response that has changed its protocol.
    pub fn into_switched(self) -> Option<Switched> {
        let held = self.held?;
        let (socket, early, counted) = self.body.into_connection()?.into_socket();
        Some(Switched { socket, early, held: Held { _counted: Some(counted), ..held } })
    }

    /// Lets go of everything as soon as the last byte is here.
    fn release_at_end(&mut self) {
        if self.body.has_ended()
            && let Some(mut held) = self.held.take()
        {
            held.visit.ended();
            if let Some(connection) = self.body.take_connection() {
                held.visit.pool().put(connection);
            }
        }
    }

    /// What a frame says of the server.
    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, ConnectionError>>) {
        let Some(held) = self.held.as_mut() else { return };
        match frame {
            Some(Ok(frame)) => {
                if let Some(fields) = frame.trailers_ref() {
                    held.visit.trailers(fields);
                }
            }
            Some(Err(_)) => held.visit.broke(),
            None => {}
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
        if let Some(held) = self.held.as_mut().filter(|_| !self.is_stream) {
            held.visit.broke();
        }
        Poll::Ready(if self.is_stream { DownloadFault::Silent } else { DownloadFault::Stalled })
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
                self.note(frame.as_ref());
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
