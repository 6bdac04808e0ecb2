//! The revocations in the embedded store, for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::{Kind, MemoryStore, Value, lock};
use crate::store::revoked::{Known, Revocation, RevocationList};
use crate::store::{SessionValue, StoreError};

/// Most revocations of one list: they are copied while requests wait.
const LISTED_MAX: usize = 100_000;
/// What a key of a not-before time has in itself, and one of the blacklist has not.
const NOT_BEFORE: &str = ":auth:not-before:";

impl MemoryStore {
    /// See [`crate::store::Store::revoke`].
    pub fn revoke(&self, revocation: Revocation<'_>) -> Result<(), StoreError> {
        self.put(revocation.key, held(&revocation).into(), Some(revocation.ttl))
    }

    /// See [`crate::store::Store::revocations`].
    pub fn revocations(&self) -> RevocationList {
        let now = Instant::now();
        let unix = unix();
        let (count, revocations) = {
            let values = lock(&self.values);
            let all = values.map.iter().filter(|(key, _)| Kind::of(key) == Kind::Revocation);
            let live = all.filter(|(_, value)| !value.is_over(now));
            (values.count(Kind::Revocation), live.take(LISTED_MAX).map(known(now, unix)).collect())
        };
        RevocationList {
            revocations,
            is_from_stream: false,
            is_current: true,
            is_complete: count <= LISTED_MAX,
            bound: LISTED_MAX.min(self.bounds.most(Kind::Revocation).0),
        }
    }
}

/// What the key of a revocation holds: its existence revokes, so that there is room for its time.
pub(super) fn held(revocation: &Revocation<'_>) -> String {
    match revocation.not_before {
        Some(_) => revocation.value(),
        None => unix().as_millis().to_string(),
    }
}

fn known(now: Instant, unix: Duration) -> impl Fn((&String, &Value)) -> Known {
    move |(key, value)| {
        let held = match &value.value {
            SessionValue::Text(text) => std::str::from_utf8(text).ok(),
            SessionValue::Fields(_) => None,
        };
        let held: Option<i64> = held.and_then(|text| text.trim().parse().ok());
        let not_before = held.filter(|_| key.contains(NOT_BEFORE));
        // A not-before time is that of the second after its making.
        let told_ms = match not_before {
            Some(at) => at.saturating_sub(1).saturating_mul(1000),
            None => held.unwrap_or(0),
        };
        let told_ms = u64::try_from(told_ms).unwrap_or(0);
        let left = value.expires.map(|at| at.saturating_duration_since(now));
        let until = left.map_or(u64::MAX, |left| unix.saturating_add(left).as_secs());
        Known { key: key.clone(), not_before, until, since: told_ms / 1000, told_ms }
    }
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
