//! The fleet's leases on fetches: while a node holds one, the others wait for what it stores. Those
//! that this node holds are renewed until they are given back, so that other nodes wait for a fetch
//! that takes long, and not for one whose node died.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::background::Background;
use crate::base::http::hex;
use crate::store::{HeldLock, Store, WantedLock};

/// How long a lease outlives its last renewal: so long the others wait for a node that died.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// How often leases are renewed. One that is younger is not: most fetches are over before.
const RENEWAL: Duration = Duration::from_secs(1);
/// Most leases that are renewed at the same time.
const AT_ONCE_MAX: usize = 256;

/// The leases of this node.
#[derive(Debug)]
pub(super) struct FetchLeases {
    store: Arc<Store>,
    background: Background,
    held: Mutex<HashMap<u64, (Instant, HeldLock)>>,
    /// The number of the next one.
    next: AtomicU64,
}

impl FetchLeases {
    /// None yet. What comes is renewed until the last count of this is dropped.
    pub(super) fn open(store: &Arc<Store>, background: &Background) -> Arc<Self> {
        let leases = Arc::new(Self {
            store: Arc::clone(store),
            background: background.clone(),
            held: Mutex::default(),
            next: AtomicU64::new(0),
        });
        tokio::spawn(renew(Arc::downgrade(&leases)));
        leases
    }

    /// Renews a lease from now on, until its renewal is dropped.
    fn hold(self: &Arc<Self>, lock: HeldLock) -> Renewal {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, (Instant::now(), lock));
        Renewal { leases: Arc::clone(self), id }
    }

    /// Gives a lease back, in the background, if it is this node's: nobody knows that before the
    /// store has answered, nor of one that was held for longer than it lasts.
    fn give_back(&self, lock: HeldLock) {
        let store = Arc::clone(&self.store);
        self.background.spawn("cache", async move { store.unlock(&lock).await.map(|_| ()) });
    }

    fn due(&self) -> Vec<(u64, HeldLock)> {
        let held = self.lock();
        let due = held.iter().filter(|(_, (since, _))| since.elapsed() >= RENEWAL / 2);
        due.map(|(id, (_, lock))| (*id, lock.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Instant, HeldLock)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The renewal of one lease, until it is dropped.
#[derive(Debug)]
struct Renewal {
    leases: Arc<FetchLeases>,
    id: u64,
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.id);
    }
}

/// Renews what is held, until nobody needs it any more.
async fn renew(leases: Weak<FetchLeases>) {
    let mut ticks = tokio::time::interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(leases) = leases.upgrade() else { return };
        for due in leases.due().chunks(AT_ONCE_MAX) {
            let mut renewals = JoinSet::new();
            for (id, lock) in due {
                let (leases, id, lock) = (Arc::clone(&leases), *id, lock.clone());
                renewals.spawn(async move {
                    let renewed = leases.store.extend_lock(&lock, LEASE).await;
                    // It ended while nobody renewed it, or its fetch has just been stored.
                    if renewed == Ok(false) {
                        leases.lock().remove(&id);
                    }
                });
            }
            // One after the other, many slow fetches would take longer than a lease lasts.
            while renewals.join_next().await.is_some() {}
        }
    }
}

/// A lease that this node has, or may have until the store has answered. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Lease {
    leases: Arc<FetchLeases>,
    lock: Option<HeldLock>,
    renewal: Option<Renewal>,
}

/// Who has the lease.
#[derive(Debug, Default)]
pub(super) enum LeaseOutcome {
    /// It was not asked for.
    #[default]
    Unknown,
    /// This request.
    Ours(Lease),
    /// Somebody else.
    Theirs,
}

impl Lease {
    /// The lease under `key`, before the store is asked for it.
    pub(super) fn wanted(leases: &Arc<FetchLeases>, key: String) -> Self {
        let lock = HeldLock { key, token: hex::encode(&fastrand::u128(..).to_be_bytes()) };
        Self { leases: Arc::clone(leases), lock: Some(lock), renewal: None }
    }

    /// The lease as the store takes it.
    pub(super) fn question(&self) -> Option<WantedLock<'_>> {
        self.lock.as_ref().map(|lock| WantedLock { lock, ttl: LEASE })
    }

    /// What the store said: who holds it.
    pub(super) fn on_reply(mut self, holder: Option<&[u8]>) -> LeaseOutcome {
        match (&self.lock, holder) {
            (Some(lock), Some(holder)) if lock.token.as_bytes() == holder => {
                self.renewal = Some(self.leases.hold(lock.clone()));
                LeaseOutcome::Ours(self)
            }
            (_, holder) => {
                self.lock = None;
                if holder.is_some() { LeaseOutcome::Theirs } else { LeaseOutcome::Unknown }
            }
        }
    }

    /// The lock, for a write that releases it: dropping the lease gives nothing back from now on,
    /// and only ends its renewal.
    pub(super) fn take_lock(&mut self) -> Option<HeldLock> {
        self.lock.take()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            self.leases.give_back(lock);
        }
    }
}
