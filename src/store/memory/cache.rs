//! Cached responses in the embedded store: the same keys and fields as in Redis, each change under
//! one lock. Variants end on this store's own clock.

use std::time::Duration;

use bytes::Bytes;

use super::{MemoryStore, Values, lock};
use crate::store::cached::{life, living, others, vary_sets, with_deadline};
use crate::store::keys::{Keys, Kind, is_cache_base};
use crate::store::purged;
use crate::store::{
    Cached, CachedEntry, CachedReply, EPOCH_TTL, Entry, Epoch, EpochChange, HeldLock, Purge,
    Remembered, SessionValue, StoreError, VARIANTS_MAX, VARY, WantedLock,
};

type Fields = Vec<(Bytes, Bytes)>;

impl MemoryStore {
    /// The epochs of now, and what is asked of the entry.
    pub fn cached(&self, cached: Cached<'_>) -> CachedReply {
        let now_ms = self.now_ms();
        let mut values = lock(&self.values);
        let mut reply = values.epochs(cached.epochs);
        if let Some(CachedEntry { key, variants, lock }) = cached.entry {
            if let Some(WantedLock { lock, ttl }) = lock
                && values.lock(lock, ttl).is_ok()
            {
                reply.holder = values.text(&lock.key);
            }
            (reply.vary, reply.variants) = values.variants(key, variants, now_ms);
        }
        reply
    }

    /// The sets of field names of an entry, and variants of it.
    pub fn variants(&self, key: &str, names: &[String]) -> (Option<Bytes>, Vec<Option<Bytes>>) {
        lock(&self.values).variants(key, names, self.now_ms())
    }

