//! Marks of callers who have written: set before their answers are passed on, and later where the
//! store did not take them. Until then this node takes nobody for one who has not written; nor does
//! it after an outage, for as long as other nodes may have marks that wait.
//!
//! What a write makes stale waits for its marks: whoever fetches that anew must find them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::caching::HttpCache;
use crate::config::StoreUse;
use crate::observe::Metrics;
use crate::plan::Plan;
use crate::store::{Mark, Store, StoreError, budget};

/// Most marks that wait for the store.
const PENDING_MAX: usize = 65_536;
/// Most names that are known to be marked, half of them of former ones.
const MARKED_MAX: usize = 65_536;
/// How many marks are sent at a time.
const BATCH: usize = 256;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// The name of what marks are for, for the metrics.
const FUNCTION: &str = "pools";

/// See the module.
#[derive(Debug)]
pub struct Pools {
    store: Arc<Store>,
    cache: Arc<HttpCache>,
    metrics: Arc<Metrics>,
    /// `store.timeout`
    timeout: Duration,
    started: Instant,
    /// When the store was away last, in milliseconds since the start and one more; 0 for never.
    away_at: AtomicU64,
    /// Whether some may be in `pending`.
    waits: AtomicBool,
    pending: Mutex<AllPending>,
    marked: Mutex<Marked>,
    has_pending: Arc<Notify>,
    /// Held by whoever sends what waits.
    sending: tokio::sync::Mutex<()>,
}

/// All marks that wait. They stay here until the store has them.
#[derive(Debug, Default)]
struct AllPending {
    marks: HashMap<String, Pending>,
    /// How often some were sent.
    rounds: u64,
    /// The number of the last one that was added.
    last: u64,
    /// When none of those that were added counts any more.
    until: Option<Instant>,
}

/// What is to be marked by one name.
#[derive(Debug, Clone)]
struct Pending {
    mark: Mark,
    stick: Duration,
    /// When it counts no more.
    until: Instant,
    /// The number of the first mark in it, and of the last one.
    first: u64,
    last: u64,
    /// The round in which it was sent last.
    tried: u64,
}

impl AllPending {
    /// All up to this number are set, or count no more.
    fn done(&self) -> u64 {
        let first = self.marks.values().map(|it| it.first).min();
        first.map_or(self.last, |first| first.saturating_sub(1))
    }

    /// Some of them: those that were not sent for longest, so that one that the store does not take
    /// holds up no others for ever.
    fn batch(&mut self) -> Vec<(String, Pending)> {
        self.rounds += 1;
        let mut marks: Vec<_> = self.marks.iter_mut().collect();
        if marks.len() > BATCH {
            marks.select_nth_unstable_by_key(BATCH, |(_, it)| it.tried);
            marks.truncate(BATCH);
        }
        let round = self.rounds;
        let take = |(key, it): (&String, &mut Pending)| {
            it.tried = round;
            (key.clone(), it.clone())
        };
        marks.into_iter().map(take).collect()
    }

    /// What waits for all of them.
    fn all(&self) -> (u64, Instant) {
        (self.last, self.until.unwrap_or_else(Instant::now))
    }
}

/// Whom the store knows from this node to have written, for when the store cannot be asked. Those
/// of before go together, once they all count no more or new ones need their room.
#[derive(Debug, Default)]
struct Marked {
    now: HashMap<String, Instant>,
    before: HashMap<String, Instant>,
    /// When all of `before` count no more.
    turns: Option<Instant>,
}

impl Marked {
    fn note<'a>(&mut self, keys: impl Iterator<Item = &'a String>, stick: Duration) {
        let now = Instant::now();
        let until = now + stick;
        for key in keys {
            if self.turns.is_none_or(|at| at <= now) || self.now.len() >= MARKED_MAX / 2 {
                self.before = std::mem::take(&mut self.now);
                let last = self.before.values().max().copied();
                self.turns = last.max(Some(until));
            }
            self.now.insert(key.clone(), until);
        }
    }

    fn knows(&self, key: &String) -> bool {
        let now = Instant::now();
        [&self.now, &self.before].iter().any(|it| it.get(key).is_some_and(|until| *until > now))
    }
}

