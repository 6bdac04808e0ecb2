//! The body of a response on its way to the client. It carries the record of its request, which is
//! closed when the last byte has left or when the client has gone.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};

use super::content::{Content, Fault};
use super::events::{self, Events, Next};
use super::grpc::{Call, Cut};
use super::rejection::Bound;
use super::transaction::Transaction;
use super::tunnel::Tunnel;
use super::why::key_of;
use crate::base::grpc;
use crate::caching::BodyFault;
use crate::upstream::DownloadFault;

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
        if let (Content::Encoded(encoded), Some(edged)) =
            (response.body(), &mut transaction.resolved.edged)
        {
            edged.coding = Some(encoded.coding());
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
            if matches!(content, Content::Events(_) | Content::Call(_)) {
                transaction.record.note_stream();
            }
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
            Fault::Shared(_) | Fault::Cached(BodyFault::Shared(_)) => ("shared_cut_off", None),
            Fault::Cached(BodyFault::Lost) => ("cache_chunk_lost", None),
            Fault::Encoding(_) => ("compression_failed", None),
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
            Content::Call(call) => {
                let frame = ready!(call.poll_frame(cx));
                if let Some(transaction) = &mut this.transaction {
                    note_call(transaction, call);
                }
                frame.map(Ok)
            }
            Content::Events(events) => match ready!(events.poll_next(cx)) {
                Next::Frame(frame) => frame.map(|frame| frame.map_err(Fault::Download)),
                Next::CutOff(end) => Some(Err(Fault::Ended(end))),
                Next::Over(end) => {
                    if let Some(transaction) = &mut this.transaction {
                        transaction.record.note_ended(events::reason(end));
                    }
                    None
                }
            },
            Content::Encoded(encoded) => {
                let frame = encoded.poll_frame(cx);
                if let Some(transaction) = &mut this.transaction {
                    let metrics = &transaction.received.connection.gateway.observer.metrics;
                    metrics.compressed(encoded.coding().name(), encoded.take_counts());
                }
                ready!(frame)
            }
            plain => ready!(plain.poll_plain(cx)),
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
        self.content.size_hint()
    }
}
