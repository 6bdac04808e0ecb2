//! One server and its unused connections.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
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
    /// Until when others are preferred, in milliseconds since `began` plus one; 0 for not at all.
    avoided_until: AtomicU64,
    /// New connections in a row that ended without an answer.
    losses: AtomicU32,
    began: Instant,
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
            avoided_until: AtomicU64::new(0),
            losses: AtomicU32::new(0),
            began: Instant::now(),
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

    /// Whether others are preferred: until it has answered again.
    pub(super) fn is_avoided(&self) -> bool {
        self.avoided_until.load(Ordering::Relaxed) != 0
    }

    /// Whether it was avoided for long enough, and the one who asks is to try it. The next one is
    /// told so after as long again.
    pub(super) fn is_due(&self, fail_timeout: Duration) -> bool {
        let until = self.avoided_until.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let now = self.now();
        let next = now.saturating_add(millis(fail_timeout));
        let order = Ordering::Relaxed;
        now >= until && self.avoided_until.compare_exchange(until, next, order, order).is_ok()
    }

    /// It took no connection.
    pub(super) fn avoid(&self, fail_timeout: Duration) {
        let until = self.now().saturating_add(millis(fail_timeout));
        self.avoided_until.store(until, Ordering::Relaxed);
    }

    /// A new connection ended without an answer. One may be the fault of what was asked.
    pub(super) fn lost(&self, fail_timeout: Duration) {
        if self.losses.fetch_add(1, Ordering::Relaxed) > 0 {
            self.avoid(fail_timeout);
        }
    }

    /// It has answered: it lives.
    pub(super) fn answered(&self) {
        // Written only where something changes: all cores read it.
        if self.losses.load(Ordering::Relaxed) != 0 {
            self.losses.store(0, Ordering::Relaxed);
        }
        if self.avoided_until.load(Ordering::Relaxed) != 0 {
            self.avoided_until.store(0, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed()).saturating_add(1)
    }

    fn idle(&self, shard: usize) -> MutexGuard<'_, Idle> {
        self.idle[shard].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Power of two choices: the less busy, by weight, of two random servers of at least one.
pub(super) fn less_busy_of_two<E: AsRef<Endpoint>>(all: &[E]) -> &E {
    if let [only] = all {
        return only;
    }
    let first = fastrand::usize(..all.len());
    let second = (first + fastrand::usize(1..all.len())) % all.len();
    let (one, other) = (&all[first], &all[second]);
    let (a, b): (&Endpoint, &Endpoint) = (one.as_ref(), other.as_ref());
    let load = |e: &Endpoint| e.busy.load(Ordering::Relaxed) + 1;
    // a.busy / a.weight <= b.busy / b.weight, without the division.
    if load(a) * b.weight <= load(b) * a.weight { one } else { other }
}

/// In turn, each server as often as its weight says.
pub(super) fn by_turn<E: AsRef<Endpoint>>(all: &[E], turn: usize) -> &E {
    let total: usize = all.iter().map(|endpoint| endpoint.as_ref().weight).sum();
    let mut place = turn % total.max(1);
    for endpoint in all {
        let weight = endpoint.as_ref().weight;
        if place < weight {
            return endpoint;
        }
        place -= weight;
    }
    &all[0]
}
