//! The last operations, for whoever asks later who did what here: what operators have asked for,
//! and reloads and hand-overs that nobody asked the admin API for.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

/// Most operations that are kept.
pub const OPERATIONS_MAX: usize = 512;
/// Most requests for one that are kept of those whom nobody has let in. They have a place of their
/// own: whoever reaches the listener can send any number of them.
pub(super) const STRANGERS_MAX: usize = 64;

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
    /// What nobody was let in for.
    of_strangers: VecDeque<Arc<Operation>>,
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
        let (ring, most) = match is_of_stranger(&operation.told) {
            true => (&mut kept.of_strangers, STRANGERS_MAX),
            false => (&mut kept.ring, OPERATIONS_MAX),
        };
        if ring.len() >= most {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&operation));
        operation
    }

    /// Those with a smaller id, or all of them; the newest first.
    pub fn before(&self, id: Option<u64>) -> Vec<Arc<Operation>> {
        let kept = self.kept();
        let all = kept.ring.iter().chain(&kept.of_strangers);
        let mut found: Vec<_> = all.filter(|it| id.is_none_or(|id| it.id < id)).cloned().collect();
        found.sort_unstable_by_key(|it| Reverse(it.id));
        found
    }
}

/// Whether it was asked for by somebody who was not let in, or whose log-in has failed.
fn is_of_stranger(told: &Map<String, Value>) -> bool {
    let is = |name: &str, word: &str| told.get(name).is_some_and(|it| it == word);
    is("by", "nobody") || (is("by", "login") && !is("result", "done"))
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

    #[test]
    fn strangers_push_out_nobody_but_each_other() {
        let operations = Operations::default();
        let keep = |by: &str, result: &str| {
            let told = [("by", by), ("result", result)];
            operations
                .keep(told.map(|(name, it)| (name.to_owned(), it.into())).into_iter().collect())
        };
        keep("admin.token", "done");
        keep("login", "done");
        for _ in 0..OPERATIONS_MAX {
            keep("nobody", "refused");
            keep("login", "refused");
        }
        keep("admin.read_token", "refused");
        let ids: Vec<u64> = operations.before(None).iter().map(|it| it.id).collect();
        assert_eq!(ids.len(), 3 + STRANGERS_MAX);
        assert!(ids.is_sorted_by(|one, other| one > other), "{ids:?}");
        assert_eq!((ids[0], &ids[ids.len() - 2..]), (1027, &[2, 1][..]));
    }
}
