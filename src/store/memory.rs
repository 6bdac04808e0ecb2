//! The embedded store: the single-node mode, and the reference for what the Redis store must do.
//!
//! Every method is short and holds one lock, never over an await. The number of keys is bounded by
//! `store.memory_keys`; what has expired is swept when the bound is near, and what does not fit is
//! refused.

mod api_keys;
mod cache;
mod sessions;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::lease::Holders;
use super::window::WindowLog;
use super::{
    Answers, ChargeReply, Charges, LeaseReply, Leases, Questions, Release, SessionEnd,
    SessionReply, SessionValue, Standing, StandingReply, StoreError, Window,
};

/// Largest total of cached responses, in bytes: beyond it expired entries are swept, then the entry
/// is not kept.
const ENTRY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Pause between two sweeps of everything.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The embedded store.
#[derive(Debug)]
pub struct MemoryStore {
    started: Instant,
    keys_max: usize,
    windows: Mutex<Windows>,
    holders: Mutex<Holders>,
    values: Mutex<Values>,
}

#[derive(Debug, Default)]
struct Windows {
    map: HashMap<String, (Window, WindowLog), foldhash::fast::RandomState>,
    swept_us: u64,
}

#[derive(Debug, Default)]
struct Values {
    map: HashMap<String, Value, foldhash::fast::RandomState>,
    /// Bytes held by the values.
    bytes: usize,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Value {
    value: SessionValue,
    expires: Option<Instant>,
}

impl MemoryStore {
    /// An empty store for at most `keys_max` windows and as many values.
    pub fn new(keys_max: usize) -> Self {
        Self {
            started: Instant::now(),
            keys_max,
            windows: Mutex::default(),
            holders: Mutex::default(),
            values: Mutex::default(),
        }
    }

    /// See [`super::Store::ask`].
    pub fn ask(&self, questions: &Questions<'_>) -> Answers {
        let settled = !questions.overdue.is_empty() && self.settle(questions.overdue).is_ok();
        Answers {
            standing: questions.standing.map(|standing| self.standing(standing)),
            charges: questions.charges.map(|charges| self.take(charges)),
            leases: questions.leases.map(|leases| Ok(self.lease(leases))),
            session: questions.session.map(|asked| Ok(self.session(asked.key))),
            session_end: questions.session.and_then(|asked| self.session_end(asked.end?)),
            cached: questions.cached.map(|cached| Ok(self.cached(cached))),
            settled,
        }
    }

    /// See [`super::Store::take`].
    pub fn take(&self, charges: Charges<'_>) -> Result<ChargeReply, StoreError> {
        let mut logs = lock(&self.windows);
        // Read under the lock, so that charges are entered in the order of their times.
        let now_us = self.now_us();
        let unknown =
            charges.keys.iter().filter(|key| !logs.map.contains_key(key.as_str())).count();
        logs.make_room(unknown, self.keys_max, now_us)?;
        let logs = &mut logs.map;
        let mut windows = Vec::with_capacity(charges.keys.len());
        for (key, window) in charges.keys.iter().zip(&charges.set.windows) {
            let state = match logs.get_mut(key.as_str()) {
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
                    let entry =
                        logs.entry(key.clone()).or_insert_with(|| (*window, WindowLog::default()));
                    entry.0 = *window;
                    entry.1.charge(window, now_us, window.cost);
                }
            }
        }
        Ok(ChargeReply { allowed, at_us: now_us, windows })
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
    pub fn refund(&self, charges: Charges<'_>, at_us: u64) {
        let mut logs = lock(&self.windows);
        for (key, window) in charges.keys.iter().zip(&charges.set.windows) {
            if let Some((_, log)) = logs.map.get_mut(key.as_str()) {
                log.refund(window, at_us, window.cost);
            }
        }
    }

    /// Writes one value.
    pub fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), StoreError> {
        lock(&self.values).insert(key, SessionValue::Text(value), ttl, self.keys_max)
    }

