//! The state of the cache: one per process, shared by all requests. It alone asks the store about
//! cached responses and epochs, so that nobody reads past a purge that still waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quick_cache::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::aftermath::Aftermath;
use super::coalesce::Coalescer;
use super::leases::FetchLeases;
use super::near::NearCache;
use super::pending_purges::{Hold, PendingPurges, Release, Released};
use crate::background::Background;
use crate::config::{CacheCompression, StoreUse};
use crate::observe::{CacheState, Metrics};
use crate::plan::Plan;
use crate::store::{
    Answers, Epoch, EpochChange, MarkKeys, MarksReply, Purge, Questions, Store, StoreError, budget,
};

/// Most epochs that are remembered as they were last seen: those of scopes that were purged.
const EPOCHS_MAX: usize = 16_384;
/// Memory is shared out in pieces of this many bytes.
const UNIT_BYTES: u64 = 1024;
/// How often pending purges are tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Pause before a purge that lost the store is tried again while its answer waits.
const PURGE_PAUSE: Duration = Duration::from_millis(10);

/// What became of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purged {
    /// What was to go is gone.
    AsAsked,
    /// All that is stored is gone: the store had no memory to note less.
    Everything {
        /// Whether there was anything that could be valid.
        was_based: bool,
    },
}

/// What a purge did, as the store shows it afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeSeen {
    /// Whether the change is there.
    pub is_done: bool,
    /// Whether it made what is stored stale only; a hard purge may take the place of a soft one
    /// where the store has no memory.
    pub soft: bool,
    /// Whether everything went: the store had no memory to note less.
    pub everything: bool,
}

/// See the module.
#[derive(Debug)]
pub struct HttpCache {
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) background: Background,
    /// Copies of stored responses.
    pub(super) near: NearCache,
    near_bytes_max: u64,
    /// Fetches that requests may share.
    pub(super) coalescer: Arc<Coalescer>,
    /// The fleet's leases on fetches that this node holds.
    pub(super) leases: Arc<FetchLeases>,
    /// Room for responses on their way to the store.
    backlog: Arc<Semaphore>,
    backlog_bytes: u64,
    /// Room for responses that are being read.
    filling: Arc<Semaphore>,
    pending: PendingPurges,
    pub(super) aftermath: Aftermath,
    /// `store.timeout`, or `store.cache.timeout`.
    timeout: Duration,
    /// Epochs as they were last seen: what a lease is named by before they are read.
    epochs: Cache<String, Epoch>,
    /// The epoch of everything.
    base: String,
    tags_clock: String,
    /// Whether the base epoch is being made.
    founding: AtomicBool,
    /// Whether text is compressed on its way to the store.
    pub(super) compresses: bool,
}

impl HttpCache {
    /// An empty cache in front of a store. What it needs of the plan is fixed while the process
    /// runs: prefix, bounds and compression, all of `[store]`.
    pub fn open(
        plan: &Plan,
        store: &Arc<Store>,
        metrics: &Arc<Metrics>,
        background: &Background,
    ) -> Arc<Self> {
        let settings = &plan.config.store;
        let own = settings.used_for(StoreUse::Cache);
        // Never in a store of this process, where requests would wait for it.
        let compresses = settings.cache_compression == CacheCompression::Zstd
            && store.is_shared(StoreUse::Cache);
        let cache = Arc::new(Self {
            store: Arc::clone(store),
            metrics: Arc::clone(metrics),
            background: background.clone(),
            near: NearCache::new(settings.near_cache_bytes),
            near_bytes_max: settings.near_cache_bytes,
            coalescer: Arc::default(),
            leases: FetchLeases::open(store, background),
            backlog: room(settings.backlog_bytes),
            backlog_bytes: settings.backlog_bytes,
            filling: room(settings.fill_bytes),
            pending: PendingPurges::new(&plan.keys),
            aftermath: Aftermath::new(own),
            timeout: own.timeout,
            epochs: Cache::new(EPOCHS_MAX),
            base: plan.keys.cache_base(),
            tags_clock: plan.keys.cache_tags_clock(),
            founding: AtomicBool::new(false),
            compresses,
        });
        tokio::spawn(retry(Arc::downgrade(&cache)));
        cache
    }

