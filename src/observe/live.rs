//! The metrics whose labels come from the configuration in force: routes, limits, issuers,
//! upstreams. What a reload takes away has no series any more, what it adds has one from then on,
//! and what stays keeps its counts. Requests hold what they count with, and look nothing up.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::care::{self, CareNow};
use super::compressed::Compressed;
use super::counter::Words;
use super::events::{self, EventMeter};
use super::identity::{IdentityMeter, TokenMeter};
use super::limit::{self, LimitInForce, LimitMeter, LimitOutcome};
use super::operated::OperationMeter;
use super::queues::{self, QueueMeter, QueueNow};
use super::redis::{self, RedisNow};
use super::route::{self, RouteMeter};
use super::series::{Described, family, gauge};
use super::store::{self, StoreNow};
use super::traffic::{self, CanaryNow, MirrorNow};
use super::tunnels::TunnelMeter;
use super::upstream::{self, Occupancy, UpstreamMeter};
use crate::base::shard::Counters;

/// What the fetches from one place of keys count.
#[derive(Debug)]
pub struct IssuerMeter {
    url: String,
    fetches: Words,
}

impl IssuerMeter {
    /// One fetch has ended.
    pub fn fetched(&self, result: &'static str) {
        self.fetches.count(result);
    }
}

/// One place of issuers' keys, looked up when somebody asks.
#[derive(Debug)]
pub struct IssuerNow {
    /// The place, without a query.
    pub url: String,
    /// How old its keys are, where there are any.
    pub age: Option<Duration>,
    /// Longest time between two fetches.
    pub refresh: Duration,
}

