//! Marks of writers in the embedded store.

use std::time::Duration;

use bytes::Bytes;

use super::{MemoryStore, lock};
use crate::store::marks::{Mark, MarkKeys, MarksReply};
use crate::store::{SessionValue, StoreError};

impl MemoryStore {
    /// See [`crate::store::Store::mark`].
    pub fn mark(&self, marks: &[(String, Mark)], ttl: Duration) -> Result<(), StoreError> {
        let mut values = lock(&self.values);
        for (key, mark) in marks {
            let known = values.text(key).map_or(Mark::None, |text| Mark::read(&text));
            let both = known.and(mark.clone());
            let text = SessionValue::Text(Bytes::copy_from_slice(both.text()));
            values.insert(key, text, Some(ttl))?;
        }
        Ok(())
    }

    /// What one request asks of them.
    pub(super) fn marks(&self, asked: MarkKeys<'_>) -> MarksReply {
        let values = lock(&self.values);
        let mark = |key: &str| values.text(key).map_or(Mark::None, |text| Mark::read(&text));
        MarksReply {
            caller: asked.caller.iter().map(|key| mark(key)).fold(Mark::None, Mark::and),
            anybody: asked.anybody.is_some_and(|key| mark(key) != Mark::None),
        }
    }
}
