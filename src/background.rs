//! Work that no request waits for: bounded in number, outside the serving threads, which may end
//! before it, and counted where it is left undone.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::observe::Metrics;

/// Most pieces of work at a time.
const AT_ONCE_MAX: u32 = 1024;

/// See the module.
#[derive(Debug, Clone)]
pub struct Background {
    permits: Arc<Semaphore>,
    runtime: Handle,
    metrics: Arc<Metrics>,
}

impl Background {
    /// Works on the runtime of whoever calls.
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE_MAX as usize)),
            runtime: Handle::current(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Begins a piece of work. What fails, and what comes when too much is under way already and is
    /// therefore left undone, is counted as a failure of this function of the store.
    pub fn spawn<E>(
        &self,
        function: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.store_failed(function);
            return;
        };
        let metrics = Arc::clone(&self.metrics);
        self.runtime.spawn(async move {
            if work.await.is_err() {
                metrics.store_failed(function);
            }
            drop(permit);
        });
    }

    /// Waits until all that was begun is done, for `limit` at most: what is not is given up, as it
    /// would be by a crash.
    pub async fn finish(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.permits.acquire_many(AT_ONCE_MAX)).await;
    }
}
