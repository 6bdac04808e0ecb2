//! API keys in Redis. The record, its id and the index of its owner lie apart, so each change is a
//! few steps, each of which may be repeated: the record comes last and goes first, because it alone
//! lets anybody in. An index is a hint; who reads it drops what is gone. What operators do is rare,
//! and must not fail because the server forgot a script: the script travels with the call.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::reply::unexpected;
use super::stream::Told;
use super::{RedisStore, millis};
use crate::store::api_keys::{API_KEYS_LISTED_MAX, ApiKeyKeys, GET_BYTES_MAX};
use crate::store::{ApiKeyList, ApiKeyWrite, Reply, Revocation, StoreError};

/// How many of the oldest ids of an index are looked at in passing, so that what is gone does not
/// stay.
const TIDIED: usize = 10;

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
        call.arg(include_str!("../scripts/api_key_index.lua")).arg(1).arg(index);
        call.arg(part).arg(write.created_s).arg(write.ttl.map_or(0, millis)).arg(TIDIED);
        let oldest = parts(self.run_one(call).await?)?;
        self.run_one(set(id, write.digest.as_bytes(), write.ttl)).await?;
        self.tidy(index, oldest, &write.families[0]).await?;
        self.run_one(set(record, &write.record, write.ttl)).await.map(|_| ())
    }

    /// Takes ids out of an index that are not there any more.
    async fn tidy(&self, index: &str, oldest: Vec<String>, ids: &str) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(oldest.len() + 1);
        for other in &oldest {
            pipeline.cmd("EXISTS").arg([ids, other].concat());
        }
        let found = self.run_all(&mut pipeline).await?;
        let is_gone = |found: &Value| *found == Value::Int(0);
        let gone = oldest.into_iter().zip(&found).filter(|(_, found)| is_gone(found));
        self.take_out(index, gone.map(|(other, _)| other).collect()).await
    }

    async fn take_out(&self, index: &str, parts: Vec<String>) -> Result<(), StoreError> {
        if parts.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("ZREM");
        command.arg(index).arg(parts);
        self.run_one(command).await.map(|_| ())
    }

    /// See [`crate::store::Store::find_api_key`].
    pub async fn find_api_key(
        &self,
        id_key: &str,
        families: &[String; 2],
    ) -> Result<Option<(String, Bytes)>, StoreError> {
        let Some(digest) = self.get(id_key).await? else { return Ok(None) };
        let digest = String::from_utf8_lossy(&digest).into_owned();
        let record = self.get(&[&*families[1], &digest].concat()).await?;
        Ok(record.map(|record| (digest, record)))
    }

    /// See [`crate::store::Store::list_api_keys`].
    pub async fn list_api_keys(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<ApiKeyList, StoreError> {
        let mut newest = redis::cmd("ZRANGE");
        newest.arg(index).arg(0).arg(API_KEYS_LISTED_MAX - 1).arg("REV");
        let ids = parts(self.run_one(newest).await?)?;
        let digests = self.get_all(&families[0], &ids).await?;
        // Of an id that is gone there is no record either.
        let digests: Vec<String> =
            digests.iter().map(|digest| String::from_utf8_lossy(digest).into_owned()).collect();
        let found = self.get_all(&families[1], &digests).await?;
        let (mut records, mut gone) = (Vec::new(), Vec::new());
        for ((id, digest), record) in ids.into_iter().zip(digests).zip(found) {
            if digest.is_empty() || record.is_empty() {
                gone.push(id);
            } else {
                records.push(record);
            }
        }
        self.take_out(index, gone).await?;
        let mut count = redis::cmd("ZCARD");
        count.arg(index);
        let Value::Int(count) = self.run_one(count).await? else { return Err(other_form()) };
        Ok(ApiKeyList { records, count: usize::try_from(count).unwrap_or_default() })
    }

    /// The strings under these ends of keys; empty where there is none.
    async fn get_all(&self, family: &str, ends: &[String]) -> Result<Vec<Bytes>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(ends.len() + 1);
        for end in ends {
            pipeline.cmd("GETRANGE").arg([family, end].concat()).arg(0).arg(GET_BYTES_MAX);
        }
        self.run_all(&mut pipeline).await?.into_iter().map(bytes).collect()
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
        let replies = self.tell(vec![revoke, delete, forget, take_out], told, stream_ttl).await?;
        Ok(matches!(replies.get(1), Some(Value::Int(1))))
    }
}

fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(value);
    if let Some(ttl) = ttl {
        command.arg("PX").arg(millis(ttl));
    }
    command
}

fn parts(reply: Value) -> Reply<Vec<String>> {
    let Value::Array(parts) = reply else { return Err(unexpected(&reply)) };
    let text = |part| Ok(String::from_utf8_lossy(&bytes(part)?).into_owned());
    parts.into_iter().map(text).collect()
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
