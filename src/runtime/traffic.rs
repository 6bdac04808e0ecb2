//! What routes have of traffic that moves: their canaries and their mirrors, kept over reloads, and
//! what looks after canaries while no request waits.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Gateway, Running};
use crate::caching::RouteCache;
use crate::config::StoreUse;
use crate::observe::{CanaryNow, MirrorNow, RouteMeter};
use crate::plan::Plan;
use crate::store::StoreError;
use crate::traffic::{Canary, Mirrors, Place};

/// How often canaries are looked after.
const PERIOD: Duration = Duration::from_secs(1);

/// What one route has of it.
#[derive(Debug)]
pub struct RouteTraffic {
    /// Which of several upstreams takes a request.
    pub canary: Option<Arc<Canary>>,
    /// The cache of each of these.
    caches: Vec<Option<Arc<RouteCache>>>,
    /// The copies that are on their way.
    pub mirrors: Option<Arc<Mirrors>>,
}

/// What all routes have of it, by `Route::index`.
pub(super) fn of_routes(
    plan: &Arc<Plan>,
    meters: &[Arc<RouteMeter>],
    current: Option<&Running>,
) -> Vec<Option<Box<RouteTraffic>>> {
    let mut all: Vec<_> = meters.iter().map(|_| None).collect();
    for route in plan.routes.policies() {
        let Some(edge) = &route.edge else { continue };
        if edge.split.is_none() && edge.mirror.is_none() {
            continue;
        }
        let former = current.and_then(|current| current.traffic_named(&route.name));
        let split = route.written.split.as_ref().filter(|_| edge.split.is_some());
        let canary = split.map(|split| {
            let former = former.and_then(|former| former.canary.as_ref());
            match former.filter(|former| former.is_described_by(split)) {
                Some(kept) => Arc::clone(kept),
                None => Arc::new(Canary::new(&route.name, split, former.map(|it| &**it))),
            }
        });
        let mirrors = edge.mirror.map(|_| {
            let former = former.and_then(|former| former.mirrors.clone());
            former.unwrap_or_default()
        });
        let Some(meter) = meters.get(route.index) else { continue };
        let arms = edge.split.iter().flatten();
        let caches = arms.map(|upstream| RouteCache::of(plan, (route, *upstream), meter)).collect();
        if let Some(slot) = all.get_mut(route.index) {
            *slot = Some(Box::new(RouteTraffic { canary, caches, mirrors }));
        }
    }
    all
}

impl Running {
    /// What a route has of traffic that moves.
    pub fn traffic_of(&self, route: usize) -> Option<&RouteTraffic> {
        self.traffic.get(route)?.as_deref()
    }

    fn traffic_named(&self, name: &str) -> Option<&RouteTraffic> {
        let route = self.plan.route_names().position(|it| it == name)?;
        self.traffic_of(route)
    }

    /// The cache of a route, where it has one: that of an arm, if the route is split.
    pub fn cache_of(&self, route: usize, arm: Option<usize>) -> Option<&Arc<RouteCache>> {
        match arm {
            None => self.route_caches.get(route)?.as_ref(),
            Some(arm) => self.traffic_of(route)?.caches.get(arm)?.as_ref(),
        }
    }

    /// Whether the routes of these names have canaries, and what is known of them.
    pub(super) fn canaries_now(&self, now_ms: u64) -> Vec<CanaryNow> {
        self.canaries().map(|canary| canary.now(now_ms)).collect()
    }

    pub(super) fn mirrors_now(&self) -> Vec<MirrorNow> {
        let named = self.plan.route_names().zip(&self.traffic);
        let named = named.filter_map(|(name, it)| Some((name, it.as_ref()?.mirrors.as_ref()?)));
        named
            .map(|(name, mirrors)| MirrorNow {
                route: name.clone(),
                results: mirrors.counts().to_vec(),
            })
            .collect()
    }

    fn canaries(&self) -> impl Iterator<Item = &Arc<Canary>> {
        self.traffic.iter().flatten().filter_map(|it| it.canary.as_ref())
    }
}

impl Gateway {
    /// What is known of all canaries.
    pub fn canaries(&self) -> Vec<CanaryNow> {
        self.running().canaries_now(self.fleet_ms())
    }

    /// Stops the canary of a route for this reason, or has it begin anew; false where it has none
    /// that could be.
    ///
    /// # Errors
    /// The store did not take it, and nothing has changed.
    pub async fn order_canary(&self, name: &str, stop: Option<String>) -> Result<bool, StoreError> {
        let running = self.running();
        let found = running.traffic_named(name).and_then(|it| it.canary.as_ref());
        let Some(canary) = found.filter(|canary| canary.is_led()) else { return Ok(false) };
        let (key, now_ms) = (running.plan.keys.canary(name), self.fleet_ms());
        canary.order(Place { store: &self.store, key: &key, now_ms }, stop).await?;
        Ok(true)
    }

    /// Now, in Unix milliseconds, by the clock that all gateways of the fleet go by.
    pub(super) fn fleet_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or_default();
        now.saturating_add_signed(self.store.clock_offset_ms(StoreUse::Main))
    }

    /// Looks after all canaries once.
    pub(super) async fn look_after_canaries(&self) {
        let running = self.running();
        let named = running.plan.route_names().zip(&running.traffic);
        for (name, traffic) in named {
            let canary = traffic.as_ref().and_then(|it| it.canary.as_ref());
            if let Some(canary) = canary {
                let (key, now_ms) = (running.plan.keys.canary(name), self.fleet_ms());
                canary.look(Place { store: &self.store, key: &key, now_ms }).await;
            }
        }
    }
}

/// Looks after canaries until the gateway is gone.
pub(super) async fn follow(gateway: Weak<Gateway>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        gateway.look_after_canaries().await;
    }
}
