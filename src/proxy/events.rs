//! A stream of events (`text/event-stream`) on its way to the client. It has no end of its own, so
//! others end it: cleanly where its client is to come again (the drain, a route that is gone), or
//! by cutting it off where its client may not (its token).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::standing::Standing;
use super::transaction::Transaction;
use crate::runtime::{Grant, Kind, Terms};
use crate::tunnel::End;
use crate::upstream::{Download, DownloadFault};

/// Why a stream of events ended.
#[derive(Debug)]
pub(super) enum Next {
    /// The upstream has ended it, or it goes on.
    Frame(Option<Result<Frame<Bytes>, DownloadFault>>),
    /// Somebody else has; its client may come again.
    Over(End),
    /// Somebody else has, and its client is to see that.
    CutOff(End),
}

/// A stream of events.
#[derive(Debug)]
pub(super) struct Events {
    download: Box<Download>,
    standing: Standing,
    is_over: bool,
}

impl Events {
    /// The stream that `download` is. Nothing where its request has no route.
    pub(super) fn open(
        download: Box<Download>,
        transaction: &Transaction,
    ) -> Result<Self, Box<Download>> {
        let Transaction { received, resolved, grant, .. } = transaction;
        let Some(route) = resolved.route(received.plan()) else { return Err(download) };
        let terms = Terms {
            kind: Kind::Events,
            route: Arc::clone(route),
            client: resolved.client.address,
            // The end of its session ends no stream of events.
            grant: Grant { session: None, ..grant.clone() },
        };
        let standing = Standing::new(received, terms);
        Ok(Self { download, standing, is_over: false })
    }

    /// What comes next.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Poll::Ready(end) = self.standing.poll(cx) {
            let may_come_again = matches!(end, End::Drain | End::RouteGone);
            // A length that was announced has no other end.
            self.is_over = may_come_again && self.download.size_hint().exact().is_none();
            return Poll::Ready(if self.is_over { Next::Over(end) } else { Next::CutOff(end) });
        }
        Pin::new(&mut *self.download).poll_frame(cx).map(Next::Frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.is_over || self.download.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.download.size_hint()
    }
}

/// The reason for the log.
pub(super) fn reason(end: End) -> &'static str {
    match end {
        End::Expired => "stream_expired",
        End::Revoked => "stream_revoked",
        End::Drain => "stream_drained",
        End::RouteGone => "stream_route_gone",
        End::Operator => "closed_by_operator",
        // None of these ends a stream of events: its session is not asked, and the others are ends
        // of tunnels.
        End::Session
        | End::Client
        | End::Upstream
        | End::Idle
        | End::Age
        | End::Limit
        | End::Cut => "closed_by_operator",
    }
}
