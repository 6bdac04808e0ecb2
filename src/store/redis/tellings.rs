//! What gateways tell each other, in Redis. The script travels with the call: it is rare.

use redis::{Cmd, Pipeline, Value};

use super::reply::{unexpected, value};
use super::{RedisStore, millis};
use crate::store::Reply;
use crate::store::tellings::{Heard, TELLERS_MAX, TELLING_BYTES_MAX, Telling};

impl RedisStore {
    /// See [`crate::store::Store::tell`].
    pub async fn tell_all(&self, tellings: &[Telling<'_>]) -> Vec<Reply<Heard>> {
        if tellings.is_empty() {
            return Vec::new();
        }
        let mut pipeline = Pipeline::new();
        for telling in tellings {
            pipeline.add_command(call(telling));
        }
        let replies = self.topology.run_apart(&mut pipeline, self.topology.deadline()).await;
        replies.into_iter().take(tellings.len()).map(|reply| heard(reply?)).collect()
    }
}

fn call(telling: &Telling<'_>) -> Cmd {
    let mut call = redis::cmd("EVAL");
    call.arg(include_str!("../scripts/tell.lua")).arg(1).arg(telling.key).arg(telling.from);
    let bytes_max = telling.bytes_max.min(TELLING_BYTES_MAX);
    call.arg(telling.value).arg(millis(telling.kept)).arg(bytes_max).arg(TELLERS_MAX);
    call
}

fn heard(reply: Value) -> Reply<Heard> {
    match reply {
        Value::Array(said) => {
            let mut said = said.into_iter().map_while(value);
            Ok(std::iter::from_fn(|| Some((said.next()?, said.next()?))).collect())
        }
        other => Err(unexpected(&other)),
    }
}
