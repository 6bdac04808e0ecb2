//! Certificates in the embedded store: what a script does in Redis happens under one lock.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{MemoryStore, lock};
use crate::store::{FencedWrite, SessionValue, StoreError};

impl MemoryStore {
    /// See [`crate::store::Store::read`].
    pub fn read(&self, key: &str, bytes_max: usize) -> Result<Option<Bytes>, StoreError> {
        match lock(&self.values).live(key).map(|found| &found.value) {
            None => Ok(None),
            Some(SessionValue::Text(text)) if text.len() > bytes_max => {
                Err(StoreError::Refused(format!("a value has more than {bytes_max} bytes")))
            }
            Some(SessionValue::Text(text)) => Ok(Some(text.clone()).filter(|it| !it.is_empty())),
            Some(SessionValue::Fields(_)) => {
                Err(StoreError::Refused("WRONGTYPE: this key holds a hash".to_owned()))
            }
        }
    }

    /// See [`crate::store::Store::write_fenced`].
    pub fn write_fenced(&self, write: &FencedWrite<'_>) -> Result<bool, StoreError> {
        let mut values = lock(&self.values);
        if values.text(&write.lease.key).as_deref() != Some(write.lease.token.as_bytes()) {
            return Ok(false);
        }
        for (key, value, ttl) in write.values {
            let value = SessionValue::Text(Bytes::copy_from_slice(value));
            values.insert(key, value, Some(*ttl))?;
        }
        Ok(true)
    }

    /// See [`crate::store::Store::expire`].
    pub fn expire(&self, key: &str, ttl: Duration) -> bool {
        let mut values = lock(&self.values);
        let Some(value) = values.live_mut(key) else { return false };
        value.expires = Some(Instant::now() + ttl);
        true
    }

    /// See [`crate::store::Store::put_new`].
    pub fn put_new(&self, key: &str, value: &[u8], ttl: Duration) -> Result<bool, StoreError> {
        let mut values = lock(&self.values);
        if values.live(key).is_some() {
            return Ok(false);
        }
        let value = SessionValue::Text(Bytes::copy_from_slice(value));
        values.insert(key, value, Some(ttl)).map(|()| true)
    }
}
