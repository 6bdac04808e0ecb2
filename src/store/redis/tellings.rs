//! What gateways tell each other, in Redis. The script travels with the call: it is rare.

use bytes::Bytes;
use redis::Value;

use super::reply::{unexpected, value};
use super::{RedisStore, millis};
use crate::store::StoreError;
use crate::store::tellings::{TELLERS_MAX, TELLING_BYTES_MAX, Telling};

impl RedisStore {
    /// See [`crate::store::Store::tell`].
    pub async fn tell_all(&self, telling: Telling<'_>) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("../scripts/tell.lua")).arg(1).arg(telling.key).arg(telling.from);
        call.arg(telling.value).arg(millis(telling.kept)).arg(TELLING_BYTES_MAX).arg(TELLERS_MAX);
        match self.run_one(call).await? {
            Value::Array(said) => {
                let mut said = said.into_iter().map_while(value);
                Ok(std::iter::from_fn(|| Some((said.next()?, said.next()?))).collect())
            }
            other => Err(unexpected(&other)),
        }
    }
}
