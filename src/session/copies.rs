//! Sessions as the store had them last, for while it is away (`store.on_outage.session_max_stale`).
//!
//! What is known to have ended is kept as such: an answer that was on its way meanwhile must not
//! bring it back. So what is noted says when it was asked for, and is taken only if that was after
//! whatever is known of an end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::store::{SessionReply, SessionValue};

/// Copies held at first; the map grows with its weight.
const COPIES_ESTIMATE: usize = 1024;
/// What a copy weighs beside its key and its value, in bytes.
const OVERHEAD_BYTES: usize = 200;

/// What is known of one session.
#[derive(Debug)]
enum Known {
    /// It was there.
    There {
        /// When that was asked.
        asked: Instant,
        /// When it ends by itself.
        ends: Option<Instant>,
        value: SessionValue,
    },
    /// It had ended when this was known.
    Ended(Instant),
}

/// See the module.
#[derive(Debug)]
pub struct Copies {
    known: Cache<String, Arc<Known>, ByBytes>,
    /// When all of them were forgotten.
    emptied: Mutex<Option<Instant>>,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<String, Arc<Known>> for ByBytes {
    fn weight(&self, key: &String, known: &Arc<Known>) -> u64 {
        let value = match &**known {
            Known::There { value: SessionValue::Text(text), .. } => text.len(),
            Known::There { value: SessionValue::Fields(fields), .. } => {
                fields.iter().map(|(name, value)| name.len() + value.len() + 64).sum()
            }
            Known::Ended(_) => 0,
        };
        (OVERHEAD_BYTES + key.len() + value) as u64
    }
}

impl Known {
    /// What was there, if that was said less than `max_stale` before `now` and has not ended.
    fn recall(&self, max_stale: Duration, now: Instant) -> Option<SessionReply> {
        match self {
            Self::There { asked, ends, value } => {
                let left = ends.map(|ends| ends.saturating_duration_since(now));
                let is_over = left.is_some_and(|left| left.is_zero());
                let is_fresh = now.saturating_duration_since(*asked) < max_stale;
                (is_fresh && !is_over).then(|| SessionReply { value: value.clone(), ttl: left })
            }
            Self::Ended(_) => None,
        }
    }
}

impl Copies {
    /// At most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        let known = Cache::with_weighter(COPIES_ESTIMATE, bytes_max, ByBytes);
        Self { known, emptied: Mutex::new(None) }
    }

    /// What the store said of a session when it was asked at `asked`. What is left of its life
    /// counts from `now`.
    pub fn note(&self, key: &str, found: Option<&SessionReply>, asked: Instant, now: Instant) {
        let Some(found) = found else { return self.end(key, now) };
        let emptied = *self.emptied.lock().unwrap_or_else(PoisonError::into_inner);
        if emptied.is_some_and(|emptied| asked <= emptied) {
            return;
        }
        let is_newer = |known: &Arc<Known>| match **known {
            Known::There { asked: before, .. } => asked > before,
            Known::Ended(at) => asked > at,
        };
        if self.known.get(key).is_none_or(|known| is_newer(&known)) {
            let ends = found.ttl.map(|left| now + left);
            let there = Known::There { asked, ends, value: found.value.clone() };
            self.known.insert(key.to_owned(), Arc::new(there));
        }
    }

    /// A session has ended, or was written anew: what is on its way may be older than that.
    pub fn end(&self, key: &str, now: Instant) {
        self.known.insert(key.to_owned(), Arc::new(Known::Ended(now)));
    }

    /// Sessions have ended, nobody says which.
    pub fn end_all(&self, now: Instant) {
        *self.emptied.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.known.clear();
    }

    /// A session that the store had less than `max_stale` before `now`, if it is not known to have
    /// ended since.
    pub fn recall(&self, key: &str, max_stale: Duration, now: Instant) -> Option<SessionReply> {
        self.known.get(key)?.recall(max_stale, now)
    }

