//! Keys of queues of deferred deliveries. All keys of one shard of a queue share a hash tag, so
//! that one script may touch all of them. Names of queues are the configuration's: none needs
//! escaping.

use super::Keys;
use crate::store::queue::DeliveryId;

/// The shard, of so many, of what has this digest: of its order key or its idempotency key. The
/// same on every node, and after each start.
pub fn shard_of(digest: &str, shards: u8) -> u8 {
    // FNV-1a, and a step of MurmurHash3 behind it, so that each bit counts.
    let hash = digest.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    u8::try_from((hash ^ (hash >> 33)) % u64::from(shards.max(1))).unwrap_or_default()
}

/// The keys of one shard of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueKeys {
    /// Number of the shard; 0 where there is one only.
    pub shard: u8,
    /// A stream of the ids whose turn has come, with the group `g` of one consumer.
    pub ready: String,
    /// A sorted set of the ids that wait for their time: Unix ms of the store's clock.
    pub later: String,
    /// A sorted set of all ids that are not settled: Unix ms when they were accepted.
    pub open: String,
    /// A sorted set of the ids that are dead: Unix ms when they died.
    pub dead: String,
    /// Why nothing is taken now; while it lives, or for good.
    pub pause: String,
    /// Sum of the bytes of open items, of their heads and bodies.
    pub bytes: String,
    /// There while nobody need look for what the stream has lost.
    pub repaired: String,
    /// What is written before replicas or the disk are waited for, for a moment.
    pub waited: String,
    /// What stands before an id in the key of its record, a hash.
    pub items: String,
    /// What stands before an id in the key of its body.
    pub bodies: String,
    /// What stands before an id, a colon and a token in the key of an answer.
    pub answers: String,
    /// What stands before the digest of an idempotency key: `id fingerprint`.
    pub idems: String,
    /// What stands before the digest of an order key: a list of ids, the first of which may go.
    pub lines: String,
}

impl QueueKeys {
    /// The record of an item.
    pub fn item(&self, id: &DeliveryId) -> String {
        [&*self.items, id.as_str()].concat()
    }

    /// The body of an item.
    pub fn body(&self, id: &DeliveryId) -> String {
        [&*self.bodies, id.as_str()].concat()
    }

    /// The answer to the claim of an item that had this token.
    pub fn answer(&self, id: &DeliveryId, token: u64) -> String {
        format!("{}{id}:{token}", self.answers)
    }

    /// Whose delivery an idempotency key stands for; the id itself where a client names none.
    pub fn idem(&self, digest: &str) -> String {
        [&*self.idems, digest].concat()
    }

    /// Who waits behind an order key.
    pub fn line(&self, digest: &str) -> String {
        [&*self.lines, digest].concat()
    }
}

impl Keys {
    /// The window of a queue's rate, for the store of limits; `window` is its length as it is
    /// written. No limit has a principal like that.
    pub fn queue_rate(&self, name: &str, window: &str) -> String {
        let mut key = String::with_capacity(64);
        self.limit_into(&mut key, "rate", window, &format!("queue={name}"));
        key
    }

    /// The keys of one shard of a queue.
    pub fn queue(&self, name: &str, shard: u8) -> QueueKeys {
        let key = |what: &str| format!("{}:queue:{{{name}.{shard}}}:{what}", self.prefix);
        QueueKeys {
            shard,
            ready: key("ready"),
            later: key("later"),
            open: key("open"),
            dead: key("dead"),
            pause: key("pause"),
            bytes: key("bytes"),
            repaired: key("repaired"),
            waited: key("waited"),
            items: key("item:"),
            bodies: key("body:"),
            answers: key("answer:"),
            idems: key("idem:"),
            lines: key("line:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreUse;
    use crate::store::keys::{slot, usage};

    #[test]
    fn the_rate_of_a_queue_lies_with_the_limits() {
        let key = Keys::new("app").queue_rate("mail", "1s");
        assert_eq!(key, "app:ratelimit:{queue=mail}:rate:1s");
        assert_eq!(usage(&key), StoreUse::Limits);
    }

    #[test]
    fn the_same_digest_is_of_the_same_shard_and_all_shards_have_some() {
        // Another answer would break the order of what lies in stores by now.
        let expected = [("", 4, 2), ("0f", 4, 1), ("0f", 16, 5), ("0f", 1, 0), ("0f", 0, 0)];
        for (digest, shards, shard) in expected {
            assert_eq!(shard_of(digest, shards), shard, "{digest:?} of {shards}");
        }
        let mut counts = [0u32; 16];
        for number in 0..16_000 {
            counts[usize::from(shard_of(&format!("{number:064x}"), 16))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn keys_of_a_shard_lie_in_one_slot_and_belong_to_the_store_of_queues() {
        let keys = Keys::new("app").queue("mail", 3);
        let id = DeliveryId::parse("03zzzzzzzzzzzzzzzzzzzzzzzz").expect("an id");
        for (key, expected) in [
            (keys.ready.clone(), "app:queue:{mail.3}:ready"),
            (keys.later.clone(), "app:queue:{mail.3}:later"),
            (keys.open.clone(), "app:queue:{mail.3}:open"),
            (keys.dead.clone(), "app:queue:{mail.3}:dead"),
            (keys.pause.clone(), "app:queue:{mail.3}:pause"),
            (keys.bytes.clone(), "app:queue:{mail.3}:bytes"),
            (keys.repaired.clone(), "app:queue:{mail.3}:repaired"),
            (keys.waited.clone(), "app:queue:{mail.3}:waited"),
            (keys.item(&id), "app:queue:{mail.3}:item:03zzzzzzzzzzzzzzzzzzzzzzzz"),
            (keys.body(&id), "app:queue:{mail.3}:body:03zzzzzzzzzzzzzzzzzzzzzzzz"),
            (keys.answer(&id, 2), "app:queue:{mail.3}:answer:03zzzzzzzzzzzzzzzzzzzzzzzz:2"),
            (keys.idem("0f"), "app:queue:{mail.3}:idem:0f"),
            (keys.line("0f"), "app:queue:{mail.3}:line:0f"),
        ] {
            assert_eq!(key, expected);
            assert_eq!(slot(key.as_bytes()), slot(keys.ready.as_bytes()), "{key}");
            assert_eq!(usage(&key), StoreUse::Queue, "{key}");
        }
    }
}
