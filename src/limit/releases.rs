//! Slots that are to be given back to the store. They wait here until the store has said that it
//! took them, or until their leases have ended anyway.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::observe::Metrics;
use crate::store::{Release, Store, StoreError};

/// Most releases that wait for the store. Beyond it a slot is free when its lease ends.
const WAITING_MAX: usize = 65_536;
/// Most releases in one round trip.
const BATCH_MAX: usize = 256;
/// Pause after a round trip that failed.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How often the sender looks whether the limiter is still there.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Releases {
    /// Each with the end of its lease, if the store was not reached before.
    waiting: Mutex<VecDeque<(Instant, Release)>>,
    bell: Notify,
    /// Held while a batch is on its way, so that whoever waits for the rest waits for it too.
    sending: tokio::sync::Mutex<()>,
}

impl Releases {
    /// Adds one. False when too many wait.
    pub(super) fn add(&self, release: Release) -> bool {
        let mut waiting = self.lock();
        if waiting.len() >= WAITING_MAX {
            return false;
        }
        waiting.push_back((Instant::now() + release.longest(), release));
        drop(waiting);
        self.bell.notify_one();
        true
    }

    /// Sends what waits, until nothing does.
    ///
    /// # Errors
    /// When the store cannot be reached: what it did not acknowledge waits on.
    pub(super) async fn send(&self, store: &Store, metrics: &Metrics) -> Result<(), StoreError> {
        let _alone = self.sending.lock().await;
        loop {
            let (ends, batch) = self.next();
            if batch.is_empty() {
                return Ok(());
            }
            match store.release(&batch).await {
                Ok(()) => {}
                Err(error) => {
                    metrics.store_failed("limits");
                    if error.is_outage() {
                        let back = ends.into_iter().zip(batch);
                        back.rev().for_each(|waiting| self.lock().push_front(waiting));
                        return Err(error);
                    }
                    // The store refused one of them, as it would again; it carried the others out.
                }
            }
        }
    }

    /// Waits for something to send, or for [`IDLE_MAX`].
    pub(super) async fn wait(&self) {
        // Whether it rang or not, what waits is looked at.
        let _ = tokio::time::timeout(IDLE_MAX, self.bell.notified()).await;
    }

    /// Has what waits be looked at again.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// The next batch, without those whose leases have ended.
    fn next(&self) -> (Vec<Instant>, Vec<Release>) {
        let mut waiting = self.lock();
        let now = Instant::now();
        waiting.retain(|(end, _)| *end > now);
        let count = waiting.len().min(BATCH_MAX);
        waiting.drain(..count).unzip()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Release)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
