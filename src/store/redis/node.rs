//! What this process knows of its Redis beside any one connection: what is the matter with it, and
//! the breaker. Each thread has a connection of its own; whether Redis answers is one question.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::link::Link;
use super::says::Says;

/// Missed deadlines in a row, over all connections, after which all of them are replaced.
pub(super) const SILENT_REPLIES_MAX: u32 = 5;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) says: Arc<Says>,
    misses: Misses,
    links: Mutex<Vec<Weak<Link>>>,
    /// Whether it was said that Redis answers, and nothing else since.
    is_up: AtomicBool,
    /// Whether it was said that Redis cannot be reached, since it answered last.
    is_unreachable: AtomicBool,
}

impl Node {
    /// Adds a connection to those that the breaker opens.
    pub(super) fn add(&self, link: &Arc<Link>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|known| known.strong_count() > 0);
        links.push(Arc::downgrade(link));
    }

    /// Redis answered, on some connection.
    pub(super) fn answered(&self) {
        self.misses.forget();
    }

    /// Redis did not answer in time. With the last miss of a row all connections are given up.
    pub(super) fn missed(&self) {
        if self.misses.is_last_straw() {
            let links = self.links.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for link in links.iter().filter_map(Weak::upgrade) {
                link.lose();
            }
        }
    }

    /// A connection stands.
    pub(super) fn is_found(&self) {
        self.misses.forget();
        self.is_unreachable.store(false, Ordering::Relaxed);
        if !self.is_up.swap(true, Ordering::Relaxed) {
            tracing::info!("the store answers");
        }
    }

    /// A connection was given up.
    pub(super) fn is_lost(&self) {
        if self.is_up.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                "the store is lost; serving as store.on_outage says until it answers again"
            );
        }
    }

    /// An attempt to connect failed.
    pub(super) fn is_out_of_reach(&self, error: &super::link::ConnectError) {
        if !self.is_unreachable.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the store cannot be reached; trying on");
        }
    }
}

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
