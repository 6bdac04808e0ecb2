//! The embedded store: the single-node mode, and the reference for what the Redis store must do.
//!
//! Every method is short and holds one lock, never over an await. Each kind has a budget of its own
//! ([`MemoryBounds`]), so that no flood of one pushes out another. Counters of limits and cached
//! responses may be lost: there the least worth keeping gives way, and nothing is refused. Epochs
//! may be lost together with all that was stored under them. Sessions, revocations and API keys
//! may not: what has expired makes room, and what does not fit is refused.

mod api_keys;
mod cache;
mod certificates;
mod claims;
mod families;
mod idempotent;
mod logins;
mod marks;
mod queue;
mod queue_shard;
mod queues;
mod revocations;
mod sessions;
mod tellings;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use self::claims::Claims;
use self::queues::Queues;
use super::keys::Kind;
use super::lease::Holders;
use super::question::NOT_BEFORE_BYTES_MAX;
use super::sessions::ENDS;
use super::window::WindowLog;
use super::{
    Answers, ChargeReply, ChargedAt, Charges, LeaseReply, Leases, News, Questions, Release,
    RevocationKeys, RevocationStatus, SessionEnd, SessionReply, SessionValue, StoreError, Window,
};
use crate::base::room::Room;

/// Pause between two sweeps of everything.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// How many of the old are looked at for each new one, so that what is over does not stay.
const LOOKS_AT_OLD: usize = 2;
/// What a cached item weighs beside its key and its value, in bytes.
const CACHED_OVERHEAD_BYTES: usize = 200;

/// The budget of each kind; `[store]` has the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBounds {
    /// Most counters of limits.
    pub limit_keys: usize,
    /// Most bytes of cached responses.
    pub cache_bytes: usize,
    /// Most bytes of what is kept under idempotency keys.
    pub idempotency_bytes: usize,
    /// Most keys of each kind, and the name of that bound, by the kind's number.
    pub keys: [(usize, &'static str); Kind::ALL.len()],
}

/// The most keys of a kind, and the name of that bound.
fn most_keys(kind: Kind, settings: &crate::config::Store) -> (usize, &'static str) {
    match kind {
        Kind::Session => (settings.memory_session_keys, "memory_session_keys"),
        Kind::Revocation => (settings.memory_revocations, "memory_revocations"),
        Kind::ApiKey => (settings.memory_api_key_keys, "memory_api_key_keys"),
        Kind::Epoch => (settings.memory_epochs, "memory_epochs"),
        Kind::Mark => (settings.memory_marks, "memory_marks"),
        // Their bytes are bounded.
        Kind::Cached => (usize::MAX, "memory_cache_bytes"),
        // The configuration's names bound them.
        Kind::Tls => (usize::MAX, "server.tls.acme"),
    }
}

impl MemoryBounds {
    /// The bounds of a configuration.
    pub fn of(settings: &crate::config::Store) -> Self {
        Self {
            limit_keys: settings.memory_limit_keys,
            cache_bytes: usize::try_from(settings.memory_cache_bytes).unwrap_or(usize::MAX),
            idempotency_bytes: usize::try_from(settings.memory_idempotency_bytes)
                .unwrap_or(usize::MAX),
            keys: Kind::ALL.map(|kind| most_keys(kind, settings)),
        }
    }

    /// The same number of keys of each kind that is bounded by their number, and as many cached
    /// bytes as by default.
    pub fn keys(most: usize) -> Self {
        let default = Self::of(&crate::config::Store::default());
        let keys = default.keys.map(|(bound, name)| match bound {
            usize::MAX => (bound, name),
            _ => (most, name),
        });
        Self { limit_keys: most, keys, ..default }
    }

    /// The most keys of a kind and the name of that bound.
    fn most(&self, kind: Kind) -> (usize, &'static str) {
        self.keys[kind as usize]
    }
}

/// How much gave way to what was new since the start, though it was not over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Counters of limits.
    pub limits: u64,
    /// Cached responses and pieces of them.
    pub cache: u64,
    /// Epochs, and with them all cached responses.
    pub epochs: u64,
}

