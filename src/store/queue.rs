//! Queues of deferred deliveries in the store: what is asked of either kind, and what it answers.
//!
//! An item is accepted once, taken under a claim with a fencing token, and settled by whoever holds
//! the newest token; a claim that is not renewed for a lease is taken by somebody else. All times
//! are of the store's clock. The methods stand here and not beside the others in `store`, because
//! they are a machine of their own: nothing else of the store touches these keys.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::keys::QueueKeys;
use super::separate::One;
use super::{Store, StoreError};
use crate::config::StoreUse;

/// Characters of an id: Crockford's base 32 in lower case.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Length of an id in characters of 5 bits.
const ID_CHARACTERS: usize = 26;
/// Items of one page of a list.
pub const QUEUE_PAGE: usize = 100;
/// Most dead items that one call deletes or requeues.
pub const QUEUE_DEAD_ROUND: usize = 1000;

/// The id of a delivery: 8 bits of its shard, 48 of the Unix ms when it was made, and 74 random
/// ones, so that nobody guesses it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId([u8; ID_CHARACTERS]);

impl DeliveryId {
    /// A new id; nothing where the system has no random bytes.
    pub fn new(shard: u8, unix_ms: u64) -> Option<Self> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        let random = u128::from_be_bytes(random) >> (128 - 74);
        // 130 bits do not fit into one number: the last 25 characters hold 125 of them.
        let ms = u128::from(unix_ms & 0xFFFF_FFFF_FFFF);
        let low = (u128::from(shard & 0b111) << 122) | (ms << 74) | random;
        let mut text = [0; ID_CHARACTERS];
        for (place, byte) in text.iter_mut().rev().enumerate() {
            let five = match place {
                25 => usize::from(shard >> 3),
                _ => usize::try_from((low >> (5 * place)) & 31).unwrap_or_default(),
            };
            *byte = ALPHABET.get(five).copied().unwrap_or(b'0');
        }
        Some(Self(text))
    }

    /// An id as it was written; nothing for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; ID_CHARACTERS] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|byte| ALPHABET.contains(byte)).then_some(Self(bytes))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Unix ms when it was made, on the clock of whoever made it.
    pub fn unix_ms(&self) -> u64 {
        // The first 12 characters: 8 bits of the shard, 48 of the time, 4 random ones.
        let bits = self.0.iter().take(12).fold(0u64, |bits, byte| {
            let five = ALPHABET.iter().position(|it| it == byte).unwrap_or_default();
            (bits << 5) | u64::try_from(five).unwrap_or_default()
        });
        (bits >> 4) & 0xFFFF_FFFF_FFFF
    }

    /// The shard it lies in.
    pub fn shard(&self) -> u8 {
        let five = |at: usize| {
            let byte = self.0.get(at).copied().unwrap_or_default();
            ALPHABET.iter().position(|it| *it == byte).and_then(|it| u8::try_from(it).ok())
        };
        (five(0).unwrap_or_default() << 3) | (five(1).unwrap_or_default() >> 2)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemState {
    /// Its turn has come, or comes after a delay that was asked for.
    Waiting,
    /// Waits behind another one with the same order key.
    Behind,
    /// Somebody has claimed it.
    Delivering,
    /// Waits to be tried again.
    Retrying,
    /// Done.
    Done,
    /// Given up; kept for somebody to look at.
    Dead,
    /// Cancelled before it was done.
    Cancelled,
}

impl ItemState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Behind,
        Self::Delivering,
        Self::Retrying,
        Self::Done,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The word for people and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Behind => "behind",
            Self::Delivering => "delivering",
            Self::Retrying => "retrying",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// The letter in a record.
    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::Waiting => "w",
            Self::Behind => "b",
            Self::Delivering => "d",
            Self::Retrying => "r",
            Self::Done => "k",
            Self::Dead => "x",
            Self::Cancelled => "c",
        }
    }

    /// The state of a letter.
    pub(super) fn of_letter(letter: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.letter().as_bytes() == letter)
    }

    /// Whether nothing more will happen to it by itself.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Cancelled)
    }
}

/// How much a queue may hold, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// Most open items.
    pub items: u64,
    /// Most bytes of bodies of open items.
    pub bytes: u64,
    /// Life of a record and its body from the last time it was accepted or requeued.
    pub ttl: Duration,
}

/// An item to accept.
#[derive(Debug, Clone)]
pub struct Accept<'a> {
    /// Its id, the same when it is tried again.
    pub id: DeliveryId,
    /// The digest of the idempotency key, in hex; the id stands for it where there is none.
    pub key: Option<&'a str>,
    /// What the request was, so that another one under the same key is told from it: no blank.
    pub fingerprint: &'a str,
    /// How long the key stands for this item.
    pub key_ttl: Duration,
    /// What is needed to make the request again; opaque here.
    pub head: &'a [u8],
    /// The body; none is written where it is empty.
    pub body: &'a Bytes,
    /// The digest of whoever may ask for it.
    pub owner: &'a str,
    /// The digest of the order key, in hex: one in flight at a time, in the order of accepting.
    pub order: Option<&'a str>,
    /// How long it waits before its turn may come.
    pub delay: Duration,
    /// How long from now it is tried.
    pub max_age: Duration,
    /// The bounds of the queue.
    pub bounds: QueueBounds,
}

