//! The revocations in the embedded store, for people.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Kind, MemoryStore, lock};
use crate::store::revoked::{Known, Revocation, RevocationList};
use crate::store::{SessionValue, StoreError};

/// Most revocations of one list.
const LISTED_MAX: usize = 100_000;
/// Those of them that are copied at a time: requests wait meanwhile.
const COPIED_AT_ONCE: usize = 1000;
/// What a key of a not-before time has in itself, and one of the blacklist has not.
const NOT_BEFORE: &str = ":auth:not-before:";

impl MemoryStore {
    /// See [`crate::store::Store::revoke`].
    pub fn revoke(&self, revocation: Revocation<'_>) -> Result<(), StoreError> {
        self.put(revocation.key, held(&revocation).into(), Some(revocation.ttl))
    }

    /// See [`crate::store::Store::revoke_more`].
    pub fn revoke_more(&self, revocation: Revocation<'_>) -> Result<(), StoreError> {
        let (mut value, mut ttl) = (Bytes::from(held(&revocation)), Some(revocation.ttl));
        let mut values = lock(&self.values);
        if let Some(known) = values.live(revocation.key) {
            let left = |at: Instant| at.saturating_duration_since(Instant::now());
            ttl = known.expires.map(|at| left(at).max(revocation.ttl));
            // What is no time revokes by itself.
            if let SessionValue::Text(text) = &known.value
                && !text.is_empty()
                && time(text).is_none_or(|known| Some(known) >= time(&value))
            {
                value = text.clone();
            }
        }
        values.insert(revocation.key, SessionValue::Text(value), ttl)
    }

    /// See [`crate::store::Store::revocations`].
    pub fn revocations(&self) -> RevocationList {
        let (now, unix) = (Instant::now(), unix());
        let count = lock(&self.values).count(Kind::Revocation);
        let (mut revocations, mut end) = (Vec::new(), usize::MAX);
        while end > 0 && revocations.len() < LISTED_MAX {
            let (begin, copied) = self.copied(end, now);
            revocations.extend(copied.into_iter().map(|it| known(&it, now, unix)));
            end = begin;
        }
        // What changed its place in between may have been met twice.
        revocations.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        revocations.dedup_by(|one, other| one.key == other.key);
        revocations.truncate(LISTED_MAX);
        RevocationList {
            revocations,
            is_from_stream: false,
            is_current: true,
            is_complete: count <= LISTED_MAX,
            bound: LISTED_MAX.min(self.bounds.most(Kind::Revocation).0),
        }
    }

    /// Some of those that stand below a place and are not over, and the place of the first.
    fn copied(&self, end: usize, now: Instant) -> (usize, Vec<Copied>) {
        let values = lock(&self.values);
        let (begin, some) = values.revoked.below(end, COPIED_AT_ONCE);
        let live = some.iter().filter(|(_, value)| !value.is_over(now));
        let copied = live.map(|(key, value)| Copied {
            key: Arc::clone(key),
            text: match &value.value {
                SessionValue::Text(text) => text.clone(),
                SessionValue::Fields(_) => Bytes::new(),
            },
            expires: value.expires,
        });
        (begin, copied.collect())
    }
}

/// A revocation as it is kept: to copy it allocates nothing.
struct Copied {
    key: Arc<str>,
    text: Bytes,
    expires: Option<Instant>,
}

/// What the key of a revocation holds: its existence revokes, so that there is room for its time.
pub(super) fn held(revocation: &Revocation<'_>) -> String {
    match revocation.not_before {
        Some(_) => revocation.value(),
        None => unix().as_millis().to_string(),
    }
}

fn known(Copied { key, text, expires }: &Copied, now: Instant, unix: Duration) -> Known {
    let held = time(text);
    let not_before = held.filter(|_| key.contains(NOT_BEFORE));
    // A not-before time is that of the second after its making.
    let told_ms = match not_before {
        Some(at) => at.saturating_sub(1).saturating_mul(1000),
        None => held.unwrap_or(0),
    };
    let told_ms = u64::try_from(told_ms).unwrap_or(0);
    let left = expires.map(|at| at.saturating_duration_since(now));
    let until = left.map_or(u64::MAX, |left| unix.saturating_add(left).as_secs());
    let key = String::from(&**key);
    Known { key, not_before, until, since: told_ms / 1000, told_ms }
}

fn time(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
