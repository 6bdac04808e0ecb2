//! A response body of an HTTP/2 stream, with what is still to be sent on the stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};

use super::pump::Pump;
use super::trunk::Seat;
use crate::upstream::connection_error::ConnectionError;

/// See the module. Dropping it before the end cancels the stream.
#[derive(Debug)]
pub(super) struct Received {
    stream: RecvStream,
    /// The request's body, where some of it is left.
    pump: Option<Pump>,
    seat: Seat,
    /// Bytes that were handed over, and for which the server has no new room yet.
    taken: usize,
    /// What is left of a body whose length is known.
    left: Option<u64>,
    is_at_trailers: bool,
}

impl Received {
    /// A body of which nothing was read yet, and its length where that is known.
    pub(super) fn new(
        stream: RecvStream,
        pump: Option<Pump>,
        seat: Seat,
        length: Option<u64>,
    ) -> Self {
        Self { stream, pump, seat, taken: 0, left: length, is_at_trailers: false }
    }

    /// The next frame. Whoever asks has taken the one before.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
        if let Some(pump) = &mut self.pump
            && pump.poll(cx).is_ready()
        {
            self.pump = None;
        }
        if self.taken > 0 {
            // Fails only where the stream has ended.
            let _ = self.stream.flow_control().release_capacity(self.taken);
            self.taken = 0;
        }
        while !self.is_at_trailers {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.taken = data.len();
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.broken(error)))),
                None => self.is_at_trailers = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(fields) => fields.map(|fields| Ok(Frame::trailers(fields))),
            Err(error) => Some(Err(self.broken(error))),
        })
    }

    /// The response has ended. What is left of the request is not wanted, and nothing is wrong
    /// with that (RFC 9113 §8.1).
    pub(super) fn finish(self) {
        if let Some(pump) = self.pump {
            pump.stop();
        }
    }

    /// Whether every frame was read.
    pub(super) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// What is left.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn broken(&self, error: h2::Error) -> ConnectionError {
        self.seat.note(&error);
        if self.seat.was_silent() { ConnectionError::PingLost } else { error.into() }
    }
}
