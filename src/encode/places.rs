//! How many responses are compressed at a time: each holds up to 2 MiB until its last byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places of one process.
#[derive(Debug, Default)]
pub struct Places(AtomicUsize);

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// A place, unless `most` are taken.
    pub fn take(self: &Arc<Self>, most: usize) -> Option<Place> {
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        let is_free = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        is_free.is_ok().then(|| Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
