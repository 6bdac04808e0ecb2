//! A response that is stored while it arrives: read once from the upstream, at the pace of the
//! upstream, for everybody who wants it.
//!
//! What reads it is a task of its own, so a slow client holds up nobody, and a client that leaves
//! does not waste what is nearly here. A body that outgrows what the route stores is passed on at
//! its client's pace instead, and stored nowhere.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use tokio::time::Instant;

use super::admission::{Admission, Admitted};
use super::coalesce::Leader;
use super::shared_body::{BodyWriter, CutOff};
use crate::cache::{Stored, StoredBody};
use crate::upstream::Download;

/// How long a response is still read when nobody wants it any more: what is nearly here is stored.
const DESERTED_MAX: Duration = Duration::from_secs(30);

/// One response on its way.
pub(super) struct Filling {
    /// Those who wait for the response, until it is decided. The first to be dropped: nobody joins
    /// what was cut off.
    pub(super) leader: Option<Leader>,
    pub(super) download: Box<Download>,
    pub(super) writer: BodyWriter,
    /// The length that the response announced, in bytes.
    pub(super) announced: Option<u64>,
    /// What is stored, without its body.
    pub(super) entry: Arc<Stored>,
    /// The fields of the request.
    pub(super) fields: Arc<HeaderMap>,
    pub(super) admission: Admission,
    /// Set once the whole body is here.
    pub(super) is_whole: Arc<AtomicBool>,
}

/// How far a response has come.
pub(super) enum Filled {
    /// It is complete.
    Complete(Admitted),
    /// It is not stored, and not complete: it broke off, or has become too long.
    Discarded,
    /// The rest is still to come. Whoever gets this keeps it running.
    Pending(Rest),
}

/// What waits for the rest of a response.
pub(super) type Rest = Pin<Box<dyn Future<Output = Option<Admitted>> + Send>>;

enum Next {
    Piece(Bytes),
    End,
    Broken,
    /// Nobody wanted it for too long.
    Late,
}

/// Reads what is here already: a small body has mostly come along with its head, and then nothing
/// is left to wait for, or only what the store says of its tags. The last byte waits for that, too,
/// and the head need not promise what does not come.
pub(super) async fn begin(filling: Filling) -> Filled {
    let is_whole = Arc::clone(&filling.is_whole);
    let mut filling: Rest = Box::pin(filling.run());
    let ended = match std::future::poll_fn(|cx| Poll::Ready(filling.as_mut().poll(cx))).await {
        Poll::Ready(ended) => ended,
        // A client that leaves now does not end it.
        Poll::Pending if is_whole.load(Ordering::Acquire) => {
            tokio::spawn(filling).await.unwrap_or_default()
        }
        Poll::Pending => return Filled::Pending(filling),
    };
    ended.map_or(Filled::Discarded, Filled::Complete)
}

impl Filling {
    /// Reads to the end and stores the response; none where it did not come to its end, or is not
    /// to be stored.
    async fn run(mut self) -> Option<Admitted> {
        let bytes_max = self.admission.key.origin.route.policy.max_bytes;
        let mut arrived = 0u64;
        let mut deserted = None;
        loop {
            let next = match self.grace(&mut deserted) {
                None => self.next().await,
                Some(end) => tokio::time::timeout_at(end, self.next()).await.unwrap_or(Next::Late),
            };
            match next {
                Next::Piece(piece) => {
                    arrived = arrived.saturating_add(piece.len() as u64);
                    if arrived > bytes_max {
                        self.pass_on(piece, "too_long").await;
                        return None;
                    }
                    if self.announced.is_none() && !self.take_room(piece.len() as u64) {
                        self.pass_on(piece, "room").await;
                        return None;
                    }
                    if self.announced == Some(arrived) {
                        return Some(self.complete(Some(piece)).await);
                    }
                    self.writer.push(piece);
                }
                Next::End if self.announced.is_none_or(|length| length == arrived) => {
                    return Some(self.complete(None).await);
                }
                // Shorter than announced, or broken off: dropping the writer says so.
                Next::End | Next::Broken => {
                    self.admission.key.origin.not_stored("cut_off");
                    return None;
                }
                Next::Late => {
                    self.admission.key.origin.not_stored("deserted");
                    return None;
                }
            }
        }
    }

    /// Until when to go on if nobody wants the response any more.
    fn grace(&self, deserted: &mut Option<Instant>) -> Option<Instant> {
        if self.writer.readers() > 0 || self.leader.as_ref().is_some_and(Leader::is_awaited) {
            *deserted = None;
            return None;
        }
        Some(*deserted.get_or_insert_with(|| Instant::now() + DESERTED_MAX))
    }

    /// Room for more bytes of a body among all that are being read, until its last reader is done.
    fn take_room(&self, bytes: u64) -> bool {
        let room = self.admission.cache.fill_room(bytes);
        let is_there = room.is_some();
        self.writer.keep_room(room);
        is_there
    }

    /// Stores the whole body, then lets its readers have the last piece: what they have seen whole,
    /// the next request finds.
    async fn complete(self, last: Option<Bytes>) -> Admitted {
        let Self { writer, mut entry, fields, admission, leader, is_whole, .. } = self;
        is_whole.store(true, Ordering::Release);
        let body = writer.collect(last.as_deref().unwrap_or_default());
        Arc::make_mut(&mut entry).body = StoredBody::Inline(body);
        let admitted = admission.admit(entry, &fields).await;
        if let Some(leader) = leader {
            if admitted.is_stored {
                leader.succeeded();
            }
            leader.done(Arc::clone(&admitted.response));
        }
        if let Some(last) = last {
            writer.push(last);
        }
        writer.complete();
        admitted
    }

    /// The rest of a body that is too long to be stored, at the pace of its one reader.
    async fn pass_on(mut self, piece: Bytes, why: &'static str) {
        self.admission.key.origin.not_stored(why);
        if let Some(leader) = self.leader.take() {
            leader.hit_for_pass();
        }
        // Others may fetch what is not stored here.
        drop(self.admission.lease.take());
        self.writer.let_go();
        self.writer.push(piece);
        loop {
            if std::future::poll_fn(|cx| self.writer.poll_room(cx)).await == Err(CutOff) {
                return;
            }
            match self.next().await {
                Next::Piece(piece) => self.writer.push(piece),
                Next::End => return self.writer.complete(),
                Next::Broken | Next::Late => return,
            }
        }
    }

    async fn next(&mut self) -> Next {
        let mut download = pin!(&mut self.download);
        match std::future::poll_fn(|cx| download.as_mut().poll_frame(cx)).await {
            None => Next::End,
            // Trailers cannot be stored, and what they say may change what the body means.
            Some(Ok(frame)) => frame.into_data().map_or(Next::Broken, Next::Piece),
            Some(Err(error)) => {
                tracing::debug!(%error, "a response that was to be stored broke off");
                Next::Broken
            }
        }
    }
}
