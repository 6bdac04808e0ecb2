//! What follows in other queues when an item ends.

use std::time::Duration;

use super::Shard;
use crate::store::queue::{
    Accept, Accepted, FollowUp, Hold, ItemState, Outcome, QueueBounds, Settle,
};

impl Shard {
    /// The digest of the order key of what ends by this, if it has one, and what follows that has
    /// not before; nothing where nothing ends.
    pub(in crate::store::memory) fn ends_by<'a>(
        &mut self,
        settle: &Settle<'a>,
    ) -> Option<(Option<String>, Vec<&'a FollowUp<'a>>)> {
        let Hold { id, token, .. } = settle.hold;
        let record = self.records.get_mut(id)?;
        let is_held = record.token == *token && record.state == ItemState::Delivering;
        let is_end = matches!(settle.outcome, Outcome::Done) || settle.outcome.is_dead();
        if !is_held || !is_end {
            return None;
        }
        let mut new = Vec::new();
        for follow_up in settle.after.follow_ups {
            // Two at each end at most, whose names are few.
            if !record.followed.iter().any(|key| key == follow_up.key) {
                record.followed.push(follow_up.key.to_owned());
                new.push(follow_up);
            }
        }
        Some((record.line.clone(), new))
    }

    /// Takes what follows from the end of an item of another queue. False where it has before.
    pub(in crate::store::memory) fn follow(
        &mut self,
        follow_up: &FollowUp<'_>,
        order: Option<&str>,
        now: u64,
    ) -> bool {
        let accept = Accept {
            id: follow_up.id,
            key: Some(follow_up.key),
            fingerprint: "-",
            key_ttl: follow_up.key_ttl,
            head: follow_up.head,
            body: follow_up.body,
            owner: follow_up.owner,
            order: order.filter(|_| follow_up.keeps_order),
            delay: Duration::ZERO,
            max_age: follow_up.max_age,
            bounds: QueueBounds { items: u64::MAX, bytes: u64::MAX, ttl: follow_up.ttl },
        };
        matches!(self.accept(&accept, now), Accepted::New { .. })
    }
}
