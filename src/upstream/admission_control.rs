//! Whether a request may go to an upstream now.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::capacity::{Capacity, Permit};
use super::failure::Failure;
use super::outgoing::Sender;
use crate::config;
use crate::observe::UpstreamMeter;

/// Lets requests begin, or refuses them before any server was picked. The breaker, which knows that
/// an upstream is not to be asked at all, was asked before.
#[derive(Debug)]
pub(super) struct AdmissionControl {
    capacity: Arc<Capacity>,
    /// Longest wait for a permit.
    patience: Duration,
}

impl AdmissionControl {
    /// Of an upstream without requests yet.
    pub(super) fn new(settings: &config::Upstream) -> Self {
        let max = settings.max_requests;
        let capacity = Capacity::new(max, settings.client_share.of(max));
        Self { capacity, patience: settings.connect_timeout }
    }

    /// As other settings of the same upstream want it. Where as many permits are given out as
    /// before, those that are held stay counted.
    pub(super) fn with(&self, settings: &config::Upstream) -> Self {
        let new = Self::new(settings);
        let capacity = if self.capacity.has_bounds_of(&new.capacity) {
            Arc::clone(&self.capacity)
        } else {
            new.capacity
        };
        Self { capacity, ..new }
    }

    /// A permit for one request, which waits up to `connect_timeout` for it.
    ///
    /// # Errors
    /// [`Failure::Busy`] where there was none in time.
    pub(super) async fn admit(
        &self,
        sender: &Sender,
        meter: &UpstreamMeter,
    ) -> Result<Permit, Failure> {
        if let Some(permit) = self.capacity.try_take(sender.client) {
            return Ok(permit);
        }
        let permit = self.capacity.take(sender.client);
        let (waited, began) = (tokio::time::timeout(self.patience, permit), Instant::now());
        let permit = Box::pin(waited).await.ok().flatten();
        meter.waited(began.elapsed());
        permit.ok_or(Failure::Busy)
    }

    /// How many requests are in progress, and how many wait.
    pub(super) fn count(&self) -> (usize, usize) {
        self.capacity.count()
    }
}
