//! The last requests that were refused, have failed, were cut off or slow, for whoever looks into
//! one; and some of the others while somebody looks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::access::Line;

/// Most requests that are kept.
pub const REQUESTS_MAX: usize = 1000;
/// Most requests of one second that are kept: a flood would leave nothing else.
const NOTABLE_PER_SECOND: u64 = 100;
/// The same of those with which nothing is the matter.
const OTHERS_PER_SECOND: u64 = 20;
/// Longest text of one, in bytes: paths and agents are as long as clients like.
const TEXT_BYTES_MAX: usize = 256;
/// Most bytes of one, as JSON.
const REQUEST_BYTES_MAX: usize = 2048;
/// Members that are left out where there would be more.
const LEFT_OUT: [&str; 4] = ["headers", "referer", "user_agent", "query"];

/// One of them.
#[derive(Debug)]
pub struct Kept {
    /// Grows from one to the next.
    pub id: u64,
    /// The members of its access line, its `id`, and its stages as `stages_us`.
    pub told: Map<String, Value>,
}

/// See the module.
#[derive(Debug)]
pub struct Recent {
    ring: Mutex<VecDeque<Arc<Kept>>>,
    begun: Instant,
    /// The second in its upper half, and how many were kept in it.
    second: AtomicU64,
    last_id: AtomicU64,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            begun: Instant::now(),
            second: AtomicU64::new(0),
            last_id: AtomicU64::new(0),
        }
    }
}

impl Recent {
    /// Whether a request that ends `now` is to be kept; an ordinary one is while `is_watched`.
    pub fn takes(&self, now: Instant, is_notable: bool, is_watched: bool) -> bool {
        let most = match (is_notable, is_watched) {
            (true, _) => NOTABLE_PER_SECOND,
            (false, true) => OTHERS_PER_SECOND,
            (false, false) => return false,
        };
        let second = now.saturating_duration_since(self.begun).as_secs() << 32;
        let known = self.second.load(Ordering::Relaxed);
        let next = if known >> 32 == second >> 32 { known + 1 } else { second + 1 };
        // Whoever loses the race is one of many.
        next & u64::from(u32::MAX) <= most
            && self
                .second
                .compare_exchange(known, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Whether a refusal that comes `now` may be kept, so that its reasons are worth knowing.
    pub fn has_room(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.begun).as_secs();
        let known = self.second.load(Ordering::Relaxed);
        known >> 32 != second || known & u64::from(u32::MAX) < NOTABLE_PER_SECOND
    }

    /// Keeps one. Nothing where somebody reads them at this moment, or it is too long.
    pub fn keep(&self, line: &Line<'_>) -> Option<Arc<Kept>> {
        let mut told = told(line)?;
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        told.insert("id".to_owned(), id.into());
        let kept = Arc::new(Kept { id, told });
        let mut ring = match self.ring.try_lock() {
            Ok(ring) => ring,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if ring.len() >= REQUESTS_MAX {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&kept));
        Some(kept)
    }

    /// All of them, the newest first.
    pub fn all(&self) -> Vec<Arc<Kept>> {
        let ring: MutexGuard<'_, _> = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().rev().cloned().collect()
    }
}

fn told(line: &Line<'_>) -> Option<Map<String, Value>> {
    let Ok(Value::Object(mut told)) = serde_json::to_value(line) else { return None };
    if let Some(stages) = told.remove("stages") {
        told.insert("stages_us".to_owned(), stages);
    }
    for value in told.values_mut() {
        if let Value::String(text) = value
            && text.len() > TEXT_BYTES_MAX
        {
            let whole = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(whole.unwrap_or_default());
            text.push('…');
        }
    }
    let is_long = |told: &Map<String, Value>| {
        serde_json::to_string(told).map_or(true, |text| text.len() > REQUEST_BYTES_MAX)
    };
    for name in LEFT_OUT {
        if !is_long(&told) {
            break;
        }
        told.remove(name);
    }
    (!is_long(&told)).then_some(told)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_takes_a_part_of_each_second() {
        let recent = Recent::default();
        let taken = |at: Duration, is_notable, is_watched| {
            let now = recent.begun + at;
            (0..1000).filter(|_| recent.takes(now, is_notable, is_watched)).count()
        };
        let s = Duration::from_secs;
        assert_eq!(taken(s(0), false, false), 0, "nobody looks");
        assert_eq!(taken(s(0), false, true), 20);
        assert_eq!(taken(s(0), true, false), 80, "all together");
        assert!(!recent.has_room(recent.begun));
        assert!(recent.has_room(recent.begun + s(1)));
        assert_eq!(taken(s(1), true, true), 100);
        assert_eq!(taken(s(9), false, true), 20);
    }

    #[test]
    fn the_newest_are_kept_and_none_is_long() {
        let recent = Recent::default();
        let (path, agent) = ("/".repeat(9000), "a".repeat(200));
        for status in 0..1003 {
            let line = Line { status, path: &path, user_agent: Some(&agent), ..Line::default() };
            recent.keep(&line);
        }
        let all = recent.all();
        assert_eq!((all.len(), all[0].id, all[999].id), (REQUESTS_MAX, 1003, 4));
        assert_eq!(all[0].told["status"], 1002);
        let path = all[0].told["path"].as_str().unwrap();
        assert_eq!((path.chars().count(), path.ends_with('…')), (257, true));
        assert_eq!(all[0].told["user_agent"], agent.as_str());

        let long = vec!["w".repeat(TEXT_BYTES_MAX); 7];
        let line = Line { wanted: &long, user_agent: Some(&agent), ..Line::default() };
        let kept = recent.keep(&line).unwrap();
        assert_eq!(kept.told.get("user_agent"), None, "what says least goes first");
        let longer = vec!["w".repeat(TEXT_BYTES_MAX); 9];
        assert!(recent.keep(&Line { wanted: &longer, ..Line::default() }).is_none());
    }
}
