//! A response that is kept while it passes: read once from the upstream, at the pace of the
//! upstream, for everybody who wants it.
//!
//! What reads it is a task of its own, so a slow client holds up nobody, and a client that leaves
//! does not waste what is nearly here. A body that outgrows what the route keeps is passed on at
//! its client's pace instead, and kept nowhere.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;

use super::keep::Keeper;
use crate::cache::{CutOff, Lead, Stored, StoredBody, Writer};
use crate::upstream::Download;

/// One response on its way.
pub(super) struct Filling {
    /// Those who wait for the response, until it is decided. The first to be dropped: nobody joins
    /// what was cut off.
    pub(super) lead: Option<Lead>,
    pub(super) download: Download,
    pub(super) writer: Writer,
    /// The length that the response announced, in bytes.
    pub(super) announced: Option<u64>,
    /// What is kept, without its body.
    pub(super) head: Stored,
    /// The fields of the request.
    pub(super) fields: HeaderMap,
    pub(super) keeper: Keeper,
}

impl Filling {
    /// Reads to the end and keeps the response; what was kept.
    async fn run(mut self) -> Option<Arc<Stored>> {
        let bytes_max = self.keeper.policy.max_bytes as u64;
        let mut arrived = 0u64;
        loop {
            match self.next().await {
                Next::Piece(piece) => {
                    arrived = arrived.saturating_add(piece.len() as u64);
                    if arrived > bytes_max {
                        self.pass_on(piece).await;
                        return None;
                    }
                    if self.announced == Some(arrived) {
                        return Some(self.complete(Some(piece)).await);
                    }
                    self.writer.push(piece);
                    if self.announced.is_none() && self.writer.readers() == 0 {
                        // Nobody reads it, and nobody knows when it would end.
                        return None;
                    }
                }
                Next::End if self.announced.is_none_or(|length| length == arrived) => {
                    return Some(self.complete(None).await);
                }
                // Shorter than announced, or broken off: dropping the writer says so.
                Next::End | Next::Broken => {
                    self.keeper.site.origin.not_kept("cut_off");
                    return None;
                }
            }
        }
    }

    /// Keeps the whole body, then lets its readers have the last piece: what they have seen whole,
    /// the next request finds.
    async fn complete(self, last: Option<Bytes>) -> Arc<Stored> {
        let Self { writer, mut head, fields, keeper, lead, .. } = self;
        head.body = StoredBody::Inline(writer.collect(last.as_deref().unwrap_or_default()));
        let stored = keeper.keep(head, &fields).await;
        if let Some(lead) = lead {
            lead.stored(Arc::clone(&stored));
        }
        if let Some(last) = last {
            writer.push(last);
        }
        writer.complete();
        stored
    }

    /// The rest of a body that is too long to be kept, at the pace of its one reader.
    async fn pass_on(mut self, piece: Bytes) {
        self.keeper.site.origin.not_kept("too_long");
        if let Some(lead) = self.lead.take() {
            lead.alone();
        }
        // Others may fetch what is not kept here.
        drop(self.keeper.lease.take());
        self.writer.let_go();
        self.writer.push(piece);
        loop {
            if std::future::poll_fn(|cx| self.writer.poll_room(cx)).await == Err(CutOff) {
                return;
            }
            match self.next().await {
                Next::Piece(piece) => self.writer.push(piece),
                Next::End => return self.writer.complete(),
                Next::Broken => return,
            }
        }
    }

    async fn next(&mut self) -> Next {
        let mut download = pin!(&mut self.download);
        match std::future::poll_fn(|cx| download.as_mut().poll_frame(cx)).await {
            None => Next::End,
            // Trailers cannot be kept, and what they say may change what the body means.
            Some(Ok(frame)) => frame.into_data().map_or(Next::Broken, Next::Piece),
            Some(Err(error)) => {
                tracing::debug!(%error, "a response that was to be kept broke off");
                Next::Broken
            }
        }
    }
}

enum Next {
    Piece(Bytes),
    End,
    Broken,
}

/// What waits for the rest of a response.
type Rest = Pin<Box<dyn Future<Output = Option<Arc<Stored>>> + Send>>;

/// Reads what is here already: a small body has mostly come along with its head, and then nothing
/// is left to wait for.
pub(super) async fn begin(filling: Filling) -> Result<Option<Arc<Stored>>, Rest> {
    let mut filling: Rest = Box::pin(filling.run());
    match std::future::poll_fn(|cx| Poll::Ready(filling.as_mut().poll(cx))).await {
        Poll::Ready(stored) => Ok(stored),
        Poll::Pending => Err(filling),
    }
}
