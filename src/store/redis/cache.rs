//! Cached responses in Redis: one hash per entry with a field per variant, and epochs, each a
//! string of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use super::call::{
    changes, exchanges, lock_call, notes_call, set_epoch, start, start_script, start_with,
    variants_call,
};
use super::follow::Follower;
use super::link;
use super::part::epochs;
use super::reply::{entry, server_error, unexpected, value};
use super::signature::unsigned;
use super::torn::is_torn;
use super::track::{Mark, Tracker};
use super::{RedisStore, each_good, millis};
use crate::config::{CacheEpochs, CacheReads};
use crate::observe::StoreTotals;
use crate::store::cached::{life, with_deadline};
use crate::store::keys::Keys;
use crate::store::lineage::{Known, LineageChanges, LineageSource};
use crate::store::purged::{self, NOTES_BYTES_MAX as MOST, NOTES_BYTES_USUAL as USUAL};
use crate::store::{
    Answers, CachedReply, Entry, Epoch, EpochChange, HeldLock, Purge, Questions, Remembered,
    StoreError, VARIANTS_MAX, VARY, VARY_SETS_MAX,
};

impl RedisStore {
    /// See [`crate::store::Store::variants`].
    pub async fn variants(
        &self,
        key: &str,
        variants: &[String],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(variants_call(key, variants));
        let reply = self.run(&mut pipeline).await?.pop().unwrap_or_default();
        Ok(entry(reply, variants.len(), self.now_ms())?.1)
    }

