//! The gateway as it runs: the current plan, the store, connections, memories. Everything a request
//! shares with others.

mod canaries;
mod certificates;
mod claims;
mod compare;
mod deliveries;
mod descriptors;
mod event_effects;
mod events;
mod families;
mod fleet;
mod logins;
mod looking;
mod made;
mod node;
mod nodes;
mod operated;
mod parcels;
mod pools;
mod provider_tokens;
mod reload;
mod seen;
mod tickets;
mod ticks;
mod token_memory;
mod traffic;
mod tunnels;
mod upstreams;
mod watching;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::acme::Acme;
use crate::auth::{Authenticator, Identified, Places};
use crate::background::Background;
use crate::caching::{HttpCache, RouteCache};
use crate::config::{Problems, Source};
use crate::encode;
use crate::issuer::{Calls, Issuers};
use crate::limit::Limiter;
use crate::observe::{LimitMeter, Metrics, Observer, RouteMeter, Took, Tracer};
use crate::plan::{Plan, Route};
use crate::session::Copies;
use crate::store::{Answers, Questions, Renewal, SessionKeys, Store};
use crate::telemetry::Exports;
use crate::tls;
use crate::tunnel::End;
use crate::upstream::{Ahead, TICK, Upstream};

pub use self::claims::{Claim, ClaimTerms, Claims};
pub use self::compare::{Changed, Comparison, Shown, compare_files};
pub use self::deliveries::{Deliveries, QueueState, Room, Waiting};
pub use self::descriptors::{Descriptors, warn_of_descriptors};
pub use self::events::{Event as AppEvent, Events, EventsNow, EventsSeen, Poison};
pub use self::families::Issued;
pub use self::logins::{Begun, LoggedIn, NotLoggedIn};
pub use self::looking::{Event, Looking, STREAMS_MAX, Viewer, time_of};
pub use self::made::{LogIn, MadeSession, NotMade};
pub use self::node::Node;
use self::node::Nodes;
pub use self::operated::{OPERATIONS_MAX, Operation, Operations};
pub use self::parcels::{Loose, Opened, Packed, Parcels};
pub use self::pools::{Pools, Wrote};
pub use self::reload::{
    Change, LastReload, Looked, Names, NotReloaded, look_at, read_plan, warn_of,
};
use self::reload::{ConfigFile, NotAdopted};
pub use self::token_memory::ProviderTokens;
pub use self::traffic::RouteTraffic;
use self::traffic::Traffic;
pub use self::tunnels::{Entry, Grant, Kind, OpenTunnel, Terms, Tunnels};

/// The running gateway.
#[derive(Debug)]
pub struct Gateway {
    running: ArcSwap<Running>,
    /// What a reload reads; nothing where there is no file.
    file: OnceLock<ConfigFile>,
    /// Changes with `running`.
    generation: AtomicU64,
    /// Shared state.
    pub store: Arc<Store>,
    /// Who calls.
    pub auth: Authenticator,
    /// What callers have left.
    pub limits: Arc<Limiter>,
    /// Metrics and logs.
    pub observer: Observer,
    /// What operators see while they look.
    pub looking: Arc<Looking>,
    /// Cached responses.
    pub cache: Arc<HttpCache>,
    /// Sessions as they were read last.
    pub sessions: Copies,
    /// Access tokens of providers as they were read last.
    pub provider_tokens: ProviderTokens,
    /// Who has written lately.
    pub pools: Arc<Pools>,
    /// The idempotency keys of requests that run.
    pub claims: Arc<Claims>,
    /// WebSockets, streams of events and gRPC calls that are open.
    pub tunnels: Arc<Tunnels>,
    /// What is delivered later.
    pub deliveries: Arc<Deliveries>,
    /// What applications tell.
    pub events: Events,
    /// How many responses are compressed at the moment.
    pub compressions: Arc<encode::Places>,
    draining: AtomicBool,
    handed_over: AtomicBool,
    left: CancellationToken,
    background: Background,
    exports: Exports,
    /// The gateways beside this one.
    nodes: Nodes,
}