/// What became of an item that was to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It is in the queue.
    New {
        /// Unix ms.
        accepted_ms: u64,
        /// Unix ms; the same unless a delay was asked for.
        due_ms: u64,
    },
    /// The same request was accepted before.
    Again {
        /// The id of then.
        id: DeliveryId,
        /// Where it stands; nothing where its record is gone by now.
        now: Option<Again>,
    },
    /// The key stands for another request.
    Reused {
        /// The id of that one.
        id: DeliveryId,
    },
    /// No room: nothing was queued.
    Full {
        /// Open items.
        items: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// It is in the queue, but fewer copies of it than wanted are known of.
    InDoubt,
}

/// Where an item stands that was accepted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// Its state.
    pub state: ItemState,
    /// Unix ms.
    pub accepted_ms: u64,
    /// Unix ms.
    pub due_ms: u64,
}

/// What a node takes.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a> {
    /// Its name.
    pub node: &'a str,
    /// Most items: no more than there are free places.
    pub most: usize,
    /// Most items that the whole fleet may have claimed.
    pub in_flight: usize,
    /// How long a claim is the holder's without being renewed.
    pub lease: Duration,
    /// Whether to look for claims of holders that have gone; once per quarter of a lease is enough.
    pub sweep: bool,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Nothing is taken now.
    Paused(Pause),
    /// The group or the stream was gone and is there again; nothing is lost, and nothing taken yet.
    Reset {
        /// How many items were put back.
        put_back: u64,
    },
    /// These, none too.
    Items {
        /// The claims.
        claims: Vec<Claim>,
        /// Unix ms.
        now_ms: u64,
        /// Unix ms when the next item that waits is due; nothing where none waits.
        next_ms: Option<u64>,
    },
}

/// Why nothing is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// As it was given.
    pub why: String,
    /// How long yet; nothing where somebody must end it.
    pub left: Option<Duration>,
}

/// What tells one claim from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The entry of the stream.
    pub entry: String,
    /// The item.
    pub id: DeliveryId,
    /// The fencing token: how often the item has been claimed.
    pub token: u64,
}

/// An item that is the caller's for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What it is settled by.
    pub hold: Hold,
    /// How often a holder has gone without a word.
    pub stalls: u32,
    /// How often it failed in a way that counts.
    pub failures: u32,
    /// As it was accepted.
    pub head: Bytes,
    /// The body; nothing where the store has lost it.
    pub body: Option<Bytes>,
    /// Whose it is.
    pub owner: String,
    /// Unix ms.
    pub accepted_ms: u64,
    /// Unix ms after which it is not tried again.
    pub give_up_ms: u64,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Failed in a way that counts; again after the delay.
    Retry {
        /// At least so long.
        delay: Duration,
    },
    /// Given back; that counts for nothing.
    Back {
        /// At least so long; with none it is the next one's turn at once.
        delay: Duration,
    },
    /// Given up.
    Dead,
}

/// The answer to a delivery, to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Opaque here.
    pub head: Bytes,
    /// As much as is kept.
    pub body: Bytes,
}

/// What to write of a delivery that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Settle<'a> {
    /// The claim.
    pub hold: &'a Hold,
    /// How it ended.
    pub outcome: Outcome,
    /// Status of the upstream; 0 where there was no answer.
    pub status: u16,
    /// A code for what went wrong; empty where nothing did.
    pub error: &'a str,
    /// What is kept beside the record, only of what is done or dead.
    pub answer: Option<&'a KeptAnswer>,
    /// Life of the record (and, of what is dead, of the body) from now.
    pub keep: Duration,
    /// Most dead items; the oldest give way.
    pub dead_most: u64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Somebody else has it now, or it is gone: nothing was written.
    Lost,
    /// Written.
    Written {
        /// How many dead items gave way.
        dropped: u64,
    },
}

/// What became of an item that was to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It will not be delivered.
    Cancelled,
    /// It is on its way.
    InProgress,
    /// It was settled before.
    Settled(ItemState),
    /// There is none.
    Unknown,
}

/// What became of an item that was to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeued {
    /// It waits again, as if new.
    Requeued,
    /// It is not dead.
    NotDead(ItemState),
    /// The queue is full.
    Full,
    /// There is none, or its body is gone.
    Unknown,
}

/// What a queue holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueLook {
    /// Items whose turn has come.
    pub waiting: u64,
    /// Items that wait for their time, to be tried first or again.
    pub later: u64,
    /// Items behind others with the same order key.
    pub behind: u64,
    /// Items that are claimed.
    pub delivering: u64,
    /// Dead ones.
    pub dead: u64,
    /// All that are not settled.
    pub open: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Age of the oldest open one.
    pub oldest: Option<Duration>,
    /// Why nothing is taken.
    pub pause: Option<Pause>,
}

