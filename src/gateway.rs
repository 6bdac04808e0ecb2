//! The gateway as it runs: the current plan, the store, connections, memories. Everything a request
//! shares with others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::time::Instant;

use crate::auth::TokenMemory;
use crate::cache::{NearCache, Stored};
use crate::config::{self, Problems, StoreUrl};
use crate::limit;
use crate::observe::{AccessLog, Metrics, RouteMeter};
use crate::plan::Plan;
use crate::store::{
    Answers, Charges, Entry, MemoryStore, Questions, RedisStore, Store, StoreError, WindowSet,
};
use crate::upstream::Upstream;

/// Most invalidations that wait for the store; beyond it the whole cache is made stale at once.
const OVERDUE_MAX: usize = 1024;
/// How often unused upstream connections are looked at, and waiting invalidations retried.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How much longer than it is fresh a response is kept in the store: not at all, until stale
/// responses are of use.
const KEEP_STALE: Duration = Duration::ZERO;

/// The running gateway.
#[derive(Debug)]
pub struct Gateway {
    running: ArcSwap<Running>,
    /// Changes with `running`.
    generation: AtomicU64,
    /// Shared state.
    pub store: Store,
    /// Tokens that were verified.
    pub tokens: TokenMemory,
    /// Limits as this node knows them.
    pub limits: limit::State,
    /// Copies of cached responses.
    pub near: NearCache,
    overdue: Overdue,
    /// Counters.
    pub metrics: Metrics,
    /// Access lines.
    pub access: AccessLog,
    unrouted: RouteMeter,
    base_epoch: String,
    started: Instant,
    draining: AtomicBool,
}

/// A plan and what belongs to it alone.
#[derive(Debug)]
pub struct Running {
    /// The rules.
    pub plan: Plan,
    /// One per `plan.upstreams`.
    pub upstreams: Vec<Arc<Upstream>>,
    /// One per route, by `Route::index`.
    pub meters: Vec<RouteMeter>,
    /// Whether any route caches.
    pub caches: bool,
}

/// Epochs that the store has not taken yet.
#[derive(Debug, Default)]
struct Overdue {
    any: AtomicBool,
    epochs: Mutex<Vec<String>>,
}

