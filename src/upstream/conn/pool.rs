//! The unused connections to one server.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::h1::Connection;
use crate::base::shard::{self, Padded, SHARDS};

/// Unused connections by the thread that used them last, the last used on top: the others grow old
/// and are closed.
#[derive(Debug)]
pub(in crate::upstream) struct Pool(Box<[Padded<Mutex<Idle>>]>);

type Idle = Vec<Box<Connection>>;

impl Pool {
    /// Without connections.
    pub(in crate::upstream) fn new() -> Self {
        Self((0..SHARDS).map(|_| Padded::default()).collect())
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
            self.idle(shard::mine()).push(connection);
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
        self.0[shard].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