    /// Whether there is any session that [`Self::recall`] would find. Looks at all of them, where
    /// there is none.
    pub fn has_any(&self, max_stale: Duration, now: Instant) -> bool {
        !max_stale.is_zero()
            && self.known.iter().any(|(_, known)| known.recall(max_stale, now).is_some())
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.known.weight()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    fn found(text: &'static str, ttl: Option<Duration>) -> SessionReply {
        SessionReply { value: SessionValue::Text(Bytes::from_static(text.as_bytes())), ttl }
    }

    #[test]
    fn a_copy_serves_until_it_is_too_old_or_its_session_is_over() {
        let (copies, start) = (Copies::new(1 << 20), Instant::now());
        let at = |key: &str, after| copies.recall(key, MINUTE, start + after);
        copies.note("a", Some(&found("{}", None)), start, start + SECOND);
        copies.note("b", Some(&found("{}", Some(10 * SECOND))), start, start + SECOND);
        assert_eq!(at("a", MINUTE - SECOND), Some(found("{}", None)));
        let has_any = |after| copies.has_any(MINUTE, start + after);
        assert_eq!((has_any(MINUTE - SECOND), has_any(MINUTE)), (true, false));
        assert!(!copies.has_any(Duration::ZERO, start), "0s is off");
        assert_eq!(at("a", MINUTE), None, "its age counts from the question");
        assert_eq!(at("b", 4 * SECOND), Some(found("{}", Some(7 * SECOND))));
        assert_eq!(at("b", 11 * SECOND), None);
        assert_eq!((at("c", SECOND), copies.recall("a", Duration::ZERO, start)), (None, None));
        copies.note("a", Some(&found("{\"n\":2}", None)), start + MINUTE, start + MINUTE);
        assert_eq!(at("a", MINUTE + SECOND), Some(found("{\"n\":2}", None)));
    }

    #[test]
    fn what_ended_does_not_come_back_by_an_answer_that_was_on_its_way() {
        type End = fn(&Copies, Instant);
        let ends: [End; 3] = [
            |copies, at| copies.note("a", None, at, at),
            |copies, at| copies.end("a", at),
            Copies::end_all,
        ];
        for (number, end) in ends.into_iter().enumerate() {
            for is_known in [false, true] {
                let (copies, start) = (Copies::new(1 << 20), Instant::now());
                if is_known {
                    copies.note("a", Some(&found("{}", None)), start, start);
                }
                end(&copies, start + 2 * SECOND);
                let recall = || copies.recall("a", MINUTE, start + 3 * SECOND);
                assert_eq!(recall(), None, "end {number}");
                copies.note("a", Some(&found("{}", None)), start + SECOND, start + 3 * SECOND);
                assert_eq!(recall(), None, "end {number}");
                let again = start + 3 * SECOND;
                copies.note("a", Some(&found("{}", None)), again, again);
                assert!(recall().is_some(), "it was written again, end {number}");
            }
        }
    }

    #[test]
    fn an_older_answer_does_not_replace_a_newer_one() {
        let (copies, start) = (Copies::new(1 << 20), Instant::now());
        copies.note("a", Some(&found("new", None)), start + SECOND, start + SECOND);
        copies.note("a", Some(&found("old", None)), start, start + 2 * SECOND);
        let recalled = copies.recall("a", MINUTE, start + 2 * SECOND);
        assert_eq!(recalled, Some(found("new", None)));
    }

    #[test]
    fn copies_are_bounded_by_bytes() {
        let (copies, start) = (Copies::new(100_000), Instant::now());
        for number in 0..10_000 {
            let key = format!("app:session:{number}");
            copies.note(&key, Some(&found("{\"n\":1}", None)), start, start);
            copies.end(&format!("app:session:gone-{number}"), start);
        }
        assert!(copies.bytes() <= 100_000, "{}", copies.bytes());
        let none = Copies::new(0);
        none.note("a", Some(&found("{}", None)), start, start);
        assert_eq!((none.recall("a", MINUTE, start), none.bytes()), (None, 0));
    }
}
