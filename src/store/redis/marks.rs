//! Marks of writers in Redis. The script travels with the call, and only where there is a position
//! to compare.

use std::time::Duration;

use redis::Cmd;

use super::{RedisStore, millis};
use crate::store::StoreError;
use crate::store::marks::{Mark, POSITION_BYTES_MAX};

impl RedisStore {
    /// See [`crate::store::Store::mark`].
    pub async fn mark(&self, marks: &[(String, Mark)], ttl: Duration) -> Result<(), StoreError> {
        self.run_each(marks.iter().map(|(key, mark)| call(key, mark, ttl))).await.map(drop)
    }
}

fn call(key: &str, mark: &Mark, ttl: Duration) -> Cmd {
    let mut call;
    if let Mark::At(position) = mark {
        call = redis::cmd("EVAL");
        call.arg(include_str!("../scripts/mark.lua")).arg(1).arg(key).arg(&position[..]);
        call.arg(millis(ttl)).arg(POSITION_BYTES_MAX);
    } else {
        call = redis::cmd("SET");
        call.arg(key).arg(mark.text()).arg("PX").arg(millis(ttl));
    }
    call
}
