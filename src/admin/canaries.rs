//! `/v1/canary`: what is known of split routes, and what an operator does to them by hand.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::reply::{Effect, Fault, Reply, json as reply_json, parse};
use crate::observe::CanaryNow;
use crate::runtime::Gateway;

/// The body of an operation.
const EXAMPLE: &str = "{\"route\": \"products\"}";

/// `GET /v1/canary`: the share of each upstream of split routes, and what it has answered here.
pub(super) fn list(gateway: &Gateway) -> Reply {
    let all = gateway.canaries();
    let all = all.iter().map(|now| (now.route.clone(), tell(now)));
    reply_json(StatusCode::OK, &json!({ "routes": all.collect::<Map<_, _>>() }))
}

fn tell(now: &CanaryNow) -> Value {
    let arms = now.arms.iter().map(|arm| {
        json!({
            "upstream": arm.upstream,
            "percent": f64::from(arm.share) / 100.0,
            "answers": arm.answers,
            "failures": arm.failures,
        })
    });
    json!({
        "arms": arms.collect::<Vec<_>>(),
        "step": now.step.map(|(step, _)| step),
        "steps": now.steps,
        "seconds_left": now.step.and_then(|(_, left)| left).map(|left| left.as_secs()),
        "stopped": now.stopped,
    })
}

/// Which route an operator means.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    route: String,
}

/// `POST /v1/canary/stop`: gives all requests to the base until a reset, at every gateway.
///
/// # Errors
/// There is no such canary, or the store did not take it.
pub(super) async fn stop(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    order(gateway, body, Some("an operator stopped it".to_owned())).await
}

/// `POST /v1/canary/reset`: has a canary go on that was stopped, its ramp from the first step, at
/// every gateway.
///
/// # Errors
/// As of [`stop`].
pub(super) async fn reset(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    order(gateway, body, None).await
}

async fn order(gateway: &Gateway, body: &[u8], stop: Option<String>) -> Result<Reply, Fault> {
    let Which { route } = parse(body, EXAMPLE)?;
    let word = if stop.is_some() { "stopped" } else { "reset" };
    if !gateway.order_canary(&route, stop).await? {
        return Err(Fault::Invalid(format!(
            "No route is named {route:?} and is split between two upstreams; GET /v1/canary names \
             all that are split."
        )));
    }
    let all = gateway.canaries();
    let now = all.iter().find(|now| now.route == route).map(tell);
    let mut reply = reply_json(StatusCode::OK, &json!({ "route": route, "canary": now }));
    reply.extensions_mut().insert(Effect("canary", word.to_owned()));
    Ok(reply)
}
