//! `GET /v1/status`: what runs, what it does, and what could be tuned.

use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::hints;
use super::log;
use super::reply::{Reply, json as reply_json};
use crate::base::build;
use crate::config::StoreUse;
use crate::observe::{CacheReport, CacheState, CacheWindow};
use crate::runtime::Gateway;

/// The part of `store.near_cache_bytes` from which on this node's memory is called full.
const NEAR_FULL: f64 = 0.95;

/// What runs, in one object.
pub(super) fn show(gateway: &Gateway) -> Reply {
    let running = gateway.running();
    let plan = &running.plan;
    let followed = gateway.store.followed(plan.on_outage.revocation_max_stale);
    let revocations = followed.map(|it| {
        let (connected, complete) = (it.connected, it.complete);
        json!({ "connected": connected, "known": it.known, "complete": complete })
    });
    let issuers = running.issuers.states().into_iter().map(|state| {
        json!({
            "url": state.url,
            "keys_age_seconds": state.age.map(|age| age.as_secs()),
            "failure": state.failure,
            "discovery": state.discovered.map(|found| json!({
                "jwks_uri": found.jwks_uri,
                "age_seconds": found.age.map(|age| age.as_secs()),
                "failure": found.failure,
            })),
        })
    });
    reply_json(
        StatusCode::OK,
        &json!({
            "version": build::VERSION,
            "commit": build::COMMIT,
            "uptime_seconds": gateway.observer.uptime().as_secs(),
            "draining": gateway.is_draining(),
            "store": stores(gateway),
            "revocations": revocations,
            "routes": plan.route_names().collect::<Vec<_>>(),
            "issuers": issuers.collect::<Vec<_>>(),
            "upstreams": plan.config.upstreams.keys().collect::<Vec<_>>(),
            "near_cache_bytes": gateway.cache.state().near_bytes,
            "near_session_bytes": gateway.sessions.bytes(),
            "cache": cache(gateway),
            "log": log::told(),
        }),
    )
}

/// The store, and those of the uses that have one of their own.
fn stores(gateway: &Gateway) -> Value {
    let mut all = store(gateway, StoreUse::Main);
    for usage in gateway.store.uses().filter(|usage| *usage != StoreUse::Main) {
        all[usage.word()] = store(gateway, usage);
    }
    all
}

/// One store, and each server of it where it is Redis.
fn store(gateway: &Gateway, usage: StoreUse) -> Value {
    let mut told = json!({ "connected": gateway.store.is_connected(usage) });
    let Some(state) = gateway.store.state(usage) else { return told };
    let now = jiff::Timestamp::now();
    let nodes = state.nodes.into_iter().map(|node| {
        let since = jiff::SignedDuration::try_from(node.since);
        let since = since.ok().and_then(|since| now.checked_sub(since).ok());
        json!({
            "node": node.name,
            "role": if node.is_primary { "primary" } else { "replica" },
            "rung": node.rung.name(),
            "since": since.map(|at| format!("{at:.3}")),
            "cause": node.cause,
        })
    });
    told["nodes"] = nodes.collect();
    told["lineage"] = gateway.store.lineage_source(usage).map(|source| source.name()).into();
    let findings = state.findings.into_iter().map(|(node, finding)| {
        json!({
            "node": node,
            "check": finding.check,
            "fatal": finding.is_fatal,
            "seen": finding.seen,
            "suffers": finding.suffers,
            "help": finding.remedy,
        })
    });
    told["selftest"] = findings.collect();
    if let Some(epoch) = state.epoch {
        told["epoch"] = epoch.into();
    }
    told
}

/// What the cache does, by route, and what to do about it.
fn cache(gateway: &Gateway) -> Value {
    let running = gateway.running();
    let (state, now) = (gateway.cache.state(), Instant::now());
    let mut hints = Vec::new();
    let mut routes = Map::new();
    for route in running.plan.routes.policies().filter(|route| route.cache.is_some()) {
        let Some(meter) = running.meters.get(route.index) else { continue };
        let report = meter.cache_report();
        let found = hints::find(&meter.cache_within(CacheWindow::Start, now)).into_iter();
        hints.extend(found.map(|hint| format!("routes.{}: {}", route.name, hint.text())));
        routes.insert(route.name.clone(), told(&report));
    }
    let near_bytes_max = running.plan.config.store.near_cache_bytes;
    hints.extend(hint_of_memory(&state, near_bytes_max));
    let lost = gateway.observer.metrics.cache_chunks_lost.get();
    hints.extend(hints::of_lost_parts(lost).map(|hint| hint.text()));
    json!({
        "routes": routes,
        "fetching": state.fetches,
        "backlog_bytes": state.backlog_bytes,
        "epochs_known": state.epochs_known,
        "epochs_followed": state.epochs_followed,
        "hints": hints,
    })
}

fn told(report: &CacheReport) -> Value {
    json!({
        "requests": report.hits.saturating_add(report.others),
        "hit_ratio": report.hit_ratio().map(|ratio| (ratio * 1000.0).round() / 1000.0),
        "sent_bytes": report.sent_bytes,
        "stored": report.kept,
        "mean_ttl_seconds": report.mean_ttl_s(),
    })
}

fn hint_of_memory(state: &CacheState, near_bytes_max: u64) -> Option<String> {
    let is_full =
        near_bytes_max > 0 && state.near_bytes as f64 >= near_bytes_max as f64 * NEAR_FULL;
    is_full.then(|| {
        "store.near_cache_bytes is used up: with more, fewer answers are read from Redis".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_memory_is_worth_a_hint() {
        let state = |near_bytes| CacheState { near_bytes, ..CacheState::default() };
        assert!(hint_of_memory(&state(95), 100).is_some());
        assert!(hint_of_memory(&state(94), 100).is_none());
        assert!(hint_of_memory(&state(0), 0).is_none(), "there is none to fill");
    }

    #[test]
    fn without_requests_there_is_no_ratio() {
        let nothing = told(&CacheReport::default());
        assert_eq!(
            (&nothing["hit_ratio"], &nothing["mean_ttl_seconds"]),
            (&Value::Null, &Value::Null)
        );
    }
}