/// What is only looked up when somebody asks.
#[derive(Debug, Default)]
pub struct Now {
    /// The places of issuers' keys.
    pub issuers: Vec<IssuerNow>,
    /// The upstreams of each route.
    pub routes: Vec<(String, String)>,
    /// What the requests of each upstream count.
    pub meters: Vec<(String, Arc<UpstreamMeter>)>,
    /// Each upstream.
    pub upstreams: Vec<(String, Occupancy)>,
    /// What is known of the servers of each.
    pub care: Vec<(String, CareNow)>,
    /// Longest wait for the store.
    pub store_timeout: Duration,
    /// Most client connections.
    pub connections_max: usize,
    /// How many keys are near each limit that has some.
    pub limit_keys_near: BTreeMap<String, usize>,
    /// How many tunnels are open on each route that may have some.
    pub tunnels: Vec<(String, usize)>,
    /// What is asked of Redis, where anything is.
    pub stores: Vec<StoreNow>,
    /// What servers of Redis tell of themselves, and which store they are of.
    pub redis: Vec<(&'static str, RedisNow)>,
    /// Each split route.
    pub canaries: Vec<CanaryNow>,
    /// Each route whose requests are mirrored.
    pub mirrors: Vec<MirrorNow>,
    /// The first name of each certificate for clients, and its end in Unix seconds.
    pub certificates: Vec<(String, i64)>,
    /// What the queues of deliveries held when they were looked at last.
    pub queues: Vec<QueueNow>,
    /// The names of the sources of events.
    pub events: Vec<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Live {
    routes: Mutex<Vec<Arc<RouteMeter>>>,
    limits: Mutex<Vec<LimitInForce>>,
    queues: Mutex<Vec<Arc<QueueMeter>>>,
    events: Mutex<Vec<Arc<EventMeter>>>,
    tokens: Mutex<Vec<Arc<TokenMeter>>>,
    pub(super) identity: IdentityMeter,
    pub(super) operations: OperationMeter,
    /// Whoever fetches holds its meter.
    issuers: Mutex<Vec<Weak<IssuerMeter>>>,
    /// Requests that have begun, and those that have ended.
    requests: Counters<2>,
    pub(super) tunnels: TunnelMeter,
    pub(super) compressed: Compressed,
    now: Mutex<Now>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// The meters of exactly these routes, in their order, and no others from now on.
    pub(super) fn routes<'n>(
        &self,
        names: impl Iterator<Item = (&'n str, bool)>,
        always: &[&Arc<RouteMeter>],
    ) -> Vec<Arc<RouteMeter>> {
        let mut routes = lock(&self.routes);
        let mut known: HashMap<String, Arc<RouteMeter>> =
            always.iter().map(|meter| (meter.name().to_owned(), Arc::clone(meter))).collect();
        known.extend(routes.drain(..).map(|meter| (meter.name().to_owned(), meter)));
        let of_names = names.map(|(name, caches)| {
            let meter = known.remove(name).unwrap_or_else(|| Arc::new(RouteMeter::new(name)));
            meter.set_caches(caches);
            meter
        });
        let meters: Vec<Arc<RouteMeter>> = of_names.collect();
        // A route may be called like those that stand for no route: then they count together.
        let others = always.iter().filter(|it| !meters.iter().any(|meter| Arc::ptr_eq(meter, it)));
        routes.extend(others.map(|meter| Arc::clone(meter)));
        routes.extend(meters.iter().map(Arc::clone));
        meters
    }

    /// The meters of exactly these limits, with what each does to requests over it.
    pub(super) fn limits<'n>(
        &self,
        items: impl Iterator<Item = (&'n str, LimitOutcome)>,
    ) -> HashMap<String, Arc<LimitMeter>> {
        let mut limits = lock(&self.limits);
        let mut meters: BTreeMap<&str, LimitInForce> = BTreeMap::new();
        for (name, over) in items {
            let known = limits.iter().find(|(meter, _)| meter.limit() == name);
            meters.entry(name).or_insert_with(|| match known {
                Some((meter, _)) => (Arc::clone(meter), over),
                None => (Arc::new(LimitMeter::new(name)), over),
            });
        }
        *limits = meters.values().cloned().collect();
        meters.into_iter().map(|(name, (meter, _))| (name.to_owned(), meter)).collect()
    }

    /// The meter of a queue.
    pub(super) fn queue(&self, name: &str) -> Arc<QueueMeter> {
        let mut queues = lock(&self.queues);
        let known = queues.iter().find(|meter| meter.name() == name);
        known.map(Arc::clone).unwrap_or_else(|| {
            let meter = Arc::new(QueueMeter::new(name));
            queues.push(Arc::clone(&meter));
            queues.sort_by(|one, other| one.name().cmp(other.name()));
            meter
        })
    }

    /// The meter of a source of events.
    pub(super) fn events(&self, name: &str) -> Arc<EventMeter> {
        let mut events = lock(&self.events);
        let known = events.iter().find(|meter| meter.name() == name);
        known.map(Arc::clone).unwrap_or_else(|| {
            let meter = Arc::new(EventMeter::new(name));
            events.push(Arc::clone(&meter));
            events.sort_by(|one, other| one.name().cmp(other.name()));
            meter
        })
    }

    /// The meters of the tokens of exactly these verifiers, in their order.
    pub(super) fn tokens<'n>(
        &self,
        verifiers: impl Iterator<Item = &'n str>,
    ) -> Vec<Arc<TokenMeter>> {
        let mut tokens = lock(&self.tokens);
        let unknown = &self.identity.unknown;
        let meters: Vec<Arc<TokenMeter>> = verifiers
            .map(|name| {
                // A verifier may be called like what stands for none: then they count together.
                let known = tokens.iter().chain([unknown]).find(|meter| meter.auth() == name);
                known.map_or_else(|| Arc::new(TokenMeter::new(name)), Arc::clone)
            })
            .collect();
        tokens.clone_from(&meters);
        if !meters.iter().any(|meter| Arc::ptr_eq(meter, unknown)) {
            tokens.push(Arc::clone(unknown));
        }
        meters
    }

    /// The meter of one place of keys; whoever fetches from the same place counts with the same.
    pub(super) fn issuer(&self, url: &str) -> Arc<IssuerMeter> {
        let mut issuers = lock(&self.issuers);
        issuers.retain(|meter| meter.strong_count() > 0);
        let known = issuers.iter().filter_map(Weak::upgrade).find(|meter| meter.url == url);
        known.unwrap_or_else(|| {
            let meter = Arc::new(IssuerMeter { url: url.to_owned(), fetches: Words::default() });
            issuers.push(Arc::downgrade(&meter));
            meter
        })
    }

    pub(super) fn begin(&self) {
        self.requests.add(0, 1);
    }

    pub(super) fn end(&self) {
        self.requests.add(1, 1);
    }

    /// The meters of the routes in force, and of what no route takes.
    pub(super) fn route_meters(&self) -> Vec<Arc<RouteMeter>> {
        lock(&self.routes).clone()
    }

    pub(super) fn in_flight(&self) -> u64 {
        // Ended first: what ends in between must not be more than what began.
        let ended = self.requests.sum(1);
        self.requests.sum(0).saturating_sub(ended)
    }

    pub(super) fn set(&self, now: Now) {
        *lock(&self.now) = now;
    }
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let routes = lock(&self.routes).clone();
        route::encode(&routes, &mut encoder)?;
        let limits = lock(&self.limits).clone();
        limit::encode(&limits, &lock(&self.now).limit_keys_near, &mut encoder)?;
        let tokens = lock(&self.tokens).clone();
        self.identity.encode(&tokens, &mut encoder)?;
        self.operations.encode(&mut encoder)?;
        let in_flight = self.in_flight();
        gauge(&mut encoder, "requests_in_flight", "Requests being answered.", in_flight)?;
        let now = lock(&self.now);
        let most = now.connections_max as u64;
        let help = "Most client connections, server.limits.connections.";
        gauge(&mut encoder, "connections_max", help, most)?;
        let help = "Longest wait for the store, store.timeout.";
        let timeout = Described::new("store_timeout", help).in_unit(Unit::Seconds);
        let nothing: [(&str, &str); 0] = [];
        let most = [(nothing, ConstGauge::new(now.store_timeout.as_secs_f64()))];
        family(&mut encoder, &timeout, most.into_iter())?;
        encode_certificates(&now.certificates, &mut encoder)?;
        self.encode_issuers(&now, &mut encoder)?;
        route::encode_upstreams(&routes, &now.routes, &mut encoder)?;
        upstream::encode_meters(&now.meters, &mut encoder)?;
        upstream::encode(&now.upstreams, &mut encoder)?;
        care::encode(&now.care, &mut encoder)?;
        store::encode(&now.stores, &mut encoder)?;
        redis::encode(&now.redis, &mut encoder)?;
        traffic::encode(&now.canaries, &now.mirrors, &mut encoder)?;
        let mut queues = lock(&self.queues).clone();
        queues.retain(|meter| now.queues.iter().any(|queue| queue.name == meter.name()));
        queues::encode(&queues, &now.queues, &mut encoder)?;
        let mut events = lock(&self.events).clone();
        events.retain(|meter| now.events.iter().any(|name| name == meter.name()));
        events::encode(&events, &mut encoder)?;
        self.compressed.encode(&mut encoder)?;
        self.tunnels.encode(&now.tunnels, &mut encoder)
    }
}