/// The embedded store.
#[derive(Debug)]
pub struct MemoryStore {
    started: Instant,
    bounds: MemoryBounds,
    windows: Mutex<Windows>,
    holders: Mutex<Holders>,
    values: Mutex<Values>,
    queues: Mutex<Queues>,
    claims: Mutex<Claims>,
    /// Proofs that have come.
    proofs: Mutex<Claims>,
    news: Arc<News>,
}

#[derive(Debug, Default)]
struct Windows {
    room: Room<(Window, WindowLog)>,
    evicted: u64,
}

#[derive(Debug)]
struct Values {
    /// What must not be lost, revocations aside, and epochs.
    map: HashMap<String, Value, foldhash::fast::RandomState>,
    /// Revocations: people look through them while requests are answered.
    revoked: Room<Value>,
    /// How many of each kind both hold, by the kind's number.
    counts: [usize; Kind::ALL.len()],
    cached: Room<Value>,
    /// What `cached` weighs.
    cached_bytes: usize,
    bounds: MemoryBounds,
    /// Counts the uses of cached items.
    clock: Cell<u64>,
    swept: Option<Instant>,
    evicted: Evicted,
}

#[derive(Debug)]
struct Value {
    value: SessionValue,
    expires: Option<Instant>,
    /// When it was used last, on the clock of uses.
    used: Cell<u64>,
}

impl MemoryStore {
    /// An empty store for at most `keys_max` keys of each kind.
    pub fn new(keys_max: usize) -> Self {
        Self::bounded(MemoryBounds::keys(keys_max))
    }

    /// An empty store with these bounds.
    pub fn bounded(bounds: MemoryBounds) -> Self {
        Self {
            started: Instant::now(),
            bounds,
            windows: Mutex::default(),
            holders: Mutex::default(),
            values: Mutex::new(Values::new(bounds)),
            queues: Mutex::default(),
            claims: Mutex::default(),
            proofs: Mutex::default(),
            news: Arc::default(),
        }
    }

    /// See [`super::Store::news`].
    pub fn news(&self) -> Arc<News> {
        Arc::clone(&self.news)
    }

    /// How many keys have holders of slots, the dead among them.
    #[cfg(test)]
    pub(super) fn slot_keys(&self) -> usize {
        lock(&self.holders).len()
    }

    /// Asserts that what is counted is there, and is within the bounds; how much there is.
    #[cfg(test)]
    pub(super) fn assert_counted(&self) -> usize {
        let values = lock(&self.values);
        let mut counts = [0; Kind::ALL.len()];
        values.map.keys().for_each(|key| counts[Kind::of(key) as usize] += 1);
        counts[Kind::Revocation as usize] += values.revoked.len();
        assert_eq!(values.counts, counts);
        for kind in [Kind::Session, Kind::Revocation, Kind::ApiKey, Kind::Mark] {
            assert!(values.count(kind) <= values.bounds.most(kind).0, "{kind:?}");
        }
        // The notes of purges are one more.
        assert!(values.count(Kind::Epoch) <= values.bounds.most(Kind::Epoch).0 + 1);
        let weights = values.cached.iter().map(|(key, value)| weight(key, value));
        assert_eq!(values.cached_bytes, weights.sum::<usize>());
        assert!(values.cached_bytes <= values.bounds.cache_bytes);
        let held = values.map.len() + values.revoked.len() + values.cached.len();
        held + lock(&self.windows).room.len()
    }

    /// What gave way so far.
    pub fn evicted(&self) -> Evicted {
        Evicted { limits: lock(&self.windows).evicted, ..lock(&self.values).evicted }
    }

    /// See [`super::Store::ask`].
    pub fn ask(&self, questions: &Questions<'_>) -> Answers {
        let settled =
            !questions.pending_purges.is_empty() && self.settle(questions.pending_purges).is_ok();
        let session = questions.session.map(|asked| self.session(asked.key));
        let end = questions.session.and_then(|asked| self.session_end(asked.end?));
        let (revocation, unproven) = self.judge(questions.revocation);
        Answers {
            revocation,
            unproven,
            charges: questions.charges.map(|charges| self.take(charges)),
            leases: questions.leases.map(|leases| Ok(self.lease(leases))),
            keeps_end: end.is_some(),
            session_end: end.filter(|_| session == Some(None)),
            session: session.map(Ok),
            cached: questions.cached.map(|cached| Ok(self.cached(cached))),
            marks: questions.marks.map(|asked| Ok(self.marks(asked))),
            claim: questions.claim.map(|asked| self.claim(asked)),
            settled,
        }
    }

