//! API keys in the embedded store: each change happens under one lock, and leaves the same keys and
//! values as the scripts leave in Redis. An index is a map from ids to Unix seconds.

use bytes::Bytes;

use super::{MemoryStore, Values, lock};
use crate::store::api_keys::{API_KEYS_LISTED_MAX, ApiKeyKeys, GET_BYTES_MAX};
use crate::store::{ApiKeyList, ApiKeyWrite, Revocation, SessionValue, StoreError};

impl MemoryStore {
    /// See [`crate::store::Store::get`].
    pub fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        lock(&self.values).string(key)
    }

    /// See [`crate::store::Store::write_api_key`].
    pub fn write_api_key(&self, write: &ApiKeyWrite) -> Result<(), StoreError> {
        let ApiKeyKeys { record, id, index, part } = &write.keys;
        let mut values = lock(&self.values);
        let mut members = values.members(index)?;
        let family = &write.families[0];
        members.retain(|(other, _)| values.live(&format!("{family}{other}")).is_some());
        members.push((part.clone(), write.created_s as f64));
        let text = |text: Bytes| SessionValue::Text(text);
        values.room_for(&[record, id, index])?;
        values.insert(record, text(write.record.clone()), write.ttl)?;
        values.insert(id, text(write.digest.clone().into()), write.ttl)?;
        values.keep_members(index, members, write.ttl)?;
        if let (None, Some(index)) = (write.ttl, values.live_mut(index)) {
            index.expires = None;
        }
        Ok(())
    }

    /// See [`crate::store::Store::find_api_key`].
    pub fn find_api_key(
        &self,
        id_key: &str,
        families: &[String; 2],
    ) -> Result<Option<(String, Bytes)>, StoreError> {
        lock(&self.values).api_key(id_key, families)
    }

    /// See [`crate::store::Store::list_api_keys`].
    pub fn list_api_keys(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<ApiKeyList, StoreError> {
        let mut values = lock(&self.values);
        let mut kept = Vec::new();
        let mut records = Vec::new();
        for (part, created) in values.members(index)?.into_iter().rev() {
            if records.len() < API_KEYS_LISTED_MAX {
                let found = values.api_key(&format!("{}{part}", families[0]), families)?;
                let Some((_, record)) = found else { continue };
                records.push(record);
            }
            kept.push((part, created));
        }
        let count = kept.len();
        values.keep_members(index, kept, None)?;
        Ok(ApiKeyList { records, count })
    }

    /// See [`crate::store::Store::end_api_key`].
    pub fn end_api_key(
        &self,
        keys: &ApiKeyKeys,
        revocation: Revocation<'_>,
    ) -> Result<bool, StoreError> {
        let mut values = lock(&self.values);
        let revoked = SessionValue::Text(super::revocations::held(&revocation).into());
        values.insert(revocation.key, revoked, Some(revocation.ttl))?;
        let was = values.live(&keys.record).is_some();
        values.remove(&keys.record);
        values.remove(&keys.id);
        let mut members = values.members(&keys.index)?;
        members.retain(|(part, _)| *part != keys.part);
        values.keep_members(&keys.index, members, None)?;
        Ok(was)
    }
}

impl Values {
    fn string(&mut self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.live(key).map(|found| &found.value) {
            None => Ok(None),
            // An empty one is as good as none, as in Redis.
            Some(SessionValue::Text(text)) if text.is_empty() => Ok(None),
            Some(SessionValue::Text(text)) => {
                Ok(Some(text.slice(..text.len().min(GET_BYTES_MAX + 1))))
            }
            Some(SessionValue::Fields(_)) => {
                Err(StoreError::Refused("WRONGTYPE: this key holds a hash".to_owned()))
            }
        }
    }

    fn api_key(
        &mut self,
        id_key: &str,
        families: &[String; 2],
    ) -> Result<Option<(String, Bytes)>, StoreError> {
        let Some(digest) = self.string(id_key)? else { return Ok(None) };
        let digest = String::from_utf8_lossy(&digest).into_owned();
        let record = self.string(&format!("{}{digest}", families[1]))?;
        Ok(record.map(|record| (digest, record)))
    }
}