    /// See [`crate::store::Store::variant_names`].
    pub async fn variant_names(&self, key: &str, most: usize) -> Result<Vec<String>, StoreError> {
        let mut call = start("HRANDFIELD");
        // One more, as the sets of field names stand among the variants.
        call.arg(key).arg(most.saturating_add(1));
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(call);
        match self.run(&mut pipeline).await?.pop().unwrap_or_default() {
            Value::Array(names) => {
                let names = names.into_iter().filter_map(value).filter(|name| *name != VARY);
                let names = names.filter_map(|name| String::from_utf8(name.to_vec()).ok());
                Ok(names.take(most).collect())
            }
            // What an application wrote under our key is no entry.
            Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Vec::new()),
            other => Err(unexpected(&other)),
        }
    }

    /// See [`crate::store::Store::epochs`].
    pub async fn epochs(&self, keys: &[String]) -> Result<Vec<Epoch>, StoreError> {
        let mark = self.tracker.get().and_then(|tracker| tracker.mark(keys));
        let read = self.read_epochs(keys).await?;
        if let (Some(mark), Some(tracker)) = (mark, self.tracker.get()) {
            tracker.learn(mark, keys, &read);
        }
        Ok(read.epochs)
    }

    /// See [`crate::store::Store::stored_epochs`].
    pub async fn stored_epochs(&self, keys: &[String]) -> Result<Vec<Epoch>, StoreError> {
        let mut stored = Vec::with_capacity(keys.len());
        for (reply, keys) in self.read_keys(keys, self.topology.deadline()).await? {
            stored.extend(CachedReply::of_epochs(&unsigned(reply, keys)?.0).epochs);
        }
        Ok(stored)
    }

    async fn read_epochs(&self, keys: &[String]) -> Result<CachedReply, StoreError> {
        let mut all = CachedReply::of_epochs(&[]);
        let read = self.read_keys(keys, self.topology.deadline()).await?;
        for (at, (reply, keys)) in read.into_iter().enumerate() {
            let read = epochs(reply, keys)?;
            if at == 0 { all = read } else { all.join(read) }
        }
        Ok(all)
    }

    /// The values of keys: of each place, or of each key where a slot is moving, and how many they
    /// are.
    async fn read_keys(
        &self,
        keys: &[String],
        deadline: Instant,
    ) -> Result<Vec<(Value, usize)>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(2);
        let together = keys.chunk_by(|a, b| self.topology.place(a) == self.topology.place(b));
        let together: Vec<&[String]> = together.collect();
        for keys in &together {
            pipeline.add_command(start("MGET")).arg(*keys);
        }
        let mut read = Vec::with_capacity(together.len());
        for (keys, reply) in
            together.into_iter().zip(self.topology.run(&mut pipeline, deadline).await?)
        {
            match server_error(&reply) {
                Some(_) if keys.len() > 1 && is_torn(&reply) => {
                    let mut each = Pipeline::with_capacity(keys.len() + 1);
                    for key in keys {
                        each.add_command(start("MGET")).arg(key);
                    }
                    let replies =
                        each_good(Box::pin(self.topology.run(&mut each, deadline)).await?)?;
                    read.extend(replies.into_iter().map(|reply| (reply, 1)));
                }
                Some(error) => return Err(error),
                None => read.push((reply, keys.len())),
            }
        }
        Ok(read)
    }

    /// See [`crate::store::Store::mix_for_now`].
    pub fn mix_for_now(&self, keys: &[String], epochs: &mut [Epoch]) {
        let mut lineage = None;
        for (key, epoch) in keys.iter().zip(epochs) {
            if lineage.is_none() || self.topology.is_spread() {
                lineage = Some(self.topology.lineage(key).unwrap_or_default());
            }
            *epoch = lineage.unwrap_or_default().mix(*epoch);
        }
    }

    /// See [`crate::store::Store::totals`].
    pub fn totals(&self) -> StoreTotals {
        let [fail_overs, data_lost] = self.topology.common.histories.counts();
        let republished = |it: &Arc<Follower>| it.republished.load(Ordering::Relaxed);
        let republished = self.follower.get().map_or(0, republished);
        StoreTotals {
            fail_overs,
            data_lost,
            republished,
            unconfirmed: self.unconfirmed.load(Ordering::Relaxed),
            told_later: self.journal.as_ref().map_or(0, |journal| journal.repeated()),
        }
    }

    /// See [`crate::store::Store::lies_on`].
    pub fn lies_on(&self, key: &str, server: &str) -> bool {
        self.topology.lies_on(key, server)
    }

    /// See [`crate::store::Store::lineage_source`].
    pub fn lineage_source(&self) -> Option<LineageSource> {
        self.topology.common.histories.source()
    }

    /// See [`crate::store::Store::lineage_changes`].
    pub fn lineage_changes(&self) -> LineageChanges {
        self.topology.common.histories.changes()
    }

    /// See [`crate::store::Store::known_epochs`].
    pub fn known_epochs(&self, keys: &[String]) -> Option<Vec<Known>> {
        self.tracker.get()?.get(keys)
    }

    /// See [`crate::store::Store::followed_epochs`].
    pub fn followed_epochs(&self) -> Option<(usize, bool)> {
        self.tracker.get().map(Tracker::state)
    }

    /// See [`crate::store::Store::follow_epochs`]. Must be called within a tokio runtime.
    pub fn follow_epochs(&self) {
        if self.topology.settings.cache_epochs == CacheEpochs::Follow {
            self.tracker.get_or_init(|| Tracker::start(&self.topology));
        }
    }

    /// Takes the epochs of an answer into the table, and those that were changed out of it.
    pub(super) fn learn(&self, mark: Option<Mark>, questions: &Questions<'_>, answers: &Answers) {
        let Some(tracker) = self.tracker.get() else { return };
        if let (Some(mark), Some(asked), Some(Ok(reply))) =
            (mark, questions.cached, &answers.cached)
            // What is stored without a base is valid nowhere; the next one asks again.
            && reply.based
        {
            tracker.learn(mark, asked.epochs, reply);
        }
    }

    /// See [`crate::store::Store::remember`].
    pub async fn remember(&self, entry: &Entry) -> Result<Remembered, StoreError> {
        let ttl_ms = millis(life(entry.ttl));
        let value = with_deadline(&entry.value, self.now_ms().saturating_add(ttl_ms));
        let mut call = start_with("EVALSHA", value.len());
        call.arg(&self.topology.scripts.remember.sha);
        call.arg(2 + usize::from(entry.lock.is_some())).arg(&entry.key);
        call.arg(&entry.path_epoch_key).arg(entry.lock.as_ref().map(|lock| &lock.key));
        call.arg(entry.path_epoch.as_ref()).arg(&entry.variant).arg(value.as_ref());
        call.arg(&entry.vary).arg(ttl_ms).arg(VARIANTS_MAX).arg(VARY_SETS_MAX);
        call.arg(entry.lock.as_ref().map(|lock| &lock.token));
        match self.run_one(call).await? {
            Value::Int(1) => Ok(Remembered::Stored),
            Value::Int(0) => Ok(Remembered::Outdated),
            Value::Int(-1) => Ok(Remembered::Overtaken),
            other => Err(unexpected(&other)),
        }
    }

    /// See [`crate::store::Store::write_chunks`].
    pub async fn write_chunks(
        &self,
        chunks: &[(String, Bytes)],
        ttl: Duration,
    ) -> Result<(), StoreError> {
        if chunks.is_empty() {
            return Ok(());
        }
        let ttl_ms = millis(life(ttl));
        let mut pipeline = Pipeline::with_capacity(chunks.len());
        for (key, chunk) in chunks {
            pipeline.cmd("SET").arg(key).arg(chunk.as_ref()).arg("PX").arg(ttl_ms);
        }
        self.run_all(&mut pipeline).await.map(|_| ())
    }

    /// See [`crate::store::Store::chunks`].
    pub async fn chunks(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let deadline = self.topology.deadline();
        match self.chunks_of_replica(keys, deadline).await {
            Some(chunks) => Ok(chunks),
            None => self.chunks_of_primary(keys, deadline).await,
        }
    }

    /// The same of a replica, where one is to be read from and has them all: no two chunks ever
    /// have one key, so what is there is never old.
    async fn chunks_of_replica(
        &self,
        keys: &[String],
        deadline: Instant,
    ) -> Option<Vec<Option<Bytes>>> {
        let cluster = self.topology.cluster()?;
        let place = self.topology.place(keys.first()?);
        let settings = &self.topology.settings;
        let is_one = keys.iter().all(|key| self.topology.place(key) == place);
        if settings.cache_reads != CacheReads::Replica || !is_one {
            return None;
        }
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(start("MGET")).arg(keys);
        let reply = cluster.read(place, pipeline, deadline).await?.pop()?;
        let (chunks, _) = unsigned(reply, keys.len()).ok()?;
        chunks.iter().all(Option::is_some).then_some(chunks)
    }

    /// The same of who takes the writes.
    async fn chunks_of_primary(
        &self,
        keys: &[String],
        deadline: Instant,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let read = self.read_keys(keys, deadline).await?.into_iter();
        let values = read.map(|(reply, keys)| Ok(unsigned(reply, keys)?.0));
        Ok(values.collect::<Result<Vec<_>, StoreError>>()?.concat())
    }

    /// See [`crate::store::Store::extend_chunks`].
    pub async fn extend_chunks(&self, keys: &[String], ttl: Duration) -> Result<bool, StoreError> {
        if keys.is_empty() {
            return Ok(true);
        }
        let ttl_ms = millis(life(ttl));
        let mut pipeline = Pipeline::with_capacity(keys.len() + 1);
        for key in keys {
            // Readers of an older entry may count on a longer life.
            pipeline.cmd("PEXPIRE").arg(key).arg(ttl_ms).arg("GT");
        }
        pipeline.cmd("EXISTS").arg(keys);
        let found = self.run_all(&mut pipeline).await?.pop();
        Ok(matches!(found, Some(Value::Int(found)) if usize::try_from(found) == Ok(keys.len())))
    }

    /// See [`crate::store::Store::has_chunks`].
    pub async fn has_chunks(&self, keys: &[String]) -> Result<bool, StoreError> {
        let mut command = redis::cmd("EXISTS");
        command.arg(keys);
        let found = self.run_one(command).await?;
        Ok(matches!(found, Value::Int(found) if usize::try_from(found) == Ok(keys.len())))
    }

    /// See [`crate::store::Store::drop_chunks`].
    pub async fn drop_chunks(&self, keys: &[String]) -> Result<(), StoreError> {
        let mut command = redis::cmd("DEL");
        command.arg(keys);
        self.run_one(command).await.map(|_| ())
    }

    /// See [`crate::store::Store::lock`].
    pub async fn lock(&self, lock: &HeldLock, ttl: Duration) -> Result<bool, StoreError> {
        Ok(!matches!(self.run_one(lock_call(lock, ttl)).await?, Value::Nil))
    }

    /// See [`crate::store::Store::extend_lock`].
    pub async fn extend_lock(&self, lock: &HeldLock, ttl: Duration) -> Result<bool, StoreError> {
        self.relock(lock, millis(ttl)).await
    }

    /// See [`crate::store::Store::unlock`].
    pub async fn unlock(&self, lock: &HeldLock) -> Result<bool, StoreError> {
        self.relock(lock, 0).await
    }

    async fn relock(&self, lock: &HeldLock, ttl_ms: u64) -> Result<bool, StoreError> {
        let call = self.relock_call(lock, ttl_ms);
        Ok(matches!(self.run_one(call).await?, Value::Int(1)))
    }

    /// The command that has a lock last for so long, or end, if its holder has it.
    pub(super) fn relock_call(&self, lock: &HeldLock, ttl_ms: u64) -> Cmd {
        let mut call = start_script(&self.topology.scripts.relock.sha);
        call.arg(1).arg(&lock.key).arg(&lock.token).arg(ttl_ms);
        call
    }

    /// See [`crate::store::Store::purge`].
    pub async fn purge(&self, purges: &[Purge]) -> Result<(), StoreError> {
        let done = self.change_epochs(purges, self.topology.deadline()).await;
        // Not only when the server said so: it may have carried out what it could not confirm.
        self.forget(purges.iter().map(|purge| purge.key.as_str()));
        done.map(|_| ())
    }

    /// See [`crate::store::Store::exchange_epochs`]. In a Redis Cluster, one place after the other.
    pub async fn exchange_epochs(&self, keys: &[String]) -> Result<Vec<EpochChange>, StoreError> {
        let (commands, epochs): (Vec<_>, Vec<_>) = exchanges(keys)?.into_iter().unzip();
        let done = self.topology.transact(commands).await;
        self.forget(keys.iter().map(String::as_str));
        let change = |((key, now), reply): ((&String, Epoch), Value)| {
            let before = match reply {
                Value::BulkString(before) => Epoch::read(Some(&before)),
                _ => Epoch::default(),
            };
            EpochChange { key: key.clone(), before, now }
        };
        Ok(keys.iter().zip(epochs).zip(done?).map(change).collect())
    }

    /// Changes epochs, of all places at once; those of tags and groups behind the clock of tags.
    /// One that is not reached leaves the others changed, which makes nothing but misses. Only
    /// without the clock no tag is changed: a fetch that began before would keep what was purged.
    pub(super) async fn change_epochs(
        &self,
        purges: &[Purge],
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let all = purges.iter().zip(changes(purges)?);
        if !self.topology.is_spread() {
            let changes = all.map(|(_, change)| change).collect();
            return self.topology.transact_apart(changes, deadline).await;
        }
        let (mut clock, mut tags, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (Purge { key, .. }, change) in all {
            if Keys::tags_purged(key).is_some() {
                clock.push(change);
            } else if Keys::is_behind_tags_clock(key) {
                tags.push(change);
            } else {
                others.push(change);
            }
        }
        let others = self.topology.transact_apart(others, deadline);
        if clock.is_empty() && tags.is_empty() {
            return others.await;
        }
        let tags = async {
            self.topology.transact_apart(clock, deadline).await?;
            self.topology.transact_apart(tags, deadline).await
        };
        let (tags, others) = tokio::join!(tags, others);
        tags.and(others)
    }

    /// See [`crate::store::Store::tags`].
    pub async fn tags(
        &self,
        keys: &[String],
        clock: &str,
        since: Epoch,
    ) -> Result<Option<Vec<Epoch>>, StoreError> {
        let mark = self.tracker.get().and_then(|tracker| tracker.mark(keys));
        let Some(notes) = Keys::tags_purged(clock) else { return Ok(None) };
        let (mut read, noted) = self.tags_and_notes(keys, clock, &notes).await?;
        if let (Some(mark), Some(tracker)) = (mark, self.tracker.get()) {
            tracker.learn(mark, keys, &read);
        }
        // The clock of another history is none that its notes know.
        let of_clock = read.lineages.at(keys.len());
        let (is_same, since) = (read.epochs.pop() == Some(since), of_clock.mix(since));
        if is_same {
            return Ok(Some(read.epochs));
        }
        let names = purged::names(keys.iter().map(String::as_str));
        let mut noted = value(noted).unwrap_or_default();
        let mut is_changed = purged::changed(&noted, USUAL, since, &names);
        if is_changed.is_none() && noted.len() == USUAL {
            // Many purges in one fetch.
            let all = self.run_one(notes_call(&notes, MOST)).await?;
            noted = value(all).unwrap_or_default();
            is_changed = purged::changed(&noted, MOST, since, &names);
        }
        Ok((is_changed == Some(false)).then_some(read.epochs))
    }

    /// The epochs of tags and of their clock, and notes that are read behind them, so that no purge
    /// in between is missed.
    async fn tags_and_notes(
        &self,
        keys: &[String],
        clock: &str,
        notes: &str,
    ) -> Result<(CachedReply, Value), StoreError> {
        if self.topology.is_spread() {
            let read = self.read_epochs(&[keys, &[clock.to_owned()]].concat()).await?;
            return Ok((read, self.run_one(notes_call(notes, USUAL)).await?));
        }
        let mut pipeline = Pipeline::with_capacity(3);
        pipeline.add_command(start("MGET")).arg(keys).arg(clock);
        pipeline.add_command(notes_call(notes, USUAL));
        let mut replies = self.run(&mut pipeline).await?.into_iter();
        let mut next = || replies.next().unwrap_or_default();
        Ok((epochs(next(), keys.len() + 1)?, next()))
    }

    /// See [`crate::store::Store::withdraw_all`].
    pub async fn withdraw_all(&self, base: &str) -> Result<bool, StoreError> {
        let was_there = self.delete(base).await;
        self.forget(std::iter::once(base));
        was_there
    }

    /// Takes epochs out of the table: they may have changed.
    pub(super) fn forget<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        if let Some(tracker) = self.tracker.get() {
            tracker.forget(keys);
        }
    }

    /// See [`crate::store::Store::found`].
    pub async fn found(&self, base: &str) -> Result<(), StoreError> {
        let mut command = set_epoch(base, Epoch::fresh()?);
        command.arg("NX");
        self.run_one(command).await.map(|_| ())
    }

    /// See [`crate::store::Store::clock_offset_ms`].
    pub fn clock_offset_ms(&self) -> i64 {
        self.topology.clock_offset_ms()
    }

    /// The time of the server's clock, in Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        let now_ms = link::now_ms().saturating_add(self.clock_offset_ms());
        u64::try_from(now_ms).unwrap_or_default()
    }
}