impl Live {
    fn encode_issuers(&self, now: &Now, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut meters: Vec<Arc<IssuerMeter>> =
            lock(&self.issuers).iter().filter_map(Weak::upgrade).collect();
        meters.sort_by(|one, other| one.url.cmp(&other.url));
        let in_force = |url: &str| now.issuers.iter().any(|known| known.url == url);
        let fetches = meters.iter().filter(|meter| in_force(&meter.url)).flat_map(|meter| {
            let results = meter.fetches.all().into_iter();
            results.map(|(result, count)| ([("url", &*meter.url), ("result", result)], count))
        });
        let help = "Fetches of issuers' keys, by place and result.";
        family(encoder, &Described::new("issuer_key_fetches", help), fetches)?;
        let ages = now
            .issuers
            .iter()
            .filter_map(|it| Some(([("url", &*it.url)], ConstGauge::new(it.age?.as_secs_f64()))));
        let help = "Time since an issuer's keys were last fetched well.";
        family(encoder, &Described::new("issuer_key_age", help).in_unit(Unit::Seconds), ages)?;
        let refreshes = now
            .issuers
            .iter()
            .map(|it| ([("url", &*it.url)], ConstGauge::new(it.refresh.as_secs_f64())));
        let help = "Longest time between two fetches of an issuer's keys, jwks.refresh.";
        let refresh = Described::new("issuer_key_refresh", help).in_unit(Unit::Seconds);
        family(encoder, &refresh, refreshes)
    }
}

fn encode_certificates(
    certificates: &[(String, i64)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    // Several may have one name, such as one for each kind of key: the first to end is looked for.
    let mut ends = BTreeMap::<&str, i64>::new();
    for (name, end) in certificates {
        ends.entry(name).and_modify(|first| *first = (*first).min(*end)).or_insert(*end);
    }
    let ends = ends.into_iter().map(|(name, end)| ([("name", name)], ConstGauge::new(end)));
    let help = "When a certificate for clients ends, in seconds since 1970.";
    family(encoder, &Described::new("tls_certificate_expiry", help).in_unit(Unit::Seconds), ends)
}
