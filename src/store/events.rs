//! Streams of events that applications write into the store: read by one node at a time, for a
//! group, and acknowledged once what they say is done. The embedded store has none.

use super::event::{EventPage, EventStream, EventTopic, Unread};
use super::separate::One;
use super::{Listening, Store, StoreError};
use crate::config::StoreUse;

impl Store {
    /// Reads what was read before and not acknowledged, or, where there is none, what is new.
    ///
    /// # Errors
    /// The store did not answer, or refused: the key holds something else.
    pub async fn read_events(&self, stream: EventStream<'_>) -> Result<EventPage, StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.read_events(stream).await,
            One::Memory(_) => Err(StoreError::Refused("there are no streams".to_owned())),
        }
    }

    /// What a look said to be gone is dealt with: what is there from now on is read.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn begin_events(
        &self,
        stream: EventStream<'_>,
        unread: Unread,
    ) -> Result<(), StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.begin_events(stream, unread).await,
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
    pub async fn acknowledge_events(
        &self,
        stream: EventStream<'_>,
        ids: &[&str],
    ) -> Result<(), StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.acknowledge_events(stream, ids).await,
            One::Memory(_) => Ok(()),
        }
    }
}
