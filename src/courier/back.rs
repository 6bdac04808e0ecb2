//! A delivery that was taken and is left to others: nothing was sent, or nothing is known of it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Queue;
use crate::runtime::{Gateway, QueueState};
use crate::store::keys::QueueKeys;
use crate::store::queue::{After, Hold, Outcome, Settle};

/// What it takes to leave a delivery to others.
pub(super) struct Back {
    gateway: Arc<Gateway>,
    state: Arc<QueueState>,
    keys: Arc<QueueKeys>,
    keep: Duration,
    dead_most: u64,
}

impl Back {
    /// Of this shard.
    pub(super) fn of(
        (gateway, queue): (&Arc<Gateway>, &Queue),
        state: &Arc<QueueState>,
        keys: &Arc<QueueKeys>,
    ) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            state: Arc::clone(state),
            keys: Arc::clone(keys),
            keep: queue.keep,
            // Nothing dies by this.
            dead_most: queue.max_dead,
        }
    }

    /// Settles one, once: where the store does not answer, its lease runs out.
    pub(super) async fn settle(self, hold: Hold) {
        let settle = Settle {
            hold: &hold,
            outcome: Outcome::Back { delay: Duration::ZERO },
            status: 0,
            error: "",
            answer: None,
            keep: self.keep,
            dead_most: self.dead_most,
            after: After::default(),
        };
        let _ = self.gateway.store.queue_settle(&self.keys, settle).await;
        self.state.meter.attempted("back", Duration::ZERO);
    }
}
