//! Queues of deferred deliveries in the embedded store: see [`crate::store::queue`].

use std::time::Duration;

use bytes::Bytes;

use super::MemoryStore;
use crate::store::StoreError;
use crate::store::keys::QueueKeys;
use crate::store::queue::*;

#[allow(unused_variables, clippy::unused_self)]
impl MemoryStore {
    pub fn queue_accept(
        &self,
        keys: &QueueKeys,
        accept: &Accept<'_>,
    ) -> Result<Accepted, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub fn queue_take(&self, keys: &QueueKeys, take: Take<'_>) -> Taken {
        Taken::Items { claims: Vec::new(), now_ms: 0, next_ms: None }
    }
    pub fn queue_settle(&self, keys: &QueueKeys, settle: Settle<'_>) -> Settled {
        Settled::Lost
    }
    pub fn queue_renew(&self, keys: &QueueKeys, holds: &[&Hold]) -> Vec<bool> {
        Vec::new()
    }
    pub fn queue_cancel(&self, keys: &QueueKeys, id: &DeliveryId, keep: Duration) -> Cancelled {
        Cancelled::Unknown
    }
    pub fn queue_requeue(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
        max_age: Duration,
        bounds: QueueBounds,
    ) -> Requeued {
        Requeued::Unknown
    }
    pub fn queue_pause(&self, keys: &QueueKeys, pause: &Pause) -> bool {
        false
    }
    pub fn queue_resume(&self, keys: &QueueKeys) -> bool {
        false
    }
    pub fn queue_look(&self, keys: &QueueKeys) -> QueueLook {
        QueueLook::default()
    }
    pub fn queue_list(
        &self,
        keys: &QueueKeys,
        state: Option<ItemState>,
        after: Option<&DeliveryId>,
    ) -> ItemPage {
        ItemPage::default()
    }
    pub fn queue_find(&self, keys: &QueueKeys, id: &DeliveryId) -> Option<Item> {
        None
    }
    pub fn queue_body(&self, keys: &QueueKeys, id: &DeliveryId) -> Option<Bytes> {
        None
    }
    pub fn queue_answer(&self, keys: &QueueKeys, item: &Item) -> Option<KeptAnswer> {
        None
    }
    pub fn queue_drop_dead(&self, keys: &QueueKeys) -> u64 {
        0
    }
    pub fn queue_dead(
        &self,
        keys: &QueueKeys,
        error: Option<&str>,
        most: usize,
    ) -> Vec<DeliveryId> {
        Vec::new()
    }
}
