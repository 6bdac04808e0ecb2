//! What the cache does behind requests: keeping responses, withdrawing them, giving locks back.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Gateway, LeaseRenewal};
use crate::cache::{self, Chunked, INLINE_BYTES_MAX, Place, Stored, StoredBody};
use crate::config::CacheCompression;
use crate::observe::CacheState;
use crate::store::{Entry, Epoch, HeldLock, Purge, Remembered, StoreError};

/// Memory is shared out in pieces of this many bytes.
const UNIT_BYTES: u64 = 1024;
/// Pieces of a body that are written in one go.
const CHUNKS_AT_ONCE: usize = 4;
/// How much longer the pieces of a body live than the entry that names them.
const CHUNKS_OUTLIVE: Duration = Duration::from_secs(60);

/// What became of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// What was to go is gone.
    AsAsked,
    /// All that is stored is gone: the store had no memory to note less.
    Everything,
}

/// A response to keep in the store.
#[derive(Debug)]
pub struct Keeping {
    /// The response.
    pub stored: Arc<Stored>,
    /// Where.
    pub place: Arc<Place>,
    /// The name of the variant, and the fields that choose it.
    pub variant: String,
    /// See `variant`.
    pub vary: String,
    /// The path's epoch before the fetch.
    pub path_epoch: Bytes,
    /// How long it is of use, in milliseconds.
    pub ttl_ms: u64,
    /// The lock under which it was fetched, and its renewal until it is written.
    pub lock: Option<(HeldLock, LeaseRenewal)>,
    /// Index of the route.
    pub route: usize,
}

