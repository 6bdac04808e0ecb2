//! `GET /v1/overview`: is it well, and what must be done? Everything here is looked up when
//! somebody asks, beside the serving threads.

use http::StatusCode;
use serde_json::{Value, json};

use super::findings::{OfCache, OfStore, Seen, find};
use super::reply::{Reply, json as reply_json};
use crate::base::{build, instance};
use crate::config::{self, StoreUse};
use crate::observe::Rates;
use crate::runtime::{Gateway, time_of};

/// How far back the newest rates may be, in milliseconds: the history has one each ten seconds.
const NOW_MS: i64 = 25_000;

/// What runs, how it does, and what to do.
pub(super) async fn show(gateway: &Gateway) -> Reply {
    let running = gateway.running();
    let limits = &running.plan.config.server.limits;
    let metrics = &gateway.observer.metrics;
    let file = of_file(gateway).await;
    let now = now(gateway);
    let seen = seen(gateway, now.as_ref(), file.as_ref().is_some_and(|it| it.differs));
    let number = |of: fn(&Rates) -> f32| {
        now.as_ref().map(of).filter(|it| it.is_finite()).map_or(Value::Null, |it| json!(it))
    };
    let answer = json!({
        "node": instance::name(),
        "version": build::VERSION,
        "up_s": gateway.observer.uptime().as_secs(),
        "config": {
            "sha256": file.as_ref().map(|it| &it.applied),
            "loaded_at": time_of((metrics.config_since() * 1e3) as i64),
            "file_differs": file.as_ref().is_some_and(|it| it.differs),
        },
        "findings": find(&seen),
        "now": {
            "rps": number(|it| it.rps),
            "error_ratio": number(|it| it.error_ratio),
            "p50_s": number(|it| it.p50_s),
            "p99_s": number(|it| it.p99_s),
            "hit_ratio": number(|it| it.hit_ratio),
            "refused_ps": number(|it| it.refused_ps),
        },
        "bounds": {
            "connections": [metrics.connections.get(), limits.connections],
            "in_flight": [metrics.requests_in_flight(), null],
        },
    });
    reply_json(StatusCode::OK, &answer)
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

/// The rates of the last period that was summed up.
fn now(gateway: &Gateway) -> Option<Rates> {
    let since_ms = jiff::Timestamp::now().as_millisecond().saturating_sub(NOW_MS);
    gateway.looking.series(since_ms, None)?.points.into_iter().rev().flatten().next()
}

fn seen(gateway: &Gateway, now: Option<&Rates>, file_differs: bool) -> Seen {
    let running = gateway.running();
    let (config, store) = (&running.plan.config, &gateway.store);
    let (metrics, cache) = (&gateway.observer.metrics, gateway.cache.state());
    let lines = metrics.access_lines();
    let old = running
        .issuers
        .states()
        .into_iter()
        .filter(|it| it.age.is_some_and(|age| age > it.refresh.saturating_mul(2)));
    Seen {
        away: store.uses().filter(|it| !store.is_connected(*it)).map(StoreUse::word).collect(),
        store: store.uses().flat_map(|usage| of_store(gateway, usage)).collect(),
        store_p99_s: gateway
            .looking
            .store_p99_s()
            .map(|p99| (p99.into(), config.store.timeout.as_secs_f64())),
        memory: store
            .uses()
            .flat_map(|usage| store.redis_now(usage))
            .map(|it| (it.memory_used, it.memory_max))
            .collect(),
        connections: (
            metrics.connections.get().try_into().unwrap_or_default(),
            config.server.limits.connections as u64,
        ),
        backlog: (cache.backlog_bytes as u64, cache.backlog_bytes_max),
        near: (cache.near_bytes, cache.near_bytes_max),
        error_ratio: now.map(|it| it.error_ratio.into()).filter(|it: &f64| it.is_finite()),
        cached: of_cache(gateway),
        reload_refused: metrics.is_reload_refused(),
        file_differs,
        lines_lost: lines.dropped.get().saturating_add(lines.failed.get()),
        old_keys: old.map(|it| it.url).collect(),
    }
}

fn of_store(gateway: &Gateway, usage: StoreUse) -> Vec<OfStore> {
    let state = gateway.store.state(usage);
    let findings = state.into_iter().flat_map(|it| it.findings);
    let told = findings.map(|(_, it)| OfStore {
        check: it.check,
        seen: it.seen,
        suffers: it.suffers.to_owned(),
        remedy: it.remedy.to_owned(),
    });
    told.collect()
}

fn of_cache(gateway: &Gateway) -> Vec<OfCache> {
    let running = gateway.running();
    let cached = running.plan.routes.policies().filter(|route| route.cache.is_some());
    let told = cached.filter_map(|route| {
        let report = running.meters.get(route.index)?.cache_report();
        Some(OfCache {
            route: route.name.clone(),
            requests: report.hits.saturating_add(report.others),
            ratio: report.hit_ratio()?,
        })
    });
    told.collect()
}
