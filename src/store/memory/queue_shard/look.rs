//! What a shard holds, as it is shown.

use std::time::Duration;

use bytes::Bytes;

use super::Shard;
use crate::store::queue::{
    DeliveryId, Item, ItemPage, ItemState, KeptAnswer, QUEUE_DEAD_ROUND, QUEUE_PAGE, QueueLook,
    ShardUse,
};

impl Shard {
    /// See [`crate::store::Store::queue_look`].
    pub(in crate::store::memory) fn look(&self, now: u64) -> QueueLook {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let (entries, later, open) = (self.ready.len(), self.later.len(), self.open.len());
        let age = |(at, _): &(u64, DeliveryId)| Duration::from_millis(now.saturating_sub(*at));
        QueueLook {
            waiting: count(entries.saturating_sub(self.pending.len())),
            later: count(later),
            behind: count(open.saturating_sub(entries).saturating_sub(later)),
            delivering: count(self.pending.len()),
            dead: count(self.dead.len()),
            open: count(open),
            bytes: self.bytes,
            oldest: self.open.first().map(age),
            pause: self.pause(now),
        }
    }

    /// Whether it holds something.
    pub(in crate::store::memory) fn usage(&self) -> ShardUse {
        ShardUse { is_open: !self.open.is_empty(), has_dead: !self.dead.is_empty() }
    }

    /// See [`crate::store::Store::queue_list`].
    pub(in crate::store::memory) fn list(
        &self,
        state: Option<ItemState>,
        after: Option<&DeliveryId>,
    ) -> ItemPage {
        let set = match state {
            Some(ItemState::Done | ItemState::Cancelled) => return ItemPage::default(),
            Some(ItemState::Dead) => &self.dead,
            _ => &self.open,
        };
        let place = |id: &DeliveryId| {
            let record = self.records.get(id);
            let at = match state {
                Some(ItemState::Dead) => record.and_then(|it| it.settled_ms),
                _ => record.map(|it| it.opened_ms),
            };
            (at.unwrap_or_else(|| id.unix_ms()), *id)
        };
        let after = after.map(place);
        let is_wanted = |item: &Item| state.is_none_or(|state| item.state == state);
        let rest = set.iter().filter(|it| after.is_none_or(|after| **it > after));
        let found = rest.filter_map(|(_, id)| self.find(id)).filter(is_wanted);
        let mut items: Vec<Item> = found.take(QUEUE_PAGE + 1).collect();
        let is_whole = items.len() <= QUEUE_PAGE;
        items.truncate(QUEUE_PAGE);
        let next = items.last().filter(|_| !is_whole).map(|item| item.id);
        ItemPage { items, next }
    }

    /// See [`crate::store::Store::queue_find`].
    pub(in crate::store::memory) fn find(&self, id: &DeliveryId) -> Option<Item> {
        let record = self.records.get(id)?;
        Some(Item {
            id: *id,
            state: record.state,
            owner: record.owner.clone(),
            accepted_ms: record.accepted_ms,
            due_ms: record.due_ms,
            settled_ms: record.settled_ms,
            give_up_ms: record.give_up_ms,
            failures: record.failures,
            stalls: record.stalls,
            claims: record.token,
            node: record.node.clone(),
            status: record.status,
            error: record.error.clone(),
            bytes: record.length,
            head: record.head.clone(),
            order: record.line.clone(),
        })
    }

    /// See [`crate::store::Store::queue_body`].
    pub(in crate::store::memory) fn body(&self, id: &DeliveryId) -> Option<Bytes> {
        let record = self.records.get(id)?;
        Some(record.body.clone()).filter(|body| !body.is_empty())
    }

    /// See [`crate::store::Store::queue_answer`].
    pub(in crate::store::memory) fn answer(&self, id: &DeliveryId) -> Option<KeptAnswer> {
        self.records.get(id)?.answer.clone()
    }

    /// See [`crate::store::Store::queue_dead`].
    pub(in crate::store::memory) fn dead(
        &self,
        error: Option<&str>,
        most: usize,
    ) -> Vec<DeliveryId> {
        let is_wanted = |id: &DeliveryId| match (error, self.records.get(id)) {
            (Some(error), Some(record)) => record.error == error,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let looked_at = self.dead.iter().map(|(_, id)| *id).take(QUEUE_DEAD_ROUND);
        looked_at.filter(is_wanted).take(most).collect()
    }
}