impl Gateway {
    /// The time by which stored responses are dated, in Unix milliseconds: the store's clock, which
    /// all nodes share.
    pub fn now_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        now.saturating_add_signed(self.store.clock_offset_ms())
    }

    /// Makes everything stored under these epochs stale, before the answer that calls for it is
    /// passed on.
    pub async fn invalidate(&self, epochs: Vec<String>) {
        self.flights.withdraw();
        if let Err(error) = self.purge(&hard(&epochs)).await {
            tracing::warn!(%error, "an invalidation waits for the store");
            self.observer.metrics.store_failed("invalidation");
            self.overdue.add(epochs, &self.base_epoch);
        }
    }

    /// Changes epochs. A store without memory for that may still delete: then the base goes, and
    /// with it all that is stored, at every gateway.
    ///
    /// # Errors
    /// The store did neither.
    pub async fn purge(&self, purges: &[Purge]) -> Result<Purged, StoreError> {
        match self.store.purge(purges).await {
            Ok(()) => Ok(Purged::AsAsked),
            Err(error) if error.is_out_of_memory() => {
                self.observer.metrics.store_failed("invalidation");
                if self.store.withdraw_all(&self.base_epoch).await? {
                    tracing::warn!(
                        %error,
                        "the store has no memory for an invalidation: the whole cache is \
                         withdrawn, and used again once the store takes writes"
                    );
                }
                Ok(Purged::Everything)
            }
            Err(error) => Err(error),
        }
    }

    /// The same without anybody waiting. Until it is done, this node does not read its cache.
    pub fn invalidate_later(self: &Arc<Self>, epochs: Vec<String>) {
        self.flights.withdraw();
        self.overdue.add(epochs, &self.base_epoch);
        let gateway = Arc::clone(self);
        self.background.spawn("invalidation", async move {
            gateway.settle_overdue().await;
            Ok::<(), StoreError>(())
        });
    }

    /// These epochs as they were last seen. A guess: good enough to name a lease by, and no more.
    pub fn guess_epochs(&self, keys: &[String]) -> Vec<Epoch> {
        keys.iter().map(|key| self.epochs.get(key).unwrap_or_default()).collect()
    }

    /// What the store said after a guess.
    pub fn note_epochs(&self, keys: &[String], guessed: &[Epoch], epochs: &[Epoch]) {
        for ((key, guessed), epoch) in keys.iter().zip(guessed).zip(epochs) {
            if *epoch == Epoch::default() && guessed != epoch {
                self.epochs.remove(key);
            } else if guessed != epoch {
                self.epochs.insert(key.clone(), *epoch);
            }
        }
    }

    /// Whether the store knows of every invalidation.
    pub fn is_settled(&self) -> bool {
        !self.overdue.any.load(Ordering::Acquire)
    }

    /// Carries out the invalidations that wait.
    pub async fn settle_overdue(&self) {
        if let Some(settling) = self.overdue.begin()
            && self.purge(&hard(&settling.epochs)).await.is_ok()
        {
            settling.done();
        }
    }

    /// Room for bytes of a body that is kept while it passes; none when all that `store.fill_bytes`
    /// allows is taken.
    pub fn fill_room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.filling).try_acquire_many_owned(units(bytes)).ok()
    }

    /// Writes a response to the store: in the background where others share it, at once where it is
    /// this process's own, so that the next request finds it.
    pub async fn keep(self: &Arc<Self>, mut keeping: Keeping) {
        // One that is larger than the whole backlog takes all of it.
        let bytes = (keeping.stored.weight() as u64).min(self.backlog_bytes);
        let backlog = Arc::clone(&self.backlog).try_acquire_many_owned(units(bytes));
        let (running, route) = (self.running(), keeping.route);
        let not_kept = move |reason| {
            if let Some(meter) = running.meters.get(route) {
                meter.cache_not_kept(reason);
            }
        };
        let Ok(backlog) = backlog else {
            not_kept("backlog");
            if let Some((lock, _)) = keeping.lock {
                self.unlock(lock);
            }
            return;
        };
        let gateway = Arc::clone(self);
        let left = Duration::from_millis(keeping.stored.remaining_ms(self.now_ms()));
        let writing = async move {
            let (lock, renewal) = keeping.lock.take().unzip();
            let outcome = gateway.write(keeping, lock.clone()).await;
            drop((backlog, renewal));
            match outcome {
                Ok(Remembered::Stored) => {
                    if let Some(meter) = gateway.running().meters.get(route) {
                        meter.cache_kept(left);
                    }
                    return Ok(());
                }
                Ok(Remembered::Outdated) => not_kept("outdated"),
                Ok(Remembered::Overtaken) => not_kept("overtaken"),
                Err(_) => not_kept("store"),
            }
            if let Some(lock) = lock {
                // Nobody is helped by waiting for what does not come.
                let _ = gateway.store.unlock(&lock).await;
            }
            outcome.map(|_| ())
        };
        if self.store.is_shared() {
            self.background.spawn("cache", writing);
        } else {
            let _ = writing.await;
        }
    }

    async fn write(
        &self,
        keeping: Keeping,
        lock: Option<HeldLock>,
    ) -> Result<Remembered, StoreError> {
        let Keeping { stored, place, variant, vary, path_epoch, ttl_ms, .. } = keeping;
        let ttl = Duration::from_millis(ttl_ms);
        let compressed = self.compresses() && cache::is_compressible(&stored.headers);
        let value = match &stored.body {
            StoredBody::Inline(body) if body.len() > INLINE_BYTES_MAX => {
                // Large, as what follows is: boxed, they take no room where a body is short.
                let body = Box::pin(self.write_chunks(&place, body, compressed, ttl)).await?;
                Stored { body: StoredBody::Chunked(body), ..(*stored).clone() }.encode()
            }
            StoredBody::Inline(body) if compressed => {
                let shorter = cache::compress(body);
                self.saved(body.len(), shorter.as_ref().map_or(body.len(), Vec::len));
                stored.encode_with(shorter.as_deref())
            }
            StoredBody::Inline(_) => stored.encode(),
            StoredBody::Chunked(body) => {
                let keys: Vec<String> = chunk_keys(&place, body).collect();
                let extended = self.store.extend_chunks(&keys, ttl + CHUNKS_OUTLIVE);
                if !Box::pin(extended).await? {
                    // Whoever found the entry would find no body.
                    Box::pin(self.store.delete(&place.entry)).await?;
                    return Ok(Remembered::Outdated);
                }
                stored.encode()
            }
        };
        let entry = Entry {
            key: place.entry.clone(),
            variant,
            vary,
            value: value.into(),
            ttl,
            path_epoch_key: place.path_epoch().to_owned(),
            path_epoch,
            lock,
        };
        self.store.remember(&entry).await
    }

    /// Writes a body in pieces, before the entry that names them.
    async fn write_chunks(
        &self,
        place: &Place,
        body: &Bytes,
        compressed: bool,
        ttl: Duration,
    ) -> Result<Chunked, StoreError> {
        let mut object = [0; 16];
        object.copy_from_slice(&fastrand::u128(..).to_le_bytes());
        let chunked = cache::chunked(object, body);
        let mut pieces = chunk_keys(place, &chunked).zip(cache::cut(&chunked, body, compressed));
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
            self.store.write_chunks(&some, ttl + CHUNKS_OUTLIVE).await?;
        }
        if compressed {
            self.saved(body.len(), written);
        }
        Ok(chunked)
    }

    /// Whether text is compressed on its way to the store; never in a store of this process, where
    /// requests would wait for it.
    fn compresses(&self) -> bool {
        let compression = self.running().plan.config.store.cache_compression;
        compression == CacheCompression::Zstd && self.store.is_shared()
    }

    /// A body of so many bytes takes so many in the store.
    fn saved(&self, length: usize, written: usize) {
        let saved = length.saturating_sub(written);
        self.observer.metrics.cache_gauges.saved.inc_by(saved as u64);
    }

    /// Removes all variants of a response that must not be used any more, in the background.
    pub fn drop_entry(self: &Arc<Self>, key: String) {
        self.near.forget(&key);
        let gateway = Arc::clone(self);
        self.background.spawn("cache", async move { gateway.store.delete(&key).await.map(|_| ()) });
    }

    /// Says where the public listener is.
    pub fn set_public(&self, address: SocketAddr) {
        // The first one stays: nobody binds twice.
        let _ = self.public.set(address);
    }

    /// Where this node reaches its own public listener; nothing before it is bound.
    pub fn public(&self) -> Option<SocketAddr> {
        let mut address = *self.public.get()?;
        if address.ip().is_unspecified() {
            let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
            address.set_ip(if address.is_ipv4() { v4 } else { v6 });
        }
        Some(address)
    }

    /// The state of the cache on this node.
    pub fn cache_state(&self) -> CacheState {
        let free = self.backlog.available_permits() as u64;
        let waiting = self.backlog_bytes.saturating_sub(free.saturating_mul(UNIT_BYTES));
        let followed = self.store.followed_epochs();
        CacheState {
            near_bytes: self.near.bytes(),
            near_bytes_max: self.running().plan.config.store.near_cache_bytes,
            flights: self.flights.len(),
            backlog_bytes: usize::try_from(waiting).unwrap_or(usize::MAX),
            backlog_bytes_max: self.backlog_bytes,
            epochs_known: followed.map_or(0, |(known, _)| known),
            epochs_followed: followed.is_some_and(|(_, followed)| followed),
        }
    }

    /// Gives a lock back, in the background. Whoever held it for longer than its lease may take
    /// somebody else's away, who then fetches what a third one fetches too, and no more: that is
    /// cheaper than a script for each.
    pub fn unlock(self: &Arc<Self>, lock: HeldLock) {
        let gateway = Arc::clone(self);
        let key = lock.key;
        self.background.spawn("cache", async move { gateway.store.delete(&key).await.map(|_| ()) });
    }

    /// Makes the base epoch if there is none, and remembers it: the first miss names its lease by
    /// it.
    pub(super) async fn found_and_note_base(&self) -> Result<(), StoreError> {
        // First the clock: what is fetched under a base knows when it was asked for.
        let clock = self.running().plan.keys.cache_tags_clock();
        self.store.found(&clock).await?;
        self.store.found(&self.base_epoch).await?;
        let base = std::slice::from_ref(&self.base_epoch);
        let epochs = self.store.epochs(base).await?;
        self.note_epochs(base, &[Epoch::default()], &epochs);
        Ok(())
    }

    /// Makes the base epoch, in the background, once at a time.
    pub fn found_base(self: &Arc<Self>) {
        if self.founding.swap(true, Ordering::AcqRel) {
            return;
        }
        // Also where it is left undone.
        let founding = Founding(Arc::clone(self));
        self.background.spawn("cache", async move { founding.0.found_and_note_base().await });
    }
}

/// The making of the base epoch, until it is dropped.
struct Founding(Arc<Gateway>);

impl Drop for Founding {
    fn drop(&mut self) {
        self.0.founding.store(false, Ordering::Release);
    }
}

/// Room for as many bytes as the configuration says.
pub(super) fn room(bytes: u64) -> Arc<Semaphore> {
    Arc::new(Semaphore::new((units(bytes) as usize).min(Semaphore::MAX_PERMITS)))
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// The keys of the pieces of a body.
fn chunk_keys(place: &Place, body: &Chunked) -> impl Iterator<Item = String> {
    (0..body.count())
        .map(|index| place.body(&body.object, u32::try_from(index).unwrap_or(u32::MAX)))
}

/// Epochs as purges after which nothing stored under them is used.
fn hard(epochs: &[String]) -> Vec<Purge> {
    epochs.iter().cloned().map(Purge::hard).collect()
}
