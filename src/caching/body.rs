//! The body of a response that the cache answers with: bytes at hand, a body that still arrives,
//! pieces that lie in the store, or the upstream's own.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::http_cache::HttpCache;
use crate::cache::{self, Chunked, Stored, StoredBody};
use crate::capture::{BodyReader, CutOff};
use crate::store::budget;
use crate::store::keys::Keys;
use crate::upstream::Download;

/// What a response of the cache consists of.
#[derive(Debug)]
pub enum CacheBody {
    /// Bytes at hand.
    Bytes(Bytes),
    /// A body that still arrives.
    Shared(Box<BodyReader>),
    /// What is put together of several sources.
    Parts(Box<Parts>),
    /// Bytes as they come from the upstream: a response that is this client's alone.
    Download(Box<Download>),
}

/// Why a body that the cache puts together ended early. The client must see a cut-off message,
/// never a clean end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// The body that was shared with another request was cut off.
    #[error(transparent)]
    Shared(#[from] CutOff),
    /// A part of a stored body is gone.
    #[error("a part of the stored response is gone from the store")]
    Lost,
}

/// Whether the body of a stored response is where it should be.
pub(super) async fn is_there(cache: &Arc<HttpCache>, stored: &Stored) -> bool {
    match &stored.body {
        StoredBody::Inline(_) => true,
        StoredBody::Chunked(body) => {
            let range = StoredRange::open(cache, &stored.key, *body, 0..body.len);
            Box::pin(range).await.is_some()
        }
    }
}

/// The same for whoever only looks, and changes nothing: no piece is read, dropped or counted as
/// lost. Nothing where the store does not say.
pub(super) async fn seems_there(cache: &Arc<HttpCache>, stored: &Stored) -> Option<bool> {
    let StoredBody::Chunked(body) = stored.body else { return Some(true) };
    let source = Source { cache: Arc::clone(cache), entry: stored.key.clone(), body };
    let keys = source.keys(&(0..body.len));
    cache.store.has_chunks(&keys).await.ok()
}

/// The parts of a body, in order.
#[derive(Debug, Default)]
pub struct Parts {
    parts: VecDeque<Part>,
    /// Bytes to come; unknown for a body whose end nobody has announced.
    left: Option<u64>,
}

#[derive(Debug)]
enum Part {
    Bytes(Bytes),
    Shared(BodyReader),
    Stored(Box<StoredRange>),
}

impl Parts {
    /// No parts yet, of a known length in all.
    pub(super) fn new() -> Self {
        Self { parts: VecDeque::new(), left: Some(0) }
    }

    /// Adds bytes.
    pub(super) fn bytes(&mut self, bytes: Bytes) {
        self.add(bytes.len() as u64, Part::Bytes(bytes));
    }

    /// Adds a range of a body that still arrives.
    pub(super) fn shared(&mut self, reader: BodyReader) {
        match reader.left() {
            Some(left) => self.add(left, Part::Shared(reader)),
            None => {
                self.left = None;
                self.parts.push_back(Part::Shared(reader));
            }
        }
    }

    /// Adds a range of a stored body.
    pub(super) fn stored(&mut self, stored: StoredRange) {
        let range = &stored.range;
        self.add(range.end.saturating_sub(range.start), Part::Stored(Box::new(stored)));
    }

    fn add(&mut self, length: u64, part: Part) {
        if length > 0 {
            self.left = self.left.map(|left| left.saturating_add(length));
            self.parts.push_back(part);
        }
    }

    /// Bytes to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    /// Whether nothing is to come.
    pub fn is_over(&self) -> bool {
        self.parts.is_empty()
    }

    /// The next bytes.
    ///
    /// # Errors
    /// The body ended before its end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        loop {
            let Some(part) = self.parts.front_mut() else { return Poll::Ready(None) };
            let next = match part {
                Part::Bytes(bytes) => Some(Ok(std::mem::take(bytes))).filter(is_some_bytes),
                Part::Shared(reader) => {
                    ready!(reader.poll_next(cx)).map(|next| next.map_err(BodyFault::Shared))
                }
                Part::Stored(stored) => ready!(stored.poll_next(cx)),
            };
            match next {
                None => {
                    self.parts.pop_front();
                }
                Some(Ok(bytes)) => {
                    let length = bytes.len() as u64;
                    self.left = self.left.map(|left| left.saturating_sub(length));
                    if self.left == Some(0) {
                        self.parts.clear();
                    }
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(Err(fault)) => {
                    self.parts.clear();
                    return Poll::Ready(Some(Err(fault)));
                }
            }
        }
    }
}

