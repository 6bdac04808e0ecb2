//! The unused connections to one server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::h1::Connection;
use crate::base::shard::{self, Padded, SHARDS};

/// Unused connections by the thread that used them last, the last used on top: the others grow old
/// and are closed.
#[derive(Debug)]
pub(in crate::upstream) struct Pool {
    shards: Box<[Padded<Mutex<Idle>>]>,
    /// Whether nothing is kept any more.
    is_closed: AtomicBool,
}

type Idle = Vec<Box<Connection>>;

impl Pool {
    /// Without connections.
    pub(in crate::upstream) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Padded::default()).collect();
        Self { shards, is_closed: AtomicBool::new(false) }
    }

    /// One of this thread's unused connections that was still open a moment ago.
    pub(in crate::upstream) fn take_mine(&self) -> Option<Box<Connection>> {
        self.pop(shard::mine())
    }

    /// One of any thread's.
    pub(in crate::upstream) fn take_any(&self) -> Option<Box<Connection>> {
        (0..SHARDS).find_map(|shard| self.pop(shard))
    }

    /// Keeps a connection for the next request, if it can take one.
    pub(in crate::upstream) fn put(&self, mut connection: Box<Connection>) {
        if connection.settle() {
            connection.rest();
            let mut idle = self.idle(shard::mine());
            // Looked at while it is held: whoever closes it has emptied this one, or will.
            if !self.is_closed.load(Ordering::Relaxed) {
                idle.push(connection);
            }
        }
    }

    /// How many there are.
    pub(in crate::upstream) fn count(&self) -> usize {
        (0..SHARDS).map(|shard| self.idle(shard).len()).sum()
    }

    /// Closes what is unused, and what would be from now on: nobody looks after it any more.
    pub(in crate::upstream) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        for shard in 0..SHARDS {
            drop(std::mem::take(&mut *self.idle(shard)));
        }
    }

    /// Closes what the server closed or nobody used for `idle_timeout`.
    pub(in crate::upstream) fn sweep(&self, idle_timeout: Duration) {
        let now = Instant::now();
        for shard in 0..SHARDS {
            // Taken out in one piece: looking at a connection is a system call, and requests should
            // not wait for many.
            let mut all = std::mem::take(&mut *self.idle(shard));
            all.retain_mut(|one| now - one.resting_since() < idle_timeout && one.is_open());
            let mut idle = self.idle(shard);
            all.append(&mut idle);
            *idle = all;
        }
    }

    fn pop(&self, shard: usize) -> Option<Box<Connection>> {
        loop {
            let mut connection = self.idle(shard).pop()?;
            if connection.is_open() {
                return Some(connection);
            }
        }
    }

    fn idle(&self, shard: usize) -> MutexGuard<'_, Idle> {
        self.shards[shard].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
