//! Certificates in Redis. The script travels with the call: it is rare.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::reply::unexpected;
use super::{RedisStore, millis};
use crate::store::{FencedWrite, StoreError};

impl RedisStore {
    /// See [`crate::store::Store::read`].
    pub async fn read(&self, key: &str, bytes_max: usize) -> Result<Option<Bytes>, StoreError> {
        // An empty one is none.
        let mut command = redis::cmd("GETRANGE");
        command.arg(key).arg(0).arg(bytes_max);
        match self.run_one(command).await? {
            Value::BulkString(text) if text.len() > bytes_max => {
                Err(StoreError::Refused(format!("a value has more than {bytes_max} bytes")))
            }
            Value::BulkString(text) => Ok(Some(text.into()).filter(|it: &Bytes| !it.is_empty())),
            other => Err(unexpected(&other)),
        }
    }

    /// See [`crate::store::Store::write_fenced`].
    pub async fn write_fenced(&self, write: &FencedWrite<'_>) -> Result<bool, StoreError> {
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("../scripts/fenced.lua")).arg(1 + write.values.len());
        call.arg(&write.lease.key);
        write.values.iter().for_each(|(key, ..)| {
            call.arg(key);
        });
        call.arg(&write.lease.token);
        for (_, value, ttl) in write.values {
            call.arg(&value[..]).arg(millis(*ttl));
        }
        match self.run_one(call).await? {
            Value::Int(written) => Ok(written == 1),
            other => Err(unexpected(&other)),
        }
    }

    /// See [`crate::store::Store::expire`].
    pub async fn expire(&self, key: &str, ttl: Duration) -> Result<bool, StoreError> {
        let mut command = redis::cmd("PEXPIRE");
        command.arg(key).arg(millis(ttl));
        Ok(matches!(self.run_one(command).await?, Value::Int(1)))
    }

    /// See [`crate::store::Store::put_new`].
    pub async fn put_new(
        &self,
        key: &str,
        value: &[u8],
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("NX").arg("PX").arg(millis(ttl));
        Ok(self.run_one(command).await? != Value::Nil)
    }
}
