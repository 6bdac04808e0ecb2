//! The last operations, for whoever asks later who did what here: what operators have asked for,
//! and reloads and hand-overs that nobody asked the admin API for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

/// Most operations that are kept.
pub const OPERATIONS_MAX: usize = 512;

/// One of them.
#[derive(Debug)]
pub struct Operation {
    /// Grows from one to the next.
    pub id: u64,
    /// What the event `operation` says, with its `id`; it may name callers.
    pub told: Map<String, Value>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Operations {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    ring: VecDeque<Arc<Operation>>,
    last_id: u64,
}

impl Operations {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one, in place of the oldest where there are too many.
    pub(super) fn keep(&self, mut told: Map<String, Value>) -> Arc<Operation> {
        let mut kept = self.kept();
        kept.last_id += 1;
        told.insert("id".to_owned(), kept.last_id.into());
        let operation = Arc::new(Operation { id: kept.last_id, told });
        if kept.ring.len() >= OPERATIONS_MAX {
            kept.ring.pop_front();
        }
        kept.ring.push_back(Arc::clone(&operation));
        operation
    }

    /// Those with a smaller id, or all of them; the newest first.
    pub fn before(&self, id: Option<u64>) -> Vec<Arc<Operation>> {
        let kept = self.kept();
        let newest_first = kept.ring.iter().rev();
        newest_first.filter(|it| id.is_none_or(|id| it.id < id)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_in_their_order() {
        let operations = Operations::default();
        for _ in 0..OPERATIONS_MAX + 3 {
            operations.keep(Map::new());
        }
        let ids =
            |before| -> Vec<u64> { operations.before(before).iter().map(|it| it.id).collect() };
        let all = ids(None);
        assert_eq!((all.len(), all.first(), all.last()), (OPERATIONS_MAX, Some(&515), Some(&4)));
        assert_eq!(ids(Some(6)), [5, 4]);
        assert!(ids(Some(4)).is_empty());
    }
}