/// A plan and what belongs to it alone.
#[derive(Debug)]
pub struct Running {
    /// The rules.
    pub plan: Arc<Plan>,
    /// One per `plan.upstreams`.
    pub upstreams: Vec<Arc<Upstream>>,
    /// One per route, by `Route::index`.
    pub meters: Vec<Arc<RouteMeter>>,
    /// What the limits of each route count with, by `Route::index`, as `limit::Policy::items` lists
    /// them.
    pub limit_meters: Vec<Vec<Arc<LimitMeter>>>,
    /// The caches of the routes that have one, by `Route::index`.
    pub route_caches: Vec<Option<Arc<RouteCache>>>,
    /// What the routes have of traffic that moves.
    traffic: Traffic,
    /// Whose keys are fetched.
    pub issuers: Issuers,
    /// What providers are asked with, by their names.
    calls: BTreeMap<String, Calls>,
    /// Certificates for clients, as their files are now; nothing where all is in clear.
    pub tls: Option<Arc<tls::Live>>,
    /// Who orders certificates; nothing where none is ordered.
    pub acme: Option<Arc<Acme>>,
    /// Where spans go; nothing where nothing is traced.
    pub tracer: Option<Arc<Tracer>>,
}

impl Gateway {
    /// Opens what the plan needs. Waits for the store for `store.connect_timeout` at most, and for
    /// the keys of issuers for their `jwks.timeout`, then serves without them.
    pub async fn open(plan: Plan) -> Arc<Self> {
        let config = &plan.config;
        let settings = &config.store;
        let store = Arc::new(Store::open(config).await);
        let observer = Observer::new(config);
        let metrics = &observer.metrics;
        metrics.tunnels().begin_at_zero(End::WORDS);
        let background = Background::new(metrics);
        let auth = Authenticator::new(&store, metrics);
        let limits = Limiter::open(settings, &store, metrics, &background);
        let cache = HttpCache::open(&plan, &store, metrics, &background);
        let sessions = Copies::new(settings.near_session_bytes);
        let pools = Pools::open(settings.timeout, &store, &cache, metrics);
        let claims = Claims::open(&store, metrics);
        let exports = Exports::new(&metrics.spans);
        let deliveries = Arc::new(Deliveries::new(settings.fill_bytes, metrics));
        let events = Events::new(metrics);
        let running = Running::new(plan, (None, &HashMap::new()), (&store, metrics));
        let looking = Looking::new(metrics);
        let gateway = Arc::new(Self {
            running: ArcSwap::from_pointee(running.traced(&exports, None)),
            file: OnceLock::new(),
            generation: AtomicU64::new(0),
            store,
            auth,
            limits,
            observer,
            looking,
            cache,
            sessions,
            provider_tokens: ProviderTokens::default(),
            pools,
            claims,
            tunnels: Arc::default(),
            deliveries,
            events,
            compressions: Arc::default(),
            draining: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            left: CancellationToken::new(),
            background,
            exports,
            nodes: Nodes::default(),
        });
        if gateway.running().caches() && gateway.cache.found().await.is_err() {
            tracing::debug!("the cache's base epoch will be made when the store answers");
        }
        gateway.look_after_tickets().await;
        upstreams::first_checks(&gateway.running().upstreams).await;
        gateway.look_after_the_rest();
        gateway.sum_up();
        if let Some(acme) = &gateway.running().acme {
            acme.load().await;
        }
        gateway.running().issuers.first_fetches().await;
        gateway.follow_canaries().await;
        gateway.take_part_in_fleet();
        gateway.tell_of_itself();
        gateway
    }

    /// Sweeps upstreams and judges them, and follows certificates and tunnels, as long as it lives.
    fn look_after_the_rest(self: &Arc<Self>) {
        tokio::spawn(upstreams::every(upstreams::SWEEP, self.upstreams(Upstream::sweep)));
        tokio::spawn(upstreams::every(TICK, self.upstreams(Upstream::tick)));
        self.watch();
    }

    /// Has the fleet's gateways open each other's tickets, where that is configured.
    async fn look_after_tickets(&self) {
        let running = self.running();
        if let Some(live) = &running.tls {
            tickets::look(live, &running.plan, &self.store, &self.observer.logged).await;
        }
    }

    /// Does something to all upstreams in force; false when the gateway is gone.
    fn upstreams(self: &Arc<Self>, act: fn(&Upstream)) -> impl Fn() -> bool + use<> {
        let gateway = Arc::downgrade(self);
        move || {
            let running = gateway.upgrade().map(|gateway| gateway.running());
            running.iter().flat_map(|running| &running.upstreams).for_each(|it| act(it));
            running.is_some()
        }
    }

