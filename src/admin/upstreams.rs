//! `/v1/upstreams`: what is known of the servers behind the gateway, and what an operator does to
//! them by hand.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::reply::{Effect, Fault, Reply, json as reply_json, parse};
use crate::observe::{NameNow, ServerNow};
use crate::runtime::Gateway;
use crate::upstream::{Change, Upstream};

/// `GET /v1/upstreams`: each server, and why it is not used.
pub(super) fn list(gateway: &Gateway) -> Reply {
    let running = gateway.running();
    let all = running.plan.upstreams.iter().zip(&running.upstreams);
    let all = all.map(|((name, _), upstream)| (name.clone(), tell(upstream)));
    reply_json(StatusCode::OK, &json!({ "upstreams": all.collect::<Map<_, _>>() }))
}

fn tell(upstream: &Upstream) -> Value {
    let (now, occupancy) = (upstream.care_now(), upstream.occupancy());
    json!({
        "breaker": now.breaker,
        "panic": now.is_panic,
        "can_change": upstream.can_change(),
        "connections": [occupancy.open, occupancy.max],
        "connections_used": occupancy.used(),
        "in_flight": [occupancy.busy, occupancy.requests_max],
        "waiting": occupancy.waiting,
        "p99_s": upstream.meter().p99_s(),
        "names": now.names.iter().map(tell_name).collect::<Vec<_>>(),
        "servers": now.servers.iter().map(tell_server).collect::<Vec<_>>(),
    })
}

fn tell_name(name: &NameNow) -> Value {
    json!({
        "name": name.name,
        "servers": name.servers,
        "age_seconds": name.age.map(|age| age.as_secs()),
        "fault": name.fault,
    })
}

fn tell_server(server: &ServerNow) -> Value {
    let state = match (server.is_in, server.is_probing) {
        (true, _) => "in",
        (false, true) => "probing",
        (false, false) => "out",
    };
    let reasons = server.states.iter().filter(|(_, holds)| *holds).map(|(reason, _)| *reason);
    let errors = server.errors.iter().map(|(kind, count)| ((*kind).to_owned(), json!(count)));
    json!({
        "server": server.url,
        "url": server.url,
        "state": state,
        "reasons": reasons.collect::<Vec<_>>(),
        "seconds_left": server.left.map(|left| left.as_secs()),
        "ejections_in_a_row": server.times,
        "failures_in_a_row": server.failures_in_a_row,
        "busy": server.busy,
        "idle": server.idle,
        "requests": server.requests,
        "errors": errors.collect::<Map<_, _>>(),
        "ewma_ms": server.latency.map(|seconds| (seconds * 1e6).round() / 1e3),
        "weight": server.weight,
        "backup": server.is_backup,
        "check": server.fault,
    })
}

/// Which server an operator means.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    upstream: String,
    server: Option<String>,
}

/// `POST /v1/upstreams/eject`: takes a server out until it is restored.
///
/// # Errors
/// There is no such server, or nothing else to use in its place.
pub(super) fn eject(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    const EXAMPLE: &str = "{\"upstream\": \"shop\", \"server\": \"http://127.0.0.1:3000\"}";
    let which: Which = parse(body, EXAMPLE)?;
    if which.server.is_none() {
        return Err(Fault::Invalid(format!("Say which server is to go. Example: {EXAMPLE}")));
    }
    change(gateway, &which, Change::Eject)
}

/// `POST /v1/upstreams/restore`: brings a server back, or without one all of them, and closes the
/// breaker.
///
/// # Errors
/// There is no such server.
pub(super) fn restore(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    change(gateway, &parse(body, "{\"upstream\": \"shop\"}")?, Change::Restore)
}

fn change(gateway: &Gateway, which: &Which, change: Change) -> Result<Reply, Fault> {
    let running = gateway.running();
    let found = running.plan.upstreams.iter().position(|(name, _)| *name == which.upstream);
    let unknown = || Fault::Invalid(format!("No upstream is named {:?}.", which.upstream));
    let upstream = &running.upstreams[found.ok_or_else(unknown)?];
    if !upstream.can_change() {
        return Err(Fault::Problem {
            status: StatusCode::CONFLICT,
            code: "upstream_single",
            detail: format!("The upstream {:?} has one server, which stays.", which.upstream),
        });
    }
    let count = upstream.change(which.server.as_deref(), change);
    if count == 0 {
        let detail = format!(
            "The upstream {:?} has no server {:?}; GET /v1/upstreams names them.",
            which.upstream,
            which.server.as_deref().unwrap_or_default()
        );
        return Err(Fault::Invalid(detail));
    }
    let mut reply = reply_json(StatusCode::OK, &tell(upstream));
    let word = match change {
        Change::Eject => "ejected",
        Change::Restore => "restored",
    };
    reply.extensions_mut().insert(Effect("servers", format!("{count} {word}")));
    Ok(reply)
}
