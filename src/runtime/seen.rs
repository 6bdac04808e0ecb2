//! What nobody keeps up to date, looked up when somebody asks for the metrics.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Gateway;
use crate::config::StoreUse;
use crate::observe::{Format, IssuerNow, Now, RedisNow, RevocationState, Snapshot, StoreNow};
use crate::plan::Plan;
use crate::store::{Asked, Rung, Store};

/// The names of all rungs.
const RUNGS: [&str; Rung::ALL.len()] = {
    let [a, b, c, d] = Rung::ALL;
    [a.name(), b.name(), c.name(), d.name()]
};

impl Gateway {
    /// All metrics as they are now, with what nobody keeps up to date.
    pub fn render_metrics(&self, format: Format) -> String {
        let running = self.running();
        let (plan, store) = (&running.plan, &self.store);
        let followed = store.followed(plan.on_outage.revocation_max_stale);
        let evicted = store.evicted();
        let limits = evicted.limits.saturating_add(self.limits.state.evicted());
        let issuers = running.issuers.states().into_iter().map(|state| IssuerNow {
            url: state.url,
            age: state.age,
            refresh: state.refresh,
        });
        let mut issuers: Vec<IssuerNow> = issuers.collect();
        // Issuers that differ in a slash at the end have one place. The oldest keys are told.
        issuers.sort_by(|a, b| (&a.url, b.age).cmp(&(&b.url, a.age)));
        issuers.dedup_by(|a, b| a.url == b.url);
        let upstreams = plan.upstreams.iter().zip(&running.upstreams);
        let meters =
            upstreams.clone().map(|((name, _), it)| (name.clone(), Arc::clone(it.meter())));
        let care = upstreams.clone().map(|((name, _), it)| (name.clone(), it.care_now()));
        let upstreams = upstreams.map(|((name, _), it)| (name.clone(), it.occupancy()));
        let snapshot = Snapshot {
            store_up: store.is_connected(StoreUse::Main),
            stores_up: StoreUse::ALL.map(|usage| (usage.word(), store.is_connected(usage))),
            revocations: followed.map(|it| RevocationState {
                known: it.known,
                followed: it.connected,
                complete: it.complete,
            }),
            revocations_max: plan.config.store.revocations,
            cache: self.cache.state(),
            store_totals: store.totals(),
            evicted: [("limits", limits), ("cache", evicted.cache), ("epochs", evicted.epochs)],
            named: Now {
                issuers,
                routes: routes(plan),
                meters: meters.collect(),
                upstreams: upstreams.collect(),
                care: care.collect(),
                store_timeout: plan.config.store.timeout,
                connections_max: plan.config.server.limits.connections,
                certificates: running.tls.as_ref().map(|live| live.ends()).unwrap_or_default(),
                limit_keys_near: self.limits.state.pressed.near(),
                tunnels: self.tunnels.by_route(plan),
                stores: stores(store),
                redis: redis(store),
                canaries: running.traffic.canaries_now(plan, self.fleet_ms()),
                mirrors: running.traffic.mirrors_now(plan),
                queues: self.deliveries.now(plan.config.queues.keys()),
                events: plan.config.events.keys().cloned().collect(),
            },
        };
        self.observer.metrics.render(format, snapshot)
    }
}

/// The upstreams of each route, those that its readers are among them.
fn routes(plan: &Plan) -> Vec<(String, String)> {
    let pairs = plan.routes.policies().flat_map(|route| {
        let split = route.edge.as_ref().and_then(|edge| edge.split.as_deref()).unwrap_or_default();
        let upstreams = split.iter().copied().chain([route.upstream]);
        upstreams.flat_map(move |upstream| {
            let readers = plan.pools.get(upstream).and_then(Option::as_ref);
            let all = readers.map(|pool| pool.readers).into_iter().chain([upstream]);
            let named = all.filter_map(|index| plan.upstreams.get(index));
            named.map(move |(name, _)| (route.name.clone(), name.clone()))
        })
    });
    pairs.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The stores that are Redis.
fn stores(store: &Store) -> Vec<StoreNow> {
    store.uses().filter_map(|usage| now(store, usage)).collect()
}

/// What their servers tell of themselves, where somebody may look.
fn redis(store: &Store) -> Vec<(&'static str, RedisNow)> {
    let of = |usage: StoreUse| store.redis_now(usage).into_iter().map(move |it| (usage.word(), it));
    store.uses().flat_map(of).collect()
}

fn now(store: &Store, usage: StoreUse) -> Option<StoreNow> {
    let state = store.state(usage)?;
    let nodes = state.nodes.into_iter().filter(|node| node.is_primary);
    let Asked { answered, missed, failed, cancelled, shed, open, .. } = state.asked;
    let questions = [
        ("answered", answered),
        ("timeout", missed),
        ("failed", failed),
        ("cancelled", cancelled),
        ("shed", shed),
        ("open", open),
    ];
    Some(StoreNow {
        name: usage.word(),
        nodes: nodes.map(|node| (node.name, node.rung.name())).collect(),
        rungs: &RUNGS,
        questions: questions.to_vec(),
        in_flight: state.in_flight,
        reconnects: state.reconnects,
        shed,
        checks: state.checks,
        redirects: state.redirects.to_vec(),
    })
}