    /// Puts another plan in force for the requests to come, once it is known what the names in it
    /// lead to. What cannot change while running is a problem.
    async fn adopt(&self, plan: Plan) -> Result<[Arc<Plan>; 2], NotAdopted> {
        let current = self.running();
        let (old, new) = (&current.plan.config, &plan.config);
        let mut problems = Problems::default();
        for key in reload::fixed(old, new) {
            let what = "this cannot change while the gateway runs".to_owned();
            let remedy = "restart the gateway, or put the old value back".to_owned();
            problems.push(key.to_owned(), what, remedy);
        }
        if !problems.is_empty() {
            return Err(NotAdopted::Fixed(problems));
        }
        let left = deliveries::left_behind(&self.store, &current.plan, &plan).await;
        if !left.is_empty() {
            return Err(NotAdopted::QueueNotEmpty(left));
        }
        let former = |name: &str| current.upstream_named(name).cloned();
        let ahead = upstreams::look_ahead(&plan, former).await;
        warn_of_qualified(&current.plan, &plan);
        self.store.follow_revocations(&plan.config);
        self.store.look_at_files();
        let shared = (&self.store, &self.observer.metrics);
        let running = Running::new(plan, (Some(&current), &ahead), shared);
        let running = running.traced(&self.exports, Some(&current));
        let now = Arc::clone(&running.plan);
        self.tunnels.adopt(&now);
        self.pools.adopt(&current.plan, &now);
        let running = Arc::new(running);
        self.running.store(Arc::clone(&running));
        self.generation.fetch_add(1, Ordering::Release);
        current.leave_to(&running);
        deliveries::tell_of_left(&self.store, &current.plan, &now).await;
        Ok([Arc::clone(&current.plan), now])
    }

    /// Names the file that a reload reads, and what was read of it at the start.
    pub fn follow_file(&self, path: PathBuf, source: &Source) {
        self.observer.metrics.config_file(&source.sha256());
        let _ = self.file.set(ConfigFile::new(path, source));
    }

    /// The file that a reload reads, and the SHA-256 of it that is in force.
    pub fn config_file(&self) -> Option<(&Path, String)> {
        self.file.get().map(|file| (file.path(), file.applied()))
    }

    /// Reads the file anew and puts it in force, if it may; `expected` is the SHA-256 that it must
    /// have. Metrics and diagnostics tell what came of it.
    ///
    /// # Errors
    /// The running configuration stays in force.
    pub async fn reload(&self, expected: Option<&str>) -> Result<Change, NotReloaded> {
        let reloaded = match self.file.get() {
            Some(file) => file.reload(expected, async |plan| self.adopt(plan).await).await,
            None => Err(NotReloaded::NoFile),
        };
        if let Err(other @ NotReloaded::Other(_)) = &reloaded {
            // It says nothing of the file: who has asked is told, and asks again.
            tracing::warn!("the configuration was not reloaded: {other}");
            return reloaded;
        }
        self.looking.tell_reload(reloaded.as_ref().ok());
        match &reloaded {
            Ok(change) => {
                self.observer.metrics.reloaded(Some(&change.sha256));
                tracing::info!("the configuration was reloaded: {}", change.summary());
            }
            Err(refused) => {
                self.observer.metrics.reloaded(None);
                for problem in reload::one_line_each(&refused.to_string()) {
                    tracing::error!("the new configuration: {problem}");
                }
                tracing::error!("the configuration was not reloaded; the old one keeps serving");
            }
        }
        reloaded
    }

    /// The rules of now. A request takes them once and keeps them.
    pub fn running(&self) -> Arc<Running> {
        self.running.load_full()
    }