    /// See [`crate::store::Store::variant_names`].
    pub fn variant_names(&self, key: &str, most: usize) -> Vec<String> {
        let fields = lock(&self.values).entry(key).unwrap_or_default();
        let names = fields.into_iter().map(|(name, _)| name).filter(|name| *name != VARY);
        names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).take(most).collect()
    }

    /// The epochs of now.
    pub fn epochs(&self, keys: &[String]) -> CachedReply {
        lock(&self.values).epochs(keys)
    }

    /// See [`crate::store::Store::remember`].
    pub fn remember(&self, entry: &Entry) -> Result<Remembered, StoreError> {
        let now_ms = self.now_ms();
        let mut values = lock(&self.values);
        if values.text(&entry.path_epoch_key).unwrap_or_default() != entry.path_epoch {
            return Ok(Remembered::Outdated);
        }
        let holder = entry.lock.as_ref().and_then(|lock| values.text(&lock.key));
        let held = entry.lock.as_ref().filter(|_| holder.is_some());
        if held.is_some_and(|lock| holder.as_deref() != Some(lock.token.as_bytes())) {
            return Ok(Remembered::Overtaken);
        }
        let ttl = life(entry.ttl);
        let mut fields = values.entry(&entry.key).unwrap_or_default();
        let sets = vary_sets(field(&fields, VARY).as_deref(), &entry.vary);
        put(&mut fields, VARY, sets.into());
        let deadline_ms = now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        put(&mut fields, &entry.variant, with_deadline(&entry.value, deadline_ms));
        evict(&mut fields, &entry.variant);
        let ttl = values.left(&entry.key).map_or(ttl, |left| left.max(ttl));
        let value = SessionValue::Fields(fields);
        values.insert(&entry.key, value, Some(ttl))?;
        if let Some(lock) = held {
            values.remove(&lock.key);
        }
        Ok(Remembered::Stored)
    }

    /// See [`crate::store::Store::write_chunks`].
    pub fn write_chunks(
        &self,
        chunks: &[(String, Bytes)],
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let mut values = lock(&self.values);
        for (key, chunk) in chunks {
            let value = SessionValue::Text(chunk.clone());
            values.insert(key, value, Some(life(ttl)))?;
        }
        Ok(())
    }

    /// See [`crate::store::Store::extend_chunks`].
    pub fn extend_chunks(&self, keys: &[String], ttl: Duration) -> bool {
        let until = tokio::time::Instant::now() + life(ttl);
        let mut values = lock(&self.values);
        let mut all = true;
        for key in keys {
            all &= values.live(key).is_some();
            if let Some(found) = values.live_mut(key) {
                found.expires = found.expires.map(|expires| expires.max(until));
            }
        }
        all
    }

    /// See [`crate::store::Store::chunks`].
    pub fn chunks(&self, keys: &[String]) -> Vec<Option<Bytes>> {
        let values = lock(&self.values);
        keys.iter().map(|key| values.text(key)).collect()
    }

    /// See [`crate::store::Store::drop_chunks`].
    pub fn drop_chunks(&self, keys: &[String]) {
        let mut values = lock(&self.values);
        for key in keys {
            values.remove(key);
        }
    }

    /// See [`crate::store::Store::lock`].
    pub fn lock(&self, wanted: &HeldLock, ttl: Duration) -> Result<bool, StoreError> {
        lock(&self.values).lock(wanted, ttl)
    }

    /// See [`crate::store::Store::extend_lock`].
    pub fn extend_lock(&self, held: &HeldLock, ttl: Duration) -> Result<bool, StoreError> {
        let mut values = lock(&self.values);
        if values.text(&held.key).as_deref() != Some(held.token.as_bytes()) {
            return Ok(false);
        }
        values.insert(&held.key, token(held), Some(ttl)).map(|()| true)
    }

    /// See [`crate::store::Store::unlock`].
    pub fn unlock(&self, held: &HeldLock) -> bool {
        let mut values = lock(&self.values);
        values.text(&held.key).as_deref() == Some(held.token.as_bytes()) && values.remove(&held.key)
    }

    /// See [`crate::store::Store::purge`].
    pub fn purge(&self, purges: &[Purge]) -> Result<(), StoreError> {
        lock(&self.values).change_epochs(purges).map(drop)
    }

    /// See [`crate::store::Store::exchange_epochs`].
    pub fn exchange_epochs(&self, keys: &[String]) -> Result<Vec<EpochChange>, StoreError> {
        let purges: Vec<Purge> = keys.iter().cloned().map(Purge::hard).collect();
        let mut values = lock(&self.values);
        let read = |values: &Values, key: &String| Epoch::read(values.text(key).as_deref());
        let before: Vec<Epoch> = keys.iter().map(|key| read(&values, key)).collect();
        let now = values.change_epochs(&purges)?;
        let change = |((key, before), now): ((&String, Epoch), Epoch)| EpochChange {
            key: key.clone(),
            before,
            now,
        };
        Ok(keys.iter().zip(before).zip(now).map(change).collect())
    }

    /// See [`crate::store::Store::tags`].
    pub fn tags(&self, keys: &[String], clock: &str, since: Epoch) -> Option<Vec<Epoch>> {
        let values = lock(&self.values);
        if Epoch::read(values.text(clock).as_deref()) != since {
            let notes = values.text(&Keys::tags_purged(clock)?)?;
            let names = purged::names(keys.iter().map(String::as_str));
            // No more than is always kept: an older purge may be there in part.
            let most = purged::NOTES_BYTES_MAX;
            let newest = notes.get(notes.len().saturating_sub(most)..).unwrap_or_default();
            if purged::changed(newest, most, since, &names) != Some(false) {
                return None;
            }
        }
        Some(values.epochs(keys).epochs)
    }

    /// Changes epochs that an earlier request could not change.
    pub(super) fn settle(&self, pending: &[String]) -> Result<(), StoreError> {
        let purges: Vec<Purge> = pending.iter().cloned().map(Purge::hard).collect();
        self.purge(&purges)
    }

    /// See [`crate::store::Store::found`].
    pub fn found(&self, base: &str) -> Result<(), StoreError> {
        if lock(&self.values).live(base).is_some() {
            return Ok(());
        }
        self.purge(&[Purge::hard(base.to_owned())])
    }

    fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }
}

impl Values {
    /// A new base makes stale all that was stored, so the room of it is free at once, and no other
    /// epoch is of use any more. Where there is no room for more epochs, the base gives way, and
    /// with it the whole cache: an epoch alone must not be lost, or what it made stale would be
    /// valid again.
    fn make_room_for_epochs(&mut self, purges: &[Purge]) -> Result<(), StoreError> {
        let renews = |purge: &Purge| is_cache_base(&purge.key) && !purge.soft;
        if purges.iter().any(|purge| renews(purge) && self.live(&purge.key).is_some()) {
            self.empty_cache();
            return Ok(());
        }
        let is_new = |purge: &&Purge| {
            Kind::of(&purge.key) == Kind::Epoch && !self.map.contains_key(&purge.key)
        };
        let wanted = purges.iter().filter(is_new).count();
        let (most, _) = self.bounds.most(Kind::Epoch);
        if wanted == 0 || self.count(Kind::Epoch) + wanted <= most {
            return Ok(());
        }
        self.sweep();
        let held = self.count(Kind::Epoch);
        if held + wanted <= most {
            return Ok(());
        }
        let base = self.map.keys().find(|key| is_cache_base(key)).cloned();
        self.empty_cache();
        if self.evicted.epochs == 0 {
            tracing::warn!(
                "more paths and tags were made stale than store.memory_epochs: the cache is emptied"
            );
        }
        self.evicted.epochs += u64::try_from(held).unwrap_or(u64::MAX);
        if let Some(base) = base {
            self.write_epoch(&base, Epoch::fresh()?)?;
        }
        Ok(())
    }

