//! Whether the gateway should get requests, as load balancers ask.

use http::StatusCode;

use super::reply::{Reply, problem, text};
use crate::config::{LimitOutage, Outage, StoreUse};
use crate::runtime::Gateway;

/// The answer to `/readyz`.
pub(super) fn ready(gateway: &Gateway) -> Reply {
    match unready(gateway) {
        None => text(StatusCode::OK, "ready\n"),
        Some(why) => why,
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
    let running = gateway.running();
    let outage = running.plan.on_outage;
    let followed = gateway.store.followed(outage.revocation_max_stale);
    let passes = (outage.revocation != Outage::Refuse || followed.is_some_and(|it| it.trusted))
        && outage.session != Outage::Refuse;
    let counts = outage.limits != LimitOutage::Refuse;
    let is_connected = |usage| gateway.store.is_connected(usage);
    if (passes || is_connected(StoreUse::Main)) && (counts || is_connected(StoreUse::Limits)) {
        return None;
    }
    let detail = "The store does not answer, and store.on_outage refuses requests that need it.";
    Some(problem(StatusCode::SERVICE_UNAVAILABLE, "store_unreachable", detail))
}