fn is_some_bytes(next: &Result<Bytes, BodyFault>) -> bool {
    next.as_ref().is_ok_and(|bytes| !bytes.is_empty())
}

/// A range of a body that lies in the store in pieces, read one at a time.
pub(super) struct StoredRange {
    source: Source,
    range: Range<u64>,
    /// Where the next bytes begin.
    at: u64,
    read: Option<Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>>,
    first: Option<Bytes>,
}

/// A stored body.
#[derive(Clone)]
struct Source {
    cache: Arc<HttpCache>,
    /// The key of the entry that names it.
    entry: String,
    body: Chunked,
}

impl std::fmt::Debug for StoredRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredRange").field("range", &self.range).field("at", &self.at).finish()
    }
}

impl StoredRange {
    /// A range of a stored body, if all its pieces are there: a body that is gone, or has a hole,
    /// is found out before the head is sent.
    pub(super) async fn open(
        cache: &Arc<HttpCache>,
        entry: &str,
        body: Chunked,
        range: Range<u64>,
    ) -> Option<Self> {
        let source = Source { cache: Arc::clone(cache), entry: entry.to_owned(), body };
        if !source.has(&range).await {
            cache.metrics.cache_chunks_lost.inc();
            return None;
        }
        let first = source.clone().piece(range.start).await?;
        Some(Self { source, at: range.start, range, read: None, first: Some(first) })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        if self.at >= self.range.end {
            return Poll::Ready(None);
        }
        let piece = match self.first.take() {
            Some(first) => first,
            None => {
                let (source, at) = (&self.source, self.at);
                let read = self
                    .read
                    .get_or_insert_with(|| Box::pin(budget::scope(source.clone().piece(at))));
                let piece = ready!(read.as_mut().poll(cx));
                self.read = None;
                match piece {
                    Some(piece) => piece,
                    // The head promised more than is there now. The client must see a cut.
                    None => return Poll::Ready(Some(Err(BodyFault::Lost))),
                }
            }
        };
        let begin = self.at - self.at % u64::from(self.source.body.chunk_bytes.max(1));
        let length = piece.len() as u64;
        let from = (self.at - begin).min(length);
        let to = (self.range.end - begin).min(length);
        if from >= to {
            return Poll::Ready(Some(Err(BodyFault::Lost)));
        }
        self.at = begin + to;
        Poll::Ready(Some(Ok(piece.slice(from as usize..to as usize))))
    }
}

impl Source {
    /// Whether every piece of this range is there. One alone tells when it is read.
    async fn has(&self, range: &Range<u64>) -> bool {
        let keys = self.keys(range);
        keys.len() < 2 || self.cache.store.has_chunks(&keys).await.unwrap_or(false)
    }

    /// The keys of the pieces that hold a range.
    fn keys(&self, range: &Range<u64>) -> Vec<String> {
        let size = u64::from(self.body.chunk_bytes.max(1));
        let indices = range.start / size..=range.end.saturating_sub(1) / size;
        let numbers = indices.filter_map(|index| u32::try_from(index).ok());
        numbers.map(|number| self.key(number)).collect()
    }

    fn key(&self, number: u32) -> String {
        Keys::cache_body(&self.entry, &self.body.object, number)
    }

    /// The piece that holds the byte at `at`.
    async fn piece(self, at: u64) -> Option<Bytes> {
        let index = at / u64::from(self.body.chunk_bytes.max(1));
        let number = u32::try_from(index).ok()?;
        let keys = [self.key(number)];
        let sealed = self.cache.store.chunks(&keys).await.ok()?.pop()?;
        let piece = sealed.and_then(|sealed| cache::unseal(&self.body, index, &sealed));
        if piece.is_none() {
            // What is damaged stays so. Without it the body is fetched anew.
            let _ = self.cache.store.drop_chunks(&keys).await;
            self.cache.metrics.cache_chunks_lost.inc();
        }
        piece
    }
}