    /// Writes a hash.
    pub fn put_fields(&self, key: &str, fields: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        lock(&self.values).insert(key, SessionValue::Fields(fields), None, self.keys_max)
    }

    /// See [`super::Store::delete`].
    pub fn delete(&self, key: &str) -> bool {
        let was_window = lock(&self.windows).map.remove(key).is_some();
        let mut values = lock(&self.values);
        let was_live = values.live(key).is_some();
        values.remove(key);
        was_live || was_window
    }

    fn standing(&self, standing: Standing<'_>) -> Result<StandingReply, StoreError> {
        let values = lock(&self.values);
        let listed = standing.blacklist.iter().any(|key| values.live(key).is_some());
        let text = match standing.not_before.and_then(|key| values.live(key)) {
            None => None,
            Some(Value { value: SessionValue::Text(text), .. }) => Some(text.clone()),
            Some(Value { value: SessionValue::Fields(_), .. }) => return Err(not_a_time()),
        };
        let seconds = |text: Bytes| std::str::from_utf8(&text).ok()?.trim().parse().ok();
        let not_before = text.map(|text| seconds(text).ok_or_else(not_a_time)).transpose()?;
        let gone = standing.record.is_some_and(|key| values.live(key).is_none());
        Ok(StandingReply { listed, not_before, gone })
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
                let ends = fields.iter().find(|(name, _)| *name == sessions::ENDS.as_bytes());
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
    /// Forgets idle windows when the bound is near. At most once a second: under a flood of keys
    /// that are all alive, a sweep per request would be the worse attack.
    fn make_room(&mut self, wanted: usize, keys_max: usize, now_us: u64) -> Result<(), StoreError> {
        if self.map.len() + wanted <= keys_max {
            return Ok(());
        }
        if now_us.saturating_sub(self.swept_us) >= SWEEP_PAUSE.as_micros() as u64
            || self.swept_us == 0
        {
            self.swept_us = now_us.max(1);
            self.map.retain(|_, (window, log)| !log.is_idle(window, now_us));
        }
        if self.map.len() + wanted <= keys_max { Ok(()) } else { Err(StoreError::Full) }
    }
}

impl Values {
    fn live(&self, key: &str) -> Option<&Value> {
        let found = self.map.get(key)?;
        let has_ended = found.expires.is_some_and(|at| at <= Instant::now());
        (!has_ended).then_some(found)
    }

    fn live_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.live(key)?;
        self.map.get_mut(key)
    }

    fn text(&self, key: &str) -> Option<Bytes> {
        match &self.live(key)?.value {
            SessionValue::Text(text) => Some(text.clone()),
            SessionValue::Fields(_) => None,
        }
    }

    fn insert(
        &mut self,
        key: &str,
        value: SessionValue,
        ttl: Option<Duration>,
        keys_max: usize,
    ) -> Result<(), StoreError> {
        let added = value_bytes(&value);
        // A write that is refused must not lose what was there.
        let fits = |values: &Self| {
            let old = values.map.get(key);
            let count = values.map.len() + usize::from(old.is_none());
            let bytes = values.bytes + added - old.map_or(0, |old| value_bytes(&old.value));
            count <= keys_max && bytes <= ENTRY_BYTES_MAX
        };
        if !fits(self) {
            self.sweep();
            if !fits(self) {
                return Err(StoreError::Full);
            }
        }
        self.remove(key);
        self.bytes += added;
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        self.map.insert(key.to_owned(), Value { value, expires });
        Ok(())
    }

    fn remove(&mut self, key: &str) -> bool {
        let Some(old) = self.map.remove(key) else { return false };
        self.bytes -= value_bytes(&old.value);
        true
    }

    /// Forgets what has expired, at most once a second.
    fn sweep(&mut self) {
        let now = Instant::now();
        if self.swept.is_some_and(|swept| now - swept < SWEEP_PAUSE) {
            return;
        }
        self.swept = Some(now);
        self.map.retain(|_, value| value.expires.is_none_or(|at| at > now));
        self.bytes = self.map.values().map(|value| value_bytes(&value.value)).sum();
    }
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
