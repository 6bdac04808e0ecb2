//! What is asked of the store of queues, of either kind. Not beside the other methods in `store`,
//! because it is a machine of its own: nothing else touches these keys.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::keys::QueueKeys;
use super::queue::{
    Accept, Accepted, Cancelled, DeliveryId, Durability, Hold, Item, ItemPage, ItemState,
    KeptAnswer, Pause, QueueBounds, QueueLook, QueueSafety, Requeued, Settle, Settled, Take, Taken,
};
use super::separate::One;
use super::{Store, StoreError};
use crate::config::StoreUse;

impl Store {
    fn queues(&self) -> One<'_> {
        self.used_for(StoreUse::Queue)
    }

    /// Whether work may be kept in this store.
    pub fn queue_safety(&self) -> QueueSafety {
        match self.queues() {
            One::Redis(store) => store.queue_safety(),
            One::Memory(_) => QueueSafety::Safe { appends: Some(false), fsyncs: Some(false) },
        }
    }

    /// Rung when a server was looked at, so that [`Self::queue_safety`] may say something else. The
    /// embedded store has none: what it says is always the same.
    pub fn queue_looked(&self) -> Option<Arc<Notify>> {
        match self.queues() {
            One::Redis(store) => Some(store.queue_looked()),
            One::Memory(_) => None,
        }
    }

    /// Accepts an item, once for each idempotency key. Where the answer was missed, it is asked
    /// once more, with the same id.
    ///
    /// # Errors
    /// The store did not answer, or refused. It may have accepted then: only the same id tells.
    pub async fn queue_accept(
        &self,
        keys: &QueueKeys,
        accept: &Accept<'_>,
    ) -> Result<Accepted, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_accept(keys, accept).await,
            One::Memory(store) => store.queue_accept(keys, accept),
        }
    }

    /// The same, and waits until the item is as durable as it is to be, for `store.replica_timeout`
    /// at most: [`Accepted::InDoubt`] then, and whoever asks again under the same key learns more.
    /// The embedded store has nothing to wait for.
    ///
    /// # Errors
    /// As [`Self::queue_accept`].
    pub async fn queue_accept_durably(
        &self,
        keys: &QueueKeys,
        accept: &Accept<'_>,
        durability: Durability,
    ) -> Result<Accepted, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_accept_durably(keys, accept, durability).await,
            One::Memory(store) => store.queue_accept(keys, accept),
        }
    }

    /// Takes items whose turn has come, and reads them. What cannot be read is given back.
    ///
    /// # Errors
    /// The store did not answer, or refused. What it claimed then is somebody's after a lease.
    pub async fn queue_take(&self, keys: &QueueKeys, take: Take<'_>) -> Result<Taken, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_take(keys, take).await,
            One::Memory(store) => Ok(store.queue_take(keys, take)),
        }
    }

    /// Writes how a delivery ended, if the claim is still the caller's.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_settle(
        &self,
        keys: &QueueKeys,
        settle: Settle<'_>,
    ) -> Result<Settled, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_settle(keys, settle).await,
            One::Memory(store) => Ok(store.queue_settle(keys, settle)),
        }
    }

    /// Keeps claims for another lease; of each, whether it is still the caller's.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_renew(
        &self,
        keys: &QueueKeys,
        holds: &[&Hold],
    ) -> Result<Vec<bool>, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_renew(keys, holds).await,
            One::Memory(store) => Ok(store.queue_renew(keys, holds)),
        }
    }

    /// Cancels an item that waits; its record is kept for `keep`.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_cancel(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
        keep: Duration,
    ) -> Result<Cancelled, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_cancel(keys, id, keep).await,
            One::Memory(store) => Ok(store.queue_cancel(keys, id, keep)),
        }
    }

    /// Has a dead item tried again, for `max_age` from now.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_requeue(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
        max_age: Duration,
        bounds: QueueBounds,
    ) -> Result<Requeued, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_requeue(keys, id, max_age, bounds).await,
            One::Memory(store) => Ok(store.queue_requeue(keys, id, max_age, bounds)),
        }
    }

    /// Has nothing taken, for so long or until [`Self::queue_resume`]; a pause with an end does not
    /// replace one that is there. True when it is in force now.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_pause(&self, keys: &QueueKeys, pause: &Pause) -> Result<bool, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_pause(keys, pause).await,
            One::Memory(store) => Ok(store.queue_pause(keys, pause)),
        }
    }

    /// Ends a pause. True when there was one.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_resume(&self, keys: &QueueKeys) -> Result<bool, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_resume(keys).await,
            One::Memory(store) => Ok(store.queue_resume(keys)),
        }
    }

    /// What a queue holds.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_look(&self, keys: &QueueKeys) -> Result<QueueLook, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_look(keys).await,
            One::Memory(store) => Ok(store.queue_look(keys)),
        }
    }

    /// The items of a queue in this state, behind `after`; without a state all that are open. What
    /// is done or cancelled is not listed.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_list(
        &self,
        keys: &QueueKeys,
        state: Option<ItemState>,
        after: Option<&DeliveryId>,
    ) -> Result<ItemPage, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_list(keys, state, after).await,
            One::Memory(store) => Ok(store.queue_list(keys, state, after)),
        }
    }

    /// One item.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_find(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
    ) -> Result<Option<Item>, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_find(keys, id).await,
            One::Memory(store) => Ok(store.queue_find(keys, id)),
        }
    }

    /// The body of an item; nothing where there is none any more.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_body(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_body(keys, id).await,
            One::Memory(store) => Ok(store.queue_body(keys, id)),
        }
    }

    /// The answer that is kept of a settled item.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_answer(
        &self,
        keys: &QueueKeys,
        item: &Item,
    ) -> Result<Option<KeptAnswer>, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_answer(keys, item).await,
            One::Memory(store) => Ok(store.queue_answer(keys, item)),
        }
    }

    /// Deletes the oldest dead items, [`super::queue::QUEUE_DEAD_ROUND`] at most; how many.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_drop_dead(&self, keys: &QueueKeys) -> Result<u64, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_drop_dead(keys).await,
            One::Memory(store) => Ok(store.queue_drop_dead(keys)),
        }
    }

    /// The oldest dead items, with this error if one is named: `most` of those that are looked
    /// at, of which there are [`super::queue::QUEUE_DEAD_ROUND`] at most. For
    /// [`Self::queue_requeue`].
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_dead(
        &self,
        keys: &QueueKeys,
        error: Option<&str>,
        most: usize,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_dead(keys, error, most).await,
            One::Memory(store) => Ok(store.queue_dead(keys, error, most)),
        }
    }

    /// Puts back what a lost stream has taken along; how many. All that is open lives for 30 days
    /// from then, at least. Nothing is done where a node of the fleet did it within `lately`,
    /// which may be none; [`Self::queue_take`] does it by itself where it finds the group gone.
    ///
    /// # Errors
    /// The store did not answer, or refused; some may be put back then.
    pub async fn queue_repair(
        &self,
        keys: &QueueKeys,
        lately: Duration,
    ) -> Result<u64, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_repair_due(keys, lately).await,
            One::Memory(store) => Ok(store.queue_repair(keys)),
        }
    }
}