    /// Counts the plans that were put in force.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Who calls, and whether the caller's claims suffice for the route.
    pub fn identify<'a>(
        &'a self,
        running: &'a Running,
        route: &'a Route,
        places: Places<'a>,
    ) -> impl Future<Output = Identified<'a>> {
        let fetch_keys = async |verifier: &str| running.issuers.ask(verifier).await;
        self.auth.identify(route.auth.as_ref(), places, fetch_keys)
    }

    /// Asks the store, by way of the cache, whose pending purges go first. Returns also when
    /// that was; nothing where there was nothing to ask.
    pub async fn ask(&self, questions: &Questions<'_>) -> (Box<Answers>, Option<Took>) {
        if questions.is_empty() {
            return (Box::default(), None);
        }
        let asked_at = Instant::now();
        let answers = self.cache.ask(questions).await;
        let took = Took::since(asked_at);
        self.observer.metrics.store_duration.observe(took.time);
        (answers, Some(took))
    }

    /// Moves a session's expiry, in the background: nobody waits for it, and the request was
    /// admitted already.
    pub fn renew(self: &Arc<Self>, session: Option<&SessionKeys>, renewal: Option<Renewal>) {
        let (Some(keys), Some(renewal)) = (session, renewal) else { return };
        let (gateway, keys) = (Arc::clone(self), keys.clone());
        self.background.spawn("session", async move { gateway.store.renew(&keys, renewal).await });
    }

    /// Tells load balancers to send no more requests.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.deliveries.begin_drain();
    }

    /// Whether the gateway is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Another process has the listeners: this one ends what it has begun.
    pub fn leave(&self) {
        self.begin_drain();
        self.handed_over.store(true, Ordering::Relaxed);
        self.left.cancel();
    }

    /// Whether another process has the listeners.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed)
    }

    /// Cancelled when another process has the listeners.
    pub fn left(&self) -> &CancellationToken {
        &self.left
    }

    /// Waits until what was begun in the background is done, for `limit` at most, and hands over
    /// what still waits: for the end of the process.
    pub async fn finish(&self, limit: Duration) {
        let drain = self.running().plan.config.server.drain;
        self.deliveries.finish(drain, limit).await;
        // First: what they let go is among what is done in the background.
        self.pools.finish(limit).await;
        self.background.finish(limit).await;
        self.limits.finish(limit).await;
        self.claims.finish(limit).await;
        let _ = tokio::time::timeout(limit, self.cache.settle()).await;
        self.exports.finish().await;
        self.observer.access.flush(limit);
    }
}

impl Running {
    fn new(
        plan: Plan,
        (current, ahead): (Option<&Self>, &HashMap<String, Ahead>),
        (store, metrics): (&Arc<Store>, &Arc<Metrics>),
    ) -> Self {
        let plan = Arc::new(plan);
        let unknown = Ahead::default();
        let described = plan.upstreams.iter().zip(&plan.upstream_tls);
        let upstreams = described.map(|((name, settings), tls)| {
            // An upstream whose servers are spoken to as before keeps them and their connections.
            let (tls, ahead) = (tls.as_ref(), ahead.get(name).unwrap_or(&unknown));
            let former = current.and_then(|current| current.upstream_named(name));
            match former.filter(|former| former.is_described_by(settings)) {
                Some(former) => former.reloaded(name, settings, tls, ahead),
                None => Arc::new(Upstream::new(name, settings, tls, ahead)),
            }
        });
        let has_cache = |index: usize| {
            plan.routes.policies().any(|route| route.index == index && route.cache.is_some())
        };
        let names = plan.route_names().enumerate();
        let meters = metrics.routes(names.map(|(index, name)| (name.as_str(), has_cache(index))));
        let limit_meters = limit_meters(&plan, metrics);
        let tokens = metrics.tokens(plan.verifiers.keys().map(String::as_str));
        plan.verifiers.values().zip(&tokens).for_each(|(it, meter)| it.count_with(meter));
        let former = current.map(|current| &current.issuers);
        let issuers = Issuers::open(plan.verifiers_of_published(), former, metrics);
        let calls = plan.providers.iter();
        let calls = calls.map(|(name, it)| (name.clone(), Calls::new(&it.written))).collect();
        let mut route_caches = vec![None; meters.len()];
        for route in plan.routes.policies() {
            if let (Some(slot), Some(meter)) =
                (route_caches.get_mut(route.index), meters.get(route.index))
            {
                *slot = RouteCache::of(&plan, (route, route.upstream), meter);
            }
        }
        let upstreams = upstreams.collect();
        let former = current.map(|current| (&*current.plan, &current.traffic));
        let traffic = traffic::of_routes(&plan, &meters, former);
        let tls = tls_of(&plan, current);
        let acme = acme_of(&plan, current, store, metrics);
        if let (Some(acme), Some(live)) = (&acme, &tls) {
            acme.show_in(live);
        }
        let tracer = None;
        Self {
            upstreams,
            tls,
            acme,
            meters,
            route_caches,
            limit_meters,
            traffic,
            issuers,
            calls,
            tracer,
            plan,
        }
    }