    /// See [`super::Store::take`].
    pub fn take(&self, charges: Charges<'_>) -> Result<ChargeReply, StoreError> {
        let mut logs = lock(&self.windows);
        // Read under the lock, so that charges are entered in the order of their times.
        let now_us = self.now_us();
        let mut windows = Vec::with_capacity(charges.keys.len());
        for (key, window) in charges.keys.iter().zip(&charges.set.windows) {
            let state = match logs.room.get_mut(key) {
                Some((_, log)) => log.state(window, now_us, window.cost),
                None => WindowLog::default().state(window, now_us, window.cost),
            };
            windows.push(state);
        }
        let pairs = || charges.set.windows.iter().zip(&windows);
        let allowed = !pairs().any(|(window, state)| window.refuses(state));
        if allowed {
            for (key, (window, state)) in charges.keys.iter().zip(pairs()) {
                if window.cost > 0 && window.charges(state) {
                    logs.make_room(key, charges.keys, self.bounds.limit_keys, now_us);
                    if let Some(known) = logs.room.get_mut(key) {
                        known.0 = *window;
                        known.1.charge(window, now_us, window.cost);
                    } else {
                        let mut log = WindowLog::default();
                        log.charge(window, now_us, window.cost);
                        logs.room.insert(key, (*window, log));
                    }
                }
            }
        }
        Ok(ChargeReply { allowed, at: ChargedAt::of(now_us), windows })
    }

    /// See [`super::Store::lease`].
    pub fn lease(&self, leases: Leases<'_>) -> LeaseReply {
        lock(&self.holders).take(leases)
    }

    /// See [`super::Store::release`].
    pub fn release(&self, release: &Release) {
        lock(&self.holders).release(release);
    }

    /// See [`super::Store::refund`].
    pub fn refund(&self, charges: Charges<'_>, at: &ChargedAt) {
        let mut logs = lock(&self.windows);
        for (key, window) in charges.keys.iter().zip(&charges.set.windows) {
            if let Some((_, log)) = logs.room.get_mut(key) {
                log.refund(window, at.micros(), window.cost);
            }
        }
    }

