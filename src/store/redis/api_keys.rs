//! API keys in Redis: each change is one script or one transaction. What operators do is rare, and
//! must not fail because the server forgot a script: the script travels with the call.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redis::Value;

use super::reply::unexpected;
use super::stream::Told;
use super::{RedisStore, millis};
use crate::store::api_keys::{API_KEYS_LISTED_MAX, ApiKeyKeys, GET_BYTES_MAX};
use crate::store::{ApiKeyList, ApiKeyWrite, Reply, Revocation, StoreError};

impl RedisStore {
    /// See [`crate::store::Store::get`].
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        // An empty one is none.
        let mut command = redis::cmd("GETRANGE");
        command.arg(key).arg(0).arg(GET_BYTES_MAX);
        let value = bytes(self.run_one(command).await?)?;
        Ok(Some(value).filter(|value| !value.is_empty()))
    }

    /// See [`crate::store::Store::write_api_key`].
    pub async fn write_api_key(&self, write: &ApiKeyWrite) -> Result<(), StoreError> {
        let ApiKeyKeys { record, id, index, part } = &write.keys;
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("../scripts/api_key_write.lua")).arg(3).arg(&[record, id, index]);
        call.arg(write.record.as_ref()).arg(&write.digest).arg(part).arg(write.created_s);
        call.arg(write.ttl.map_or(0, millis)).arg(&write.families[0]);
        self.run_one(call).await.map(|_| ())
    }

    /// See [`crate::store::Store::find_api_key`].
    pub async fn find_api_key(
        &self,
        id_key: &str,
        families: &[String; 2],
    ) -> Result<Option<(String, Bytes)>, StoreError> {
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("../scripts/api_key_find.lua")).arg(1).arg(id_key);
        call.arg(&families[1]).arg(GET_BYTES_MAX);
        let parts = match self.run_one(call).await? {
            Value::Nil => return Ok(None),
            Value::Array(parts) => parts,
            other => return Err(unexpected(&other)),
        };
        let Ok([digest, record]) = <[Value; 2]>::try_from(parts) else { return Err(other_form()) };
        Ok(Some((String::from_utf8_lossy(&bytes(digest)?).into_owned(), bytes(record)?)))
    }

    /// See [`crate::store::Store::list_api_keys`].
    pub async fn list_api_keys(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<ApiKeyList, StoreError> {
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("../scripts/api_key_list.lua")).arg(1).arg(index);
        call.arg(API_KEYS_LISTED_MAX).arg(families).arg(GET_BYTES_MAX);
        let Value::Array(parts) = self.run_one(call).await? else { return Err(other_form()) };
        let mut parts = parts.into_iter();
        let Some(Value::Int(count)) = parts.next() else { return Err(other_form()) };
        let records = parts.map(bytes).collect::<Reply<_>>()?;
        Ok(ApiKeyList { records, count: usize::try_from(count).unwrap_or_default() })
    }

    /// See [`crate::store::Store::end_api_key`].
    pub async fn end_api_key(
        &self,
        keys: &ApiKeyKeys,
        revocation: Revocation<'_>,
    ) -> Result<bool, StoreError> {
        let mut delete = redis::cmd("DEL");
        delete.arg(&keys.record);
        let mut forget = redis::cmd("DEL");
        forget.arg(&keys.id);
        let mut take_out = redis::cmd("ZREM");
        take_out.arg(&keys.index).arg(&keys.part);
        let mut revoke = redis::cmd("SET");
        revoke.arg(revocation.key).arg(revocation.value()).arg("PX").arg(millis(revocation.ttl));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let told = Told::of(&revocation, now.as_secs());
        let stream_ttl = revocation.stream_ttl.max(revocation.ttl);
        let replies = self.tell(vec![delete, forget, take_out, revoke], told, stream_ttl).await?;
        Ok(matches!(replies.first(), Some(Value::Int(1))))
    }
}

fn bytes(value: Value) -> Reply<Bytes> {
    match value {
        Value::BulkString(text) => Ok(text.into()),
        other => Err(unexpected(&other)),
    }
}

fn other_form() -> StoreError {
    StoreError::Refused("an API key script answered in another form".to_owned())
}
