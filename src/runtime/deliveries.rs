//! What deferred deliveries share on this node: who accepts wakes who delivers, who waits for an
//! answer learns of it, and what the queues hold is known without asking.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::observe::{Metrics, QueueMeter, QueueNow};
use crate::store::queue::DeliveryId;

/// What one permit for a body stands for, in bytes.
const PERMIT_BYTES: u64 = 1024;
/// What a client is told to wait before it asks again whether there is room.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// See the module.
#[derive(Debug)]
pub struct Deliveries {
    metrics: Arc<Metrics>,
    queues: Mutex<BTreeMap<String, Arc<QueueState>>>,
    /// Bodies that are read before they are accepted, together.
    room: Arc<Semaphore>,
    permits: u32,
    /// Those who wait for an answer.
    waiting: Mutex<HashMap<DeliveryId, Arc<Notify>>>,
    /// Who delivers.
    workers: TaskTracker,
    give_back: CancellationToken,
    drain_began: OnceLock<Instant>,
}

/// What is known of one queue here.
#[derive(Debug)]
pub struct QueueState {
    /// There is something to take.
    pub wake: Notify,
    /// What it counts.
    pub meter: Arc<QueueMeter>,
    now: Mutex<QueueNow>,
    /// When something has left it, as far as this node knows.
    moved: Mutex<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deliveries {
    /// Nothing yet; bodies that are read take so many bytes at most.
    pub(super) fn new(bytes: u64, metrics: &Arc<Metrics>) -> Self {
        let permits = u32::try_from(bytes / PERMIT_BYTES).unwrap_or(u32::MAX).max(1);
        let permits = permits.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self {
            metrics: Arc::clone(metrics),
            queues: Mutex::default(),
            room: Arc::new(Semaphore::new(permits as usize)),
            permits,
            waiting: Mutex::default(),
            workers: TaskTracker::new(),
            give_back: CancellationToken::new(),
            drain_began: OnceLock::new(),
        }
    }

    /// What is known of a queue. Their names are the configuration's.
    pub fn queue(&self, name: &str) -> Arc<QueueState> {
        let mut queues = lock(&self.queues);
        if let Some(known) = queues.get(name) {
            return Arc::clone(known);
        }
        let now = QueueNow { name: name.to_owned(), ..QueueNow::default() };
        let state = Arc::new(QueueState {
            wake: Notify::new(),
            meter: self.metrics.queue(name),
            now: Mutex::new(now),
            moved: Mutex::new(Instant::now()),
        });
        queues.insert(name.to_owned(), Arc::clone(&state));
        state
    }

    /// Waits for room for a body of so many bytes.
    pub async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let permits = permits.clamp(1, self.permits);
        Arc::clone(&self.room).acquire_many_owned(permits).await.ok()
    }

    /// What is told when this delivery has ended here. The guard takes it away again.
    pub fn wait_for(self: &Arc<Self>, id: DeliveryId) -> Waiting {
        let notify = Arc::clone(lock(&self.waiting).entry(id).or_default());
        Waiting { deliveries: Arc::clone(self), id, notify }
    }

    /// A delivery has ended.
    pub fn ended(&self, id: &DeliveryId) {
        if let Some(notify) = lock(&self.waiting).get(id) {
            notify.notify_waiters();
        }
    }

    /// Who delivers, for the end of the process to wait for.
    pub fn workers(&self) -> &TaskTracker {
        &self.workers
    }

    /// Cancelled when what is still being delivered is to be given back.
    pub fn give_back(&self) -> &CancellationToken {
        &self.give_back
    }

    pub(super) fn begin_drain(&self) {
        self.drain_began.get_or_init(Instant::now);
        lock(&self.queues).values().for_each(|queue| queue.wake.notify_one());
    }

    /// Waits until what is being delivered has ended, for what is left of `drain`; what has not by
    /// then is given back, within `limit`.
    pub(super) async fn finish(&self, drain: Duration, limit: Duration) {
        self.begin_drain();
        self.workers.close();
        let began = self.drain_began.get().copied().unwrap_or_else(Instant::now);
        let _ = tokio::time::timeout_at(began + drain, self.workers.wait()).await;
        self.give_back.cancel();
        let _ = tokio::time::timeout(limit, self.workers.wait()).await;
    }

    /// What these queues held when they were looked at last.
    pub fn now<'n>(&self, names: impl Iterator<Item = &'n String>) -> Vec<QueueNow> {
        names.map(|name| self.queue(name).now()).collect()
    }
}

impl QueueState {
    /// What it held when it was looked at last.
    pub fn now(&self) -> QueueNow {
        lock(&self.now).clone()
    }

    /// It was looked at. True where it has come to be above its bounds since the last look.
    pub fn looked(&self, now: QueueNow) -> bool {
        let mut known = lock(&self.now);
        let is_news = now.is_warned && !known.is_warned;
        let open = |it: &QueueNow| it.items.iter().map(|(_, count)| count).sum::<u64>();
        if open(&now) < open(&known) {
            self.moved();
        }
        *known = now;
        is_news
    }

    /// Something has left it.
    pub fn moved(&self) {
        *lock(&self.moved) = Instant::now();
    }

    /// When there may be room: soon, where something has just left it.
    pub fn retry_after(&self) -> Duration {
        let [least, most] = RETRY;
        lock(&self.moved).elapsed().clamp(least, most)
    }
}

/// Somebody who waits for a delivery to end.
#[derive(Debug)]
pub struct Waiting {
    deliveries: Arc<Deliveries>,
    id: DeliveryId,
    notify: Arc<Notify>,
}

impl Waiting {
    /// Waits until it has ended here, for `most` at most.
    pub async fn wait(&self, most: Duration) {
        let _ = tokio::time::timeout(most, self.notify.notified()).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = lock(&self.deliveries.waiting);
        // Both the map and this one have it; others wait for the same.
        if Arc::strong_count(&self.notify) <= 2 {
            waiting.remove(&self.id);
        }
    }
}
