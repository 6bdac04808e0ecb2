//! `GET /v1/overview`: is it well, and what must be done? Everything here is looked up when
//! somebody asks, beside the serving threads.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::findings::{
    OfAway, OfCache, OfLimit, OfQueue, OfStore, OfUpstream, Seen, UNUSED_HOURS, find,
};
use super::reply::{Reply, json as reply_json};
use super::series;
use crate::base::{build, instance};
use crate::config::{self, StoreUse};
use crate::limit::NEAR;
use crate::observe::{COARSE_S, CacheWindow, Rates};
use crate::runtime::{Gateway, Node, time_of};
use crate::store::keys::limit_parts;

/// How far back the newest rates may be, in milliseconds: the history has one each ten seconds.
const NOW_MS: i64 = 25_000;

/// Most routes that are told of.
const ROUTES_MAX: usize = 10;

/// What runs, how it does, and what to do.
pub(super) async fn show(gateway: &Gateway) -> Reply {
    let running = gateway.running();
    let config = &running.plan.config;
    let metrics = &gateway.observer.metrics;
    let file = of_file(gateway).await;
    let differs = file.as_ref().is_some_and(|it| it.differs);
    let since_ms = jiff::Timestamp::now().as_millisecond() - NOW_MS;
    let last = gateway.looking.last(since_ms);
    let seen = seen(gateway, gateway.looking.last_coarse(since_ms), differs);
    let routes = last.iter().flat_map(|it| &it.routes).take(ROUTES_MAX);
    let answer = json!({
        "node": instance::name(),
        "version": build::VERSION,
        "up_s": gateway.observer.uptime().as_secs(),
        "config": {
            "sha256": file.as_ref().map(|it| &it.applied),
            "loaded_at": time_of((metrics.config_since() * 1e3) as i64),
            "file_differs": differs,
        },
        "findings": find(&seen, &config.admin.mute),
        "fleet": fleet(gateway),
        "now": rates(last.as_ref().map(|it| &it.all)),
        "routes": routes.map(|(name, it)| route(name, it)).collect::<Vec<_>>(),
        "upstreams": seen.upstreams.iter().map(upstream).collect::<Map<_, _>>(),
        "bounds": {
            "connections": [metrics.connections.get(), config.server.limits.connections],
            "in_flight": [metrics.requests_in_flight(), null],
        },
    });
    reply_json(StatusCode::OK, &answer)
}

/// What is told of a period; what there is none of is null.
fn rates(rates: Option<&Rates>) -> Value {
    let number = |of: fn(&Rates) -> f32| rates.map_or(Value::Null, |it| series::number(of(it)));
    series::RATES
        .iter()
        .map(|(name, of)| ((*name).to_owned(), number(*of)))
        .collect::<Map<_, _>>()
        .into()
}

fn route(name: &str, of: &Rates) -> Value {
    let mut told = rates(Some(of));
    told["route"] = name.into();
    told
}

fn upstream(of: &OfUpstream) -> (String, Value) {
    (of.name.clone(), json!({ "servers": [of.servers.0, of.servers.1] }))
}

/// The stores that do not answer, each with why.
fn away(gateway: &Gateway) -> Vec<OfAway> {
    let store = &gateway.store;
    let away = store.uses().filter(|usage| !store.is_connected(*usage));
    away.map(|usage| OfAway { usage: usage.word(), why: store.why_away(usage) }).collect()
}

/// The gateways that share the store, this one first.
fn fleet(gateway: &Gateway) -> Vec<Value> {
    let own = gateway.own_node();
    let others = gateway.other_nodes();
    let told = |node: &Node| {
        let config = match () {
            () if node.config == own.config => "same",
            () if node.config_since_ms < own.config_since_ms => "older",
            () => "other",
        };
        json!({
            "node": node.node,
            "version": node.version,
            "config": config,
            "seen": time_of(node.seen_ms),
            "rps": node.rps,
        })
    };
    [&own].into_iter().chain(&others).map(told).collect()
}

/// The configuration file.
struct OfFile {
    /// The SHA-256 of what is in force.
    applied: String,
    /// Whether another one is there now.
    differs: bool,
}

async fn of_file(gateway: &Gateway) -> Option<OfFile> {
    let (path, applied) = gateway.config_file()?;
    let path = path.to_owned();
    // A disk may take its time.
    let there = tokio::task::spawn_blocking(move || config::sha256_of(&path)).await.ok()?;
    let differs = there.is_some_and(|there| there != applied);
    Some(OfFile { applied, differs })
}

