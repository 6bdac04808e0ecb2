//! What routes have of traffic that moves: their canaries and their mirrors, kept over reloads.

use std::sync::Arc;

use crate::caching::RouteCache;
use crate::observe::{CanaryNow, MirrorNow, RouteMeter};
use crate::plan::Plan;
use crate::traffic::{Canary, Mirrors};

/// What one route has of it.
#[derive(Debug)]
pub struct RouteTraffic {
    /// Which of several upstreams takes a request.
    pub canary: Option<Arc<Canary>>,
    /// The cache of each of these.
    pub(super) caches: Vec<Option<Arc<RouteCache>>>,
    /// The copies that are on their way.
    pub mirrors: Option<Arc<Mirrors>>,
}

/// What all routes have of it, by `Route::index`; most have nothing.
#[derive(Debug)]
pub(super) struct Traffic(Vec<Option<Box<RouteTraffic>>>);

/// What all routes have of it. `former` is what they had before a reload, by that plan.
pub(super) fn of_routes(
    plan: &Arc<Plan>,
    meters: &[Arc<RouteMeter>],
    former: Option<(&Plan, &Traffic)>,
) -> Traffic {
    let mut all: Vec<_> = meters.iter().map(|_| None).collect();
    for route in plan.routes.policies() {
        let Some(edge) = &route.edge else { continue };
        if edge.split.is_none() && edge.mirror.is_none() {
            continue;
        }
        let former = former.and_then(|(plan, former)| former.named(plan, &route.name));
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
    Traffic(all)
}

impl Traffic {
    /// What the route of an index has.
    pub(super) fn of_route(&self, index: usize) -> Option<&RouteTraffic> {
        self.0.get(index)?.as_deref()
    }

    /// What the route of a name has.
    pub(super) fn named(&self, plan: &Plan, name: &str) -> Option<&RouteTraffic> {
        self.of_route(plan.route_names().position(|it| it == name)?)
    }

    /// All canaries, by the names of their routes.
    pub(super) fn canaries<'t>(
        &'t self,
        plan: &'t Plan,
    ) -> impl Iterator<Item = (&'t str, &'t Canary)> {
        let named = plan.route_names().zip(&self.0);
        named.filter_map(|(name, it)| Some((&**name, it.as_ref()?.canary.as_deref()?)))
    }

    /// What is known of all canaries.
    pub(super) fn canaries_now(&self, plan: &Plan, now_ms: u64) -> Vec<CanaryNow> {
        self.canaries(plan).map(|(_, canary)| canary.now(now_ms)).collect()
    }

    /// What became of all copies.
    pub(super) fn mirrors_now(&self, plan: &Plan) -> Vec<MirrorNow> {
        let named = plan.route_names().zip(&self.0);
        let named = named.filter_map(|(name, it)| Some((name, it.as_ref()?.mirrors.as_ref()?)));
        let now = named.map(|(name, mirrors)| MirrorNow {
            route: name.clone(),
            results: mirrors.counts().to_vec(),
        });
        now.collect()
    }
}
