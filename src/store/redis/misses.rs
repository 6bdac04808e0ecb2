//! Deadlines that were missed in a row: on one connection, or on all of them.

use std::sync::atomic::{AtomicU32, Ordering};

/// Missed deadlines in a row, over all connections, after which all of them are replaced.
pub(super) const SILENT_REPLIES_MAX: u32 = 5;

/// Missed deadlines in a row.
#[derive(Debug, Default)]
pub(super) struct Misses(AtomicU32);

impl Misses {
    /// One more: true when that is enough, and then it is counted from the start.
    pub(super) fn is_last_straw(&self) -> bool {
        let enough = self.0.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_REPLIES_MAX;
        if enough {
            self.0.store(0, Ordering::Relaxed);
        }
        enough
    }

    /// An answer came in time.
    pub(super) fn forget(&self) {
        // A store only when there is something to forget: the line stays shared between cores.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_misses_in_a_row_are_enough_and_an_answer_ends_the_row() {
        let misses = Misses::default();
        for _ in 0..3 {
            assert!((1..SILENT_REPLIES_MAX).all(|_| !misses.is_last_straw()));
            misses.forget();
        }
        for _ in 0..3 {
            assert!((1..SILENT_REPLIES_MAX).all(|_| !misses.is_last_straw()));
            assert!(misses.is_last_straw(), "and it is counted from the start");
        }
    }
}
