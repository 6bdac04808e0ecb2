//! The body of a response on its way to the client. It carries the record of its request, which is
//! closed when the last byte has left or when the client has gone.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};

use super::events::{self, Events, Next};
use super::grpc::{Call, Cut};
use super::rejection::Bound;
use super::transaction::Transaction;
use super::tunnel::{Opened, Tunnel};
use super::why::key_of;
use crate::base::grpc;
use crate::caching::{self, BodyFault, CacheBody};
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
    /// What the cache puts together.
    Parts(Box<caching::Parts>),
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
    /// A stream of events was ended by others.
    #[error("the stream of events was ended: {}", .0.word())]
    Ended(End),
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
            Self::Events(events) => events.is_end_stream(),
            Self::Parts(parts) => parts.is_over(),
            Self::Switched(_) => true,
        }
    }
}

/// A response body.
#[derive(Debug)]
pub struct Body {
    content: Content,
    /// None where a tunnel has it.
    transaction: Option<Box<Transaction>>,
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
        response.map(|content| {
            let content = match content {
                Content::Download(download) if download.is_stream() => {
                    let events = Events::open(download, &transaction);
                    events.map_or_else(Content::Download, |it| Content::Events(Box::new(it)))
                }
                other => other,
            };
            Self { content, transaction: Some(transaction) }
        })
    }

    /// The tunnel that the connection is from here on, where that is the response.
    pub fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        if !matches!(self.content, Content::Switched(_)) {
            return None;
        }
        let content = std::mem::replace(&mut self.content, Content::Bytes(Bytes::new()));
        let (Content::Switched(opened), Some(transaction)) = (content, self.transaction.take())
        else {
            return None;
        };
        Some(Box::new(Tunnel::new(opened, transaction)))
    }

    fn note_cut_off(&mut self, fault: &Fault) {
        let Some(transaction) = &mut self.transaction else { return };
        let Transaction { received, resolved, record, .. } = &mut **transaction;
        let (reason, bound) = match fault {
            Fault::Download(DownloadFault::Broken(_)) => ("upstream_cut_off", None),
            Fault::Download(DownloadFault::Stalled) => {
                let upstream = resolved.upstream_name(received.plan());
                ("upstream_stalled", Some(format!("upstreams.{upstream}.read_timeout")))
            }
            Fault::Download(DownloadFault::Silent) => {
                let route = resolved.route_name(received.plan());
                ("upstream_stalled", Some(format!("routes.{route}.stream_timeout")))
            }
            Fault::Cached(BodyFault::Shared) => ("shared_cut_off", None),
            Fault::Cached(BodyFault::Lost) => ("cache_chunk_lost", None),
            Fault::Ended(end) => (events::reason(*end), None),
        };
        record.note_cut_off(reason, fault.to_string(), bound);
    }
}

/// Tells the record how a gRPC call goes.
fn note_call(transaction: &mut Transaction, call: &mut Call) {
    if let Some(cut) = call.take_cut() {
        note_cut(transaction, &cut);
    }
    transaction.record.note_grpc_status(call.ended());
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
                if let Some(transaction) = &mut this.transaction {
                    note_call(transaction, call);
                }
                frame.map(Ok)
            }
            Content::Events(events) => match std::task::ready!(events.poll_next(cx)) {
                Next::Frame(frame) => frame.map(|frame| frame.map_err(Fault::Download)),
                Next::CutOff(end) => Some(Err(Fault::Ended(end))),
                Next::Over(end) => {
                    if let Some(transaction) = &mut this.transaction {
                        transaction.record.note_ended(events::reason(end));
                    }
                    None
                }
            },
            Content::Parts(parts) => {
                let next = std::task::ready!(parts.poll_next(cx));
                next.map(|next| next.map(Frame::data).map_err(Fault::Cached))
            }
            Content::Switched(_) => None,
        };
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                if let Some(transaction) = &mut this.transaction {
                    transaction.record.note_bytes(bytes);
                    if let Some(trailers) = frame.trailers_ref() {
                        transaction.record.note_grpc_status(grpc::status(trailers));
                    }
                }
            }
            Some(Err(fault)) => this.note_cut_off(fault),
            None => {}
        }
        if (frame.is_none() || this.is_end_stream())
            && let Some(transaction) = &mut this.transaction
        {
            transaction.record.note_complete();
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
            Content::Events(events) => events.size_hint(),
            Content::Parts(parts) => {
                parts.left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Content::Switched(_) => SizeHint::with_exact(0),
        }
    }
}
