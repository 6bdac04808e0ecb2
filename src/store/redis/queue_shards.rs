//! Queues in several shards on Redis: what concerns more than one of them.

use redis::Pipeline;
use tokio::time::Instant;

use super::call::start;
use super::index::integer;
use super::reply::value;
use super::stream::millis;
use super::{RedisStore, each_good};
use crate::store::keys::QueueKeys;
use crate::store::queue::{
    Accepted, Again, DeliveryId, Durability, Item, NoteKey, Noted, ShardUse,
};
use crate::store::{Reply, StoreError};

impl RedisStore {
    /// See [`crate::store::Store::queue_note_key`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_note_key(
        &self,
        keys: &QueueKeys,
        note: NoteKey<'_>,
    ) -> Result<Noted, StoreError> {
        let mut set = start("SET");
        set.arg(keys.idem(note.key)).arg(format!("{} {}", note.id, note.fingerprint));
        set.arg("NX").arg("GET").arg("PX").arg(millis(note.ttl));
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(set);
        let deadline = self.topology.deadline();
        let answers = each_good(self.topology.run(&mut pipeline, deadline).await?)?;
        let Some(known) = answers.into_iter().next().and_then(value) else {
            return Ok(Noted::Own);
        };
        let wrong = || StoreError::Refused("an idempotency key has another form".to_owned());
        let known = std::str::from_utf8(&known).map_err(|_| wrong())?;
        let (id, fingerprint) = known.split_once(' ').ok_or_else(wrong)?;
        let id = DeliveryId::parse(id).ok_or_else(wrong)?;
        Ok(match (id == note.id, fingerprint == note.fingerprint) {
            // Its own answer was missed.
            (true, _) => Noted::Own,
            (_, true) => Noted::Same(id),
            (_, false) => Noted::Reused(id),
        })
    }

    /// See [`crate::store::Store::queue_again`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_again(
        &self,
        keys: &QueueKeys,
        (id, key): (&DeliveryId, Option<&str>),
        durability: Durability,
    ) -> Result<Option<Accepted>, StoreError> {
        let found = self.queue_find(keys, id).await?;
        let now = found.map(|Item { state, accepted_ms, due_ms, .. }| Again {
            state,
            accepted_ms,
            due_ms,
        });
        if now.is_none() && !self.stands_for(keys, key, id).await? {
            return Ok(None);
        }
        let accepted = Accepted::Again { id: *id, now };
        Ok(Some(self.made_durable(keys, (accepted, id), durability).await))
    }

    /// Whether an idempotency key stands for this item in its own shard.
    async fn stands_for(
        &self,
        keys: &QueueKeys,
        key: Option<&str>,
        id: &DeliveryId,
    ) -> Reply<bool> {
        let Some(key) = key else { return Ok(false) };
        let mut get = start("GET");
        get.arg(keys.idem(key));
        let known = value(self.ask_patiently(get).await?);
        Ok(known.is_some_and(|known| known.starts_with(id.as_str().as_bytes())))
    }

    /// See [`crate::store::Store::queue_forget_key`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_forget_key(
        &self,
        keys: &QueueKeys,
        (key, id): (&str, &DeliveryId),
    ) -> Reply<()> {
        // It is rare: the script travels with the call.
        let mut call = start("EVAL");
        call.arg(include_str!("../scripts/q_forget.lua")).arg(1).arg(keys.idem(key));
        call.arg(id.as_str());
        self.ask_patiently(call).await.map(drop)
    }

    /// See [`crate::store::Store::queue_uses`].
    pub async fn queue_uses(&self, all: &[QueueKeys]) -> Vec<Reply<ShardUse>> {
        if all.is_empty() {
            return Vec::new();
        }
        let mut pipeline = Pipeline::with_capacity(2 * all.len() + 1);
        for keys in all {
            pipeline.cmd("EXISTS").arg(&keys.open);
            pipeline.cmd("EXISTS").arg(&keys.dead);
        }
        let answers =
            self.topology.run_apart(&mut pipeline, Instant::now() + self.patience()).await;
        let mut answers = answers.into_iter().take(2 * all.len()).map(|reply| integer(reply?));
        let mut is_there = || answers.next().unwrap_or(Err(StoreError::Unavailable));
        let uses = all.iter().map(|_| {
            let (open, dead) = (is_there(), is_there());
            Ok(ShardUse { is_open: open? == 1, has_dead: dead? == 1 })
        });
        uses.collect()
    }
}