    /// Writes one value.
    pub fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), StoreError> {
        lock(&self.values).insert(key, SessionValue::Text(value), ttl)
    }

    /// Writes a hash.
    pub fn put_fields(&self, key: &str, fields: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        lock(&self.values).insert(key, SessionValue::Fields(fields), None)
    }

    /// See [`super::Store::delete`].
    pub fn delete(&self, key: &str) -> bool {
        let was_window = lock(&self.windows).room.remove(key).is_some();
        let mut values = lock(&self.values);
        let was_live = values.live(key).is_some();
        values.remove(key);
        was_live || was_window
    }

    fn revocation(&self, revocation: RevocationKeys<'_>) -> Result<RevocationStatus, StoreError> {
        let values = lock(&self.values);
        let listed = revocation.blacklist.iter().any(|key| values.live(key).is_some());
        let text = match revocation.not_before.and_then(|key| values.live(key)) {
            None => None,
            Some(Value { value: SessionValue::Text(text), .. }) => Some(text.clone()),
            Some(Value { value: SessionValue::Fields(_), .. }) => return Err(not_a_time()),
        };
        let seconds = |text: Bytes| {
            let text = Some(text).filter(|text| text.len() <= NOT_BEFORE_BYTES_MAX)?;
            std::str::from_utf8(&text).ok()?.trim().parse().ok()
        };
        let text = text.filter(|text| !text.is_empty());
        let not_before = text.map(|text| seconds(text).ok_or_else(not_a_time)).transpose()?;
        let gone = revocation.record.is_some_and(|key| values.live(key).is_none());
        Ok(RevocationStatus { listed, not_before, gone, replayed: false })
    }

    fn session(&self, key: &str) -> Option<SessionReply> {
        let values = lock(&self.values);
        let found = values.live(key).filter(|found| !found.value.is_empty_text())?;
        let now = Instant::now();
        Some(SessionReply {
            value: found.value.clone(),
            ttl: found.expires.map(|at| at.saturating_duration_since(now)),
        })
    }

    fn session_end(&self, key: &str) -> Option<SessionEnd> {
        match &lock(&self.values).live(key)?.value {
            SessionValue::Fields(fields) => {
                let ends = fields.iter().find(|(name, _)| *name == ENDS.as_bytes());
                SessionEnd::parse(&ends?.1)
            }
            SessionValue::Text(_) => None,
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Windows {
    /// Makes room for a new key beside the others of the same charge. What is idle gives way first,
    /// then what uses least of its limit, then the oldest: a flood of new keys pushes out its own,
    /// and whoever is close to a limit, or over it, stays counted.
    fn make_room(&mut self, key: &str, charged: &[String], most: usize, now_us: u64) {
        if self.room.contains(key) {
            return;
        }
        for _ in 0..LOOKS_AT_OLD {
            if let Some(at) = self.room.any(|(window, log)| log.is_idle(window, now_us)) {
                self.room.remove_at(at);
            }
        }
        while self.room.len() >= most {
            let rank = |key: &str, (window, log): &(Window, WindowLog)| {
                (!charged.iter().any(|other| other == key)).then(|| log.rank(window, now_us))
            };
            let Some(at) = self.room.lowest(rank) else { return };
            if let Some((_, (window, log))) = self.room.remove_at(at)
                && !log.is_idle(&window, now_us)
            {
                self.evicted += 1;
                if self.evicted == 1 {
                    tracing::warn!(
                        "more counters of limits are in use than store.memory_limit_keys: those \
                         that use least of their limits give way, and their clients begin anew"
                    );
                }
            }
        }
    }
}

impl Values {
    fn new(bounds: MemoryBounds) -> Self {
        Self {
            map: HashMap::default(),
            revoked: Room::default(),
            counts: [0; Kind::ALL.len()],
            cached: Room::default(),
            cached_bytes: 0,
            bounds,
            clock: Cell::default(),
            swept: None,
            evicted: Evicted::default(),
        }
    }

    fn held(&self, key: &str) -> Option<&Value> {
        match Kind::of(key) {
            Kind::Cached => self.cached.get(key),
            Kind::Revocation => self.revoked.get(key),
            _ => self.map.get(key),
        }
    }

    fn held_mut(&mut self, key: &str) -> Option<&mut Value> {
        match Kind::of(key) {
            Kind::Cached => self.cached.get_mut(key),
            Kind::Revocation => self.revoked.get_mut(key),
            _ => self.map.get_mut(key),
        }
    }

    fn live(&self, key: &str) -> Option<&Value> {
        let found = self.held(key)?;
        found.used.set(self.tick());
        (!found.is_over(Instant::now())).then_some(found)
    }

    fn live_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.live(key)?;
        self.held_mut(key)
    }

    fn text(&self, key: &str) -> Option<Bytes> {
        match &self.live(key)?.value {
            SessionValue::Text(text) => Some(text.clone()),
            SessionValue::Fields(_) => None,
        }
    }

    /// Writes a value. One that is refused does not lose what was there.
    fn insert(
        &mut self,
        key: &str,
        value: SessionValue,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        let value = Value { value, expires, used: Cell::new(self.tick()) };
        let kind = Kind::of(key);
        if kind == Kind::Cached {
            return self.insert_cached(key, value);
        }
        if let Some(known) = self.held_mut(key) {
            *known = value;
            return Ok(());
        }
        // Epochs have been given room before.
        if kind != Kind::Epoch {
            self.room_for(&[key])?;
        }
        self.counts[kind as usize] += 1;
        if kind == Kind::Revocation {
            self.revoked.insert(key, value);
        } else {
            self.map.insert(key.to_owned(), value);
        }
        Ok(())
    }

    /// Whether all of these keys, of one kind that gives way to nothing, have room: what is written
    /// under several must not be refused when the first is written.
    fn room_for(&mut self, keys: &[&str]) -> Result<(), StoreError> {
        let Some(kind) = keys.first().map(|key| Kind::of(key)) else { return Ok(()) };
        let (most, name) = self.bounds.most(kind);
        let fits = |values: &Self| {
            let is_new = |key: &&&str| values.held(key).is_none();
            values.count(kind) + keys.iter().filter(is_new).count() <= most
        };
        if !fits(self) {
            self.sweep();
        }
        if fits(self) { Ok(()) } else { Err(StoreError::Full(name)) }
    }

    /// What is over gives way first, then what was not used for longest.
    fn insert_cached(&mut self, key: &str, value: Value) -> Result<(), StoreError> {
        let added = weight(key, &value);
        if added > self.bounds.cache_bytes {
            return Err(StoreError::Full(self.bounds.most(Kind::Cached).1));
        }
        self.remove(key);
        let now = Instant::now();
        for _ in 0..LOOKS_AT_OLD {
            if let Some(at) = self.cached.any(|old| old.is_over(now)) {
                self.evict(at);
            }
        }
        while self.cached_bytes + added > self.bounds.cache_bytes {
            let rank = |_: &str, old: &Value| Some((!old.is_over(now), old.used.get()));
            let Some(at) = self.cached.lowest(rank) else { break };
            if self.evict(at).is_some_and(|old| !old.is_over(now)) {
                self.evicted.cache += 1;
                if self.evicted.cache == 1 {
                    tracing::info!(
                        "cached responses fill store.memory_cache_bytes: those that were not used \
                         for longest give way"
                    );
                }
            }
        }
        self.cached_bytes += added;
        self.cached.insert(key, value);
        Ok(())
    }

    fn evict(&mut self, at: usize) -> Option<Value> {
        let (key, value) = self.cached.remove_at(at)?;
        self.cached_bytes -= weight(&key, &value);
        Some(value)
    }

    fn remove(&mut self, key: &str) -> bool {
        let kind = Kind::of(key);
        if kind == Kind::Cached {
            let removed = self.cached.remove(key);
            self.cached_bytes -= removed.as_ref().map_or(0, |old| weight(key, old));
            return removed.is_some();
        }
        let removed = match kind {
            Kind::Revocation => self.revoked.remove(key),
            _ => self.map.remove(key),
        };
        let removed = removed.is_some();
        self.counts[kind as usize] -= usize::from(removed);
        removed
    }

    fn count(&self, kind: Kind) -> usize {
        self.counts[kind as usize]
    }

    /// Keeps what `stays`, by key and value.
    fn retain(&mut self, stays: impl Fn(&str, &Value) -> bool) {
        let counts = &mut self.counts;
        let mut counted = |key: &str, value: &Value| {
            let stays = stays(key, value);
            counts[Kind::of(key) as usize] -= usize::from(!stays);
            stays
        };
        self.map.retain(|key, value| counted(key, value));
        self.revoked.retain(counted);
    }

    /// Forgets what has expired, at most once a second: under a flood of what is all alive, a sweep
    /// per request would be the worse attack.
    fn sweep(&mut self) {
        let now = Instant::now();
        if self.swept.is_some_and(|swept| now - swept < SWEEP_PAUSE) {
            return;
        }
        self.swept = Some(now);
        self.retain(|_, value| !value.is_over(now));
    }

    fn tick(&self) -> u64 {
        self.clock.update(|now| now + 1);
        self.clock.get()
    }
}

impl Value {
    fn is_over(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

/// What a cached item weighs, in bytes.
fn weight(key: &str, value: &Value) -> usize {
    CACHED_OVERHEAD_BYTES + 2 * key.len() + value_bytes(&value.value)
}

fn value_bytes(value: &SessionValue) -> usize {
    match value {
        SessionValue::Text(text) => text.len(),
        SessionValue::Fields(fields) => fields.iter().map(|(n, value)| n.len() + value.len()).sum(),
    }
}

fn not_a_time() -> StoreError {
    StoreError::Refused("a not-before key holds no Unix time in seconds".to_owned())
}

/// A panic while the lock was held cannot have left half a change that matters: every change is one
/// insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
