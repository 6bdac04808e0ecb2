//! The copies of one route's requests that are on their way, and what became of those before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::observe::Tally;

/// See the module.
#[derive(Debug, Default)]
pub struct Mirrors {
    taken: AtomicUsize,
    sent: Tally,
    failed: Tally,
    full: Tally,
    too_large: Tally,
    cut_off: Tally,
}

/// A place for one copy, given back when it is dropped.
#[derive(Debug)]
pub struct Seat(Arc<Mirrors>);

impl Mirrors {
    /// A place for one more copy; nothing, and counted, while `most` are on their way.
    pub fn take(self: &Arc<Self>, most: usize) -> Option<Seat> {
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        let is_free = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if is_free.is_err() {
            self.full.inc();
            return None;
        }
        Some(Seat(Arc::clone(self)))
    }

    /// What became of all copies, by result.
    pub fn counts(&self) -> [(&'static str, u64); 5] {
        [
            ("sent", self.sent.get()),
            ("failed", self.failed.get()),
            ("full", self.full.get()),
            ("too_large", self.too_large.get()),
            ("cut_off", self.cut_off.get()),
        ]
    }
}

impl Seat {
    /// Its upstream has answered, or not.
    pub fn ended(&self, is_answered: bool) {
        if is_answered {
            self.0.sent.inc()
        } else {
            self.0.failed.inc()
        };
    }

    /// The request's body is too long to be copied.
    pub fn too_large(&self) {
        self.0.too_large.inc();
    }

    /// The request's body did not come to its end.
    pub fn cut_off(&self) {
        self.0.cut_off.inc();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
