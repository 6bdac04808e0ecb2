//! Which queues this process has served.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The queues whose groups this process has seen: one that is gone was lost.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<HashSet<String>>);

impl Groups {
    /// Whether it is one of them, by the key of its stream.
    pub(super) fn has(&self, ready: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(ready)
    }

    /// It is one from now on.
    pub(super) fn note(&self, ready: &str) {
        if !self.has(ready) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(ready.to_owned());
        }
    }
}
