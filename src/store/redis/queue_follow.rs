//! Items that follow from the end of another one, as the script that settles wants them.

use redis::Cmd;

use super::stream::millis;
use crate::store::keys::QueueKeys;
use crate::store::queue::FollowUp;

/// The keys of one of them, in the order of `q_follow.lua`.
pub(super) struct FollowUpKeys<'a> {
    queue: &'a QueueKeys,
    item: String,
    body: String,
    idem: String,
}

impl<'a> FollowUpKeys<'a> {
    pub(super) fn of(follow_up: &FollowUp<'a>) -> Self {
        let FollowUp { keys, id, key, .. } = follow_up;
        Self { queue: keys, item: keys.item(id), body: keys.body(id), idem: keys.idem(key) }
    }

    pub(super) fn all(&self) -> [&str; 9] {
        let QueueKeys { ready, later, open, bytes, lines, items, .. } = self.queue;
        [ready, open, bytes, &self.item, &self.body, &self.idem, lines, later, items]
    }
}

/// The arguments of one of them.
pub(super) fn put(call: &mut Cmd, of: &FollowUp<'_>) {
    call.arg(of.id.as_str()).arg(millis(of.ttl)).arg(millis(of.key_ttl)).arg(of.head);
    call.arg(of.owner).arg(millis(of.max_age)).arg(u8::from(of.keeps_order));
    call.arg(of.body.as_ref()).arg(of.key);
}