impl Gateway {
    /// Opens what the plan needs. Waits for the store for `store.connect_timeout` at most, then
    /// serves without it.
    pub async fn open(plan: Plan) -> Arc<Self> {
        let settings = &plan.config.store;
        let store = match settings.url {
            StoreUrl::Memory => Store::Memory(Box::new(MemoryStore::new(settings.memory_keys))),
            StoreUrl::Redis { .. } | StoreUrl::Unix { .. } => {
                let redis = RedisStore::open(settings);
                if !redis.first_connection(settings.connect_timeout).await {
                    tracing::warn!("starting without the store");
                }
                Store::Redis(redis)
            }
        };
        let metrics = Metrics::default();
        let access = match plan.config.log.access {
            config::AccessLog::Json => AccessLog::stdout(metrics.access_dropped()),
            config::AccessLog::Off => AccessLog::off(),
        };
        let near = NearCache::new(settings.near_cache_bytes);
        let limits = limit::State::new(settings.memory_keys);
        let base_epoch = plan.keys.cache_base();
        let unrouted = metrics.route("-");
        let running = Running::new(plan, &[], &metrics);
        let gateway = Arc::new(Self {
            running: ArcSwap::from_pointee(running),
            generation: AtomicU64::new(0),
            store,
            tokens: TokenMemory::new(),
            limits,
            near,
            overdue: Overdue::default(),
            metrics,
            access,
            unrouted,
            base_epoch,
            started: Instant::now(),
            draining: AtomicBool::new(false),
        });
        if gateway.running().caches && gateway.store.found(&gateway.base_epoch).await.is_err() {
            tracing::debug!("the cache's base epoch will be made when the store answers");
        }
        tokio::spawn(sweep(Arc::downgrade(&gateway)));
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
        let running = Running::new(plan, &current.upstreams, &self.metrics);
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

    /// Asks the store, measures, and lets waiting invalidations go first where the cache is read.
    pub async fn ask(&self, questions: &Questions<'_>, took: &mut Option<Duration>) -> Answers {
        if questions.is_empty() {
            return Answers::default();
        }
        let overdue = match questions.cached {
            Some(_) if self.overdue.any.load(Ordering::Acquire) => self.overdue.list(),
            _ => Vec::new(),
        };
        let questions = Questions { overdue: &overdue, ..*questions };
        let asked_at = Instant::now();
        let mut answers = self.store.ask(&questions).await;
        let waited = asked_at.elapsed();
        *took = Some(waited);
        self.metrics.store_duration.observe(waited);
        if answers.settled {
            self.overdue.settle(&overdue);
        } else if !overdue.is_empty() {
            // What is stored may be what should have been made stale.
            answers.cached = Some(Err(StoreError::Unavailable));
        }
        answers
    }

    /// Makes everything stored under these epochs stale, before the answer that calls for it is
    /// passed on.
    pub async fn invalidate(&self, epochs: Vec<String>) {
        if let Err(error) = self.store.invalidate(&epochs).await {
            tracing::warn!(%error, "an invalidation waits for the store");
            self.metrics.store_failed("invalidation");
            self.overdue.add(epochs, &self.base_epoch);
        }
    }

    /// The same without anybody waiting. Until it is done, this node does not read its cache.
    pub fn invalidate_later(self: &Arc<Self>, epochs: Vec<String>) {
        self.overdue.add(epochs, &self.base_epoch);
        let gateway = Arc::clone(self);
        tokio::spawn(async move { gateway.settle_overdue().await });
    }

    /// Keeps a response: in this node's memory at once, in the store in the background.
    pub fn remember(self: &Arc<Self>, stored: Stored, path_epoch_key: String, path_epoch: Bytes) {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let ttl = Duration::from_millis(stored.remaining_ms(now_ms)) + KEEP_STALE;
        if ttl.is_zero() {
            return;
        }
        let stored = Arc::new(stored);
        self.near.put(Arc::clone(&stored));
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            let key = stored.key.clone();
            let value = stored.encode().into();
            let entry = Entry { key, path_epoch_key, path_epoch, value, ttl };
            if gateway.store.remember(&entry).await.is_err() {
                gateway.metrics.store_failed("cache");
            }
        });
    }

    /// Makes the base epoch, in the background.
    pub fn found_base(self: &Arc<Self>) {
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            if gateway.store.found(&gateway.base_epoch).await.is_err() {
                gateway.metrics.store_failed("cache");
            }
        });
    }

    /// Moves a session's expiry, in the background: nobody waits for it, and the request was
    /// admitted already.
    pub fn renew(self: &Arc<Self>, session: Option<&str>, ttl: Option<Duration>) {
        let (Some(session), Some(ttl)) = (session, ttl) else { return };
        let gateway = Arc::clone(self);
        let session = session.to_owned();
        tokio::spawn(async move {
            if gateway.store.renew(&session, ttl).await.is_err() {
                gateway.metrics.store_failed("session");
            }
        });
    }

    /// Gives back what a request took from its limits, in the background.
    pub fn refund(self: &Arc<Self>, (set, keys): (Arc<WindowSet>, Vec<String>), at_us: u64) {
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            let charges = Charges { set: &set, keys: &keys };
            if gateway.store.refund(charges, at_us).await.is_err() {
                gateway.metrics.store_failed("limits");
            }
            gateway.limits.forget(&keys);
        });
    }

    /// The key of the base epoch.
    pub fn base_epoch(&self) -> &str {
        &self.base_epoch
    }

    /// The meter of requests without a route.
    pub fn unrouted(&self) -> &RouteMeter {
        &self.unrouted
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

    async fn settle_overdue(&self) {
        let epochs = self.overdue.list();
        if !epochs.is_empty() && self.store.invalidate(&epochs).await.is_ok() {
            self.overdue.settle(&epochs);
        }
    }
}

impl Running {
    fn new(plan: Plan, current: &[Arc<Upstream>], metrics: &Metrics) -> Self {
        let upstreams = plan.upstreams.iter().map(|(_, settings)| {
            // An upstream that did not change keeps its connections.
            let kept = current.iter().find(|upstream| upstream.is_described_by(settings));
            kept.cloned().unwrap_or_else(|| Arc::new(Upstream::new(settings)))
        });
        let meters = plan.route_names.iter().map(|name| metrics.route(name));
        let caches = plan.routes.policies().any(|route| route.cache.is_some());
        Self { upstreams: upstreams.collect(), meters: meters.collect(), caches, plan }
    }
}

impl Overdue {
    fn add(&self, epochs: Vec<String>, base: &str) {
        let mut waiting = self.lock();
        waiting.extend(epochs);
        if waiting.len() > OVERDUE_MAX {
            *waiting = vec![base.to_owned()];
        }
        self.any.store(true, Ordering::Release);
    }

    fn list(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn settle(&self, done: &[String]) {
        let mut waiting = self.lock();
        // Each was carried out once; one that was added twice in the meantime waits for its second
        // turn.
        for epoch in done {
            if let Some(at) = waiting.iter().position(|waiting| waiting == epoch) {
                waiting.swap_remove(at);
            }
        }
        self.any.store(!waiting.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
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
        if gateway.overdue.any.load(Ordering::Acquire) {
            gateway.settle_overdue().await;
        }
    }
}
