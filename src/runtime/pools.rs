//! Marks of callers who have written: set before their answers are passed on, and later where the
//! store did not take them. Until then this node takes nobody for one who has not written; nor does
//! it after an outage, for as long as other nodes may have marks that wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::observe::Metrics;
use crate::plan::Plan;
use crate::store::{Mark, Store, StoreError, budget};

/// Most marks that wait for the store.
const PENDING_MAX: usize = 65_536;
/// How many of them are sent at a time.
const BATCH: usize = 256;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// The name of what marks are for, for the metrics.
const FUNCTION: &str = "pools";

/// See the module.
#[derive(Debug)]
pub struct Pools {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    /// `store.timeout`
    timeout: Duration,
    started: Instant,
    /// When the store was away last, in milliseconds since the start and one more; 0 for never.
    away_at: AtomicU64,
    /// Whether some may be in `pending`, or on their way from there to the store.
    waits: AtomicBool,
    pending: Mutex<HashMap<String, Pending>>,
    has_pending: Arc<Notify>,
}

/// What is to be marked by one name.
#[derive(Debug)]
struct Pending {
    mark: Mark,
    stick: Duration,
    /// When it counts no more.
    until: Instant,
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
    pub fn open(timeout: Duration, store: &Arc<Store>, metrics: &Arc<Metrics>) -> Arc<Self> {
        let pools = Arc::new(Self {
            store: Arc::clone(store),
            metrics: Arc::clone(metrics),
            timeout,
            started: Instant::now(),
            away_at: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            pending: Mutex::default(),
            has_pending: Arc::default(),
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

    /// Marks a write, before its answer is passed on; what the store does not take is marked later.
    /// False where that is so.
    pub async fn mark(&self, wrote: &Wrote) -> bool {
        // Other nodes answer from readers what it does not reach.
        budget::keep(self.timeout);
        let marked = self.store.mark(&wrote.marks, wrote.stick).await;
        if let Err(error) = &marked {
            self.metrics.store_failed(FUNCTION);
            self.note_failure(error);
            self.mark_later(wrote);
        }
        marked.is_ok()
    }

    /// Marks a write whose answer nobody waits for, or that the store did not take. Until then this
    /// node is in doubt.
    pub fn mark_later(&self, wrote: &Wrote) {
        let Wrote { marks, stick } = wrote;
        let until = Instant::now() + *stick;
        for (key, mark) in marks {
            self.wait(key.clone(), Pending { mark: mark.clone(), stick: *stick, until });
        }
        self.has_pending.notify_one();
    }

    fn is_away(&self) {
        self.away_at.store(self.now(), Ordering::Relaxed);
    }

    /// Sends what waits; false where some of it still does.
    async fn send(&self) -> bool {
        loop {
            let batch = self.batch();
            if batch.is_empty() {
                return true;
            }
            // A whole life, the longest of all: what began later must not end with it.
            let stick = batch.iter().map(|(_, it)| it.stick).max().unwrap_or_default();
            let marks: Vec<_> =
                batch.iter().map(|(key, it)| (key.clone(), it.mark.clone())).collect();
            if let Err(error) = self.store.mark(&marks, stick).await {
                self.note_failure(&error);
                batch.into_iter().for_each(|(key, it)| self.wait(key, it));
                return false;
            }
        }
    }

    /// Some of what waits, without what counts no more.
    fn batch(&self) -> Vec<(String, Pending)> {
        let (now, mut pending) = (Instant::now(), self.pending());
        pending.retain(|_, it| it.until > now);
        if pending.is_empty() {
            self.waits.store(false, Ordering::Relaxed);
        }
        let keys: Vec<String> = pending.keys().take(BATCH).cloned().collect();
        keys.into_iter().filter_map(|key| pending.remove_entry(&key)).collect()
    }

    /// Keeps a mark until the store takes it.
    fn wait(&self, key: String, it: Pending) {
        let mut pending = self.pending();
        if let Some(known) = pending.get_mut(&key) {
            known.mark = std::mem::take(&mut known.mark).and(it.mark);
            known.until = known.until.max(it.until);
        } else if pending.len() < PENDING_MAX {
            pending.insert(key, it);
        } else {
            self.metrics.store_failed(FUNCTION);
            self.is_away();
        }
        self.waits.store(true, Ordering::Relaxed);
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
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