    fn empty_cache(&mut self) {
        self.cached.clear();
        self.cached_bytes = 0;
        self.retain(|key, _| Kind::of(key) != Kind::Epoch);
    }

    /// Changes epochs; what each is now.
    fn change_epochs(&mut self, purges: &[Purge]) -> Result<Vec<Epoch>, StoreError> {
        self.make_room_for_epochs(purges)?;
        let mut written = Vec::with_capacity(purges.len());
        for Purge { key, soft } in purges {
            let mut epoch = Epoch::fresh()?;
            let notes = Keys::tags_purged(key);
            if let Some(notes) = &notes {
                let before = Epoch::read(self.text(key).as_deref());
                let names = purged::names(others(purges, key));
                let old = self.text(notes).unwrap_or_default();
                let noted = purged::joined(&old, &purged::noted(before, &names));
                let noted = SessionValue::Text(noted.into());
                self.insert(notes, noted, Some(EPOCH_TTL))?;
            } else if *soft {
                match self.live(key).map(|found| found.value.clone()) {
                    None => epoch.hard = Epoch::default().hard,
                    Some(SessionValue::Text(text)) if Epoch::is_one(&text) => {
                        epoch.hard = Epoch::read(Some(&text)).hard;
                    }
                    Some(_) => {}
                }
            }
            self.write_epoch(key, epoch)?;
            written.push(epoch);
        }
        Ok(written)
    }

    fn write_epoch(&mut self, key: &str, epoch: Epoch) -> Result<(), StoreError> {
        let value = SessionValue::Text(Bytes::copy_from_slice(&epoch.to_bytes()));
        self.insert(key, value, Some(EPOCH_TTL))
    }

    fn epochs(&self, keys: &[String]) -> CachedReply {
        let read: Vec<Option<Bytes>> = keys.iter().map(|key| self.text(key)).collect();
        CachedReply::of_epochs(&read)
    }

    fn variants(
        &self,
        key: &str,
        names: &[String],
        now_ms: u64,
    ) -> (Option<Bytes>, Vec<Option<Bytes>>) {
        let fields = match self.live(key).map(|found| &found.value) {
            Some(SessionValue::Fields(fields)) => fields.as_slice(),
            _ => &[],
        };
        let variant = |name: &String| living(field(fields, name)?, now_ms);
        (field(fields, VARY), names.iter().map(variant).collect())
    }

    fn lock(&mut self, wanted: &HeldLock, ttl: Duration) -> Result<bool, StoreError> {
        if self.live(&wanted.key).is_some() {
            return Ok(false);
        }
        self.insert(&wanted.key, token(wanted), Some(ttl)).map(|()| true)
    }

    /// The fields of an entry; an application's own string under its key is none.
    fn entry(&mut self, key: &str) -> Option<Fields> {
        match &self.live(key)?.value {
            SessionValue::Fields(fields) => Some(fields.clone()),
            SessionValue::Text(_) => None,
        }
    }

    fn left(&mut self, key: &str) -> Option<Duration> {
        let expires = self.live(key)?.expires?;
        Some(expires.saturating_duration_since(tokio::time::Instant::now()))
    }
}

fn token(lock: &HeldLock) -> SessionValue {
    SessionValue::Text(Bytes::copy_from_slice(lock.token.as_bytes()))
}

fn field(fields: &[(Bytes, Bytes)], name: &str) -> Option<Bytes> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

fn put(fields: &mut Fields, name: &str, value: Bytes) {
    match fields.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => fields.push((Bytes::copy_from_slice(name.as_bytes()), value)),
    }
}

/// Makes room for `newest` among the variants.
fn evict(fields: &mut Fields, newest: &str) {
    if fields.len() > VARIANTS_MAX + 1 {
        let others: Vec<usize> = (0..fields.len())
            .filter(|at| fields.get(*at).is_some_and(|(name, _)| name != VARY && name != newest))
            .collect();
        if let Some(at) = fastrand::choice(others) {
            fields.swap_remove(at);
        }
    }
}
