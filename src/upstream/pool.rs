//! One server and its unused connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Open;
use super::link::Link;
use crate::base::shard::{self, Padded, SHARDS};
use crate::config;

/// A server.
#[derive(Debug)]
pub(super) struct Endpoint {
    host: String,
    port: u16,
    weight: usize,
    busy: AtomicUsize,
    /// Unused connections by the thread that used them last, the last used on top: the others grow
    /// old and are closed.
    idle: Box<[Padded<Mutex<Idle>>]>,
}

type Idle = Vec<Box<Link>>;

impl Endpoint {
    pub(super) fn new(server: &config::Endpoint) -> Self {
        Self {
            host: server.host.trim_matches(['[', ']']).to_owned(),
            port: server.port,
            weight: server.weight.max(1) as usize,
            busy: AtomicUsize::new(0),
            idle: (0..SHARDS).map(|_| Padded::default()).collect(),
        }
    }

    /// One of this thread's unused connections that was still open a moment ago.
    pub(super) fn checkout(&self) -> Option<Box<Link>> {
        self.pop(shard::mine())
    }

    /// One of any thread's.
    pub(super) fn checkout_any(&self) -> Option<Box<Link>> {
        (0..SHARDS).find_map(|shard| self.pop(shard))
    }

    fn pop(&self, shard: usize) -> Option<Box<Link>> {
        loop {
            let mut link = self.idle(shard).pop()?;
            if link.is_open() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn checkin(&self, mut link: Box<Link>) {
        if link.settle() {
            link.rest();
            self.idle(shard::mine()).push(link);
        }
    }

    pub(super) fn sweep(&self, idle_timeout: Duration) {
        let now = Instant::now();
        for shard in 0..SHARDS {
            // Taken out in one piece: looking at a connection is a system call, and requests should
            // not wait for many.
            let mut links = std::mem::take(&mut *self.idle(shard));
            links.retain_mut(|link| now - link.resting_since() < idle_timeout && link.is_open());
            let mut idle = self.idle(shard);
            links.append(&mut idle);
            *idle = links;
        }
    }

    pub(super) async fn dial(
        &self,
        settings: &config::Upstream,
        open: Open,
    ) -> std::io::Result<Box<Link>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Link::handshake(stream, settings, open).await
    }

    pub(super) fn enter(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    fn idle(&self, shard: usize) -> MutexGuard<'_, Idle> {
        self.idle[shard].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Power of two choices: the less busy, by weight, of two random servers.
pub(super) fn less_busy_of_two(all: &[std::sync::Arc<Endpoint>]) -> &std::sync::Arc<Endpoint> {
    let first = fastrand::usize(..all.len());
    let second = (first + fastrand::usize(1..all.len())) % all.len();
    let (a, b) = (&all[first], &all[second]);
    let load = |e: &Endpoint| e.busy.load(Ordering::Relaxed) + 1;
    // a.busy / a.weight <= b.busy / b.weight, without the division.
    if load(a) * b.weight <= load(b) * a.weight { a } else { b }
}

/// In turn, each server as often as its weight says.
pub(super) fn by_turn(all: &[std::sync::Arc<Endpoint>], turn: usize) -> &std::sync::Arc<Endpoint> {
    let total: usize = all.iter().map(|endpoint| endpoint.weight).sum();
    let mut place = turn % total.max(1);
    for endpoint in all {
        if place < endpoint.weight {
            return endpoint;
        }
        place -= endpoint.weight;
    }
    &all[0]
}
