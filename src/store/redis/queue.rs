//! Queues of deferred deliveries on Redis: see [`crate::store::queue`].

use std::time::Duration;

use bytes::Bytes;

use super::RedisStore;
use crate::store::StoreError;
use crate::store::keys::QueueKeys;
use crate::store::queue::*;

#[allow(unused_variables, clippy::unused_self)]
impl RedisStore {
    pub async fn queue_accept(
        &self,
        keys: &QueueKeys,
        accept: &Accept<'_>,
    ) -> Result<Accepted, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_take(&self, keys: &QueueKeys, take: Take<'_>) -> Result<Taken, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_settle(
        &self,
        keys: &QueueKeys,
        settle: Settle<'_>,
    ) -> Result<Settled, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_renew(
        &self,
        keys: &QueueKeys,
        holds: &[&Hold],
    ) -> Result<Vec<bool>, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_cancel(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
        keep: Duration,
    ) -> Result<Cancelled, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_requeue(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
        max_age: Duration,
        bounds: QueueBounds,
    ) -> Result<Requeued, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_pause(&self, keys: &QueueKeys, pause: &Pause) -> Result<bool, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_resume(&self, keys: &QueueKeys) -> Result<bool, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_look(&self, keys: &QueueKeys) -> Result<QueueLook, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_list(
        &self,
        keys: &QueueKeys,
        state: Option<ItemState>,
        after: Option<&DeliveryId>,
    ) -> Result<ItemPage, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_find(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
    ) -> Result<Option<Item>, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_body(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
    ) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_answer(
        &self,
        keys: &QueueKeys,
        item: &Item,
    ) -> Result<Option<KeptAnswer>, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_drop_dead(&self, keys: &QueueKeys) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub async fn queue_dead(
        &self,
        keys: &QueueKeys,
        error: Option<&str>,
        most: usize,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        Err(StoreError::Unavailable)
    }
    pub fn queue_safety(&self) -> QueueSafety {
        QueueSafety::Unknown
    }
    pub async fn queue_repair(&self, keys: &QueueKeys) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable)
    }
}
