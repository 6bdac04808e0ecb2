//! Idempotency keys in Redis. The script travels with the call: its value may be much longer.

use redis::Value;

use super::call::start_with;
use super::reply::unexpected;
use super::{RedisStore, millis};
use crate::store::{StoreError, Swap};

impl RedisStore {
    /// See [`crate::store::Store::swap`].
    pub async fn swap(&self, swap: Swap<'_>) -> Result<bool, StoreError> {
        let mut call = start_with("EVAL", swap.value.len());
        call.arg(include_str!("../scripts/swap.lua")).arg(1).arg(swap.key);
        call.arg(swap.begins).arg(swap.value).arg(millis(swap.ttl));
        match self.run_one(call).await? {
            Value::Int(swapped) => Ok(swapped == 1),
            other => Err(unexpected(&other)),
        }
    }
}
