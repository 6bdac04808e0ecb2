//! Streams of events that applications write into the store: read by one node at a time, for a
//! group, and acknowledged once what they say is done. The embedded store has none.

use super::separate::One;
use super::{Listening, Store, StoreError};
use crate::config::StoreUse;

/// The group that reads.
pub const EVENTS_GROUP: &str = "gateway";
/// The one consumer of it: whoever reads goes on where the last one was.
pub const EVENTS_CONSUMER: &str = "gw";
/// Most entries of one look.
pub const EVENTS_PAGE: usize = 100;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventEntry {
    /// Its id.
    pub id: String,
    /// Its names and values; nothing where it was deleted before it was acknowledged.
    pub pairs: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventPage {
    /// Entries are gone that nobody has read, or nobody knows: so many are gone of the stream. None
    /// is read until [`Store::events_missed`] says that this is dealt with.
    pub missed: Option<u64>,
    /// The store's clock, in Unix milliseconds.
    pub now_ms: u64,
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

impl Store {
    /// Reads what is new in a stream, or, for `again`, what was read before and not acknowledged.
    ///
    /// # Errors
    /// The store did not answer, or refused: the key holds something else.
    pub async fn read_events(&self, stream: &str, again: bool) -> Result<EventPage, StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.read_events(stream, again).await,
            One::Memory(_) => Err(StoreError::Refused("there are no streams".to_owned())),
        }
    }

    /// What a look said to be missed is dealt with: what is there from now on is read.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn events_missed(&self, stream: &str, gone: u64) -> Result<(), StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.events_missed(stream, gone).await,
            One::Memory(_) => Ok(()),
        }
    }

    /// Listens to a channel, or to changes of keys, on a connection of its own.
    ///
    /// # Errors
    /// There is none, or the store refused.
    pub async fn listen(&self, topic: &EventTopic) -> Result<Listening, StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.listen(topic).await,
            One::Memory(_) => Err(StoreError::Refused("there are no channels".to_owned())),
        }
    }

    /// Acknowledges entries: they are not read again.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn acknowledge_events(&self, stream: &str, ids: &[&str]) -> Result<(), StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.acknowledge_events(stream, ids).await,
            One::Memory(_) => Ok(()),
        }
    }
}
