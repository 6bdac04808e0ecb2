//! What is asked of a queue that lies in several shards. An item is in one of them, which its id
//! names; a look, a pause and what operators do are about all.
//!
//! Which request an idempotency key of a client stands for is known in shard 0, whatever shard the
//! item is in and however many there are: so it is one delivery also while gateways divide the
//! queue in different ways.

use std::time::Duration;

use futures_util::future::join_all;

use super::keys::{Keys, QueueKeys};
use super::queue::{
    Accepted, DeliveryId, Durability, Item, ItemPage, ItemState, NoteKey, Noted, Pause,
    QUEUE_DEAD_ROUND, QUEUE_PAGE, QueueBounds, QueueLook, Requeued, ShardUse,
};
use super::separate::One;
use super::{Store, StoreError};
use crate::config::{QUEUE_SHARDS_MAX, StoreUse};

impl Store {
    /// Notes in shard 0, whose `keys` these are, that an idempotency key stands for an item of
    /// another shard, unless it stands for one.
    ///
    /// # Errors
    /// The store did not answer, or refused. It may have been noted then.
    pub async fn queue_note_key(
        &self,
        keys: &QueueKeys,
        note: NoteKey<'_>,
    ) -> Result<Noted, StoreError> {
        match self.used_for(StoreUse::Queue) {
            One::Redis(store) => store.queue_note_key(keys, note).await,
            One::Memory(store) => Ok(store.queue_note_key(keys, note)),
        }
    }

