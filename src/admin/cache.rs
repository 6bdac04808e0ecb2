//! `GET /v1/cache`: what the cache saves on each route, and what keeps it from saving more.

use std::collections::BTreeMap;

use http::{StatusCode, Uri};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::findings::NEAR;
use super::hints::{self, HITS, HITS_OF_MIN, hits_level};
use super::query;
use super::reply::{Fault, Reply, json as reply_json};
use crate::observe::{CacheCounts, CacheWindow, RouteMeter};
use crate::runtime::Gateway;

/// All routes that cache, or the one that the query names.
pub(super) fn show(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let running = gateway.running();
    let wanted = wanted(uri)?;
    let mut routes = Map::new();
    for route in running.plan.routes.policies().filter(|route| route.cache.is_some()) {
        if wanted.as_ref().is_some_and(|wanted| *wanted != route.name) {
            continue;
        }
        let Some(meter) = running.meters.get(route.index) else { continue };
        routes.insert(route.name.clone(), told(meter, Instant::now()));
    }
    if let (Some(wanted), true) = (&wanted, routes.is_empty()) {
        let cached = running.plan.routes.policies().filter(|route| route.cache.is_some());
        let names: Vec<&str> = cached.map(|route| route.name.as_str()).collect();
        return Err(Fault::Invalid(format!(
            "No route with a cache is named {wanted:?}; there are {names:?}. Example: \
             /v1/cache?route=products"
        )));
    }
    let state = gateway.cache.state();
    let lost = gateway.observer.metrics.cache_chunks_lost.get();
    let part = state.near_bytes as f64 / state.near_bytes_max.max(1) as f64;
    let answer = json!({
        "routes": routes,
        "near": {
            "bytes": state.near_bytes,
            "max": state.near_bytes_max,
            "evictions": state.near_evictions,
            "level": if part >= NEAR { "watch" } else { "good" },
        },
        "hints": hints::of_lost_parts(lost).into_iter().collect::<Vec<_>>(),
        "thresholds": { "requests": HITS_OF_MIN, "good": HITS.0, "watch": HITS.1, "near": NEAR },
    });
    Ok(reply_json(StatusCode::OK, &answer))
}

fn wanted(uri: &Uri) -> Result<Option<String>, Fault> {
    let mut wanted = None;
    for (name, value) in query::pairs(uri.query())? {
        if name != "route" {
            let detail = "The query names a route or nothing. Example: /v1/cache?route=products";
            return Err(Fault::Invalid(detail.to_owned()));
        }
        wanted = Some(value);
    }
    Ok(wanted)
}

/// One route.
fn told(meter: &RouteMeter, now: Instant) -> Value {
    let within = |window| meter.cache_within(window, now);
    // Yesterday says nothing of now, where there is enough of now.
    let quarter = within(CacheWindow::Quarter);
    let all = within(CacheWindow::Start);
    let hints = hints::find(if quarter.requests() >= HITS_OF_MIN { &quarter } else { &all });
    let windows = CacheWindow::ALL.map(|it| (it.word().to_owned(), window(&within(it))));
    json!({
        "windows": windows.into_iter().collect::<Map<_, _>>(),
        "verdicts": meter.cache_verdicts().into_iter().collect::<BTreeMap<_, _>>(),
        "not_kept": all.not_kept,
        "stored": all.stored,
        "mean_ttl_s": all.mean_ttl_s(),
        "sent_bytes": meter.cache_report().sent_bytes,
        "hints": hints,
    })
}

/// What was asked of the cache in a time, and how many of it were hits.
fn window(counts: &CacheCounts) -> Value {
    let (requests, ratio) = (counts.requests(), counts.hit_ratio());
    json!({
        "requests": requests,
        "hits": counts.hits,
        "ratio": ratio.map(|ratio| (ratio * 1000.0).round() / 1000.0),
        "level": ratio.and_then(|ratio| hits_level(requests, ratio)),
        "not_kept": counts.not_kept,
    })
}