/// A write, by all names of its caller.
#[derive(Debug, Clone)]
pub struct Wrote {
    /// The keys of these names, and what they are to hold.
    pub marks: Vec<(String, Mark)>,
    /// How long it counts.
    pub stick: Duration,
}

impl Wrote {
    /// Of all upstreams with readers, that somebody has written there: what is stored of them has
    /// been made stale. Nothing where there are none.
    pub fn by_anybody(plan: &Plan) -> Option<Self> {
        let pools = plan.upstreams.iter().zip(&plan.pools);
        let pools = pools.filter_map(|((name, _), pool)| Some((name, pool.as_ref()?.stick)));
        let pools: Vec<_> = pools.filter(|(_, stick)| !stick.is_zero()).collect();
        let stick = pools.iter().map(|(_, stick)| *stick).max()?;
        let marks = pools.iter().map(|(name, _)| (plan.keys.anybody_wrote(name), Mark::Wrote));
        Some(Self { marks: marks.collect(), stick })
    }

    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.marks.extend(other.marks);
        Self { stick: self.stick.max(other.stick), ..self }
    }
}

impl Pools {
    /// Begins to send what waits. Must be called within a tokio runtime.
    pub fn open(
        timeout: Duration,
        store: &Arc<Store>,
        cache: &Arc<HttpCache>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let pools = Arc::new(Self {
            store: Arc::clone(store),
            cache: Arc::clone(cache),
            metrics: Arc::clone(metrics),
            timeout,
            started: Instant::now(),
            away_at: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            pending: Mutex::default(),
            marked: Mutex::default(),
            has_pending: Arc::default(),
            sending: tokio::sync::Mutex::default(),
        });
        tokio::spawn(send_pending(Arc::downgrade(&pools)));
        pools
    }

    /// Whether somebody may have written who is not marked: the store was away so lately, or has
    /// not taken all marks of this node.
    pub fn is_in_doubt(&self, stick: Duration) -> bool {
        if self.waits.load(Ordering::Relaxed) {
            return true;
        }
        match self.away_at.load(Ordering::Relaxed) {
            0 => false,
            at => self.now().saturating_sub(at) <= millis(stick),
        }
    }

    /// The store has not answered. One answer that was late says nothing of other requests.
    pub fn note_failure(&self, error: &StoreError) {
        if *error != StoreError::Timeout {
            self.is_away();
        }
    }

    /// Marks a write, before its answer is passed on.
    ///
    /// # Errors
    /// The store did not take all of it: it is marked later.
    pub async fn mark(&self, wrote: &Wrote) -> Result<(), StoreError> {
        // Other nodes answer from readers what it does not reach.
        budget::keep(self.timeout);
        let marked = self.store.mark(&wrote.marks, wrote.stick).await;
        if let Err(error) = &marked {
            self.metrics.store_failed(FUNCTION);
            self.note_failure(error);
            self.mark_later(wrote);
        } else {
            self.marked().note(wrote.marks.iter().map(|(key, _)| key), wrote.stick);
        }
        marked
    }

    /// Marks a write whose answer nobody waits for, or that the store did not take. Until then this
    /// node is in doubt.
    pub fn mark_later(&self, wrote: &Wrote) {
        let mut pending = self.pending();
        for (key, mark) in &wrote.marks {
            self.wait(&mut pending, (key, mark), wrote.stick);
        }
        drop(pending);
        self.has_pending.notify_one();
    }

