//! The gateway as it runs: the current plan, the store, connections, memories. Everything a request
//! shares with others.

mod held;
mod identity;
mod observed;
mod releases;

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

pub use self::held::Held;
use self::releases::Releases;
use crate::auth::TokenMemory;
use crate::background::Background;
use crate::caching::{HttpCache, RouteCache};
use crate::config::{self, Problems, StoreUrl};
use crate::issuer::Issuers;
use crate::limit::{self, Correction, Ticket};
use crate::observe::{AccessLog, LimitMeter, Metrics, RouteMeter, Told};
use crate::plan::Plan;
use crate::store::{
    Answers, MemoryBounds, MemoryStore, Questions, RedisStore, Release, Renewal, SessionKeys, Store,
};
use crate::upstream::Upstream;

/// How often unused upstream connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The running gateway.
#[derive(Debug)]
pub struct Gateway {
    running: ArcSwap<Running>,
    /// Changes with `running`.
    generation: AtomicU64,
    /// Shared state.
    pub store: Arc<Store>,
    /// Tokens that were verified.
    pub tokens: TokenMemory,
    /// Limits as this node knows them.
    pub limits: limit::State,
    /// Cached responses.
    pub cache: Arc<HttpCache>,
    releases: Arc<Releases>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Access lines.
    pub access: AccessLog,
    /// What the log has said once.
    pub told: Told,
    started: Instant,
    /// Where the public listener is, once it is bound.
    public: OnceLock<SocketAddr>,
    draining: AtomicBool,
    background: Background,
}

/// A plan and what belongs to it alone.
#[derive(Debug)]
pub struct Running {
    /// The rules.
    pub plan: Plan,
    /// One per `plan.upstreams`.
    pub upstreams: Vec<Arc<Upstream>>,
    /// One per route, by `Route::index`.
    pub meters: Vec<Arc<RouteMeter>>,
    /// What counts requests over a limit, by the name that clients see.
    pub over_limit: HashMap<String, Arc<LimitMeter>>,
    /// The caches of the routes that have one, by `Route::index`.
    pub route_caches: Vec<Option<Arc<RouteCache>>>,
    /// Whether any route caches.
    pub caches: bool,
    /// Whose keys are fetched.
    pub issuers: Issuers,
}

impl Gateway {
    /// Opens what the plan needs. Waits for the store for `store.connect_timeout` at most, and for
    /// the keys of issuers for their `jwks.timeout`, then serves without them.
    pub async fn open(plan: Plan) -> Arc<Self> {
        let settings = &plan.config.store;
        let store = match settings.url {
            StoreUrl::Memory => {
                let bounds = MemoryBounds::of(settings);
                Store::Memory(Box::new(MemoryStore::bounded(bounds)))
            }
            StoreUrl::Redis { .. } | StoreUrl::Unix { .. } => {
                let redis = RedisStore::open(settings);
                if !redis.first_connection(settings.connect_timeout).await {
                    tracing::warn!("starting without the store");
                }
                Store::Redis(Box::new(redis))
            }
        };
        store.follow_revocations(&plan.config);
        store.follow_epochs();
        let metrics = Arc::new(Metrics::default());
        let access = match plan.config.log.access {
            config::AccessLog::Json => AccessLog::stdout(metrics.access_dropped()),
            config::AccessLog::Off => AccessLog::off(),
        };
        let limits = limit::State::new(settings.memory_limit_keys);
        let (store, background) = (Arc::new(store), Background::new(&metrics));
        let cache = HttpCache::open(&plan, &store, &metrics, &background);
        let running = Running::new(plan, None, &metrics);
        let gateway = Arc::new(Self {
            running: ArcSwap::from_pointee(running),
            generation: AtomicU64::new(0),
            store,
            tokens: TokenMemory::new(),
            limits,
            cache,
            releases: Arc::default(),
            metrics: Arc::clone(&metrics),
            access,
            told: Told::default(),
            started: Instant::now(),
            public: OnceLock::new(),
            draining: AtomicBool::new(false),
            background,
        });
        if gateway.running().caches && gateway.cache.found().await.is_err() {
            tracing::debug!("the cache's base epoch will be made when the store answers");
        }
        tokio::spawn(sweep(Arc::downgrade(&gateway)));
        tokio::spawn(held::keep(Arc::downgrade(&gateway)));
        let releases = Arc::clone(&gateway.releases);
        tokio::spawn(releases::keep(Arc::downgrade(&gateway), releases));
        gateway.running().issuers.first_fetches().await;
        gateway
    }

