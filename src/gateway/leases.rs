//! The fleet's leases that this node holds. They are renewed until they are given back, so that
//! other nodes wait for a fetch that takes long, and not for one whose node died.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::Gateway;
use crate::store::{HeldLock, StoreError};

/// How long a lease outlives its last renewal: so long the others wait for a node that died.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often leases are renewed. One that is younger is not: most fetches are over before.
const RENEWAL: Duration = Duration::from_secs(1);

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

impl Gateway {
    /// Renews a lease from now on; by what number it ends.
    pub fn renew_lease(&self, lock: HeldLock) -> u64 {
        let id = self.leases.next.fetch_add(1, Ordering::Relaxed);
        self.leases.lock().insert(id, (Instant::now(), lock));
        id
    }

    /// Renews it no more.
    pub fn end_lease(&self, id: u64) {
        self.leases.lock().remove(&id);
    }
}

/// Renews what is held, until the gateway is gone.
pub(super) async fn keep(gateway: Weak<Gateway>) {
    let mut ticks = tokio::time::interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        for (id, lock) in gateway.leases.due() {
            match gateway.store.extend_lock(&lock, LEASE).await {
                // It ended while nobody renewed it, or its fetch has just been stored.
                Ok(false) => gateway.end_lease(id),
                Err(StoreError::Unavailable | StoreError::Timeout) => break,
                Ok(true) | Err(_) => {}
            }
        }
    }
}
