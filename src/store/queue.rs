//! Queues of deferred deliveries in the store: what is asked of either kind, and what it answers.
//!
//! An item is accepted once, taken under a claim with a fencing token, and settled by whoever holds
//! the newest token; a claim that is not renewed for a lease is taken by somebody else. All times
//! are of the store's clock. The methods are in `queues`.

mod id;
mod item;

use std::time::Duration;

use bytes::Bytes;

use super::keys::QueueKeys;

pub use self::id::DeliveryId;
pub use self::item::{Claim, Hold, Item, ItemPage, ItemState, KeptAnswer};

/// Items of one page of a list.
pub const QUEUE_PAGE: usize = 100;
/// Most dead items that one call deletes or requeues.
pub const QUEUE_DEAD_ROUND: usize = 1000;

/// Longest body of an item that follows from the end of another one, in bytes: it passes through
/// the script.
pub const FOLLOW_UP_BYTES_MAX: usize = 64 << 10;

/// Life that a repair leaves to what is open, at least, and to the group of an empty queue.
pub(in crate::store) const QUEUE_OPEN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// How much a queue may hold, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// Most open items.
    pub items: u64,
    /// Most bytes of heads and bodies of open items.
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
        /// Bytes of their heads and bodies.
        bytes: u64,
    },
    /// It is in the queue, but fewer copies of it than wanted are known of.
    InDoubt,
}

/// An idempotency key that is to stand for an item of another shard than the one that knows all
/// keys of clients.
#[derive(Debug, Clone, Copy)]
pub struct NoteKey<'a> {
    /// See [`Accept::key`].
    pub key: &'a str,
    /// The id of the item.
    pub id: DeliveryId,
    /// See [`Accept::fingerprint`].
    pub fingerprint: &'a str,
    /// How long the key stands for it.
    pub ttl: Duration,
}

/// What an idempotency key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// What was to be noted.
    Own,
    /// The same request, which has this id: it was accepted, or is to be.
    Same(DeliveryId),
    /// Another request, which has this id.
    Reused(DeliveryId),
}

/// Whether a shard holds something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardUse {
    /// Items that are not settled.
    pub is_open: bool,
    /// Dead ones.
    pub has_dead: bool,
}

impl ShardUse {
    /// Whether it holds anything.
    pub fn is_used(&self) -> bool {
        self.is_open || self.has_dead
    }
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
    /// Given up. That counts where there was an answer: it was sent then.
    Dead,
    /// Given up when it may have arrived without an answer. That counts, too.
    DeadInDoubt,
}

impl Outcome {
    /// Whether it is given up.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Dead | Self::DeadInDoubt)
    }
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
    /// What follows, where it is done or dead by this.
    pub after: After<'a>,
}

/// What follows when an item ends.
#[derive(Debug, Clone, Copy, Default)]
pub struct After<'a> {
    /// Items for other queues, which come to be in the same step: two at most.
    pub follow_ups: &'a [FollowUp<'a>],
    /// Whether a dead one holds its line: those behind it wait until it is tried again or deleted.
    pub holds_line: bool,
}

/// An item of another queue that follows from the end of one. It is never refused: the bounds of
/// its queue are not asked. On a Redis Cluster that queue must lie in the same slot.
#[derive(Debug, Clone)]
pub struct FollowUp<'a> {
    /// The keys of its queue.
    pub keys: &'a QueueKeys,
    /// Its id, the same when the end is told again.
    pub id: DeliveryId,
    /// What it is queued once for, however often that item ends: no blank.
    pub key: &'a str,
    /// How long that is known, also when the record of that item is gone.
    pub key_ttl: Duration,
    /// See [`Accept::head`].
    pub head: &'a [u8],
    /// Its body, [`FOLLOW_UP_BYTES_MAX`] at most.
    pub body: &'a Bytes,
    /// The digest of whoever may ask for it; empty for nobody.
    pub owner: &'a str,
    /// Whether it stands in the line of the order key of the one that ends, if that has one.
    pub keeps_order: bool,
    /// How long from now it is tried.
    pub max_age: Duration,
    /// Life of its record and its body.
    pub ttl: Duration,
}

impl Settle<'_> {
    /// Whether it counts as a failure.
    pub fn is_failure(&self) -> bool {
        match self.outcome {
            Outcome::Retry { .. } | Outcome::DeadInDoubt => true,
            Outcome::Dead => self.status > 0,
            Outcome::Done | Outcome::Back { .. } => false,
        }
    }
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
        /// How many items followed that had not before.
        followed: u64,
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
    /// Bytes of their heads and bodies.
    pub bytes: u64,
    /// Age of the oldest open one.
    pub oldest: Option<Duration>,
    /// Why nothing is taken.
    pub pause: Option<Pause>,
}

impl QueueLook {
    /// Adds what another shard of the same queue holds.
    pub fn add(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.later += other.later;
        self.behind += other.behind;
        self.delivering += other.delivering;
        self.dead += other.dead;
        self.open += other.open;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.oldest = self.oldest.max(other.oldest);
        self.pause = self.pause.take().or(other.pause);
    }
}

/// What is known of an item when it counts as accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The store has it.
    Memory,
    /// So many replicas have it (WAIT).
    Replicas(u32),
    /// It is on the disk of its server (WAITAOF, Redis 7.2).
    Fsync,
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
        /// Whether it can say what is on its disk: it writes there, and has WAITAOF; nothing where
        /// that is not known.
        fsyncs: Option<bool>,
    },
    /// It may evict: what is accepted may vanish.
    Evicting {
        /// Its `maxmemory-policy`.
        policy: String,
    },
}
