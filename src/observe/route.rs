//! What one route counts, and how it is told.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::{Atomic, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tokio::time::Instant;

use super::cached::CacheReport;
use super::counter::{Tally, Words};
use super::histogram::{Histogram, REQUEST_US};
use super::rates::RouteTotals;
use super::series::{Described, family};
use super::windows::{CacheCounts, CacheWindow, CacheWindows};

/// Lowest and number of HTTP status codes.
const STATUS_MIN: u16 = 100;
const STATUSES: usize = 500;

/// Whom the client of a request has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredBy {
    /// For nobody: what is stored has answered.
    Cache,
    /// For nobody else: the gateway refused the request, or answered it itself.
    Gateway,
    /// For an upstream, whatever came of it: also where another request has asked it.
    Upstream,
}

impl AnsweredBy {
    /// All, with the words for them, by their index.
    const WORDS: [&'static str; 3] = ["cache", "gateway", "upstream"];
}

/// What one route counts. It is the same before and after a reload that leaves the route's name.
#[derive(Debug)]
pub struct RouteMeter {
    name: String,
    /// Whether it has a cache to tell of.
    caches: AtomicBool,
    /// Counters by status, made when a status is first seen.
    by_status: Box<[OnceLock<Tally>]>,
    rejections: Words,
    cache: Words,
    cache_not_kept: Words,
    cache_near: Tally,
    cache_store: Tally,
    cache_bytes: Tally,
    cache_stored: Counter,
    cache_stored_ttl: Counter,
    /// By who has answered, each made when it is first needed.
    durations: [OnceLock<Histogram>; AnsweredBy::WORDS.len()],
    lately: Mutex<Lately>,
}

/// What was counted when. No request waits for it.
#[derive(Debug)]
struct Lately {
    /// Requests in all, and when they were more than before.
    requests: u64,
    used_at: Instant,
    cache: CacheWindows,
}

impl RouteMeter {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            caches: AtomicBool::new(false),
            by_status: (0..STATUSES).map(|_| OnceLock::new()).collect(),
            rejections: Words::default(),
            cache: Words::default(),
            cache_not_kept: Words::default(),
            cache_near: Tally::default(),
            cache_store: Tally::default(),
            cache_bytes: Tally::default(),
            cache_stored: Counter::default(),
            cache_stored_ttl: Counter::default(),
            durations: Default::default(),
            lately: Mutex::new(Lately {
                requests: 0,
                used_at: Instant::now(),
                cache: CacheWindows::default(),
            }),
        }
    }

    pub(super) fn set_caches(&self, caches: bool) {
        self.caches.store(caches, Ordering::Relaxed);
    }

    /// The route's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One request has ended.
    pub fn request(&self, status: u16, by: AnsweredBy, duration: Duration) {
        let index = usize::from(status.saturating_sub(STATUS_MIN)).min(STATUSES - 1);
        self.by_status[index].get_or_init(Tally::default).inc();
        let histogram = || Histogram::of(REQUEST_US);
        self.durations[by as usize].get_or_init(histogram).observe(duration);
    }

    /// The gateway refused one.
    pub fn rejection(&self, reason: &'static str) {
        self.rejections.count(reason);
    }

    /// The cache was asked.
    pub fn cache(&self, verdict: &'static str) {
        self.cache.count(verdict);
    }

    /// A response was not kept, although its route caches.
    pub fn cache_not_kept(&self, reason: &'static str) {
        self.cache_not_kept.count(reason);
    }

    /// The cache answered, from this node's memory or else from the store.
    pub fn cache_answered(&self, is_near: bool) {
        (if is_near { &self.cache_near } else { &self.cache_store }).inc();
    }

    /// A response was stored, with this much of its lifetime left.
    pub fn cache_stored(&self, ttl: Duration) {
        self.cache_stored.inc();
        self.cache_stored_ttl.inc_by(ttl.as_secs());
    }

    /// What the cache did for the route since the start.
    pub fn cache_report(&self) -> CacheReport {
        let verdicts = |names: &[&'static str]| names.iter().map(|name| self.cache.get(name)).sum();
        CacheReport {
            hits: verdicts(CacheReport::HITS),
            others: verdicts(CacheReport::OTHERS),
            sent_bytes: self.cache_bytes.get(),
            kept: self.cache_stored.get(),
            kept_ttl_s: self.cache_stored_ttl.get(),
            backlog_drops: self.cache_not_kept.get("backlog"),
        }
    }

    /// How often the cache was asked since the start, by what became of it.
    pub fn cache_verdicts(&self) -> Vec<(&'static str, u64)> {
        let words = self.cache.all().into_iter();
        words.map(|(word, count)| (word, count.get())).filter(|(_, count)| *count > 0).collect()
    }

    /// Remembers what it has counted so far: `requests` in all. To be called each ten seconds.
    pub fn note(&self, at: Instant, requests: u64) {
        let cache = self.caches.load(Ordering::Relaxed).then(|| self.cache_counts());
        let mut lately = self.lately();
        if requests > lately.requests {
            (lately.requests, lately.used_at) = (requests, at);
        }
        if let Some(counts) = cache {
            lately.cache.note(at, counts);
        }
    }

    /// How long it has had no request, as far as [`Self::note`] knows; never longer than it is
    /// there.
    pub fn unused_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.lately().used_at)
    }

    /// What the cache did for the route in a window that ends now.
    pub fn cache_within(&self, window: CacheWindow, now: Instant) -> CacheCounts {
        let counts = self.cache_counts();
        self.lately().cache.within(window, now, &counts)
    }

    fn cache_counts(&self) -> CacheCounts {
        let report = self.cache_report();
        let not_kept = self.cache_not_kept.all().into_iter();
        let not_kept = not_kept.map(|(reason, count)| (reason, count.get()));
        CacheCounts {
            hits: report.hits,
            others: report.others,
            vary_misses: self.cache.get("vary-miss"),
            stored: report.kept,
            stored_ttl_s: report.kept_ttl_s,
            not_kept: not_kept.filter(|(_, count)| *count > 0).collect(),
        }
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has counted so far, to be compared with what it is later.
    pub fn totals(&self) -> RouteTotals {
        let mut totals = RouteTotals::default();
        for (counter, status) in self.by_status.iter().zip(STATUS_MIN..) {
            let Some(count) = counter.get().map(Tally::get) else { continue };
            totals.requests += count;
            let class = match status {
                200..300 => 0,
                400..500 => 1,
                500.. => 2,
                _ => continue,
            };
            totals.by_class[class] += count;
        }
        totals.refused = self.rejections.sum();
        let cached = self.cache_report();
        (totals.hits, totals.others) = (cached.hits, cached.others);
        for durations in self.durations.iter().filter_map(OnceLock::get) {
            totals.durations.add(durations.counts());
        }
        totals
    }

    /// A body, or a part of one, was sent from the cache.
    pub fn cache_sent(&self, bytes: u64) {
        self.cache_bytes.inc_by(bytes);
    }
}

