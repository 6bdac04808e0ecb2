//! The body of a response: the connection moves along with it, and is driven by whoever reads it.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::h1::Connection;

/// A response body and its connection.
#[derive(Debug)]
pub(in crate::upstream) struct Body {
    incoming: Incoming,
    /// None once the body has ended and somebody took it, or it has broken off.
    connection: Option<Box<Connection>>,
    /// Whether trailers that carry a gRPC status are passed on.
    trailers: bool,
    has_ended: bool,
    /// What was here along with the head.
    first: Option<First>,
}

/// A frame that came along with the head; small, because most responses have one and move.
#[derive(Debug)]
enum First {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

impl Body {
    /// A body of which nothing was read yet.
    pub(super) fn new(incoming: Incoming, connection: Box<Connection>, trailers: bool) -> Self {
        let has_ended = incoming.is_end_stream();
        Self { incoming, connection: Some(connection), trailers, has_ended, first: None }
    }

    /// No body: the connection has changed to another protocol, and no request follows on it.
    pub(super) fn switched(incoming: Incoming, connection: Box<Connection>) -> Self {
        let connection = Some(connection);
        Self { incoming, connection, trailers: false, has_ended: false, first: None }
    }

    /// The connection, whatever was read of the body.
    pub(in crate::upstream) fn into_connection(self) -> Option<Box<Connection>> {
        self.connection
    }

    /// Takes what is here of the body, and waits for nothing. A body that has broken off before its
    /// first byte is found out while the client can still be told.
    ///
    /// # Errors
    /// hyper's, when it has broken off.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>) -> Result<(), hyper::Error> {
        if !self.has_ended
            && let Poll::Ready(Some(first)) = self.poll_incoming(cx)
        {
            self.first = match first?.into_data() {
                Ok(data) => Some(First::Data(data)),
                Err(other) => {
                    other.into_trailers().ok().map(|fields| First::Trailers(Box::new(fields)))
                }
            };
        }
        Ok(())
    }

    /// Whether its last byte is here, or nothing more will come. Nobody may poll a body beyond its
    /// known length, so this is to be asked after each frame.
    pub(in crate::upstream) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The connection of a body that has ended, for the next request.
    pub(in crate::upstream) fn take_connection(&mut self) -> Option<Box<Connection>> {
        if self.has_ended { self.connection.take() } else { None }
    }

    /// The next frame.
    pub(in crate::upstream) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.first.take() {
            None => self.poll_incoming(cx),
            Some(First::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(First::Trailers(fields)) => Poll::Ready(Some(Ok(Frame::trailers(*fields)))),
        }
    }

    /// Whether every frame was read.
    pub(in crate::upstream) fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.incoming.is_end_stream()
    }

    /// What is left.
    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        let first = match &self.first {
            Some(First::Data(data)) => data.len() as u64,
            Some(First::Trailers(_)) | None => 0,
        };
        let rest = self.incoming.size_hint();
        rest.exact().map_or(rest, |rest| SizeHint::with_exact(rest.saturating_add(first)))
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            // Frames come out of `drive` and from nowhere else, so nobody needs to be woken for
            // them.
            let mut nobody = Context::from_waker(Waker::noop());
            let mut frame = Pin::new(&mut self.incoming).poll_frame(&mut nobody);
            if frame.is_pending()
                && let Some(connection) = &mut self.connection
            {
                // The body wants more: let the connection read, then look again.
                connection.drive(cx);
                frame = Pin::new(&mut self.incoming).poll_frame(&mut nobody);
            }
            match std::task::ready!(frame) {
                None => {
                    self.has_ended = true;
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    (self.has_ended, self.connection) = (true, None);
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => {
                    self.has_ended = self.incoming.is_end_stream();
                    match frame.into_data() {
                        Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        Err(frame) => {
                            let Ok(mut fields) = frame.into_trailers() else { continue };
                            crate::base::facts::keep_allowed_trailers(&mut fields);
                            if self.trailers && !fields.is_empty() {
                                return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                            }
                        }
                    }
                }
            }
        }
    }
}
