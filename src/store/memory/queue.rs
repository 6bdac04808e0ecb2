//! Queues of deferred deliveries in the embedded store: see [`crate::store::queue`]. They end with
//! the process. What is open is bounded by the queue's own bounds, and what is kept of the rest
//! here.

use std::time::Duration;

use bytes::Bytes;

use super::queue_shard::Shard;
use super::{MemoryStore, lock};
use crate::store::StoreError;
use crate::store::keys::QueueKeys;
use crate::store::queue::{
    Accept, Accepted, Again, Cancelled, DeliveryId, Hold, Item, ItemPage, ItemState, KeptAnswer,
    NoteKey, Noted, Pause, QUEUE_DEAD_ROUND, QueueBounds, QueueLook, Requeued, Settle, Settled,
    ShardUse, Take, Taken,
};

impl MemoryStore {
    /// Does something with a shard, free of what has ended.
    fn shard<T>(&self, keys: &QueueKeys, act: impl FnOnce(&mut Shard, u64) -> T) -> T {
        let mut queues = lock(&self.queues);
        let (shard, now) = queues.shard(&keys.ready);
        shard.expire(now);
        act(shard, now)
    }

    /// See [`crate::store::Store::queue_accept`].
    ///
    /// # Errors
    /// None; the other store has some.
    pub fn queue_accept(
        &self,
        keys: &QueueKeys,
        accept: &Accept<'_>,
    ) -> Result<Accepted, StoreError> {
        Ok(self.shard(keys, |shard, now| shard.accept(accept, now)))
    }

    /// See [`crate::store::Store::queue_note_key`].
    pub fn queue_note_key(&self, keys: &QueueKeys, note: NoteKey<'_>) -> Noted {
        self.shard(keys, |shard, now| shard.note(note, now))
    }

    /// See [`crate::store::Store::queue_again`].
    pub fn queue_again(
        &self,
        keys: &QueueKeys,
        (id, key): (&DeliveryId, Option<&str>),
    ) -> Option<Accepted> {
        let found = self.queue_find(keys, id);
        let is_known = || key.is_some_and(|key| self.shard(keys, |shard, _| shard.knows(key, id)));
        if found.is_none() && !is_known() {
            return None;
        }
        let now = found.map(|Item { state, accepted_ms, due_ms, .. }| Again {
            state,
            accepted_ms,
            due_ms,
        });
        Some(Accepted::Again { id: *id, now })
    }

    /// See [`crate::store::Store::queue_forget_key`].
    pub fn queue_forget_key(&self, keys: &QueueKeys, (key, id): (&str, &DeliveryId)) {
        self.shard(keys, |shard, _| shard.forget(key, id));
    }

    /// See [`crate::store::Store::queue_uses`].
    pub fn queue_uses(&self, all: &[QueueKeys]) -> Vec<ShardUse> {
        let mut queues = lock(&self.queues);
        all.iter().map(|keys| queues.known(&keys.ready).unwrap_or_default()).collect()
    }

    /// See [`crate::store::Store::queue_take`].
    pub fn queue_take(&self, keys: &QueueKeys, take: Take<'_>) -> Taken {
        self.shard(keys, |shard, now| shard.take(take, now))
    }

    /// See [`crate::store::Store::queue_settle`].
    pub fn queue_settle(&self, keys: &QueueKeys, settle: Settle<'_>) -> Settled {
        let mut queues = lock(&self.queues);
        let (shard, now) = queues.shard(&keys.ready);
        shard.expire(now);
        let ends = shard.ends_by(&settle);
        let settled = shard.settle(settle, now);
        let (Some((order, new)), Settled::Written { dropped, .. }) = (ends, settled) else {
            return settled;
        };
        let mut followed = 0;
        for follow_up in new {
            let (shard, now) = queues.shard(&follow_up.keys.ready);
            shard.expire(now);
            followed += u64::from(shard.follow(follow_up, order.as_deref(), now));
        }
        Settled::Written { dropped, followed }
    }

    /// See [`crate::store::Store::queue_renew`].
    pub fn queue_renew(&self, keys: &QueueKeys, holds: &[&Hold]) -> Vec<bool> {
        self.shard(keys, |shard, now| holds.iter().map(|hold| shard.renew(hold, now)).collect())
    }

    /// See [`crate::store::Store::queue_cancel`].
    pub fn queue_cancel(&self, keys: &QueueKeys, id: &DeliveryId, keep: Duration) -> Cancelled {
        self.shard(keys, |shard, now| shard.cancel(id, keep, now))
    }

    /// See [`crate::store::Store::queue_requeue`].
    pub fn queue_requeue(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
        max_age: Duration,
        bounds: QueueBounds,
    ) -> Requeued {
        self.shard(keys, |shard, now| shard.requeue(id, max_age, bounds, now))
    }

    /// See [`crate::store::Store::queue_pause`].
    pub fn queue_pause(&self, keys: &QueueKeys, pause: &Pause) -> bool {
        self.shard(keys, |shard, now| shard.set_pause(pause, now))
    }

    /// See [`crate::store::Store::queue_resume`].
    pub fn queue_resume(&self, keys: &QueueKeys) -> bool {
        self.shard(keys, |shard, _| shard.end_pause())
    }

    /// See [`crate::store::Store::queue_look`].
    pub fn queue_look(&self, keys: &QueueKeys) -> QueueLook {
        self.shard(keys, |shard, now| shard.look(now))
    }

    /// See [`crate::store::Store::queue_list`].
    pub fn queue_list(
        &self,
        keys: &QueueKeys,
        state: Option<ItemState>,
        after: Option<&DeliveryId>,
    ) -> ItemPage {
        self.shard(keys, |shard, _| shard.list(state, after))
    }

    /// See [`crate::store::Store::queue_find`].
    pub fn queue_find(&self, keys: &QueueKeys, id: &DeliveryId) -> Option<Item> {
        self.shard(keys, |shard, _| shard.find(id))
    }

    /// See [`crate::store::Store::queue_body`].
    pub fn queue_body(&self, keys: &QueueKeys, id: &DeliveryId) -> Option<Bytes> {
        self.shard(keys, |shard, _| shard.body(id))
    }

    /// See [`crate::store::Store::queue_answer`].
    pub fn queue_answer(&self, keys: &QueueKeys, item: &Item) -> Option<KeptAnswer> {
        self.shard(keys, |shard, _| shard.answer(&item.id))
    }

    /// See [`crate::store::Store::queue_repair`]: nothing is lost here, so nothing is put back.
    pub fn queue_repair(&self, keys: &QueueKeys) -> u64 {
        self.shard(keys, |shard, now| shard.renew_open(now));
        0
    }

    /// See [`crate::store::Store::queue_drop_dead`].
    pub fn queue_drop_dead(&self, keys: &QueueKeys) -> u64 {
        self.shard(keys, |shard, now| shard.drop_dead(QUEUE_DEAD_ROUND, now))
    }

    /// See [`crate::store::Store::queue_dead`].
    pub fn queue_dead(
        &self,
        keys: &QueueKeys,
        error: Option<&str>,
        most: usize,
    ) -> Vec<DeliveryId> {
        self.shard(keys, |shard, _| shard.dead(error, most))
    }
}
