//! The body of a response on its way to the client. It carries the record of its request, which is
//! closed when the last byte has left or when the client has gone.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};

use super::grpc::{Call, Cut};
use super::rejection::Bound;
use super::transaction::Transaction;
use super::why::key_of;
use crate::base::grpc;
use crate::caching::{self, BodyFault, CacheBody};
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
    Cached(#[from] BodyFault),
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
            Self::Call(call) => call.is_over(),
            Self::Parts(parts) => parts.is_over(),
        }
    }
}

/// A response body.
#[derive(Debug)]
pub struct Body {
    content: Content,
    transaction: Box<Transaction>,
}

impl Body {
    /// Sends a response: from here on, its end is the end of the transaction.
    pub(super) fn attach(
        response: Response<Content>,
        mut transaction: Box<Transaction>,
    ) -> Response<Self> {
        transaction.record.note_status(response.status().as_u16());
        if transaction.received.is_grpc || matches!(response.body(), Content::Call(_)) {
            transaction.record.note_grpc_status(grpc::status(response.headers()));
        }
        // Nobody asks for the body of a response that has none.
        if response.body().is_end_stream() {
            transaction.record.note_complete();
        }
        response.map(|content| Self { content, transaction })
    }

    fn note_cut_off(&mut self, fault: &Fault) {
        let Transaction { received, resolved, record, .. } = &mut *self.transaction;
        let (reason, key) = match fault {
            Fault::Download(DownloadFault::Broken(_)) => ("upstream_cut_off", None),
            Fault::Download(DownloadFault::Stalled) => ("upstream_stalled", Some("read_timeout")),
            Fault::Cached(BodyFault::Shared) => ("shared_cut_off", None),
            Fault::Cached(BodyFault::Lost) => ("cache_chunk_lost", None),
        };
        let upstream = resolved.upstream_name(received.plan());
        let bound = key.map(|key| format!("upstreams.{upstream}.{key}"));
        record.note_cut_off(reason, fault.to_string(), bound);
    }
}

/// Tells the record why a gRPC call was cut short.
fn note_cut(transaction: &mut Transaction, cut: &Cut) {
    let Transaction { received, resolved, record, .. } = transaction;
    let plan = received.plan();
    let (reason, error, bound) = match cut {
        Cut::Rejected(rejection) => {
            let bound = rejection.bound().map(|bound| key_of(bound, plan, resolved));
            (rejection.code(), rejection.to_string(), bound)
        }
        Cut::Broken(fault) => ("upstream_cut_off", fault.to_string(), None),
        Cut::Stalled(fault) => {
            let bound = key_of(Bound::Route("grpc.idle_timeout"), plan, resolved);
            ("upstream_stalled", fault.to_string(), Some(bound))
        }
    };
    record.note_cut_off(reason, error, bound.map(Cow::into_owned));
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
            Content::Call(call) => {
                let frame = std::task::ready!(call.poll_frame(cx));
                if let Some(cut) = call.take_cut() {
                    note_cut(&mut this.transaction, &cut);
                }
                this.transaction.record.note_grpc_status(call.ended());
                frame.map(Ok)
            }
            Content::Parts(parts) => {
                let next = std::task::ready!(parts.poll_next(cx));
                next.map(|next| next.map(Frame::data).map_err(Fault::Cached))
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.transaction.record.note_bytes(bytes);
                if let Some(trailers) = frame.trailers_ref() {
                    this.transaction.record.note_grpc_status(grpc::status(trailers));
                }
            }
            Some(Err(fault)) => this.note_cut_off(fault),
            None => {}
        }
        if frame.is_none() || this.is_end_stream() {
            this.transaction.record.note_complete();
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
            Content::Call(call) if call.is_over() => SizeHint::with_exact(0),
            Content::Call(_) => SizeHint::default(),
            Content::Parts(parts) => {
                parts.left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}
