//! What is read of streams and channels of events. It must not know what an event says.

use crate::config::StoreUrl;

/// The one consumer of each group: whoever reads goes on where the last one was.
pub const EVENTS_CONSUMER: &str = "gw";
/// Most entries of one look.
pub const EVENTS_PAGE: usize = 100;
/// Most bytes of one look, and of one entry: less than the least `store.reply_bytes`.
pub const EVENTS_PAGE_BYTES: usize = 1024 * 1024;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventEntry {
    /// Its id.
    pub id: String,
    /// What it holds.
    pub body: EventBody,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventBody {
    /// Its names and values.
    Pairs(Vec<(Vec<u8>, Vec<u8>)>),
    /// Nobody knows: it was deleted before it was acknowledged.
    Gone,
    /// More than [`EVENTS_PAGE_BYTES`], which are not read.
    TooLong,
}

/// A stream and the group that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventStream<'a> {
    /// The stream's key.
    pub key: &'a str,
    /// The group.
    pub group: &'a str,
}

/// Why nothing of a stream is read, until [`Store::begin_events`] says that this is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The group has never read it, and none of its entries is gone.
    New,
    /// So many entries are gone, and some of them before the group had read them.
    Gone(u64),
}

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventPage {
    /// Why nothing was read.
    pub unread: Option<Unread>,
    /// The store's clock, in Unix milliseconds.
    pub now_ms: u64,
    /// How many entries were ever added to the stream, as it is now.
    pub added: u64,
    /// Whether there may be more.
    pub has_more: bool,
    /// The oldest first.
    pub entries: Vec<EventEntry>,
}

/// What is listened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventTopic {
    /// A channel.
    Channel(String),
    /// The keys that match a pattern, when they change.
    Keys(String),
}

/// What was told on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The channel.
    pub channel: Vec<u8>,
    /// What.
    pub payload: Vec<u8>,
}

impl EventEntry {
    /// When it was added, in Unix milliseconds of the store's clock, as its id says.
    pub fn added_ms(&self) -> Option<u64> {
        self.id.split('-').next()?.parse().ok()
    }
}

/// The pattern of the channels on which Redis tells of keys that match this one.
pub fn keyspace_channels(url: &StoreUrl, pattern: &str) -> String {
    let db = match url {
        StoreUrl::Redis { db, .. } => *db,
        _ => 0,
    };
    format!("__keyspace@{db}__:{pattern}")
}