    /// The same, with where its spans go. Who exported them goes on where it exports the same.
    fn traced(self, exports: &Exports, current: Option<&Self>) -> Self {
        let written = self.plan.config.traces.as_ref();
        let kept = current.filter(|current| current.plan.config.traces.as_ref() == written);
        let tracer = match kept {
            Some(kept) => kept.tracer.clone(),
            None => written.map(|traces| exports.begin(traces)),
        };
        Self { tracer, ..self }
    }

    /// Another one is in force: what it has made nothing of is of no use any more.
    fn leave_to(&self, next: &Self) {
        for ((name, _), upstream) in self.plan.upstreams.iter().zip(&self.upstreams) {
            let mut named = next.plan.upstreams.iter().filter(|(it, _)| it == name);
            if !named.any(|(_, settings)| upstream.is_described_by(settings)) {
                upstream.leave();
            }
        }
    }

    /// The upstream of a name.
    fn upstream_named(&self, name: &str) -> Option<&Arc<Upstream>> {
        let index = self.plan.upstreams.iter().position(|(known, _)| known == name)?;
        self.upstreams.get(index)
    }

    /// Whether any route caches.
    pub fn caches(&self) -> bool {
        self.route_caches.iter().any(Option::is_some)
    }
}

/// What the limits of each route count with; those of one name count together.
fn limit_meters(plan: &Plan, metrics: &Metrics) -> Vec<Vec<Arc<LimitMeter>>> {
    let routes = plan.routes.policies();
    let by_name = metrics.limits(routes.flat_map(|route| route.limits.items()));
    let mut meters = vec![Vec::new(); plan.route_names().count()];
    for route in plan.routes.policies() {
        if let Some(of_route) = meters.get_mut(route.index) {
            // Each was just named.
            let named = route.limits.items().filter_map(|(name, _)| by_name.get(name));
            *of_route = named.map(Arc::clone).collect();
        }
    }
    meters
}

/// Certificates that did not change keep their tickets.
fn tls_of(plan: &Plan, current: Option<&Running>) -> Option<Arc<tls::Live>> {
    let (written, table) = (plan.config.server.tls.as_ref()?, plan.tls.as_ref()?);
    let kept = current.filter(|current| current.plan.config.server.tls == plan.config.server.tls);
    if let Some(kept) = kept.and_then(|current| current.tls.clone()) {
        return Some(kept);
    }
    let former = current.and_then(|current| current.tls.as_ref()).map(|live| live.table());
    if let Some(former) = former.as_ref().and_then(|table| table.ticket_keys())
        && let Some(keys) = table.ticket_keys()
    {
        keys.inherit(former);
    }
    Some(Arc::new(tls::Live::new(written, Arc::clone(table))))
}

/// Who orders certificates goes on where it orders the same.
fn acme_of(
    plan: &Plan,
    current: Option<&Running>,
    store: &Arc<Store>,
    metrics: &Arc<Metrics>,
) -> Option<Arc<Acme>> {
    let server = &plan.config.server;
    let written = server.tls.as_ref()?;
    let former = current.and_then(|current| current.acme.as_ref());
    if let Some(kept) = former.filter(|kept| kept.is_described_by(written)) {
        return Some(Arc::clone(kept));
    }
    let acme = Arc::new(Acme::new(server, store, &plan.keys, metrics)?);
    if let Some(former) = former {
        acme.inherit(former);
    }
    acme.begin();
    Some(acme)
}

/// The store keys of a verifier that joins another one on a route carry its name from now on, and
/// those without it are asked no more: they may have been written for callers of any verifier.
fn warn_of_qualified(former: &Plan, plan: &Plan) {
    for name in plan.newly_qualified(former) {
        tracing::warn!(
            "auth.{name} shares a route with another verifier now: its callers are \
             revoked under keys with its name, such as …:auth:blacklist:{name}:JTI; revoke again \
             what was revoked by jti, sid or sub before"
        );
    }
}
