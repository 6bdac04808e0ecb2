//! The metrics and their labels. Every label is bounded: routes and reasons come from the
//! configuration and from this program, never from a client. What a route counts is resolved once,
//! so the request path only adds to atomics.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Histogram;
use super::cached::{CacheGauges, CacheReport};
use super::histogram::Spread;

/// A counter of the request path.
pub type Tally = Counter<u64, Spread>;

/// Lowest and number of HTTP status codes.
const STATUS_MIN: u16 = 100;
const STATUSES: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteStatus {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteReason {
    route: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteVerdict {
    route: String,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteSource {
    route: String,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitAction {
    limit: String,
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Issuer {
    url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerResult {
    url: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Function {
    function: &'static str,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RouteStatus, Tally>,
    rejections: Family<RouteReason, Tally>,
    cache: Family<RouteVerdict, Tally>,
    cache_not_kept: Family<RouteReason, Counter>,
    cache_sources: Family<RouteSource, Tally>,
    cache_bytes: Family<Route, Tally>,
    cache_kept: Family<Route, Counter>,
    cache_kept_ttl: Family<Route, Counter>,
    /// The state of the cache, set when it is asked for.
    pub cache_gauges: CacheGauges,
    /// Parts of stored bodies that were gone, or not what they were.
    pub cache_chunks_lost: Counter,
    /// Time that misses waited for another node's fetch.
    pub cache_lease_wait: Histogram,
    limits: Family<LimitAction, Tally>,
    durations: Family<Route, Histogram>,
    upstream_durations: Family<Route, Histogram>,
    /// Time waited for the store.
    pub store_duration: Histogram,
    store_failures: Family<Function, Counter>,
    store_evicted: Family<Kind, Counter>,
    /// Open client connections.
    pub connections: Gauge<i64, AtomicI64>,
    connections_refused: Family<Reason, Counter>,
    connection_errors: Family<Reason, Counter>,
    reloads: Family<Reason, Counter>,
    store_up: Gauge<i64, AtomicI64>,
    access_dropped: Counter,
    /// Revocations in this node's memory.
    pub revocations_known: Gauge<i64, AtomicI64>,
    /// Whether the stream of revocations is being read (1) or not (0).
    pub revocations_followed: Gauge<i64, AtomicI64>,
    /// Whether the memory holds every revocation in force (1) or not (0).
    pub revocations_complete: Gauge<i64, AtomicI64>,
    key_fetches: Family<IssuerResult, Counter>,
    key_age: Family<Issuer, Gauge<f64, AtomicU64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("portcullis")),
            requests: Family::default(),
            rejections: Family::default(),
            cache: Family::default(),
            cache_not_kept: Family::default(),
            cache_sources: Family::default(),
            cache_bytes: Family::default(),
            cache_kept: Family::default(),
            cache_kept_ttl: Family::default(),
            cache_gauges: CacheGauges::default(),
            cache_chunks_lost: Counter::default(),
            cache_lease_wait: Histogram::default(),
            limits: Family::default(),
            durations: Family::default(),
            upstream_durations: Family::default(),
            store_duration: Histogram::default(),
            store_failures: Family::default(),
            store_evicted: Family::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            connection_errors: Family::default(),
            reloads: Family::default(),
            store_up: Gauge::default(),
            access_dropped: Counter::default(),
            revocations_known: Gauge::default(),
            revocations_followed: Gauge::default(),
            revocations_complete: Gauge::default(),
            key_fetches: Family::default(),
            key_age: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut guard = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let r = &mut *guard;
        r.register("requests", "Requests by route and status", self.requests.clone());
        r.register(
            "rejections",
            "Requests the gateway refused, by reason",
            self.rejections.clone(),
        );
        r.register("cache", "Requests on cached routes, by cache verdict", self.cache.clone());
        let help = "Responses on cached routes that were not kept, by reason";
        r.register("cache_not_kept", help, self.cache_not_kept.clone());
        let help = "Answers from the cache, by where the response was: near or store";
        r.register("cache_answers", help, self.cache_sources.clone());
        let help = "Bytes of bodies sent from the cache";
        r.register("cache_sent_bytes", help, self.cache_bytes.clone());
        r.register("cache_kept", "Responses that were stored", self.cache_kept.clone());
        let help = "What was left of the lifetimes of responses when they were stored, in all";
        r.register_with_unit("cache_kept_ttl", help, Unit::Seconds, self.cache_kept_ttl.clone());
        self.cache_gauges.register(r);
        let help = "Parts of stored bodies that were gone or damaged";
        r.register("cache_chunks_lost", help, self.cache_chunks_lost.clone());
        let help = "Waited for the lease on a fetch, or for what another gateway fetches";
        let wait = self.cache_lease_wait.clone();
        r.register_with_unit("cache_lease_wait", help, Unit::Seconds, wait);
        let help = "Requests over a limit, by limit and what was done: refuse, shadow or mark";
        r.register("over_limit", help, self.limits.clone());
        let seconds = || Unit::Seconds;
        let help = "From the request head to the last byte of the response";
        r.register_with_unit("request_duration", help, seconds(), self.durations.clone());
        let help = "From the forwarded head to the upstream's response head";
        r.register_with_unit("upstream_duration", help, seconds(), self.upstream_durations.clone());
        let help = "One question to the store";
        r.register_with_unit("store_duration", help, seconds(), self.store_duration.clone());
        let help = "Questions that the store did not answer, by function";
        r.register("store_failures", help, self.store_failures.clone());
        let help = "What gave way in this node's own store before it was over, by kind";
        r.register("store_evicted", help, self.store_evicted.clone());
        r.register("store_up", "Whether the store answers (1) or not (0)", self.store_up.clone());
        r.register("connections", "Open client connections", self.connections.clone());
        let help = "Client connections closed at once, by reason";
        r.register("connections_refused", help, self.connections_refused.clone());
        let help = "Client connections that ended with an error, by reason";
        r.register("connection_errors", help, self.connection_errors.clone());
        r.register("reloads", "Configuration reloads, by result", self.reloads.clone());
        let help = "Access lines lost because the writer was behind";
        r.register("access_lines_dropped", help, self.access_dropped.clone());
        let help = "Revocations in this node's memory, for when the store is away";
        r.register("revocations_known", help, self.revocations_known.clone());
        let help = "Whether the stream of revocations is being read (1) or not (0)";
        r.register("revocations_followed", help, self.revocations_followed.clone());
        let help = "Whether that memory is complete (1), or not and unused therefore (0)";
        r.register("revocations_complete", help, self.revocations_complete.clone());
        let help = "Fetches of issuers' keys, by place and result";
        r.register("issuer_key_fetches", help, self.key_fetches.clone());
        let help = "Time since an issuer's keys were last fetched well";
        r.register_with_unit("issuer_key_age", help, seconds(), self.key_age.clone());
    }

    /// The metrics of one route.
    pub fn route(&self, name: &str) -> RouteMeter {
        let route = || Route { route: name.to_owned() };
        RouteMeter {
            name: name.to_owned(),
            requests: self.requests.clone(),
            rejections: self.rejections.clone(),
            cache: self.cache.clone(),
            cache_not_kept: self.cache_not_kept.clone(),
            cache_near: self.cache_source(name, "near"),
            cache_store: self.cache_source(name, "store"),
            cache_bytes: self.cache_bytes.get_or_create(&route()).clone(),
            cache_kept: self.cache_kept.get_or_create(&route()).clone(),
            cache_kept_ttl: self.cache_kept_ttl.get_or_create(&route()).clone(),
            by_status: (0..STATUSES).map(|_| OnceLock::new()).collect(),
            duration: self.durations.get_or_create(&route()).clone(),
            upstream_duration: self.upstream_durations.get_or_create(&route()).clone(),
        }
    }

    fn cache_source(&self, route: &str, source: &'static str) -> Tally {
        let label = RouteSource { route: route.to_owned(), source };
        self.cache_sources.get_or_create(&label).clone()
    }

    /// A request was over a limit.
    pub fn limit(&self, limit: &str, action: &'static str) {
        self.limits.get_or_create(&LimitAction { limit: limit.to_owned(), action }).inc();
    }

    /// A question of `function` went unanswered.
    pub fn store_failed(&self, function: &'static str) {
        self.store_failures.get_or_create(&Function { function }).inc();
    }

    /// A client connection was closed at once.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&Reason { reason }).inc();
    }

    /// A client connection ended with an error.
    pub fn connection_failed(&self, reason: &'static str) {
        self.connection_errors.get_or_create(&Reason { reason }).inc();
    }

    /// A reload was carried out or refused.
    pub fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&Reason { reason: result }).inc();
    }

    /// The counter of lost access lines.
    pub fn access_dropped(&self) -> Counter {
        self.access_dropped.clone()
    }

    /// The counters of one issuer, by the place of its keys.
    pub fn issuer(&self, url: &str) -> IssuerMeter {
        IssuerMeter { url: url.to_owned(), fetches: self.key_fetches.clone() }
    }

    /// How much gave way in this node's own store since the start, by kind.
    pub fn set_evicted(&self, totals: [(&'static str, u64); 3]) {
        for (kind, total) in totals {
            let counter = self.store_evicted.get_or_create(&Kind { kind });
            // Two may look at once, and a total never falls.
            counter.inner().fetch_max(total, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// How old the keys of each issuer are now.
    pub fn set_key_ages(&self, ages: impl Iterator<Item = (String, Duration)>) {
        // A place that is not configured any more has no age.
        self.key_age.clear();
        for (url, age) in ages {
            self.key_age.get_or_create(&Issuer { url }).set(age.as_secs_f64());
        }
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self, store_up: bool) -> String {
        self.store_up.set(i64::from(store_up));
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => text,
            Err(error) => format!("# the metrics could not be written: {error}\n"),
        }
    }
}

/// What one issuer's fetches count.
#[derive(Debug)]
pub struct IssuerMeter {
    url: String,
    fetches: Family<IssuerResult, Counter>,
}

impl IssuerMeter {
    /// One fetch has ended.
    pub fn fetched(&self, result: &'static str) {
        self.fetches.get_or_create(&IssuerResult { url: self.url.clone(), result }).inc();
    }
}

/// What one route counts.
#[derive(Debug)]
pub struct RouteMeter {
    name: String,
    requests: Family<RouteStatus, Tally>,
    rejections: Family<RouteReason, Tally>,
    cache: Family<RouteVerdict, Tally>,
    cache_not_kept: Family<RouteReason, Counter>,
    cache_near: Tally,
    cache_store: Tally,
    cache_bytes: Tally,
    cache_kept: Counter,
    cache_kept_ttl: Counter,
    /// Counters by status, made when a status is first seen: a lookup in the family would take its
    /// lock.
    by_status: Box<[OnceLock<Tally>]>,
    duration: Histogram,
    upstream_duration: Histogram,
}

impl RouteMeter {
    /// The route's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One request has ended.
    pub fn request(&self, status: u16, duration: Duration, upstream: Option<Duration>) {
        let index = usize::from(status.saturating_sub(STATUS_MIN)).min(STATUSES - 1);
        let label = || RouteStatus { route: self.name.clone(), status };
        self.by_status[index].get_or_init(|| self.requests.get_or_create(&label()).clone()).inc();
        self.duration.observe(duration);
        if let Some(upstream) = upstream {
            self.upstream_duration.observe(upstream);
        }
    }

    /// The gateway refused one.
    pub fn rejection(&self, reason: &'static str) {
        let label = RouteReason { route: self.name.clone(), reason };
        self.rejections.get_or_create(&label).inc();
    }

    /// The cache was asked.
    pub fn cache(&self, verdict: &'static str) {
        let label = RouteVerdict { route: self.name.clone(), verdict };
        self.cache.get_or_create(&label).inc();
    }

    /// A response was not kept, although its route caches.
    pub fn cache_not_kept(&self, reason: &'static str) {
        let label = RouteReason { route: self.name.clone(), reason };
        self.cache_not_kept.get_or_create(&label).inc();
    }

    /// The cache answered, from this node's memory or else from the store.
    pub fn cache_answered(&self, is_near: bool) {
        (if is_near { &self.cache_near } else { &self.cache_store }).inc();
    }

    /// A response was stored, with this much of its lifetime left.
    pub fn cache_kept(&self, ttl: Duration) {
        self.cache_kept.inc();
        self.cache_kept_ttl.inc_by(ttl.as_secs());
    }

    /// What the cache did for the route since the start.
    pub fn cache_report(&self) -> CacheReport {
        let verdict = |verdict| RouteVerdict { route: self.name.clone(), verdict };
        let verdicts = |names: &[&'static str]| {
            names.iter().map(|name| self.cache.get_or_create(&verdict(name)).get()).sum()
        };
        let reason = RouteReason { route: self.name.clone(), reason: "backlog" };
        CacheReport {
            hits: verdicts(CacheReport::HITS),
            others: verdicts(CacheReport::OTHERS),
            sent_bytes: self.cache_bytes.get(),
            kept: self.cache_kept.get(),
            kept_ttl_s: self.cache_kept_ttl.get(),
            backlog_drops: self.cache_not_kept.get_or_create(&reason).get(),
        }
    }

    /// A body, or a part of one, was sent from the cache.
    pub fn cache_sent(&self, bytes: u64) {
        self.cache_bytes.inc_by(bytes);
    }
}
