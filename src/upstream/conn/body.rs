//! The body of a response: what carries it moves along, and is driven by whoever reads.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::h1::Connection;
use super::received::Received;
use crate::upstream::connection_error::ConnectionError;

/// A response body and what carries it.
#[derive(Debug)]
pub(in crate::upstream) struct Body {
    source: Source,
    /// Whether trailers are passed on: those of gRPC alone, as others could be taken for headers
    /// (RFC 9110 §6.5.1).
    trailers: bool,
    has_ended: bool,
    /// What was here along with the head.
    first: Option<First>,
}

/// Where a body comes from.
#[derive(Debug)]
enum Source {
    Link(Link),
    /// None once it has ended: the stream is another exchange's then.
    Branch(Option<Box<Received>>),
    /// All of it is here.
    Whole(Bytes),
}

/// An HTTP/1.1 connection, which is driven by whoever reads.
#[derive(Debug)]
struct Link {
    incoming: Incoming,
    /// None once the body has ended and somebody took it, or it has broken off.
    connection: Option<Box<Connection>>,
}

/// A frame that came along with the head; small, because most responses have one and move.
#[derive(Debug)]
enum First {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

impl Link {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { incoming, connection } = self;
        // Frames come out of `drive` and from nowhere else, so nobody needs to be woken for them.
        let mut nobody = Context::from_waker(Waker::noop());
        let mut look = || Pin::new(&mut *incoming).poll_frame(&mut nobody);
        let frame = look();
        match connection {
            // The body wants more: let the connection read, then look again.
            Some(connection) if frame.is_pending() => connection.drive_until(cx, look),
            _ => frame,
        }
    }
}

impl Source {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
        match self {
            Self::Link(link) => {
                link.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Branch(Some(received)) => received.poll_frame(cx),
            Self::Branch(None) => Poll::Ready(None),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Link(link) => link.incoming.is_end_stream(),
            Self::Branch(received) => received.as_ref().is_none_or(|it| it.is_end_stream()),
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    /// Nothing more will come of it.
    fn ended(&mut self) {
        if let Self::Branch(received) = self
            && let Some(received) = received.take()
        {
            received.finish();
        }
    }

    /// It is of no use any more.
    fn broke(&mut self) {
        match self {
            Self::Link(link) => link.connection = None,
            Self::Branch(received) => *received = None,
            Self::Whole(bytes) => bytes.clear(),
        }
    }
}

impl Body {
    /// A body of an HTTP/1.1 connection, of which nothing was read yet.
    pub(super) fn link(incoming: Incoming, connection: Box<Connection>, trailers: bool) -> Self {
        let link = Link { incoming, connection: Some(connection) };
        Self::new(Source::Link(link), trailers)
    }

    /// A body of an HTTP/2 stream, of which nothing was read yet.
    pub(super) fn branch(received: Box<Received>, trailers: bool) -> Self {
        Self::new(Source::Branch(Some(received)), trailers)
    }

    /// A body that came as a whole, on no connection of its own.
    pub(in crate::upstream) fn whole(bytes: Bytes) -> Self {
        Self::new(Source::Whole(bytes), false)
    }

    fn new(mut source: Source, trailers: bool) -> Self {
        let has_ended = source.is_end_stream();
        if has_ended {
            source.ended();
        }
        Self { source, trailers, has_ended, first: None }
    }

    /// No body: the connection has changed to another protocol, and no request follows on it.
    pub(super) fn switched(incoming: Incoming, connection: Box<Connection>) -> Self {
        let source = Source::Link(Link { incoming, connection: Some(connection) });
        Self { source, trailers: false, has_ended: false, first: None }
    }

    /// The HTTP/1.1 connection, whatever was read of the body.
    pub(in crate::upstream) fn into_connection(self) -> Option<Box<Connection>> {
        match self.source {
            Source::Link(link) => link.connection,
            Source::Branch(_) | Source::Whole(_) => None,
        }
    }

    /// Takes what is here of the body, and waits for nothing. A body that has broken off before its
    /// first byte is found out while the client can still be told.
    ///
    /// # Errors
    /// The connection's, when it has broken off.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionError> {
        if !self.has_ended
            && let Poll::Ready(Some(first)) = self.poll_source(cx)
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

    /// The trailers, where they were here along with the head.
    pub(in crate::upstream) fn first_trailers(&self) -> Option<&HeaderMap> {
        match &self.first {
            Some(First::Trailers(fields)) => Some(fields),
            Some(First::Data(_)) | None => None,
        }
    }

    /// Whether its last byte is here, or nothing more will come. Nobody may poll a body beyond its
    /// known length, so this is to be asked after each frame.
    pub(in crate::upstream) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The HTTP/1.1 connection of a body that has ended, for the next request.
    pub(in crate::upstream) fn take_connection(&mut self) -> Option<Box<Connection>> {
        match &mut self.source {
            Source::Link(link) if self.has_ended => link.connection.take(),
            _ => None,
        }
    }

    /// The next frame.
    pub(in crate::upstream) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
        match self.first.take() {
            None => self.poll_source(cx),
            Some(First::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(First::Trailers(fields)) => Poll::Ready(Some(Ok(Frame::trailers(*fields)))),
        }
    }

    /// Whether every frame was read.
    pub(in crate::upstream) fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.source.is_end_stream()
    }

    /// What is left.
    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        let first = match &self.first {
            Some(First::Data(data)) => data.len() as u64,
            Some(First::Trailers(_)) | None => 0,
        };
        let rest = match &self.source {
            Source::Link(link) => link.incoming.size_hint(),
            Source::Branch(Some(received)) => received.size_hint(),
            Source::Branch(None) => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        };
        rest.exact().map_or(rest, |rest| SizeHint::with_exact(rest.saturating_add(first)))
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
        loop {
            match std::task::ready!(self.source.poll_frame(cx)) {
                None => {
                    self.has_ended = true;
                    self.source.ended();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.has_ended = true;
                    self.source.broke();
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => {
                    self.has_ended = self.source.is_end_stream();
                    if self.has_ended {
                        self.source.ended();
                    }
                    match frame.into_data() {
                        Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        Err(frame) => {
                            let Ok(mut fields) = frame.into_trailers() else { continue };
                            crate::base::grpc::keep_metadata(&mut fields);
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
