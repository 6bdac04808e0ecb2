//! Whether the gateway should get requests, as load balancers ask.

use std::fmt::Write as _;

use http::StatusCode;
use tokio::time::Instant;

use super::reply::{Reply, problem, text};
use crate::config::{
    Answers, LimitOutage, OnOutage, Outage, QueueDurability, SessionUse, StoreUse,
};
use crate::plan::{Plan, Route};
use crate::runtime::Gateway;
use crate::store::Rung;
use crate::store::queue::QueueSafety;

/// The answer to `/readyz`: with the rung of each server of Redis that is asked.
pub(super) fn ready(gateway: &Gateway) -> Reply {
    if let Some(why) = unready(gateway) {
        return why;
    }
    let mut body = "ready\n".to_owned();
    for usage in gateway.store.uses() {
        let nodes = gateway.store.state(usage).map(|state| state.nodes).unwrap_or_default();
        for node in nodes.iter().filter(|node| node.is_primary) {
            // Writing into a string cannot fail.
            let _ = write!(body, "{} {}: {}", usage.table(), node.name, node.rung.name());
            // The word of a circuit: read alone, it sounds as if all were well.
            let is_asked = node.rung != Rung::Open;
            body += if is_asked { "\n" } else { ", not asked: store.on_outage decides\n" };
        }
    }
    if let Some(why) = unsafe_store(gateway) {
        let _ = writeln!(body, "queue_store_unsafe: {why}");
    }
    text(StatusCode::OK, body)
}

/// Why queues, or those of them that wait for the disk, accept nothing: all other requests are
/// served then.
fn unsafe_store(gateway: &Gateway) -> Option<String> {
    let running = gateway.running();
    let queues = &running.plan.config.queues;
    if queues.is_empty() {
        return None;
    }
    match gateway.store.queue_safety() {
        QueueSafety::Evicting { policy } => Some(format!("maxmemory-policy is {policy}")),
        QueueSafety::Safe { fsyncs: Some(false), .. } => {
            let mut queues = queues.values();
            let waits = queues.any(|queue| queue.durability == QueueDurability::Fsync);
            waits.then(|| "fsync needs appendonly yes, and Redis 7.2 or Valkey".to_owned())
        }
        QueueSafety::Safe { .. } | QueueSafety::Unknown => None,
    }
}

/// Why the gateway should get no requests, if so.
pub(super) fn unready(gateway: &Gateway) -> Option<Reply> {
    if gateway.is_draining() {
        return Some(problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "The gateway is about to stop.",
        ));
    }
    let is_away = |usage| !gateway.store.is_connected(usage);
    let (main, limits) = (is_away(StoreUse::Main), is_away(StoreUse::Limits));
    if !main && !limits {
        return None;
    }
    let running = gateway.running();
    let plan = &running.plan;
    let OnOutage { revocation_max_stale, session_max_stale, .. } = plan.on_outage;
    let followed = gateway.store.followed(revocation_max_stale);
    let knows_revocations = followed.is_some_and(|it| it.trusted);
    let knows_sessions = gateway.sessions.has_any(session_max_stale, Instant::now());
    let away = Away { main, limits, knows_revocations, knows_sessions };
    let mut asking = plan.routes.policies().filter(|route| asks(route, plan)).peekable();
    asking.peek()?;
    let detail = "The store does not answer, and store.on_outage refuses requests that need it.";
    asking
        .all(|route| is_refused(route, plan, away))
        .then(|| problem(StatusCode::SERVICE_UNAVAILABLE, "store_unreachable", detail))
}

/// Whether requests of the route ask the store anything.
fn asks(route: &Route, plan: &Plan) -> bool {
    let is_asked = route.limits.asks() || route.session.is_some() || route.cache.is_some();
    is_asked
        || refreshes(route)
        || logs_in_or_out(route)
        || verifiers(route).any(|name| is_revocable(name, plan))
}

/// Which stores do not answer, and what is known here all the same.
#[derive(Clone, Copy)]
struct Away {
    main: bool,
    limits: bool,
    knows_revocations: bool,
    knows_sessions: bool,
}

/// Whether every request of the route is answered 503 without these stores, whoever sends it.
fn is_refused(route: &Route, plan: &Plan, away: Away) -> bool {
    let OnOutage { revocation, session, limits, .. } = plan.on_outage;
    let wants_caller = route.written.auth.as_ref().is_some_and(|auth| !auth.optional);
    let by_revocation = away.main
        && revocation == Outage::Refuse
        && !away.knows_revocations
        && wants_caller
        && verifiers(route).all(|name| is_revocable(name, plan));
    let by_session = away.main
        && session == Outage::Refuse
        && !away.knows_sessions
        && route.written.session == SessionUse::Required;
    let by_limits = away.limits && limits == LimitOutage::Refuse && route.limits.asks();
    // A refresh token is as good as the store says, whatever an outage means to others. So is a
    // session that says who calls.
    let by_refresh = away.main && (refreshes(route) || logs_in_or_out(route));
    let by_caller = away.main && !away.knows_sessions && wants_caller && takes_sessions(route);
    by_revocation || by_session || by_limits || by_refresh || by_caller
}

/// Whether the route knows its callers by sessions of the gateway's own, and by nothing else.
fn takes_sessions(route: &Route) -> bool {
    route.auth.as_ref().is_some_and(|auth| auth.takes_sessions_alone())
}

/// Whether the route makes, tells or ends sessions, or issues tokens.
fn logs_in_or_out(route: &Route) -> bool {
    route.edge.as_ref().is_some_and(|edge| edge.login.is_some() || edge.oidc.is_some())
}

/// Whether the route exchanges refresh tokens.
fn refreshes(route: &Route) -> bool {
    route.written.answers == Some(Answers::Refresh)
}

fn verifiers(route: &Route) -> impl Iterator<Item = &str> {
    route.written.auth.iter().flat_map(|auth| auth.by.iter().map(String::as_str))
}

/// Whether the store is asked about callers of this verifier.
fn is_revocable(name: &str, plan: &Plan) -> bool {
    plan.key_verifiers.contains_key(name)
        || plan.config.auth.get(name).is_some_and(|verifier| verifier.revocation)
}