fn seen(gateway: &Gateway, now: Option<Rates>, file_differs: bool) -> Seen {
    let running = gateway.running();
    let (config, store) = (&running.plan.config, &gateway.store);
    let (metrics, cache) = (&gateway.observer.metrics, gateway.cache.state());
    let lines = metrics.access_lines();
    let old = running
        .issuers
        .states_by_verifier()
        .filter(|(_, it)| it.age.is_some_and(|age| age > it.refresh.saturating_mul(2)));
    let states = running.issuers.states_by_verifier();
    let without = states.filter(|(_, it)| !it.has_keys).filter_map(|(name, it)| {
        // The remedy is told apart.
        let failure = it.failure?;
        let what = failure.strip_suffix(&it.remedy).map(|what| what.trim_end_matches("; "));
        let what = what.unwrap_or(&failure).to_owned();
        Some((name.to_owned(), [what, it.remedy]))
    });
    let no_keys = without.collect();
    Seen {
        away: away(gateway),
        store: store.uses().flat_map(|usage| of_store(gateway, usage)).collect(),
        store_p99_s: gateway
            .looking
            .store_p99_s()
            .map(|p99| (p99.into(), config.store.timeout.as_secs_f64())),
        memory: store
            .uses()
            .flat_map(|usage| store.redis_now(usage).into_iter().map(move |it| (usage, it)))
            .map(|(usage, it)| (usage.word(), it.memory_used, it.memory_max))
            .collect(),
        connections: (
            metrics.connections.get().try_into().unwrap_or_default(),
            config.server.limits.connections as u64,
        ),
        backlog: (cache.backlog_bytes as u64, cache.backlog_bytes_max),
        near: (cache.near_bytes, cache.near_bytes_max),
        errors: now.map(of_errors),
        cached: of_cache(gateway),
        reload_refused: metrics.is_reload_refused(),
        file_differs,
        lines_lost: lines.dropped.get().saturating_add(lines.failed.get()),
        spans_lost: metrics.spans.lost_so_far(),
        upstreams: of_upstreams(gateway),
        queues: of_queues(gateway),
        limits: of_limits(gateway),
        unused: unused(gateway),
        old_keys: old.map(|(name, it)| (name.to_owned(), it.url)).collect(),
        no_keys,
    }
}

/// How many requests there were in a period that is always counted, and how many of them failed.
fn of_errors(rates: Rates) -> (f64, f64) {
    let ratio: f64 = rates.error_ratio.into();
    let requests = (f64::from(rates.rps) * f64::from(COARSE_S)).round();
    (requests, if ratio.is_finite() { ratio } else { 0.0 })
}

fn of_store(gateway: &Gateway, usage: StoreUse) -> Vec<OfStore> {
    let state = gateway.store.state(usage);
    let findings = state.into_iter().flat_map(|it| it.findings);
    let told = findings.map(|(_, it)| OfStore {
        usage: usage.word(),
        check: it.check,
        seen: it.seen,
        suffers: it.suffers.to_owned(),
        remedy: it.remedy.to_owned(),
    });
    told.collect()
}

fn of_cache(gateway: &Gateway) -> Vec<OfCache> {
    let (running, now) = (gateway.running(), Instant::now());
    let cached = running.plan.routes.policies().filter(|route| route.cache.is_some());
    let told = cached.filter_map(|route| {
        let counts = running.meters.get(route.index)?.cache_within(CacheWindow::Quarter, now);
        Some(OfCache { route: route.name.clone(), counts })
    });
    told.collect()
}

fn of_upstreams(gateway: &Gateway) -> Vec<OfUpstream> {
    let running = gateway.running();
    let all = running.plan.upstreams.iter().zip(&running.upstreams);
    let told = all.map(|((name, settings), upstream)| {
        let (care, occupancy) = (upstream.care_now(), upstream.occupancy());
        OfUpstream {
            name: name.clone(),
            connections: (occupancy.used() as u64, occupancy.max as u64),
            requests: (occupancy.busy as u64, occupancy.requests_max as u64),
            servers: (care.servers.iter().filter(|it| it.is_in).count(), care.servers.len()),
            gives_way: settings.gives_way,
        }
    });
    told.collect()
}

/// As they were looked at last.
fn of_queues(gateway: &Gateway) -> Vec<OfQueue> {
    let running = gateway.running();
    let queues = &running.plan.config.queues;
    let told = gateway.deliveries.now(queues.keys()).into_iter().filter_map(|now| {
        let warn = queues.get(&now.name)?.warn;
        let open = now.items.iter().filter(|(state, _)| *state != "dead");
        Some(OfQueue {
            open: (open.map(|(_, count)| count).sum(), warn.items),
            oldest_s: (now.oldest.unwrap_or_default().as_secs(), warn.age.as_secs()),
            name: now.name,
        })
    });
    told.collect()
}

fn of_limits(gateway: &Gateway) -> Vec<OfLimit> {
    let mut all: BTreeMap<String, OfLimit> = BTreeMap::new();
    for pressed in gateway.limits.state.pressed.list(NEAR) {
        let Some((_, policy, _)) = limit_parts(&pressed.key) else { continue };
        let of = all.entry(policy.to_owned()).or_default();
        policy.clone_into(&mut of.policy);
        of.near += 1;
        of.refused += u64::from(pressed.refused_per_minute > 0);
    }
    all.into_values().collect()
}

fn unused(gateway: &Gateway) -> Vec<String> {
    let (running, now) = (gateway.running(), Instant::now());
    let longest = Duration::from_secs(UNUSED_HOURS * 3600);
    let is_unused = |index: usize| {
        running.meters.get(index).is_some_and(|meter| meter.unused_for(now) >= longest)
    };
    let routes = running.plan.routes.policies().filter(|route| is_unused(route.index));
    routes.map(|route| route.name.clone()).collect()
}
