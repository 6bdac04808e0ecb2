//! The fleet's lease on one fetch: while a node holds it, the others wait for what it stores.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::gateway::Gateway;
use crate::store::{Cached, CachedReply, HeldLock, StoreError};

/// How long a lease outlives its last renewal: so long the others wait for a node that died.
const LEASE: Duration = Duration::from_secs(3);
/// How often it is renewed while the fetch goes on.
const RENEWAL: Duration = Duration::from_secs(1);

/// A lease that this node holds. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Lease {
    gateway: Arc<Gateway>,
    lock: Option<HeldLock>,
    renewal: AbortHandle,
}

impl Lease {
    /// Takes the lease under `key`, if nobody has it, and looks at what is stored after that.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn take(
        gateway: &Arc<Gateway>,
        key: String,
        cached: Cached<'_>,
    ) -> Result<(Option<Self>, CachedReply), StoreError> {
        let lock = HeldLock { key, token: format!("{:032x}", fastrand::u128(..)) };
        let (is_ours, reply) = gateway.store.lock_and_look(&lock, LEASE, cached).await?;
        Ok((is_ours.then(|| Self::keep(gateway, lock)), reply))
    }

    /// Renews a lease until it is given back.
    fn keep(gateway: &Arc<Gateway>, lock: HeldLock) -> Self {
        let (renewing, renewed) = (Arc::clone(gateway), lock.clone());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL).await;
                if matches!(renewing.store.extend_lock(&renewed, LEASE).await, Ok(false)) {
                    return;
                }
            }
        });
        let renewal = renewal.abort_handle();
        Self { gateway: Arc::clone(gateway), lock: Some(lock), renewal }
    }

    /// The lock, for the write that releases it.
    pub(super) fn into_lock(mut self) -> Option<HeldLock> {
        self.lock.take()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        if let Some(lock) = self.lock.take() {
            self.gateway.unlock(lock);
        }
    }
}