    /// Asks the store all that one request needs to know. Pending purges go first where the cache
    /// is read, in the same round trip; where that fails, the cache's part has no answer, and the
    /// others have theirs. It has none soon after an outage either.
    pub async fn ask(&self, questions: &Questions<'_>) -> Box<Answers> {
        let (is_used, is_clear) = (self.aftermath.trusts_entries(), !self.pending.any());
        if questions.cached.is_none() || (is_used && is_clear) {
            let answers = self.store.ask(questions).await;
            self.note_outage(&answers);
            return answers;
        }
        let settling = self.pending.begin();
        let pending_purges = settling.as_ref().map_or(&[][..], |settling| &settling.epochs);
        let mut questions = Questions { pending_purges, ..*questions };
        if let Some(entry) = questions.cached.as_mut().and_then(|cached| cached.entry.as_mut()) {
            // The answer may come to nothing, and nobody would give the lock back.
            entry.lock = None;
        }
        let mut answers = self.store.ask(&questions).await;
        self.note_outage(&answers);
        let is_settled = match settling {
            Some(settling) if answers.settled => settling.done(),
            Some(_) => false,
            None => is_clear,
        };
        if !(is_used && is_settled) {
            // What is stored may be what should have been purged.
            answers.cached = Some(Err(StoreError::Unavailable));
        }
        answers
    }

    /// Remembers that the store did not answer.
    pub(super) fn note_outage(&self, answers: &Answers) {
        if let Some(Err(error)) = &answers.cached {
            self.note_failure(error);
        }
    }

    /// The same of one answer.
    pub(super) fn note_failure(&self, error: &StoreError) {
        self.aftermath.note(error, !self.store.is_connected(StoreUse::Cache));
    }

