//! What one route counts, and how it is told.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Unit;

use super::cached::CacheReport;
use super::counter::{Tally, Words};
use super::histogram::Histogram;
use super::series::{Described, family};

/// Lowest and number of HTTP status codes.
const STATUS_MIN: u16 = 100;
const STATUSES: usize = 500;

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
    cache_kept: Counter,
    cache_kept_ttl: Counter,
    duration: Histogram,
    upstream_duration: Histogram,
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
            cache_kept: Counter::default(),
            cache_kept_ttl: Counter::default(),
            duration: Histogram::default(),
            upstream_duration: Histogram::default(),
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
    pub fn request(&self, status: u16, duration: Duration, upstream: Option<Duration>) {
        let index = usize::from(status.saturating_sub(STATUS_MIN)).min(STATUSES - 1);
        self.by_status[index].get_or_init(Tally::default).inc();
        self.duration.observe(duration);
        if let Some(upstream) = upstream {
            self.upstream_duration.observe(upstream);
        }
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
    pub fn cache_kept(&self, ttl: Duration) {
        self.cache_kept.inc();
        self.cache_kept_ttl.inc_by(ttl.as_secs());
    }

    /// What the cache did for the route since the start.
    pub fn cache_report(&self) -> CacheReport {
        let verdicts = |names: &[&'static str]| names.iter().map(|name| self.cache.get(name)).sum();
        CacheReport {
            hits: verdicts(CacheReport::HITS),
            others: verdicts(CacheReport::OTHERS),
            sent_bytes: self.cache_bytes.get(),
            kept: self.cache_kept.get(),
            kept_ttl_s: self.cache_kept_ttl.get(),
            backlog_drops: self.cache_not_kept.get("backlog"),
        }
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

/// Something of each route that has a cache.
fn cached<'r, M>(
    routes: &'r [Arc<RouteMeter>],
    of: impl Fn(&'r RouteMeter) -> M,
) -> impl Iterator<Item = ([(&'static str, &'r str); 1], M)> {
    let caches = routes.iter().filter(|route| route.caches.load(Ordering::Relaxed));
    caches.map(move |route| ([("route", route.name())], of(route)))
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
    let each = |of: fn(&RouteMeter) -> &Histogram| {
        routes.iter().map(move |route| ([("route", route.name())], of(route).clone()))
    };
    let help = "From the request head to the last byte of the response.";
    let named = Described::new("request_duration", help).in_unit(Unit::Seconds);
    family(encoder, &named, each(|route| &route.duration))?;
    let help = "From the forwarded head to the upstream's response head.";
    let named = Described::new("upstream_duration", help).in_unit(Unit::Seconds);
    family(encoder, &named, each(|route| &route.upstream_duration))?;
    encode_cache(routes, encoder)
}

fn encode_cache(routes: &[Arc<RouteMeter>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Requests on cached routes, by cache verdict.";
    family(encoder, &Described::new("cache", help), words(routes, "verdict", |it| &it.cache))?;
    let help = "Responses on cached routes that were not kept, by reason.";
    let named = Described::new("cache_not_kept", help);
    family(encoder, &named, words(routes, "reason", |it| &it.cache_not_kept))?;
    let sources = cached(routes, |it| it).flat_map(|([route], it)| {
        let source = |source, count: &Tally| ([route, ("source", source)], count.clone());
        [source("near", &it.cache_near), source("store", &it.cache_store)]
    });
    let help = "Answers from the cache, by where the response was: near or store.";
    family(encoder, &Described::new("cache_answers", help), sources)?;
    let help = "Bytes of bodies sent from the cache.";
    let bytes = cached(routes, |it| it.cache_bytes.clone());
    family(encoder, &Described::new("cache_sent", help).in_unit(Unit::Bytes), bytes)?;
    let kept = cached(routes, |it| it.cache_kept.clone());
    family(encoder, &Described::new("cache_kept", "Responses that were stored."), kept)?;
    let help = "What was left of the lifetimes of responses when they were stored, in all.";
    let ttl = cached(routes, |it| it.cache_kept_ttl.clone());
    family(encoder, &Described::new("cache_kept_ttl", help).in_unit(Unit::Seconds), ttl)
}