    /// An item that was accepted before with this idempotency key, as
    /// [`Self::queue_accept_durably`] tells of it; nothing where its shard has not heard of it.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_again(
        &self,
        keys: &QueueKeys,
        of: (&DeliveryId, Option<&str>),
        durability: Durability,
    ) -> Result<Option<Accepted>, StoreError> {
        match self.used_for(StoreUse::Queue) {
            One::Redis(store) => store.queue_again(keys, of, durability).await,
            One::Memory(store) => Ok(store.queue_again(keys, of)),
        }
    }

    /// Has an idempotency key of shard 0, whose `keys` these are, stand for nothing again, if it
    /// stands for this item.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_forget_key(
        &self,
        keys: &QueueKeys,
        (key, id): (&str, &DeliveryId),
    ) -> Result<(), StoreError> {
        match self.used_for(StoreUse::Queue) {
            One::Redis(store) => store.queue_forget_key(keys, (key, id)).await,
            One::Memory(store) => {
                store.queue_forget_key(keys, (key, id));
                Ok(())
            }
        }
    }

    /// The shards beyond those that a queue has, and whether each holds something yet since it had
    /// more, or why that is not known: each answers for itself.
    pub async fn queue_beyond(
        &self,
        keys: &Keys,
        name: &str,
        shards: u8,
    ) -> Vec<(QueueKeys, Result<ShardUse, StoreError>)> {
        let beyond: Vec<_> =
            (shards..QUEUE_SHARDS_MAX).map(|shard| keys.queue(name, shard)).collect();
        let uses = match self.used_for(StoreUse::Queue) {
            One::Redis(store) => store.queue_uses(&beyond).await,
            One::Memory(store) => store.queue_uses(&beyond).into_iter().map(Ok).collect(),
        };
        beyond.into_iter().zip(uses).collect()
    }

    /// All shards of a queue that has so many now, and those beyond that hold something yet, since
    /// it had more. One beyond that does not answer is left out.
    ///
    /// # Errors
    /// None of those beyond answered.
    pub async fn queue_shards(
        &self,
        keys: &Keys,
        name: &str,
        shards: u8,
    ) -> Result<Vec<QueueKeys>, StoreError> {
        let beyond = self.queue_beyond(keys, name, shards).await;
        let fault = beyond.iter().find_map(|(_, it)| it.as_ref().err().cloned());
        if let Some(error) = fault.filter(|_| beyond.iter().all(|(_, it)| it.is_err())) {
            return Err(error);
        }
        let is_used = |it: &Result<ShardUse, _>| it.as_ref().is_ok_and(ShardUse::is_used);
        let used = beyond.into_iter().filter(|(_, it)| is_used(it)).map(|(keys, _)| keys);
        Ok((0..shards).map(|shard| keys.queue(name, shard)).chain(used).collect())
    }

    /// What each of these shards holds, or why that is not known.
    pub async fn queue_look_each(&self, all: &[QueueKeys]) -> Vec<Result<QueueLook, StoreError>> {
        join_all(all.iter().map(|keys| self.queue_look(keys))).await
    }

    /// What those of these shards hold together that answer.
    ///
    /// # Errors
    /// None of them answered.
    pub async fn queue_look_all(&self, all: &[QueueKeys]) -> Result<QueueLook, StoreError> {
        let (mut sum, mut fault, mut answered) = (QueueLook::default(), None, false);
        for look in self.queue_look_each(all).await {
            match look {
                Ok(look) => {
                    answered = true;
                    sum.add(look);
                }
                Err(error) => fault = Some(error),
            }
        }
        fault.filter(|_| !answered).map_or(Ok(sum), Err)
    }

    /// A page of the items of these shards, one shard after the other and the oldest of each first;
    /// see [`Self::queue_list`]. The id behind which it begins says in which shard that is.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn queue_list_all(
        &self,
        all: &[QueueKeys],
        state: Option<ItemState>,
        after: Option<&DeliveryId>,
    ) -> Result<ItemPage, StoreError> {
        let first = after.map_or(0, DeliveryId::shard);
        let all: Vec<&QueueKeys> = all.iter().filter(|keys| keys.shard >= first).collect();
        let mut items: Vec<Item> = Vec::new();
        for (at, keys) in all.iter().enumerate() {
            let after = after.filter(|id| id.shard() == keys.shard);
            let page = self.queue_list(keys, state, after).await?;
            let room = QUEUE_PAGE - items.len();
            let is_whole = page.items.len() <= room;
            items.extend(page.items.into_iter().take(room));
            let last = items.last().map(|item| item.id);
            // Behind the last one of a shard comes the next shard.
            let is_full = items.len() == QUEUE_PAGE && at + 1 < all.len();
            let next = if is_whole { page.next.or(last.filter(|_| is_full)) } else { last };
            if next.is_some() {
                return Ok(ItemPage { items, next });
            }
        }
        Ok(ItemPage { items, next: None })
    }

    /// Has nothing taken of these shards; see [`Self::queue_pause`].
    ///
    /// # Errors
    /// The store did not answer for one of them, or refused: others may be paused then.
    pub async fn queue_pause_all(
        &self,
        all: &[QueueKeys],
        pause: &Pause,
    ) -> Result<(), StoreError> {
        let done = join_all(all.iter().map(|keys| self.queue_pause(keys, pause))).await;
        done.into_iter().try_for_each(|it| it.map(drop))
    }

    /// Ends the pauses of these shards.
    ///
    /// # Errors
    /// As [`Self::queue_pause_all`].
    pub async fn queue_resume_all(&self, all: &[QueueKeys]) -> Result<(), StoreError> {
        let done = join_all(all.iter().map(|keys| self.queue_resume(keys))).await;
        done.into_iter().try_for_each(|it| it.map(drop))
    }

    /// Deletes the oldest dead items of these shards, until it is [`QUEUE_DEAD_ROUND`] of one; how
    /// many.
    ///
    /// # Errors
    /// The store did not answer, or refused; some may be deleted then.
    pub async fn queue_drop_dead_all(&self, all: &[QueueKeys]) -> Result<u64, StoreError> {
        let (mut dropped, most) = (0, u64::try_from(QUEUE_DEAD_ROUND).unwrap_or(u64::MAX));
        for keys in all {
            if dropped < most {
                dropped += self.queue_drop_dead(keys).await?;
            }
        }
        Ok(dropped)
    }

    /// Requeues dead items, with this error if one is named, so many at most: the oldest of each
    /// shard first. `bounds` says what a shard may hold. How many.
    ///
    /// # Errors
    /// The store did not answer, or refused; some may be requeued then.
    pub async fn queue_requeue_dead(
        &self,
        all: &[QueueKeys],
        which: (Option<&str>, usize),
        max_age: Duration,
        bounds: impl Fn(u8) -> QueueBounds,
    ) -> Result<u64, StoreError> {
        let (error, most) = which;
        let (mut requeued, mut left) = (0, most);
        for keys in all {
            let bounds = bounds(keys.shard);
            for id in self.queue_dead(keys, error, left).await? {
                match self.queue_requeue(keys, &id, max_age, bounds).await? {
                    Requeued::Requeued => (requeued, left) = (requeued + 1, left - 1),
                    Requeued::Full => break,
                    Requeued::NotDead(_) | Requeued::Unknown => {}
                }
            }
            if left == 0 {
                break;
            }
        }
        Ok(requeued)
    }
}
