//! The idempotency keys that the embedded store holds. None of them is lost before its time: what
//! is over makes room, and what does not fit is refused.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::store::StoreError;

/// What one weighs beside its key and its value, in bytes.
const OVERHEAD_BYTES: usize = 200;
/// What its value weighs at least, in bytes: an answer of which nothing but the status is kept can
/// always take the place of a claim.
const RESERVED_BYTES: usize = 96;
/// Pause between two sweeps.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// The name of their bound.
const BOUND: &str = "memory_idempotency_bytes";

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    map: HashMap<String, (Bytes, Instant), foldhash::fast::RandomState>,
    bytes: usize,
    swept: Option<Instant>,
}

fn weight(key: &str, value: &Bytes) -> usize {
    OVERHEAD_BYTES + key.len() + value.len().max(RESERVED_BYTES)
}

impl Claims {
    pub(super) fn live(&self, key: &str) -> Option<&Bytes> {
        let (value, until) = self.map.get(key)?;
        (*until > Instant::now()).then_some(value)
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some((value, _)) = self.map.remove(key) {
            self.bytes -= weight(key, &value);
        }
    }

    /// Writes one. What is refused leaves what was there.
    pub(super) fn put(
        &mut self,
        key: &str,
        value: &[u8],
        ttl: Duration,
        most: usize,
    ) -> Result<(), StoreError> {
        let value = Bytes::copy_from_slice(value);
        let added = weight(key, &value);
        let fits = |it: &Self| {
            let known = it.map.get(key).map_or(0, |(value, _)| weight(key, value));
            it.bytes - known + added <= most
        };
        if !fits(self) {
            self.sweep();
        }
        if !fits(self) {
            return Err(StoreError::Full(BOUND));
        }
        self.remove(key);
        self.bytes += added;
        self.map.insert(key.to_owned(), (value, Instant::now() + ttl));
        Ok(())
    }

    /// Forgets what is over, at most once a second.
    fn sweep(&mut self) {
        let now = Instant::now();
        if self.swept.is_some_and(|swept| now - swept < SWEEP_PAUSE) {
            return;
        }
        self.swept = Some(now);
        let bytes = &mut self.bytes;
        self.map.retain(|key, (value, until)| {
            let stays = *until > now;
            *bytes -= if stays { 0 } else { weight(key, value) };
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_over_makes_room() {
        let mut claims = Claims::default();
        let most = 2 * (OVERHEAD_BYTES + 1 + RESERVED_BYTES);
        let (long, short) = (vec![1; RESERVED_BYTES + 1], vec![1; RESERVED_BYTES]);
        let put =
            |claims: &mut Claims, key: &str, value: &[u8], ttl| claims.put(key, value, ttl, most);
        assert_eq!(put(&mut claims, "a", b"1", Duration::ZERO), Ok(()));
        assert_eq!(put(&mut claims, "b", b"1", SECOND), Ok(()));
        assert_eq!(put(&mut claims, "b", &long, SECOND), Ok(()), "a is over");
        assert_eq!(claims.bytes, OVERHEAD_BYTES + 2 + RESERVED_BYTES);
        assert_eq!(put(&mut claims, "c", b"1", SECOND), Err(StoreError::Full(BOUND)));
        assert_eq!(put(&mut claims, "b", b"1", SECOND), Ok(()));
        assert_eq!(put(&mut claims, "c", b"1", SECOND), Ok(()));
        assert_eq!(put(&mut claims, "c", &long, SECOND), Err(StoreError::Full(BOUND)));
        assert_eq!(claims.live("c").map(|value| &value[..]), Some(&b"1"[..]));
        assert_eq!(put(&mut claims, "b", &short, SECOND), Ok(()), "there is room for that");
        claims.remove("b");
        claims.remove("c");
        assert_eq!((claims.bytes, claims.map.len()), (0, 0));
    }
}