    /// The time by which stored responses are dated, in Unix milliseconds: the store's clock, which
    /// all nodes share.
    pub(super) fn now_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        now.saturating_add_signed(self.store.clock_offset_ms(StoreUse::Cache))
    }

    /// Makes everything stored under these epochs unusable, before the answer that calls for it is
    /// passed on. Once begun, it is carried out in any case: later, where the store fails or the
    /// client leaves meanwhile.
    pub async fn invalidate(self: &Arc<Self>, epochs: Vec<String>) {
        self.coalescer.note_invalidation();
        // Other nodes serve what it does not reach.
        budget::keep(self.timeout);
        let mut invalidation = Invalidation { cache: self, epochs };
        let purged = self.purge_in_time(&hard(&invalidation.epochs)).await;
        let epochs = std::mem::take(&mut invalidation.epochs);
        if let Err(error) = purged {
            self.metrics.store_failed("invalidation");
            self.pending.add(epochs);
            self.pending.tell(&error);
        }
    }

    /// The same, and what each of them was before; nothing where nobody can tell.
    pub async fn invalidate_and_tell(
        self: &Arc<Self>,
        epochs: Vec<String>,
    ) -> Option<Vec<EpochChange>> {
        self.coalescer.note_invalidation();
        budget::keep(self.timeout);
        let mut invalidation = Invalidation { cache: self, epochs };
        let limit = budget::left(self.timeout);
        let purged = self.store.exchange_epochs(&invalidation.epochs);
        let purged = tokio::time::timeout(limit, purged).await;
        match purged {
            Ok(Ok(purged)) => {
                invalidation.epochs.clear();
                Some(purged)
            }
            // What was done or not, it is done again by the way of all others.
            _ => {
                self.invalidate(std::mem::take(&mut invalidation.epochs)).await;
                None
            }
        }
    }

    /// The same without anybody waiting. Until it is done, this node does not read its cache.
    pub fn invalidate_later(self: &Arc<Self>, epochs: Vec<String>) {
        self.coalescer.note_invalidation();
        self.pending.add(epochs);
        self.settle_later();
    }

    /// The same once the marks of writers up to a number are set (see [`Self::release`]), or none
    /// of them counts any more. `is_again`: it is done already, and is to be done once more.
    pub fn invalidate_after(
        &self,
        (mark, until): (u64, Instant),
        epochs: Vec<String>,
        is_again: bool,
    ) {
        self.coalescer.note_invalidation();
        self.pending.hold(epochs, Hold::new(mark, until, is_again));
    }

    /// The marks of writers up to this number are set, or count no more. Returns whether there is
    /// more to let go, a moment later.
    pub fn release(self: &Arc<Self>, mark: u64) -> bool {
        self.let_go(Release::UpTo(mark))
    }

    /// The store refuses marks: nothing waits for them that has not changed yet.
    pub fn release_refused(self: &Arc<Self>) {
        self.let_go(Release::Refused);
    }

    /// Nothing waits for marks any more.
    pub fn release_all(self: &Arc<Self>) {
        self.let_go(Release::All);
    }

    fn let_go(self: &Arc<Self>, which: Release) -> bool {
        let Released { is_any, is_more } = self.pending.release(which);
        if is_any {
            self.coalescer.note_invalidation();
            self.settle_later();
        }
        is_more
    }

    fn settle_later(self: &Arc<Self>) {
        let cache = Arc::clone(self);
        self.background.spawn("invalidation", async move {
            cache.settle().await;
            Ok::<_, StoreError>(())
        });
    }

    /// Changes epochs for an operator, and looks whether the store shows it. `soft`: what is stored
    /// under them is only stale from then on.
    ///
    /// # Errors
    /// The store did not answer, or did nothing.
    pub async fn purge_and_look(
        &self,
        epochs: &[String],
        mut soft: bool,
    ) -> Result<PurgeSeen, StoreError> {
        if soft {
            // Without the base nothing stored is valid, and a soft change of it would be no
            // founding.
            match self.store.found(&self.base).await {
                Err(error) if error.is_out_of_memory() => soft = false,
                founded => founded?,
            }
        }
        let looked = [epochs, std::slice::from_ref(&self.base)].concat();
        let mut before = self.store.stored_epochs(&looked).await?;
        let purges = epochs.iter().map(|key| Purge { key: key.clone(), soft });
        let purged = self.purge(&purges.collect::<Vec<_>>()).await?;
        self.coalescer.note_invalidation();
        let mut after = self.store.stored_epochs(&looked).await?;
        let (base_before, base_after) = (before.pop(), after.pop());
        Ok(match purged {
            Purged::AsAsked => {
                let is_done = has_changed(&before, &after, soft);
                PurgeSeen { is_done, soft, everything: false }
            }
            Purged::Everything { was_based } => {
                let is_done = !was_based || base_after != base_before;
                PurgeSeen { is_done, soft: false, everything: true }
            }
        })
    }

    /// Changes epochs for an event: once this has returned, nothing that was stored under them is
    /// used, at any gateway.
    ///
    /// # Errors
    /// The store has not taken it.
    pub async fn purge_now(&self, epochs: &[String]) -> Result<(), StoreError> {
        let purged = self.purge(&hard(epochs)).await;
        // Behind it: nobody joins a fetch that began before.
        self.coalescer.note_invalidation();
        purged.map(drop)
    }

    /// Changes epochs. A store without memory for that may still delete: then the base goes, and
    /// with it all that is stored, at every gateway.
    async fn purge(&self, purges: &[Purge]) -> Result<Purged, StoreError> {
        match self.store.purge(purges).await {
            Ok(()) => Ok(Purged::AsAsked),
            Err(error) if error.is_out_of_memory() => {
                self.metrics.store_failed("invalidation");
                let was_based = self.store.withdraw_all(&self.base).await?;
                if was_based {
                    tracing::warn!(
                        %error,
                        "the store has no memory for an invalidation: the whole cache is \
                         withdrawn, and used again once the store takes writes"
                    );
                }
                Ok(Purged::Everything { was_based })
            }
            Err(error) => Err(error),
        }
    }

    /// The same for an answer that waits, within what is left of `store.timeout`. Where the store
    /// is lost by this very purge, other nodes may not have noticed yet, and serve what is stored:
    /// so it is tried again until the time is over, in which they do.
    async fn purge_in_time(&self, purges: &[Purge]) -> Result<Purged, StoreError> {
        let deadline = Instant::now() + budget::left(self.timeout);
        let is_away = || !self.store.is_connected(StoreUse::Cache);
        let was_away = is_away();
        loop {
            let purged = match tokio::time::timeout_at(deadline, self.purge(purges)).await {
                Ok(Err(error)) if error.is_outage() && !was_away && is_away() => Err(error),
                Ok(purged) => return purged,
                Err(_) => Err(StoreError::Timeout),
            };
            let next = Instant::now() + PURGE_PAUSE;
            if next >= deadline {
                return purged;
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Whether the store says that this mark is not set.
    pub(super) async fn is_unmarked(&self, mark: &str) -> bool {
        let marks = Some(MarkKeys { caller: &[], anybody: Some(mark) });
        let answers = self.store.ask(&Questions { marks, ..Questions::default() }).await;
        matches!(answers.marks, Some(Ok(MarksReply { anybody: false, .. })))
    }

    /// Longest wait of one request for the store.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether the store knows of every purge, as far as this node can tell.
    pub(super) fn is_settled(&self) -> bool {
        !self.pending.any() && self.aftermath.trusts_entries()
    }

    /// Carries out the purges that wait.
    pub async fn settle(&self) {
        let Some(settling) = self.pending.begin() else { return };
        match self.purge(&hard(&settling.epochs)).await {
            Ok(_) => {
                settling.done();
            }
            Err(error) => self.pending.tell(&error),
        }
    }

    /// The key of the epoch of everything.
    pub fn base_epoch(&self) -> &str {
        &self.base
    }

    /// These epochs as they were last seen. A guess: good enough to name a lease by, and no more.
    pub(super) fn guess_epochs(&self, keys: &[String]) -> Vec<Epoch> {
        let known = |key: &String| self.epochs.get(key).unwrap_or_default();
        let mut guess: Vec<Epoch> = keys.iter().map(known).collect();
        self.store.mix_for_now(keys, &mut guess);
        guess
    }

    /// What the store said after a guess.
    pub(super) fn note_epochs(&self, keys: &[String], mut epochs: Vec<Epoch>) {
        // As the store has them: most are absent, and need no place here.
        self.store.mix_for_now(keys, &mut epochs);
        for (key, epoch) in keys.iter().zip(epochs) {
            if epoch == Epoch::default() {
                self.epochs.remove(key);
            } else if self.epochs.get(key) != Some(epoch) {
                self.epochs.insert(key.clone(), epoch);
            }
        }
    }

    /// Makes the base epoch if there is none, and remembers it: the first miss names its lease by
    /// it.
    ///
    /// # Errors
    /// The store did not answer: the base is made when a request needs it.
    pub async fn found(&self) -> Result<(), StoreError> {
        // First the clock: what is fetched under a base knows when it was asked for.
        self.store.found(&self.tags_clock).await?;
        self.store.found(&self.base).await?;
        let base = std::slice::from_ref(&self.base);
        let epochs = self.store.epochs(base).await?;
        self.note_epochs(base, epochs);
        Ok(())
    }

    /// Makes the base epoch, in the background, once at a time.
    pub(super) fn found_later(self: &Arc<Self>) {
        if self.founding.swap(true, Ordering::AcqRel) {
            return;
        }
        // Also where it is left undone.
        let founding = Founding(Arc::clone(self));
        self.background.spawn("cache", async move { founding.0.found().await });
    }

    /// Room for bytes of a body that is stored while it arrives; none when all that
    /// `store.fill_bytes` allows is taken.
    pub(super) fn fill_room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.filling).try_acquire_many_owned(units(bytes)).ok()
    }

    /// Room for a response on its way to the store; none when all that `store.backlog_bytes` allows
    /// is taken. One that is larger than that takes all of it.
    pub(super) fn backlog_room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = units(bytes.min(self.backlog_bytes));
        Arc::clone(&self.backlog).try_acquire_many_owned(units).ok()
    }

    /// Removes all variants of a response that must not be used any more, in the background.
    pub(super) fn drop_entry(&self, key: String) {
        self.near.forget(&key);
        let store = Arc::clone(&self.store);
        self.background.spawn("cache", async move { store.delete(&key).await.map(|_| ()) });
    }

    /// The state of the cache on this node.
    pub fn state(&self) -> CacheState {
        let free = self.backlog.available_permits() as u64;
        let waiting = self.backlog_bytes.saturating_sub(free.saturating_mul(UNIT_BYTES));
        let followed = self.store.followed_epochs();
        CacheState {
            near_bytes: self.near.bytes(),
            near_evictions: self.near.evictions(),
            near_bytes_max: self.near_bytes_max,
            fetches: self.coalescer.len(),
            backlog_bytes: usize::try_from(waiting).unwrap_or(usize::MAX),
            backlog_bytes_max: self.backlog_bytes,
            epochs_known: followed.map_or(0, |(known, _)| known),
            epochs_followed: followed.is_some_and(|(_, followed)| followed),
        }
    }
}

