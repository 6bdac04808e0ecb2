//! Writing a response to the store: behind the request where other nodes share the store, at once
//! where it is this process's own, so that the next request finds it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::http_cache::HttpCache;
use super::leases::Lease;
use super::route::RouteCache;
use crate::base::boxed;
use crate::cache::{self, CacheKey, Chunked, INLINE_BYTES_MAX, Stored, StoredBody};
use crate::config::StoreUse;
use crate::store::{Entry, HeldLock, Remembered, StoreError};

/// Pieces of a body that are written in one go.
const CHUNKS_AT_ONCE: usize = 4;
/// How much longer the pieces of a body live than the entry that names them.
const CHUNKS_OUTLIVE: Duration = Duration::from_secs(60);

/// A response to write.
#[derive(Debug)]
pub(super) struct WriteJob {
    pub(super) cache: Arc<HttpCache>,
    /// The response.
    pub(super) response: Arc<Stored>,
    /// Where.
    pub(super) key: Arc<CacheKey>,
    /// The name of the variant, and the fields that choose it.
    pub(super) variant: String,
    /// See `variant`.
    pub(super) vary: String,
    /// The path's epoch before the fetch.
    pub(super) path_epoch: Bytes,
    /// How long it is of use.
    pub(super) ttl: Duration,
    /// The lease under which it was fetched, held until it is written.
    pub(super) lease: Option<Lease>,
    /// Whose counters tell of it.
    pub(super) route: Arc<RouteCache>,
}

impl WriteJob {
    /// Begins to write, where there is room among the bytes that wait for the store. It waits for
    /// the end where the store is this process's own.
    pub(super) async fn start(self) {
        let Some(backlog) = self.cache.backlog_room(self.response.weight() as u64) else {
            self.route.meter.cache_not_kept("backlog");
            return;
        };
        let cache = Arc::clone(&self.cache);
        // Large: boxed, it is not moved with every step into the background.
        let writing = boxed::pin(|| async move {
            let outcome = self.run().await;
            drop(backlog);
            outcome
        });
        if cache.store.is_shared(StoreUse::Cache) {
            cache.background.spawn("cache", writing);
        } else {
            // Counted by its reason.
            let _ = writing.await;
        }
    }

    async fn run(mut self) -> Result<(), StoreError> {
        let fresh = Duration::from_millis(self.response.remaining_ms(self.cache.now_ms()));
        let mut lock = self.lease.as_mut().and_then(Lease::take_lock);
        let outcome = self.write(&mut lock).await;
        // The renewal ends before the lock is given back.
        self.lease = None;
        match outcome {
            Ok(Remembered::Stored) => {
                self.route.meter.cache_stored(fresh);
                return Ok(());
            }
            Ok(Remembered::Outdated) => self.route.meter.cache_not_kept("outdated"),
            Ok(Remembered::Overtaken) => self.route.meter.cache_not_kept("overtaken"),
            Err(ref error) => {
                self.cache.note_failure(error);
                self.route.meter.cache_not_kept("store");
            }
        }
        if let Some(lock) = lock {
            // Nobody is helped by waiting for what does not come.
            let _ = self.cache.store.unlock(&lock).await;
        }
        outcome.map(|_| ())
    }

    /// Writes under the lock, which the store gives back where it stores the response.
    async fn write(&mut self, lock: &mut Option<HeldLock>) -> Result<Remembered, StoreError> {
        let Self { cache, response, key, ttl, .. } = &*self;
        let compressed = cache.compresses && cache::is_compressible(&response.headers);
        let value = match &response.body {
            StoredBody::Inline(body) if body.len() > INLINE_BYTES_MAX => {
                // Large, as what follows is: boxed, they take no room where a body is short.
                let body = Box::pin(self.write_chunks(body, compressed)).await?;
                Stored { body: StoredBody::Chunked(body), ..(**response).clone() }.encode()
            }
            StoredBody::Inline(body) if compressed => {
                let shorter = cache::compress(body);
                self.note_saved(body.len(), shorter.as_ref().map_or(body.len(), Vec::len));
                response.encode_with(shorter.as_deref())
            }
            StoredBody::Inline(_) => response.encode(),
            StoredBody::Chunked(body) => {
                let keys: Vec<String> = chunk_keys(key, body).collect();
                let extended = cache.store.extend_chunks(&keys, *ttl + CHUNKS_OUTLIVE);
                if !Box::pin(extended).await? {
                    // Whoever found the entry would find no body.
                    Box::pin(cache.store.delete(&key.entry)).await?;
                    return Ok(Remembered::Outdated);
                }
                response.encode()
            }
        };
        let entry = Entry {
            key: key.entry.clone(),
            variant: std::mem::take(&mut self.variant),
            vary: std::mem::take(&mut self.vary),
            value: value.into(),
            ttl: self.ttl,
            path_epoch_key: self.key.path_epoch().to_owned(),
            path_epoch: std::mem::take(&mut self.path_epoch),
            lock: lock.take(),
        };
        let outcome = self.cache.store.remember(&entry).await;
        *lock = entry.lock;
        outcome
    }

    /// Writes a body in pieces, before the entry that names them.
    async fn write_chunks(&self, body: &Bytes, compressed: bool) -> Result<Chunked, StoreError> {
        let mut object = [0; 16];
        object.copy_from_slice(&fastrand::u128(..).to_le_bytes());
        let chunked = cache::chunked(object, body);
        let pieces = cache::cut(&chunked, body, compressed);
        let mut pieces = chunk_keys(&self.key, &chunked).zip(pieces);
        let mut written = 0;
        loop {
            let mut some = Vec::with_capacity(CHUNKS_AT_ONCE);
            while some.len() < CHUNKS_AT_ONCE
                && let Some(piece) = pieces.next()
            {
                some.push(piece);
                // Each may have taken a millisecond, and others wait for this thread.
                tokio::task::yield_now().await;
            }
            if some.is_empty() {
                break;
            }
            written += some.iter().map(|(_, piece)| piece.len()).sum::<usize>();
            self.cache.store.write_chunks(&some, self.ttl + CHUNKS_OUTLIVE).await?;
        }
        if compressed {
            self.note_saved(body.len(), written);
        }
        Ok(chunked)
    }

    /// A body of so many bytes takes so many in the store.
    fn note_saved(&self, length: usize, written: usize) {
        let saved = length.saturating_sub(written);
        self.cache.metrics.cache_gauges.saved.inc_by(saved as u64);
    }
}

/// The keys of the pieces of a body.
fn chunk_keys(key: &CacheKey, body: &Chunked) -> impl Iterator<Item = String> {
    (0..body.count()).map(|index| key.body(&body.object, u32::try_from(index).unwrap_or(u32::MAX)))
}
