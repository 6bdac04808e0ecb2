//! The HTTP/2 connections to one server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::trunk::{Seat, Trunk};
use crate::base::shard::{self, Padded, SHARDS};

/// How many connections of its own a thread makes before it takes those of others.
const TRUNKS_PER_THREAD: usize = 2;

/// HTTP/2 connections by the thread that made them.
#[derive(Debug)]
pub(in crate::upstream) struct Trunks {
    shards: Box<[Padded<Shard>]>,
    /// Whether the server has chosen HTTP/1.1, the last time that it had the choice.
    is_http1: AtomicBool,
    /// Whether none is kept any more.
    is_closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Shard {
    trunks: Mutex<Vec<Arc<Trunk>>>,
    /// Held by whoever makes one: the others wait for that one.
    dialing: tokio::sync::Mutex<()>,
}

impl Trunks {
    /// Without connections.
    pub(in crate::upstream) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Padded::default()).collect();
        Self { shards, is_http1: AtomicBool::new(false), is_closed: AtomicBool::new(false) }
    }

    /// A place on one of this thread's.
    pub(in crate::upstream) fn mine(&self) -> Option<Seat> {
        self.trunks(shard::mine()).iter().find_map(Trunk::seat)
    }

    /// A place on any thread's.
    pub(in crate::upstream) fn any(&self) -> Option<Seat> {
        (0..SHARDS).find_map(|shard| self.trunks(shard).iter().find_map(Trunk::seat))
    }

    /// Whether this thread has as many as it should make before it takes others'.
    pub(in crate::upstream) fn has_enough(&self) -> bool {
        let trunks = self.trunks(shard::mine());
        trunks.iter().filter(|trunk| trunk.is_open()).count() >= TRUNKS_PER_THREAD
    }

    /// The turn to make one. There is none where the server speaks HTTP/1.1, whose connections
    /// nobody shares.
    pub(in crate::upstream) async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.is_http1.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.shards[shard::mine()].0.dialing.lock().await)
    }

    /// Which HTTP the server has chosen.
    pub(in crate::upstream) fn note_choice(&self, is_http1: bool) {
        self.is_http1.store(is_http1, Ordering::Relaxed);
    }

    /// Keeps one for the requests to come.
    pub(in crate::upstream) fn add(&self, trunk: Arc<Trunk>) {
        let mut trunks = self.trunks(shard::mine());
        // Looked at while they are held: whoever closes them has let go of these, or will.
        if !self.is_closed.load(Ordering::Relaxed) {
            trunks.push(trunk);
        }
    }

    /// Lets go of all, and of those to come: nobody looks after them any more. Each is closed with
    /// its last stream.
    pub(in crate::upstream) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        for shard in 0..SHARDS {
            drop(std::mem::take(&mut *self.trunks(shard)));
        }
    }

    /// Lets go of those that have ended, that take no more, that are too old, and that nobody used
    /// for `idle_timeout`. Their streams go on; they are closed with the last one.
    pub(in crate::upstream) fn sweep(&self, idle_timeout: Duration) {
        for shard in 0..SHARDS {
            let stays = |trunk: &Arc<Trunk>| trunk.is_open() && !trunk.is_to_go(idle_timeout);
            self.trunks(shard).retain(stays);
        }
    }

    /// How many there are, and how many of them are in use.
    pub(in crate::upstream) fn count(&self) -> (usize, usize) {
        let mut sum = (0, 0);
        for shard in 0..SHARDS {
            let trunks = self.trunks(shard);
            let busy = trunks.iter().filter(|trunk| trunk.streams() > 0).count();
            sum = (sum.0 + trunks.len(), sum.1 + busy);
        }
        sum
    }

    /// Streams in progress, those of connections that take no more left out.
    pub(in crate::upstream) fn streams(&self) -> usize {
        let sum = |shard| self.trunks(shard).iter().map(|trunk| trunk.streams()).sum::<usize>();
        (0..SHARDS).map(sum).sum()
    }

    fn trunks(&self, shard: usize) -> MutexGuard<'_, Vec<Arc<Trunk>>> {
        self.shards[shard].0.trunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
