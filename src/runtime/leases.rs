//! The fleet's leases that this node holds. They are renewed until they are given back, so that
//! other nodes wait for a fetch that takes long, and not for one whose node died.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::Gateway;
use crate::store::HeldLock;

/// How long a lease outlives its last renewal: so long the others wait for a node that died.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often leases are renewed. One that is younger is not: most fetches are over before.
const RENEWAL: Duration = Duration::from_secs(1);
/// Most leases that are renewed at the same time.
const AT_ONCE_MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<u64, (Instant, HeldLock)>>,
    /// The number of the next one.
    next: AtomicU64,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Instant, HeldLock)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> Vec<(u64, HeldLock)> {
        let held = self.lock();
        let due = held.iter().filter(|(_, (since, _))| since.elapsed() >= RENEWAL / 2);
        due.map(|(id, (_, lock))| (*id, lock.clone())).collect()
    }
}

/// The renewal of one lease, until it is dropped.
#[derive(Debug)]
pub struct LeaseRenewal {
    gateway: Arc<Gateway>,
    id: u64,
}

impl Drop for LeaseRenewal {
    fn drop(&mut self) {
        self.gateway.leases.lock().remove(&self.id);
    }
}

impl Gateway {
    /// Renews a lease from now on.
    pub fn renew_lease(self: &Arc<Self>, lock: HeldLock) -> LeaseRenewal {
        let id = self.leases.next.fetch_add(1, Ordering::Relaxed);
        self.leases.lock().insert(id, (Instant::now(), lock));
        LeaseRenewal { gateway: Arc::clone(self), id }
    }
}

/// Renews what is held, until the gateway is gone.
pub(super) async fn keep(gateway: Weak<Gateway>) {
    let mut ticks = tokio::time::interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        for due in gateway.leases.due().chunks(AT_ONCE_MAX) {
            let mut renewals = JoinSet::new();
            for (id, lock) in due {
                let (gateway, id, lock) = (Arc::clone(&gateway), *id, lock.clone());
                renewals.spawn(async move {
                    let renewed = gateway.store.extend_lock(&lock, LEASE).await;
                    // It ended while nobody renewed it, or its fetch has just been stored.
                    if renewed == Ok(false) {
                        gateway.leases.lock().remove(&id);
                    }
                });
            }
            // One after the other, many slow fetches would take longer than a lease lasts.
            while renewals.join_next().await.is_some() {}
        }
    }
}
