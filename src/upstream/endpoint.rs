//! One server: where it is, how busy it is, what is known against it, and its unused connections.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;

use super::checked::Checked;
use super::conn::{Pool, Transport, Trunks};
use super::hashing::Point;
use super::latency::Latency;
use super::nats::Link;
use super::tally::Tally;
use super::verdict::Verdict;
use crate::config::{self, Protocol};
use crate::observe::AttemptCounts;

/// A server. It outlives the settings of its upstream: a reload that names it again finds it with
/// its connections, and with what is known against it.
#[derive(Debug)]
pub(super) struct Endpoint {
    transport: Transport,
    busy: AtomicUsize,
    /// Since when it answers nobody, as far as those know who wait for it no longer than another
    /// server takes: in milliseconds of its verdict's clock; 0 where it answers.
    silent_since: AtomicU64,
    verdict: Verdict,
    /// What its requests meet, where that is counted.
    tally: OnceLock<Box<Tally>>,
    /// What its checks have said, where it is checked.
    checked: OnceLock<Box<Checked>>,
    /// How long it takes, where that is measured.
    latency: OnceLock<Box<Latency>>,
    /// Its attempts, by what they came to.
    attempts: AttemptCounts,
    point: Point,
    pool: Pool,
    /// None where it speaks HTTP/1.1 alone.
    trunks: Option<Box<Trunks>>,
    /// The way to it over NATS, where that is the way.
    link: OnceLock<Arc<Link>>,
}

impl Endpoint {
    /// A server without connections yet. One that joins others may begin slowly.
    pub(super) fn new(
        server: &config::Endpoint,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
        begins_slowly: bool,
    ) -> Self {
        let may_be_http2 = match settings.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => server.tls.is_some(),
        };
        let transport = Transport::new(server, tls);
        let transport = match &settings.nats {
            Some(nats) => transport.of_nats(nats),
            None => transport,
        };
        Self {
            point: Point::of(&transport.url()),
            latency: OnceLock::new(),
            attempts: AttemptCounts::default(),
            transport,
            busy: AtomicUsize::new(0),
            silent_since: AtomicU64::new(0),
            verdict: Verdict::new(begins_slowly),
            tally: OnceLock::new(),
            checked: OnceLock::new(),
            pool: Pool::new(),
            trunks: may_be_http2.then(|| Box::new(Trunks::new())),
            link: OnceLock::new(),
        }
    }

    /// It is no server of its upstream any more: requests that go on end, and nothing is kept for
    /// others.
    pub(super) fn leave(&self) {
        self.pool.close();
        if let Some(trunks) = &self.trunks {
            trunks.close();
        }
    }

    /// Requests in progress.
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Counts a request in.
    pub(super) fn begin(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request out.
    pub(super) fn end(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// It has answered.
    pub(super) fn note_answer(&self) {
        if self.silent_since.load(Ordering::Relaxed) != 0 {
            self.silent_since.store(0, Ordering::Relaxed);
        }
    }

    /// It has not answered somebody who waits no more. Whether it has answered nobody since
    /// another one did so, at least so long ago.
    pub(super) fn has_been_silent(&self, time: Duration) -> bool {
        let (now, order) = (self.verdict.now(), Ordering::Relaxed);
        match self.silent_since.compare_exchange(0, now, order, order) {
            Ok(_) => false,
            Err(since) => Duration::from_millis(now.saturating_sub(since)) >= time,
        }
    }

    /// Whether it is to be used.
    pub(super) fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// What its requests meet.
    pub(super) fn tally(&self) -> &Tally {
        self.tally.get_or_init(|| Box::new(Tally::new()))
    }

    /// What its checks have said.
    pub(super) fn checked(&self) -> &Checked {
        self.checked.get_or_init(Box::default)
    }

    /// How long it takes to answer.
    pub(super) fn latency(&self) -> &Latency {
        self.latency.get_or_init(|| Box::new(Latency::new()))
    }

    /// Its attempts, by what they came to.
    pub(super) fn attempts(&self) -> &AttemptCounts {
        &self.attempts
    }

    /// How many connections to it nobody uses.
    pub(super) fn idle(&self) -> usize {
        let trunks = self.trunks().map_or(0, |trunks| {
            let (all, busy) = trunks.count();
            all.saturating_sub(busy)
        });
        self.pool.count() + trunks
    }

    /// Where it is for hashes.
    pub(super) fn point(&self) -> Point {
        self.point
    }

    /// Its unused connections.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Its HTTP/2 connections; none where it speaks HTTP/1.1 alone.
    pub(super) fn trunks(&self) -> Option<&Trunks> {
        self.trunks.as_deref()
    }

    /// It is reached by this, and by nothing else.
    pub(super) fn set_link(&self, link: &Arc<Link>) {
        self.link.get_or_init(|| Arc::clone(link));
    }

    /// The way to it over NATS; none over HTTP.
    pub(super) fn link(&self) -> Option<&Arc<Link>> {
        self.link.get()
    }

    /// The way to it.
    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }
}