    /// Makes stale what a write changes, which nobody waits for: once all marks that wait, its own
    /// among them, are set or count no more. Until then this node does not read its cache. At once
    /// and once more where the cache's store is another one, which need not wait for the marks.
    pub fn invalidate_later(&self, epochs: Vec<String>) {
        let pending = self.pending();
        // Alone, this node asks no reader meanwhile.
        let has_others = self.store.is_shared(StoreUse::Cache);
        if has_others && self.waits.load(Ordering::Relaxed) {
            let is_again = !self.store.is_one_for(StoreUse::Main, StoreUse::Cache);
            self.cache.invalidate_after(pending.all(), epochs.clone(), is_again);
            if is_again {
                self.cache.invalidate_later(epochs);
            }
        } else {
            self.cache.invalidate_later(epochs);
        }
        drop(pending);
        self.has_pending.notify_one();
    }

    /// Makes stale once more, when all marks that wait are set, what is made stale without them:
    /// others may meanwhile store what a reader says.
    pub fn invalidate_again(&self, epochs: &[String]) {
        let pending = self.pending();
        if self.waits.load(Ordering::Relaxed) {
            self.cache.invalidate_after(pending.all(), epochs.to_vec(), true);
        } else {
            // They have just been set.
            self.cache.invalidate_later(epochs.to_vec());
        }
        drop(pending);
        self.has_pending.notify_one();
    }

