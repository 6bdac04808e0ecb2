//! The body of a response on its way to the client. It carries the record of its request, which is
//! closed when the last byte has left or when the client has gone.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::exchange::Exchange;
use crate::caching::{self, CacheBody};
use crate::upstream::{Download, DownloadFault};

/// What a response consists of, before its record is attached.
#[derive(Debug)]
pub(super) enum Content {
    /// Bytes at hand: a cached or a made response.
    Bytes(Bytes),
    /// Bytes as they come from the upstream.
    Download(Box<Download>),
    /// What the cache puts together.
    Parts(Box<caching::Parts>),
}

/// Why a response body ended early. The client sees a cut-off message, never a clean end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The upstream's body did.
    #[error(transparent)]
    Download(#[from] DownloadFault),
    /// What the cache put together did.
    #[error(transparent)]
    Cached(#[from] caching::BodyFault),
}

impl From<CacheBody> for Content {
    fn from(body: CacheBody) -> Self {
        match body {
            CacheBody::Bytes(bytes) => Self::Bytes(bytes),
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
            Self::Parts(parts) => parts.is_over(),
        }
    }
}

/// A response body.
#[derive(Debug)]
pub struct Body {
    content: Content,
    exchange: Box<Exchange>,
}

impl Body {
    pub(super) fn new(content: Content, exchange: Box<Exchange>) -> Self {
        Self { content, exchange }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        let frame = match &mut this.content {
            Content::Bytes(bytes) if bytes.is_empty() => None,
            Content::Bytes(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Content::Download(download) => {
                let frame = std::task::ready!(Pin::new(&mut **download).poll_frame(cx));
                frame.map(|frame| frame.map_err(Fault::Download))
            }
            Content::Parts(parts) => {
                let next = std::task::ready!(parts.poll_next(cx));
                next.map(|next| next.map(Frame::data).map_err(Fault::Cached))
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                this.exchange.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Some(Err(fault)) => this.exchange.cut_off(fault),
            None => {}
        }
        if frame.is_none() || this.is_end_stream() {
            this.exchange.complete();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Download(download) => download.size_hint(),
            Content::Parts(parts) => {
                parts.left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}

/// The answer to `OPTIONS *`: what the gateway itself can do (RFC 9110 §9.3.7).
pub(super) fn server_options() -> Response<Content> {
    let mut response = Response::new(Content::Bytes(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let allow = HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");
    response.headers_mut().insert(http::header::ALLOW, allow);
    response
}