    /// Puts another plan in force for the requests to come. What cannot change while running is a
    /// problem.
    pub fn adopt(&self, plan: Plan) -> Result<(), Problems> {
        let current = self.running();
        let (old, new) = (&current.plan.config, &plan.config);
        let mut problems = Problems::default();
        let fixed = [
            ("server.listen", old.server.listen == new.server.listen),
            ("admin", old.admin == new.admin),
            ("log", old.log == new.log),
            ("store", store_identity(&old.store) == store_identity(&new.store)),
        ];
        for (key, same) in fixed {
            if !same {
                let what = "this cannot change while the gateway runs".to_owned();
                let remedy = "restart the gateway, or put the old value back".to_owned();
                problems.push(key.to_owned(), what, remedy);
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        identity::warn_of_qualified(&current.plan, &plan);
        self.store.follow_revocations(&plan.config);
        let running = Running::new(plan, Some(&current), &self.metrics);
        self.running.store(Arc::new(running));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The rules of now. A request takes them once and keeps them.
    pub fn running(&self) -> Arc<Running> {
        self.running.load_full()
    }

    /// Counts the plans that were put in force.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks the store, by way of the cache, whose pending purges go first, and measures.
    pub async fn ask(&self, questions: &Questions<'_>, took: &mut Option<Duration>) -> Answers {
        if questions.is_empty() {
            return Answers::default();
        }
        let asked_at = Instant::now();
        let answers = self.cache.ask(questions).await;
        let waited = asked_at.elapsed();
        *took = Some(waited);
        self.metrics.store_duration.observe(waited);
        answers
    }

    /// Moves a session's expiry, in the background: nobody waits for it, and the request was
    /// admitted already.
    pub fn renew(self: &Arc<Self>, session: Option<&SessionKeys>, renewal: Option<Renewal>) {
        let (Some(keys), Some(renewal)) = (session, renewal) else { return };
        let (gateway, keys) = (Arc::clone(self), keys.clone());
        self.background.spawn("session", async move { gateway.store.renew(&keys, renewal).await });
    }

    /// Gives back or charges what a request turned out to cost, in the background.
    pub fn correct(self: &Arc<Self>, correction: Option<Correction>) {
        let Some(correction) = correction else { return };
        let gateway = Arc::clone(self);
        self.background.spawn("limits", async move {
            correction.carry_out(&gateway.store, &gateway.limits).await
        });
    }

    /// Gives places among the requests in flight back, those of the store in the background.
    pub fn leave(&self, ticket: Ticket) {
        if let Some(release) = self.limits.in_flight.leave(ticket) {
            self.release(release);
        }
    }

    fn release(&self, release: Release) {
        if !self.releases.add(release) {
            self.metrics.store_failed("limits");
        }
    }

    /// Says where the public listener is.
    pub fn set_public(&self, address: SocketAddr) {
        // The first one stays: nobody binds twice.
        let _ = self.public.set(address);
    }

    /// Where this node reaches its own public listener; nothing before it is bound.
    pub fn public(&self) -> Option<SocketAddr> {
        let mut address = *self.public.get()?;
        if address.ip().is_unspecified() {
            let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
            address.set_ip(if address.is_ipv4() { v4 } else { v6 });
        }
        Some(address)
    }

    /// How long the gateway has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells load balancers to send no more requests.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the gateway is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Waits until what was begun in the background is done, for `limit` at most, and hands over
    /// what still waits: for the end of the process.
    pub async fn finish(&self, limit: Duration) {
        self.background.finish(limit).await;
        let released = self.releases.send(&self.store, &self.metrics);
        let _ = tokio::time::timeout(limit, released).await;
        let _ = tokio::time::timeout(limit, self.cache.settle()).await;
        self.access.flush(limit);
    }
}

impl Running {
    fn new(plan: Plan, current: Option<&Self>, metrics: &Metrics) -> Self {
        let upstreams = plan.upstreams.iter().map(|(name, settings)| {
            // An upstream that did not change keeps its connections.
            let kept = current.and_then(|current| {
                let index = current.plan.upstreams.iter().position(|(known, _)| known == name)?;
                let upstream = &current.upstreams[index];
                upstream.is_described_by(settings).then(|| Arc::clone(upstream))
            });
            kept.unwrap_or_else(|| Arc::new(Upstream::new(settings)))
        });
        let has_cache = |index: usize| {
            plan.routes.policies().any(|route| route.index == index && route.cache.is_some())
        };
        let names = plan.route_names.iter().enumerate();
        let meters = metrics.routes(names.map(|(index, name)| (name.as_str(), has_cache(index))));
        let over_limit =
            metrics.limits(plan.routes.policies().flat_map(|route| route.limits.items()));
        let caches = plan.routes.policies().any(|route| route.cache.is_some());
        let former = current.map(|current| &current.issuers);
        let issuers = Issuers::open(plan.verifiers.values(), former, metrics);
        let mut route_caches = vec![None; meters.len()];
        for route in plan.routes.policies() {
            if let (Some(slot), Some(meter)) =
                (route_caches.get_mut(route.index), meters.get(route.index))
            {
                *slot = RouteCache::of(&plan, route, meter);
            }
        }
        let upstreams = upstreams.collect();
        Self { upstreams, meters, route_caches, over_limit, caches, issuers, plan }
    }
}

/// What of `[store]` is fixed while connections to it stand; `on_outage` is not.
fn store_identity(store: &config::Store) -> config::Store {
    config::Store { on_outage: config::Store::default().on_outage, ..store.clone() }
}

/// Looks after what no request waits for, until the gateway is gone.
async fn sweep(gateway: std::sync::Weak<Gateway>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        for upstream in &gateway.running().upstreams {
            upstream.sweep();
        }
    }
}
