//! How many connections of an upstream are open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Connections of one upstream, in use and unused, in whichever HTTP. They pass `max_connections`
/// only for the moment in which several are made at once. A thread prefers to make a connection of
/// its own; only when the bound is met does it take one that another thread made.
#[derive(Debug)]
pub(in crate::upstream) struct ConnectionCount {
    max: AtomicUsize,
    open: AtomicUsize,
    /// How often a server has said that it takes no more on one (GOAWAY, RFC 9113 §6.8).
    goaways: AtomicU64,
}

/// One connection, counted for as long as this lives.
#[derive(Debug)]
pub(in crate::upstream) struct Counted(Arc<ConnectionCount>);

impl ConnectionCount {
    /// None yet, and `max` at most.
    pub(in crate::upstream) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicUsize::new(max),
            open: AtomicUsize::new(0),
            goaways: AtomicU64::new(0),
        })
    }

    /// There may be so many from now on; those that are beyond it are kept until they end.
    pub(in crate::upstream) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// How many there are.
    pub(in crate::upstream) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How often a server has said that it takes no more on one.
    pub(in crate::upstream) fn goaways(&self) -> u64 {
        self.goaways.load(Ordering::Relaxed)
    }

    /// Whether no more may be made.
    pub(in crate::upstream) fn is_full(&self) -> bool {
        self.open() >= self.max.load(Ordering::Relaxed)
    }

    /// Counts one more, which is about to be made.
    pub(in crate::upstream) fn add(self: &Arc<Self>) -> Counted {
        self.open.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(self))
    }
}

impl Counted {
    /// The server takes no more on this one.
    pub(super) fn note_goaway(&self) {
        self.0.goaways.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
