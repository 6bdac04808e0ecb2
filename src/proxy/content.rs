//! What a response consists of: where its bytes come from, and what becomes of them on their way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::events::Events;
use super::grpc::Call;
use super::tunnel::Opened;
use crate::caching::{self, BodyFault, CacheBody};
use crate::capture::{BodyReader, CutOff};
use crate::encode::{Coding, Encoding, Place};
use crate::tunnel::End;
use crate::upstream::{Download, DownloadFault};

/// What a response consists of, before its record is attached.
#[derive(Debug)]
pub(super) enum Content {
    /// Bytes at hand: a cached or a made response.
    Bytes(Bytes),
    /// Bytes as they come from the upstream.
    Download(Box<Download>),
    /// The answer to a gRPC call, which always ends with a status.
    Call(Box<Call>),
    /// The same, without an end of its own.
    Events(Box<Events>),
    /// A body of which a copy is kept, or that others read along.
    Shared(Box<BodyReader>),
    /// What the cache puts together.
    Parts(Box<caching::Parts>),
    /// One of the others, compressed.
    Encoded(Box<Encoded>),
    /// None: the connection has changed to WebSocket, and this is its upstream end.
    Switched(Box<Opened>),
}

/// Why a response body ended early. The client sees a cut-off message, never a clean end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The upstream's body did.
    #[error(transparent)]
    Download(#[from] DownloadFault),
    /// What the cache put together did.
    #[error(transparent)]
    Cached(#[from] BodyFault),
    /// A body that is captured, or that another request fetches, did.
    #[error(transparent)]
    Shared(#[from] CutOff),
    /// What compresses it did.
    #[error("the response could not be compressed: {0}")]
    Encoding(#[from] io::Error),
    /// A stream of events was ended by others.
    #[error("the stream of events was ended: {}", .0.word())]
    Ended(End),
}

impl From<CacheBody> for Content {
    fn from(body: CacheBody) -> Self {
        match body {
            CacheBody::Bytes(bytes) => Self::Bytes(bytes),
            CacheBody::Shared(reader) => Self::Shared(reader),
            CacheBody::Parts(parts) => Self::Parts(parts),
            CacheBody::Download(download) => Self::Download(download),
        }
    }
}

impl Content {
    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Download(download) => http_body::Body::is_end_stream(&**download),
            Self::Call(call) => call.is_over(),
            Self::Events(events) => events.is_end_stream(),
            Self::Shared(reader) => reader.is_over(),
            Self::Parts(parts) => parts.is_over(),
            Self::Encoded(encoded) => encoded.is_over(),
            Self::Switched(_) => true,
        }
    }

    /// Whether it is nothing but its bytes.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Bytes(_) | Self::Download(_) | Self::Shared(_) | Self::Parts(_))
    }

    /// The next frame of what is nothing but its bytes; of anything else, the end.
    pub(super) fn poll_plain(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        Poll::Ready(match self {
            Self::Bytes(bytes) if bytes.is_empty() => None,
            Self::Bytes(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Self::Download(download) => {
                let frame = ready!(Pin::new(&mut **download).poll_frame(cx));
                frame.map(|frame| frame.map_err(Fault::Download))
            }
            Self::Shared(reader) => {
                let next = ready!(reader.poll_next(cx));
                next.map(|next| next.map(Frame::data).map_err(Fault::Shared))
            }
            Self::Parts(parts) => {
                let next = ready!(parts.poll_next(cx));
                next.map(|next| next.map(Frame::data).map_err(Fault::Cached))
            }
            Self::Call(_) | Self::Events(_) | Self::Encoded(_) | Self::Switched(_) => None,
        })
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Download(download) => download.size_hint(),
            Self::Call(call) if call.is_over() => SizeHint::with_exact(0),
            Self::Encoded(encoded) if encoded.is_over() => SizeHint::with_exact(0),
            Self::Call(_) | Self::Encoded(_) => SizeHint::default(),
            Self::Events(events) => events.size_hint(),
            Self::Shared(reader) => {
                reader.left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Self::Parts(parts) => parts.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Switched(_) => SizeHint::with_exact(0),
        }
    }
}

/// A body that is compressed on its way.
#[derive(Debug)]
pub(super) struct Encoded {
    source: Content,
    encoding: Encoding,
    _place: Place,
}

impl Encoded {
    /// What of `source` is nothing but its bytes, in this coding.
    pub(super) fn new(source: Content, encoding: Encoding, place: Place) -> Self {
        Self { source, encoding, _place: place }
    }

    pub(super) fn coding(&self) -> Coding {
        self.encoding.coding()
    }

    pub(super) fn is_over(&self) -> bool {
        self.encoding.is_over()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Self { source, encoding, .. } = self;
        encoding.poll_frame(cx, |cx| source.poll_plain(cx))
    }

    /// See [`Encoding::take_counts`].
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        self.encoding.take_counts()
    }
}