    /// Sends what waits, for `limit` at most, and lets go what waits for it: for the end of the
    /// process.
    pub async fn finish(&self, limit: Duration) {
        let sent = async {
            while !self.send().await {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(limit, sent).await;
        // Stale for all is worse than what a reader may say.
        self.cache.release_all();
    }

    /// Whether one of these callers has written at this node: for when the store does not say. His
    /// marks wait, or were set before it was away.
    pub fn holds_any(&self, keys: &[String]) -> bool {
        let (now, pending) = (Instant::now(), self.pending());
        let waits = |key| pending.marks.get(key).is_some_and(|it: &Pending| it.until > now);
        if keys.iter().any(waits) {
            return true;
        }
        drop(pending);
        let marked = self.marked();
        keys.iter().any(|key| marked.knows(key))
    }

    /// Another plan is about to be in force. Where it marks more than the former one, those who
    /// have just written are not marked for it: it begins as after an outage.
    pub fn adopt(&self, former: &Plan, plan: &Plan) {
        let sticks = |plan: &Plan| -> HashMap<String, Duration> {
            let pools = plan.upstreams.iter().zip(&plan.pools);
            let sticks = pools.filter_map(|((name, _), pool)| Some((name, pool.as_ref()?.stick)));
            sticks.map(|(name, stick)| (name.clone(), stick)).collect()
        };
        let former_sticks = sticks(former);
        let known = |name: &str| former_sticks.get(name).copied().unwrap_or_default();
        let is_longer = sticks(plan).iter().any(|(name, stick)| *stick > known(name));
        // The mark of all callers together is for what is stored.
        let caches = |plan: &Plan| plan.routes.policies().any(|route| route.cache.is_some());
        if is_longer || caches(plan) && !caches(former) {
            self.is_away();
        }
    }

    fn is_away(&self) {
        self.away_at.store(self.now(), Ordering::Relaxed);
    }

    /// Sends what waits; false where some of it still does.
    async fn send(&self) -> bool {
        let _alone = self.sending.lock().await;
        loop {
            let (batch, is_more) = self.batch();
            if batch.is_empty() {
                return !is_more;
            }
            // A whole life, the longest of all: what began later must not end with it.
            let stick = batch.iter().map(|(_, it)| it.stick).max().unwrap_or_default();
            let marks: Vec<_> =
                batch.iter().map(|(key, it)| (key.clone(), it.mark.clone())).collect();
            if let Err(error) = self.store.mark(&marks, stick).await {
                self.note_failure(&error);
                if !error.is_outage() {
                    // It may refuse them for as long as they count.
                    self.cache.release_refused();
                }
                return false;
            }
            self.forget(&batch);
        }
    }

    /// Some of what waits, without what counts no more; and whatever waits for nothing of it goes.
    /// Also whether more of that is to go.
    fn batch(&self) -> (Vec<(String, Pending)>, bool) {
        let (now, mut pending) = (Instant::now(), self.pending());
        pending.marks.retain(|_, it| it.until > now);
        if pending.marks.is_empty() {
            self.waits.store(false, Ordering::Relaxed);
        }
        let is_more = self.cache.release(pending.done());
        (pending.batch(), is_more)
    }

    /// The store has these: what came to them meanwhile waits on.
    fn forget(&self, batch: &[(String, Pending)]) {
        // Before: there is no time at which nobody knows of them.
        for (key, sent) in batch {
            self.marked().note(std::iter::once(key), sent.stick);
        }
        let mut pending = self.pending();
        for (key, sent) in batch {
            if let Some(known) = pending.marks.get_mut(key) {
                known.first = sent.last.saturating_add(1);
                if known.last == sent.last {
                    pending.marks.remove(key);
                }
            }
        }
    }

    /// Keeps a mark until the store takes it.
    fn wait(&self, pending: &mut AllPending, (key, mark): (&String, &Mark), stick: Duration) {
        let until = Instant::now() + stick;
        pending.last += 1;
        pending.until = pending.until.max(Some(until));
        let number = pending.last;
        if let Some(known) = pending.marks.get_mut(key) {
            known.mark = std::mem::take(&mut known.mark).and(mark.clone());
            known.stick = known.stick.max(stick);
            known.until = known.until.max(until);
            known.last = number;
        } else if pending.marks.len() < PENDING_MAX {
            let (first, last, tried) = (number, number, 0);
            let it = Pending { mark: mark.clone(), stick, until, first, last, tried };
            pending.marks.insert(key.clone(), it);
        } else {
            self.metrics.store_failed(FUNCTION);
            self.is_away();
        }
        self.waits.store(true, Ordering::Relaxed);
    }

    fn pending(&self) -> MutexGuard<'_, AllPending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn marked(&self) -> MutexGuard<'_, Marked> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        millis(self.started.elapsed()).saturating_add(1)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Sends what waits until the gateway is gone.
async fn send_pending(pools: Weak<Pools>) {
    let Some(has_pending) = pools.upgrade().map(|it| Arc::clone(&it.has_pending)) else { return };
    loop {
        has_pending.notified().await;
        loop {
            let Some(pools) = pools.upgrade() else { return };
            if pools.send().await {
                break;
            }
            drop(pools);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_known_to_be_marked_is_so_for_its_time_and_within_bounds() {
        let (mut marked, minute) = (Marked::default(), Duration::from_secs(60));
        let key = |number: usize| number.to_string();
        marked.note([key(0)].iter(), minute);
        marked.note([key(1)].iter(), minute / 2);
        tokio::time::advance(minute / 2).await;
        assert!(marked.knows(&key(0)) && !marked.knows(&key(1)));
        tokio::time::advance(minute / 2).await;
        for later in 2..=3 {
            marked.note([key(later)].iter(), minute);
            assert!(marked.knows(&key(later)) && !marked.knows(&key(0)));
            tokio::time::advance(minute).await;
        }
        assert!(marked.now.len() + marked.before.len() <= 2, "what counts no more goes");
        let many: Vec<String> = (0..=3 * MARKED_MAX).map(key).collect();
        marked.note(many.iter(), minute);
        assert!(marked.knows(&many[3 * MARKED_MAX]) && !marked.knows(&many[0]));
        assert!(marked.now.len() + marked.before.len() <= MARKED_MAX);
    }

    #[tokio::test]
    async fn marks_that_are_not_taken_hold_up_no_others() {
        let mut pending = AllPending::default();
        let count = BATCH * 2 + 1;
        for key in (0..count).map(|number| number.to_string()) {
            let (mark, stick, until) = (Mark::Wrote, Duration::ZERO, Instant::now());
            let it = Pending { mark, stick, until, first: 0, last: 0, tried: 0 };
            pending.marks.insert(key, it);
        }
        // None of them is taken.
        let sent: Vec<_> = (0..3).flat_map(|_| pending.batch()).map(|(key, _)| key).collect();
        assert_eq!(sent.len(), BATCH * 3);
        assert_eq!(sent.iter().collect::<HashSet<_>>().len(), count);
    }
}