/// An invalidation whose outcome is not known yet.
struct Invalidation<'a> {
    cache: &'a Arc<HttpCache>,
    /// None once it is known.
    epochs: Vec<String>,
}

impl Drop for Invalidation<'_> {
    /// Nobody waits for the outcome any more.
    fn drop(&mut self) {
        if !self.epochs.is_empty() {
            self.cache.invalidate_later(std::mem::take(&mut self.epochs));
        }
    }
}

/// The making of the base epoch, until it is dropped.
struct Founding(Arc<HttpCache>);

impl Drop for Founding {
    fn drop(&mut self) {
        self.0.founding.store(false, Ordering::Release);
    }
}

/// Tries pending purges again, until nobody needs the cache any more.
async fn retry(cache: Weak<HttpCache>) {
    let mut ticks = tokio::time::interval(RETRY_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(cache) = cache.upgrade() else { return };
        if cache.pending.any() {
            cache.settle().await;
        }
    }
}

/// Room for as many bytes as the configuration says.
fn room(bytes: u64) -> Arc<Semaphore> {
    Arc::new(Semaphore::new((units(bytes) as usize).min(Semaphore::MAX_PERMITS)))
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// Epochs as purges after which nothing stored under them is used.
fn hard(epochs: &[String]) -> Vec<Purge> {
    epochs.iter().cloned().map(Purge::hard).collect()
}

/// Whether every epoch is another one than before.
fn has_changed(before: &[Epoch], after: &[Epoch], soft: bool) -> bool {
    before.len() == after.len()
        && before
            .iter()
            .zip(after)
            .all(|(before, after)| before.soft != after.soft && (soft || before.hard != after.hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_in_the_half_that_was_meant() {
        let epoch = |hard: u8, soft: u8| Epoch { hard: [hard; 8], soft: [soft; 8] };
        for (before, after, as_soft, as_hard) in [
            (epoch(1, 1), epoch(2, 2), true, true),
            (epoch(1, 1), epoch(1, 2), true, false),
            (epoch(1, 1), epoch(1, 1), false, false),
            (epoch(1, 1), epoch(2, 1), false, false),
        ] {
            assert_eq!(has_changed(&[before], &[after], true), as_soft, "{before:?} {after:?}");
            assert_eq!(has_changed(&[before], &[after], false), as_hard, "{before:?} {after:?}");
        }
        assert!(!has_changed(&[epoch(1, 1)], &[], false));
    }
}
