//! What deferred deliveries share on this node: who accepts wakes who delivers, who waits for an
//! answer learns of it, and what the queues hold is known without asking.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Problems, Queue};
use crate::observe::{Metrics, QueueMeter, QueueNow};
use crate::plan::Plan;
use crate::store::queue::{DeliveryId, QueueLook};
use crate::store::{Store, StoreError};

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
    /// Until when somebody waits for the store to be looked at, where it has not been.
    look_until: Mutex<Option<Instant>>,
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
    /// The shards beyond those that it has, of which something is to be delivered yet: one bit
    /// each.
    beyond: AtomicU32,
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
            look_until: Mutex::default(),
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
            beyond: AtomicU32::new(0),
        });
        queues.insert(name.to_owned(), Arc::clone(&state));
        state
    }

    /// Room for a body that nothing is read of yet, which waits for more of it as long as this.
    pub fn room(&self, patience: Duration) -> Room {
        Room { all: Arc::clone(&self.room), most: self.permits, taken: None, patience }
    }

    /// Until when to wait for the store to be looked at: for `most` from when that was first
    /// wanted. Whoever comes later waits no longer than the first one.
    pub fn look_until(&self, most: Duration) -> Instant {
        *lock(&self.look_until).get_or_insert_with(|| Instant::now() + most)
    }

    /// The store was looked at, or is away: the next time is a new one.
    pub fn looked(&self) {
        *lock(&self.look_until) = None;
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

    /// Whether each of these shards holds something yet, beyond those that it has. Of others, what
    /// was noted last stays.
    pub fn note_beyond(&self, known: impl Iterator<Item = (u8, bool)>) {
        let bits = known.fold(self.beyond(), |bits, (shard, is_open)| {
            let bit = 1u32.checked_shl(shard.into()).unwrap_or(0);
            if is_open { bits | bit } else { bits & !bit }
        });
        self.beyond.store(bits, Ordering::Relaxed);
    }

    /// The shards that were noted last, one bit each.
    pub fn beyond(&self) -> u32 {
        self.beyond.load(Ordering::Relaxed)
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

/// What the shards of a queue hold together, by a plan that has it: all that it may have, so that
/// one that does not answer is not taken for an empty one.
async fn look(
    store: &Store,
    plan: &Plan,
    (name, queue): (&str, &Queue),
) -> Result<QueueLook, StoreError> {
    let mut all: Vec<_> = (0..queue.shards).map(|shard| plan.keys.queue(name, shard)).collect();
    for (keys, shard) in store.queue_beyond(&plan.keys, name, queue.shards).await {
        if shard?.is_used() {
            all.push(keys);
        }
    }
    let mut sum = QueueLook::default();
    for look in store.queue_look_each(&all).await {
        sum.add(look?);
    }
    Ok(sum)
}

/// The queues that are in one plan and not in the next one, and hold requests that are not
/// delivered yet, or may: nobody would deliver them any more. Those that only drain may go so.
pub(super) async fn left_behind(store: &Store, former: &Plan, plan: &Plan) -> Problems {
    let mut problems = Problems::default();
    let queues = former.config.queues.iter();
    for (name, queue) in queues.filter(|(name, _)| !plan.config.queues.contains_key(*name)) {
        if queue.drain_only {
            continue;
        }
        let what = match look(store, former, (name, queue)).await {
            Ok(look) if look.open == 0 => continue,
            Ok(look) => format!("is not there, and {} of its requests still wait", look.open),
            Err(error) => format!("is not there, and what it holds is not known: {error}"),
        };
        let remedy = format!(
            "keep [queues.{name}] until `portcullis queues` shows that it is empty; its routes \
             may go before. With drain_only = true it may go as it is"
        );
        problems.push(format!("queues.{name}"), what, remedy);
    }
    divided_anew(store, (former, plan), &mut problems).await;
    problems
}

/// The queues that the next plan divides into another number of shards while requests wait in them
/// that are delivered in order: what comes next under an order key could overtake them.
async fn divided_anew(store: &Store, (former, plan): (&Plan, &Plan), problems: &mut Problems) {
    for (name, queue) in &former.config.queues {
        let Some(next) = plan.config.queues.get(name) else { continue };
        let has_lines = [former, plan].iter().any(|plan| has_lines(&plan.config, name));
        if queue.shards == next.shards || !has_lines {
            continue;
        }
        let holds_lines = queue.ends.holds_line || next.ends.holds_line;
        let of = |look: &QueueLook| look.open + if holds_lines { look.dead } else { 0 };
        let what = match look(store, former, (name, queue)).await {
            Ok(look) if of(&look) == 0 => continue,
            Ok(look) => format!(
                "is another number, and {} of its requests stand in lines or may",
                of(&look)
            ),
            Err(error) => format!("is another number, and what it holds is not known: {error}"),
        };
        let remedy = format!(
            "keep shards = {} until `portcullis queues` shows that it is empty",
            queue.shards
        );
        problems.push(format!("queues.{name}.shards"), what, remedy);
    }
}

/// Whether requests of a queue may stand in lines: by its own order, or as what undoes others.
fn has_lines(config: &Config, name: &str) -> bool {
    let undoes = |queue: &Queue| queue.ends.on_dead.as_deref() == Some(name);
    let is_ordered = |queue: &Queue| queue.order_by.is_some();
    config.queues.get(name).is_some_and(is_ordered) || config.queues.values().any(undoes)
}

/// Says what the queues have left that are in one plan and not in the next one, though it is not
/// delivered yet: it stays in the store until it ends.
pub(super) async fn tell_of_left(store: &Store, former: &Plan, plan: &Plan) {
    let queues = former.config.queues.iter().filter(|(_, queue)| queue.drain_only);
    for (name, queue) in queues.filter(|(name, _)| !plan.config.queues.contains_key(*name)) {
        match look(store, former, (name, queue)).await {
            Ok(look) if look.open == 0 => {}
            Ok(look) => tracing::warn!(
                queue = name,
                requests = look.open,
                "the queue is taken away with requests in it, which stay in the store until they \
                 end\n    help: put [queues.{name}] back to have them delivered"
            ),
            Err(error) => tracing::warn!(
                queue = name,
                %error,
                "the queue is taken away, and what it holds is not known"
            ),
        }
    }
}

/// What a body takes up of the room for all of them, until it is dropped.
#[derive(Debug)]
pub struct Room {
    all: Arc<Semaphore>,
    /// Permits that there are.
    most: u32,
    taken: Option<OwnedSemaphorePermit>,
    /// How long it waits yet.
    patience: Duration,
}

impl Room {
    /// Waits until there is room for so many bytes in all. False where that takes too long: others
    /// that have begun have what is wanted.
    pub async fn grow(&mut self, bytes: u64) -> bool {
        let wanted = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let taken = u32::try_from(taken).unwrap_or(u32::MAX);
        let more = wanted.min(self.most).saturating_sub(taken);
        if more == 0 {
            return true;
        }
        let began = Instant::now();
        let more = Arc::clone(&self.all).acquire_many_owned(more);
        let more = tokio::time::timeout(self.patience, more).await;
        self.patience = self.patience.saturating_sub(began.elapsed());
        let Ok(Ok(more)) = more else { return false };
        self.taken = Some(match self.taken.take() {
            None => more,
            Some(mut taken) => {
                taken.merge(more);
                taken
            }
        });
        true
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn of(kib: u64) -> Deliveries {
        Deliveries::new(kib * PERMIT_BYTES, &Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_takes_room_as_it_comes_and_waits_for_it_with_an_end() {
        let deliveries = of(4);
        let (mut slow, mut other) = (deliveries.room(SECOND), deliveries.room(SECOND));
        // A client that has sent nothing holds up nobody.
        assert!(other.grow(3 * PERMIT_BYTES).await);
        assert!(slow.grow(1).await && slow.grow(PERMIT_BYTES).await);
        let began = Instant::now();
        assert!(!slow.grow(PERMIT_BYTES + 1).await);
        assert_eq!(began.elapsed(), SECOND);
        drop(other);
        assert!(slow.grow(PERMIT_BYTES + 1).await);
        // What is longer than all the room there is has all of it.
        assert!(slow.grow(100 * PERMIT_BYTES).await);
        assert!(!deliveries.room(SECOND).grow(1).await);
        drop(slow);
        assert!(deliveries.room(SECOND).grow(4 * PERMIT_BYTES).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_look_that_others_have_waited_for() {
        let deliveries = of(1);
        let first = deliveries.look_until(SECOND);
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(deliveries.look_until(SECOND), first);
        deliveries.looked();
        assert_eq!(deliveries.look_until(SECOND), first + 2 * SECOND);
    }
}