/// A counter of each word of each route.
fn words<'r>(
    routes: &'r [Arc<RouteMeter>],
    label: &'static str,
    of: impl Fn(&'r RouteMeter) -> &'r Words,
) -> impl Iterator<Item = ([(&'static str, &'r str); 2], Tally)> {
    routes.iter().flat_map(move |route| {
        let words = of(route).all().into_iter();
        words.map(move |(word, count)| ([("route", route.name()), (label, word)], count))
    })
}

/// A counter of each route, once it has counted anything.
fn counted<'r, N: Atomic<u64> + 'r>(
    routes: &'r [Arc<RouteMeter>],
    of: impl Fn(&'r RouteMeter) -> &'r Counter<u64, N>,
) -> impl Iterator<Item = ([(&'static str, &'r str); 1], Counter<u64, N>)> {
    let counters = routes.iter().map(move |route| (route.name(), of(route)));
    let used = counters.filter(|(_, counter)| counter.get() > 0);
    used.map(|(name, counter)| ([("route", name)], counter.clone()))
}

/// Writes the families of all routes.
pub(super) fn encode(
    routes: &[Arc<RouteMeter>],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let requests = routes.iter().flat_map(|route| {
        let counters = route.by_status.iter().zip(STATUS_MIN..);
        counters.filter_map(move |(counter, status)| {
            let labels = [("route", route.name().to_owned()), ("status", status.to_string())];
            Some((labels, counter.get()?.clone()))
        })
    });
    family(encoder, &Described::new("requests", "Requests by route and status."), requests)?;
    let help = "Requests the gateway refused, by reason.";
    family(
        encoder,
        &Described::new("rejections", help),
        words(routes, "reason", |it| &it.rejections),
    )?;
    let durations = routes.iter().flat_map(|route| {
        let each = AnsweredBy::WORDS.into_iter().zip(&route.durations);
        each.filter_map(|(by, duration)| {
            Some(([("route", route.name()), ("answered_by", by)], duration.get()?.clone()))
        })
    });
    let help = "From the request head to the last byte of the response, by whom the client has \
                waited for: cache, gateway (nobody else) or upstream.";
    let named = Described::new("request_duration", help).in_unit(Unit::Seconds);
    family(encoder, &named, durations)?;
    let caches = routes.iter().filter(|route| route.caches.load(Ordering::Relaxed));
    encode_cache(&caches.cloned().collect::<Vec<_>>(), encoder)
}

/// Writes which upstreams the routes have that are in use.
pub(super) fn encode_upstreams(
    routes: &[Arc<RouteMeter>],
    upstreams: &[(String, String)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let used = routes.iter().filter(|route| route.by_status.iter().any(|it| it.get().is_some()));
    let used: BTreeSet<&str> = used.map(|route| route.name()).collect();
    let pairs = upstreams.iter().filter(|(route, _)| used.contains(route.as_str()));
    let pairs = pairs.map(|(route, upstream)| {
        ([("route", route.as_str()), ("upstream", upstream.as_str())], ConstGauge::new(1_i64))
    });
    let help = "Which upstreams a route that is in use has; always 1.";
    family(encoder, &Described::new("route_info", help), pairs)
}

/// Writes the families of the routes that have a cache.
fn encode_cache(routes: &[Arc<RouteMeter>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Requests on cached routes, by cache verdict.";
    let named = Described::new("cache_requests", help);
    family(encoder, &named, words(routes, "verdict", |it| &it.cache))?;
    let help = "Responses on cached routes that were not kept, by reason.";
    let named = Described::new("cache_not_kept", help);
    family(encoder, &named, words(routes, "reason", |it| &it.cache_not_kept))?;
    let sources = routes.iter().flat_map(|route| {
        let each = [("near", &route.cache_near), ("store", &route.cache_store)];
        let used = each.into_iter().filter(|(_, count)| count.get() > 0);
        used.map(|(source, count)| ([("route", route.name()), ("source", source)], count.clone()))
    });
    let help = "Answers from the cache, by where the response was: near or store.";
    family(encoder, &Described::new("cache_answers", help), sources)?;
    let help = "Bytes of bodies sent from the cache.";
    let named = Described::new("cache_sent", help).in_unit(Unit::Bytes);
    family(encoder, &named, counted(routes, |it| &it.cache_bytes))?;
    let named = Described::new("cache_stored", "Responses that were stored.");
    family(encoder, &named, counted(routes, |it| &it.cache_stored))?;
    let help = "What was left of the lifetimes of responses when they were stored, in all.";
    let named = Described::new("cache_stored_ttl", help).in_unit(Unit::Seconds);
    family(encoder, &named, counted(routes, |it| &it.cache_stored_ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_route_is_unused_since_its_last_request() {
        let meter = RouteMeter::new("a");
        let hours = |count: u64| Duration::from_secs(count * 3600);
        let note = || meter.note(Instant::now(), meter.totals().requests);
        tokio::time::advance(hours(2)).await;
        note();
        assert_eq!(meter.unused_for(Instant::now()), hours(2));
        meter.request(200, AnsweredBy::Upstream, Duration::ZERO);
        note();
        assert_eq!(meter.unused_for(Instant::now()), Duration::ZERO);
        tokio::time::advance(hours(25)).await;
        note();
        assert_eq!(meter.unused_for(Instant::now()), hours(25));
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_that_caches_knows_its_hits_of_late() {
        let meter = RouteMeter::new("a");
        meter.set_caches(true);
        let within = |window| meter.cache_within(window, Instant::now());
        for verdict in ["hit", "miss", "vary-miss"] {
            meter.cache(verdict);
        }
        meter.cache_not_kept("no_store");
        meter.note(Instant::now(), 3);
        assert_eq!(within(CacheWindow::Minute).requests(), 3);
        tokio::time::advance(Duration::from_secs(60)).await;
        meter.cache("stale");
        meter.cache_stored(Duration::from_secs(8));
        let minute = within(CacheWindow::Minute);
        assert_eq!((minute.hits, minute.others, minute.stored_ttl_s), (1, 0, 8));
        assert_eq!(minute.main_reason(), None);
        let quarter = within(CacheWindow::Quarter);
        assert_eq!((quarter.hits, quarter.others, quarter.vary_misses), (2, 2, 1));
        assert_eq!(quarter.main_reason(), Some(("no_store", 1)));
    }
}
