//! The metrics and their labels. Every label is bounded: routes and reasons come from the
//! configuration and from this program, never from a client. What a route counts is resolved once,
//! so the request path only adds to atomics.

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::access::LineCounts;
use super::cached::{CacheGauges, CacheState};
use super::counter::Tally;
use super::events::EventMeter;
use super::exposition::Format;
use super::family::Family;
use super::histogram::Histogram;
use super::idempotency::KeyOutcome;
use super::identity::{IdentityMeter, TokenMeter};
use super::limit::{LimitMeter, LimitOutcome};
use super::live::{IssuerMeter, Live, Now};
use super::operated::OperationMeter;
use super::process::Process;
use super::queues::QueueMeter;
use super::reload::ReloadMeter;
use super::route::RouteMeter;
use super::store_totals::{StoreMeter, StoreTotals};
use super::tls::TlsMeter;
use super::tracer::SpanMeter;
use super::tunnels::TunnelMeter;
use crate::base::build;

/// The label of requests that no route takes: an unknown path, a wrong method.
const UNMATCHED: &str = "unmatched";
/// The label of what is no request: a malformed head.
const MALFORMED: &str = "malformed";

/// Bounds of a question to the store, in microseconds; `store.timeout` is one more.
const STORE_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000,
];
/// Bounds of how late a serving thread is: timers count in milliseconds.
const LAG_US: &[u64] =
    &[1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];

/// A ladder with more bounds, which only the configuration knows.
fn with_bounds(ladder_us: &[u64], more: &[Duration]) -> Vec<u64> {
    let more = more.iter().map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX));
    let mut bounds: Vec<u64> = ladder_us.iter().copied().chain(more).collect();
    bounds.sort_unstable();
    bounds.dedup();
    bounds
}

