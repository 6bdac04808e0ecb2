//! A response body put together by the cache: bytes at hand, a body that is still passing, pieces
//! that lie in the store.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::body::Fault;
use crate::cache::{self, Chunked, Reader};
use crate::runtime::Gateway;
use crate::store::keys::Keys;

/// The parts of a body, in order.
#[derive(Debug, Default)]
pub(super) struct Parts {
    parts: VecDeque<Part>,
    /// Bytes to come; unknown for a body whose end nobody has announced.
    left: Option<u64>,
}

#[derive(Debug)]
enum Part {
    Bytes(Bytes),
    Passing(Reader),
    Chunks(Box<Chunks>),
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

    /// Adds a range of a body that is passing.
    pub(super) fn passing(&mut self, reader: Reader) {
        let range = reader.range();
        if *range == Reader::ALL {
            self.left = None;
            self.parts.push_back(Part::Passing(reader));
        } else {
            self.add(range.end.saturating_sub(range.start), Part::Passing(reader));
        }
    }

    /// Adds a range of a stored body.
    pub(super) fn chunks(&mut self, chunks: Chunks) {
        let range = &chunks.range;
        self.add(range.end.saturating_sub(range.start), Part::Chunks(Box::new(chunks)));
    }

    fn add(&mut self, length: u64, part: Part) {
        if length > 0 {
            self.left = self.left.map(|left| left.saturating_add(length));
            self.parts.push_back(part);
        }
    }

    /// Bytes to come, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    /// Whether nothing is to come.
    pub(super) fn is_over(&self) -> bool {
        self.parts.is_empty()
    }

    /// The next bytes.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        loop {
            let Some(part) = self.parts.front_mut() else { return Poll::Ready(None) };
            let next = match part {
                Part::Bytes(bytes) => Some(Ok(std::mem::take(bytes))).filter(is_some_bytes),
                Part::Passing(reader) => {
                    ready!(reader.poll_next(cx)).map(|next| next.map_err(|_| Fault::Shared))
                }
                Part::Chunks(chunks) => ready!(chunks.poll_next(cx)),
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

fn is_some_bytes(next: &Result<Bytes, Fault>) -> bool {
    next.as_ref().is_ok_and(|bytes| !bytes.is_empty())
}

/// A range of a body that lies in the store in pieces, read one at a time.
pub(super) struct Chunks {
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
    gateway: Arc<Gateway>,
    /// The key of the entry that names it.
    entry: String,
    body: Chunked,
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks").field("range", &self.range).field("at", &self.at).finish()
    }
}

impl Chunks {
    /// A range of a stored body, if all its pieces are there: a body that is gone, or has a hole,
    /// is found out before the head is sent.
    pub(super) async fn open(
        gateway: &Arc<Gateway>,
        entry: &str,
        body: Chunked,
        range: Range<u64>,
    ) -> Option<Self> {
        let source = Source { gateway: Arc::clone(gateway), entry: entry.to_owned(), body };
        if !source.has(&range).await {
            gateway.observer.metrics.cache_chunks_lost.inc();
            return None;
        }
        let first = source.clone().piece(range.start).await?;
        Some(Self { source, at: range.start, range, read: None, first: Some(first) })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        if self.at >= self.range.end {
            return Poll::Ready(None);
        }
        let piece = match self.first.take() {
            Some(first) => first,
            None => {
                let (source, at) = (&self.source, self.at);
                let read = self.read.get_or_insert_with(|| Box::pin(source.clone().piece(at)));
                let piece = ready!(read.as_mut().poll(cx));
                self.read = None;
                match piece {
                    Some(piece) => piece,
                    // The head promised more than is there now. The client must see a cut.
                    None => return Poll::Ready(Some(Err(Fault::Lost))),
                }
            }
        };
        let begin = self.at - self.at % u64::from(self.source.body.chunk_bytes.max(1));
        let length = piece.len() as u64;
        let from = (self.at - begin).min(length);
        let to = (self.range.end - begin).min(length);
        if from >= to {
            return Poll::Ready(Some(Err(Fault::Lost)));
        }
        self.at = begin + to;
        Poll::Ready(Some(Ok(piece.slice(from as usize..to as usize))))
    }
}

impl Source {
    /// Whether every piece of this range is there. One alone tells when it is read.
    async fn has(&self, range: &Range<u64>) -> bool {
        let size = u64::from(self.body.chunk_bytes.max(1));
        let indices = range.start / size..=range.end.saturating_sub(1) / size;
        let numbers = indices.filter_map(|index| u32::try_from(index).ok());
        let keys: Vec<String> = numbers.map(|number| self.key(number)).collect();
        keys.len() < 2 || self.gateway.store.has_chunks(&keys).await.unwrap_or(false)
    }

    fn key(&self, number: u32) -> String {
        Keys::cache_body(&self.entry, &self.body.object, number)
    }

    /// The piece that holds the byte at `at`.
    async fn piece(self, at: u64) -> Option<Bytes> {
        let index = at / u64::from(self.body.chunk_bytes.max(1));
        let number = u32::try_from(index).ok()?;
        let keys = [self.key(number)];
        let sealed = self.gateway.store.chunks(&keys).await.ok()?.pop()?;
        let piece = sealed.and_then(|sealed| cache::unseal(&self.body, index, &sealed));
        if piece.is_none() {
            // What is damaged stays so. Without it the body is fetched anew.
            let _ = self.gateway.store.drop_chunks(&keys).await;
            self.gateway.observer.metrics.cache_chunks_lost.inc();
        }
        piece
    }
}