/// One item, without its head and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its id.
    pub id: DeliveryId,
    /// Where it stands.
    pub state: ItemState,
    /// Whose it is.
    pub owner: String,
    /// Unix ms.
    pub accepted_ms: u64,
    /// Unix ms when its turn came or comes.
    pub due_ms: u64,
    /// Unix ms when it ended; nothing while it is open.
    pub settled_ms: Option<u64>,
    /// Unix ms after which it is not tried again.
    pub give_up_ms: u64,
    /// How often it failed in a way that counts.
    pub failures: u32,
    /// How often a holder has gone.
    pub stalls: u32,
    /// How often it was claimed; the token of its newest claim.
    pub claims: u64,
    /// Who claimed it last; empty where nobody did.
    pub node: String,
    /// Status of the last answer; 0 where there was none.
    pub status: u16,
    /// What went wrong last; empty where nothing did.
    pub error: String,
    /// Bytes of its body.
    pub bytes: u64,
    /// What is needed to make the request again.
    pub head: Bytes,
}

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemPage {
    /// The oldest first; [`QUEUE_PAGE`] at most.
    pub items: Vec<Item>,
    /// What to ask for next; nothing at the end.
    pub next: Option<DeliveryId>,
}

/// Whether work may be kept in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueSafety {
    /// Nobody has been asked yet: there was no connection.
    Unknown,
    /// It evicts nothing.
    Safe {
        /// Whether it writes to disk; nothing where it does not say.
        appends: Option<bool>,
    },
    /// It may evict: what is accepted may vanish.
    Evicting {
        /// Its `maxmemory-policy`.
        policy: String,
    },
}

// All of them are of the store of queues.
impl Store {
    fn queues(&self) -> One<'_> {
        self.used_for(StoreUse::Queue)
    }

    /// Whether work may be kept in this store.
    pub fn queue_safety(&self) -> QueueSafety {
        match self.queues() {
            One::Redis(store) => store.queue_safety(),
            One::Memory(_) => QueueSafety::Safe { appends: Some(false) },
        }
    }

    /// Accepts an item, once for each idempotency key. Where the answer was missed, it is asked once
    /// more, with the same id.
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

    /// Takes items whose turn has come, and reads them.
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

    /// Deletes the oldest dead items, [`QUEUE_DEAD_ROUND`] at most; how many.
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
    /// at, of which there are [`QUEUE_DEAD_ROUND`] at most. For [`Self::queue_requeue`].
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

    /// Requeues the oldest dead items, with this error if one is named; how many.
    ///
    /// # Errors
    /// The store did not answer, or refused; some may be requeued then.
    pub async fn queue_requeue_dead(
        &self,
        keys: &QueueKeys,
        which: (Option<&str>, usize),
        max_age: Duration,
        bounds: QueueBounds,
    ) -> Result<u64, StoreError> {
        let mut requeued = 0;
        for id in self.queue_dead(keys, which.0, which.1).await? {
            match self.queue_requeue(keys, &id, max_age, bounds).await? {
                Requeued::Requeued => requeued += 1,
                Requeued::Full => break,
                Requeued::NotDead(_) | Requeued::Unknown => {}
            }
        }
        Ok(requeued)
    }

    /// Puts back what a lost stream has taken along; how many. At the start of whoever takes, and
    /// [`Self::queue_take`] does it by itself where it finds the group gone.
    ///
    /// # Errors
    /// The store did not answer, or refused; some may be put back then.
    pub async fn queue_repair(&self, keys: &QueueKeys) -> Result<u64, StoreError> {
        match self.queues() {
            One::Redis(store) => store.queue_repair(keys).await,
            One::Memory(_) => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_shard_and_grows_with_time() {
        for shard in [0, 1, 7, 8, 31, 32, 200, 255] {
            let early = DeliveryId::new(shard, 1).expect("random bytes");
            let late = DeliveryId::new(shard, 1 << 47).expect("random bytes");
            assert_eq!((early.shard(), late.shard()), (shard, shard));
            assert!(early < late);
            assert_eq!((early.unix_ms(), late.unix_ms()), (1, 1 << 47));
            assert_eq!(DeliveryId::parse(early.as_str()), Some(early));
        }
        assert_ne!(DeliveryId::new(0, 5), DeliveryId::new(0, 5));
    }

    #[test]
    fn an_id_is_26_characters_of_its_alphabet() {
        let good = "0".repeat(26);
        assert!(DeliveryId::parse(&good).is_some());
        for bad in ["", &good[1..], &format!("{good}0"), &format!("{}u", &good[1..])] {
            assert_eq!(DeliveryId::parse(bad), None, "{bad}");
        }
        assert_eq!(DeliveryId::parse(&"Z".repeat(26)), None);
    }

    #[test]
    fn every_state_has_a_letter_and_a_word_of_its_own() {
        for state in ItemState::ALL {
            assert_eq!(ItemState::of_letter(state.letter().as_bytes()), Some(state));
            assert_eq!(ItemState::of_word(state.word()), Some(state));
        }
    }
}