/// What nobody keeps up to date: it is looked up when the metrics are asked for.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Whether the main store answers.
    pub store_up: bool,
    /// The same for each use of a store, which may have one of its own.
    pub stores_up: [(&'static str, bool); 4],
    /// What is known of revocations, where they are followed.
    pub revocations: Option<RevocationState>,
    /// Most revocations that this node's memory takes, `store.revocations`.
    pub revocations_max: usize,
    /// The state of the cache.
    pub cache: CacheState,
    /// How much gave way in this node's own store since the start, by kind.
    pub evicted: [(&'static str, u64); 3],
    /// What the store counts by itself.
    pub store_totals: StoreTotals,
    /// What has a series for each name in the configuration.
    pub named: Now,
}

/// This node's memory of revocations, for when the store is away.
#[derive(Debug, Clone, Copy)]
pub struct RevocationState {
    /// How many there are.
    pub known: usize,
    /// Whether the stream of revocations is being read.
    pub followed: bool,
    /// Whether every revocation in force is among them.
    pub complete: bool,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    live: Arc<Live>,
    /// Requests that no route takes.
    pub unmatched: Arc<RouteMeter>,
    /// What is no request.
    pub malformed: Arc<RouteMeter>,
    /// The state of the cache, set when it is asked for.
    pub cache_gauges: CacheGauges,
    /// Parts of stored bodies that were gone, or not what they were.
    pub cache_chunks_lost: Counter,
    /// Time that misses waited for another node's fetch.
    pub cache_lease_wait: Histogram,
    /// Time waited for the store.
    pub store_duration: Histogram,
    /// How late a timer is at a serving thread.
    pub worker_lag: Histogram,
    /// Requests that this node's own counters judged in the store's place.
    pub limit_local: Counter,
    /// Units of limits that the store was told of after an outage.
    pub limit_reconciled_units: Counter,
    /// Gateways that share the store.
    pub gateways_seen: Gauge<i64, AtomicI64>,
    idempotency_keys: Family<1, Counter>,
    store_failures: Family<1, Counter>,
    store_evicted: Family<1, Counter>,
    store_totals: StoreMeter,
    /// Open client connections.
    pub connections: Gauge<i64, AtomicI64>,
    /// Open client connections that are parked.
    pub connections_parked: Gauge<i64, AtomicI64>,
    /// Streams of events for operators.
    pub live_streams: Gauge<i64, AtomicI64>,
    /// Most of them.
    pub live_streams_max: Gauge<i64, AtomicI64>,
    /// TLS with clients.
    pub tls: TlsMeter,
    connections_refused: Family<1, Counter>,
    connection_errors: Family<1, Counter>,
    reloads: Arc<ReloadMeter>,
    handovers: Family<1, Counter>,
    store_up: Gauge<i64, AtomicI64>,
    store_use_up: Family<1, Gauge<i64, AtomicI64>>,
    access_lines: Family<1, Tally>,
    /// Spans of traces.
    pub spans: SpanMeter,
    revocations_known: Gauge<i64, AtomicI64>,
    revocations_max: Gauge<i64, AtomicI64>,
    revocations_followed: Gauge<i64, AtomicI64>,
    revocations_complete: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Metrics {
    /// Nothing counted yet. The longest waits for stores are bounds of the time that they take:
    /// otherwise nobody could tell what was late from what was given up.
    pub fn new(timeouts: &[Duration]) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            live: Arc::default(),
            unmatched: Arc::new(RouteMeter::new(UNMATCHED)),
            malformed: Arc::new(RouteMeter::new(MALFORMED)),
            cache_gauges: CacheGauges::default(),
            cache_chunks_lost: Counter::default(),
            cache_lease_wait: Histogram::default(),
            store_duration: Histogram::of(with_bounds(STORE_US, timeouts)),
            worker_lag: Histogram::of(LAG_US),
            limit_local: Counter::default(),
            limit_reconciled_units: Counter::default(),
            gateways_seen: Gauge::default(),
            idempotency_keys: Family::new(["outcome"]),
            store_failures: Family::new(["function"]),
            store_evicted: Family::new(["kind"]),
            store_totals: StoreMeter::default(),
            connections: Gauge::default(),
            connections_parked: Gauge::default(),
            live_streams: Gauge::default(),
            live_streams_max: Gauge::default(),
            tls: TlsMeter::default(),
            connections_refused: Family::new(["reason"]),
            connection_errors: Family::new(["reason"]),
            reloads: Arc::default(),
            handovers: Family::new(["result"]),
            store_up: Gauge::default(),
            store_use_up: Family::new(["store"]),
            access_lines: Family::new(["result"]),
            spans: SpanMeter::default(),
            revocations_known: Gauge::default(),
            revocations_max: Gauge::default(),
            revocations_followed: Gauge::default(),
            revocations_complete: Gauge::default(),
        };
        metrics.begin_at_zero();
        metrics.register();
        metrics
    }

    /// Nobody sees the first of something in a series that begins with it.
    fn begin_at_zero(&self) {
        let functions =
            ["cache", "idempotency", "invalidation", "limits", "pools", "revocation", "session"];
        for function in functions {
            self.store_failures.of([function]).inc_by(0);
        }
        for outcome in KeyOutcome::ALL {
            self.idempotency_keys.of([outcome.word()]).inc_by(0);
        }
        self.access_lines();
        for result in ["done", "failed"] {
            self.handovers.of([result]).inc_by(0);
        }
        for reason in ["accept_failed", "connections", "connections_per_address"] {
            self.connections_refused.of([reason]).inc_by(0);
        }
        let heads = [
            "head_malformed",
            "head_timeout",
            "head_too_large",
            "tls_on_clear_port",
            "clear_on_tls_port",
            "proxy_header_cut_off",
            "proxy_header_malformed",
            "proxy_header_missing",
            "proxy_header_timeout",
        ];
        for reason in ["broken", "cut_at_drain", "slow_reader"].into_iter().chain(heads) {
            self.connection_errors.of([reason]).inc_by(0);
        }
    }

    fn register(&self) {
        let mut guard = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        guard.register_collector(Box::new(Process));
        let r = guard.sub_registry_with_prefix("portcullis");
        let build: Family<2, Gauge> = Family::new(["version", "commit"]);
        build.of([build::VERSION, build::COMMIT]).set(1);
        r.register("build_info", "Which version runs, and of which commit; always 1", build);
        r.register_collector(Box::new(Arc::clone(&self.live)));
        self.cache_gauges.register(r);
        let help = "Parts of stored bodies that were gone or damaged";
        r.register("cache_chunks_lost", help, self.cache_chunks_lost.clone());
        let help = "Waited for the lease on a fetch, or for what another gateway fetches";
        let wait = self.cache_lease_wait.clone();
        r.register_with_unit("cache_lease_wait", help, Unit::Seconds, wait);
        let help = "One question to the store";
        let duration = self.store_duration.clone();
        r.register_with_unit("store_duration", help, Unit::Seconds, duration);
        let help = "Idempotency keys, by what became of them";
        r.register("idempotency_keys", help, self.idempotency_keys.clone());
        let help = "Questions that the store did not answer, by function";
        r.register("store_failures", help, self.store_failures.clone());
        let help = "What gave way in this node's own store before it was over, by kind";
        r.register("store_evicted", help, self.store_evicted.clone());
        self.store_totals.register(r);
        let help = "Requests judged by this node's own counters while the store was away";
        r.register("limit_local", help, self.limit_local.clone());
        let help = "Units of limits that the store was told of after an outage";
        r.register("limit_reconciled_units", help, self.limit_reconciled_units.clone());
        let help = "Gateways that share the store, the most of the last 30 looks";
        r.register("gateways_seen", help, self.gateways_seen.clone());
        let help = "Whether the main store answers (1) or not (0)";
        r.register("store_up", help, self.store_up.clone());
        let help = "Whether the store that is used for this answers (1) or not (0)";
        r.register("store_use_up", help, self.store_use_up.clone());
        r.register("connections", "Open client connections", self.connections.clone());
        let help = "Open client connections that are parked: idle, their buffers given back";
        r.register("connections_parked", help, self.connections_parked.clone());
        let help = "Client connections closed at once, by reason";
        r.register("connections_refused", help, self.connections_refused.clone());
        let help = "Client connections that ended with an error, by reason";
        r.register("connection_errors", help, self.connection_errors.clone());
        let help = "Streams of events that operators read";
        r.register("live_streams", help, self.live_streams.clone());
        let help = "Most streams of events that operators read";
        r.register("live_streams_max", help, self.live_streams_max.clone());
        self.tls.register(r);
        r.register_collector(Box::new(Arc::clone(&self.reloads)));
        let help = "How late a timer of 100 ms is at a serving thread";
        r.register_with_unit("worker_lag", help, Unit::Seconds, self.worker_lag.clone());
        let help = "Hand-overs to another process, by result; those that are done count in both";
        r.register("handovers", help, self.handovers.clone());
        let help = "Access lines, by what became of them";
        r.register("access_lines", help, self.access_lines.clone());
        let help = "Spans of traces, by what became of them";
        r.register("trace_spans", help, self.spans.family());
        self.register_revocations(r);
    }

    fn register_revocations(&self, r: &mut Registry) {
        let help = "Revocations in this node's memory, for when the store is away";
        r.register("revocations_known", help, self.revocations_known.clone());
        let help = "Most revocations that this node's memory takes, store.revocations";
        r.register("revocations_max", help, self.revocations_max.clone());
        let help = "Whether the stream of revocations is being read (1) or not (0)";
        r.register("revocations_followed", help, self.revocations_followed.clone());
        let help = "Whether that memory is complete (1), or not and unused therefore (0)";
        r.register("revocations_complete", help, self.revocations_complete.clone());
    }

    /// The meters of a plan's routes, with whether each has a cache. Others have no series from now
    /// on.
    pub fn routes<'n>(&self, names: impl Iterator<Item = (&'n str, bool)>) -> Vec<Arc<RouteMeter>> {
        self.live.routes(names, &[&self.unmatched, &self.malformed])
    }

    /// The meters of a plan's limits, by the names that clients see, with what each does to
    /// requests over it. Others have no series from now on.
    pub fn limits<'n>(
        &self,
        items: impl Iterator<Item = (&'n str, LimitOutcome)>,
    ) -> HashMap<String, Arc<LimitMeter>> {
        self.live.limits(items)
    }

    /// The meters of the tokens of a plan's verifiers, in their order. Others have no series from
    /// now on.
    pub fn tokens<'n>(&self, verifiers: impl Iterator<Item = &'n str>) -> Vec<Arc<TokenMeter>> {
        self.live.tokens(verifiers)
    }

    /// What the events of a source count.
    pub fn events(&self, name: &str) -> Arc<EventMeter> {
        self.live.events(name)
    }

    /// What deliveries of a queue count.
    pub fn queue(&self, name: &str) -> Arc<QueueMeter> {
        self.live.queue(name)
    }

    /// What credentials and sessions count.
    pub fn identity(&self) -> &IdentityMeter {
        &self.live.identity
    }

    /// What operators do counts here.
    pub fn operations(&self) -> &OperationMeter {
        &self.live.operations
    }

    /// What tunnels count.
    pub fn tunnels(&self) -> &TunnelMeter {
        &self.live.tunnels
    }

    /// So many bytes of content became so many in this coding.
    pub fn compressed(&self, coding: &'static str, bytes: (u64, u64)) {
        self.live.compressed.add(coding, bytes);
    }

    /// A request has begun.
    pub fn request_began(&self) {
        self.live.begin();
    }

    /// A request has ended.
    pub fn request_ended(&self) {
        self.live.end();
    }

    /// Requests being answered.
    pub fn requests_in_flight(&self) -> u64 {
        self.live.in_flight()
    }

    /// The meters of the routes in force, and of what no route takes.
    pub fn route_meters(&self) -> Vec<Arc<RouteMeter>> {
        self.live.route_meters()
    }

    /// Something became of an idempotency key.
    pub fn idempotency(&self, outcome: KeyOutcome) {
        self.idempotency_keys.of([outcome.word()]).inc();
    }

    /// A question of `function` went unanswered.
    pub fn store_failed(&self, function: &'static str) {
        self.store_failures.of([function]).inc();
    }

    /// A client connection was closed at once.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.of([reason]).inc();
    }

    /// A client connection ended with an error.
    pub fn connection_failed(&self, reason: &'static str) {
        self.connection_errors.of([reason]).inc();
    }

    /// The SHA-256 of the file that the gateway was started with.
    pub fn config_file(&self, sha256: &str) {
        self.reloads.is_of(sha256);
    }

    /// A reload put the file with this SHA-256 in force, or was refused.
    pub fn reloaded(&self, applied: Option<&str>) {
        match applied {
            Some(sha256) => self.reloads.applied(sha256),
            None => self.reloads.refused(),
        }
    }

    /// Whether the last reload left what was in force.
    pub fn is_reload_refused(&self) -> bool {
        self.reloads.is_refused()
    }

    /// When what is in force was put in force, in Unix seconds.
    pub fn config_since(&self) -> f64 {
        self.reloads.since()
    }

    /// The listeners were handed over, or were not.
    pub fn handed_over(&self, result: &'static str) {
        self.handovers.of([result]).inc();
    }

    /// What counts access lines.
    pub fn access_lines(&self) -> LineCounts {
        LineCounts {
            written: self.access_lines.of(["written"]),
            dropped: self.access_lines.of(["dropped"]),
            sampled: self.access_lines.of(["sampled"]),
            failed: self.access_lines.of(["failed"]),
        }
    }

    /// The counters of one issuer, by the place of its keys.
    pub fn issuer(&self, url: &str) -> Arc<IssuerMeter> {
        self.live.issuer(url)
    }

    fn set_evicted(&self, totals: [(&'static str, u64); 3]) {
        for (kind, total) in totals {
            let counter = self.store_evicted.of([kind]);
            // Two may look at once, and a total never falls.
            counter.inner().fetch_max(total, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn set_revocations(&self, state: Option<RevocationState>, most: usize) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        if let Some(RevocationState { known, followed, complete }) = state {
            self.revocations_known.set(count(known));
            self.revocations_followed.set(followed.into());
            self.revocations_complete.set(complete.into());
        }
        self.revocations_max.set(count(most));
    }

    /// Everything in one of the two formats, with what is looked up for this answer alone.
    pub fn render(&self, format: Format, snapshot: Snapshot) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.store_up.set(i64::from(snapshot.store_up));
        for (store, is_up) in snapshot.stores_up {
            self.store_use_up.of([store]).set(i64::from(is_up));
        }
        self.set_revocations(snapshot.revocations, snapshot.revocations_max);
        self.cache_gauges.set(&snapshot.cache);
        self.set_evicted(snapshot.evicted);
        self.store_totals.set(snapshot.store_totals);
        self.live.set(snapshot.named);
        let mut written = String::new();
        let result = match format {
            Format::Text => prometheus_text::encode(&mut written, &registry),
            Format::OpenMetrics => text::encode(&mut written, &registry),
        };
        match result {
            Ok(()) => written,
            Err(error) => format!("# the metrics could not be written: {error}\n"),
        }
    }
}
