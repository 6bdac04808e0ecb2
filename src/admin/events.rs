//! `/v1/events`: what applications tell, and what became of it on this node.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::reply::{Reply, json as reply_json};
use crate::runtime::Gateway;

/// `GET /v1/events`: all sources.
pub(super) fn list(gateway: &Gateway) -> Reply {
    let running = gateway.running();
    let sources = running.plan.events.iter().map(|(name, rule)| {
        let seen = gateway.events.of(name);
        let (now, meter) = (seen.now(), &seen.meter);
        let outcomes = meter.outcomes().into_iter();
        let outcomes = outcomes.map(|(word, count)| (word.to_owned(), json!(count)));
        let poison = now.poison.map(|poison| {
            let at = i64::try_from(poison.told_ms).ok();
            let at = at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
            json!({ "id": poison.id, "at": at.map(|at| format!("{at:.3}")), "why": poison.why })
        });
        let told = json!({
            "from": rule.from.word(),
            "reads_here": now.is_reader,
            "fault": now.fault,
            "events_here": Value::Object(Map::from_iter(outcomes)),
            "lag_seconds": meter.lag().as_secs_f64(),
            "gaps_here": meter.gaps.get(),
            "last_poison": poison,
        });
        (name.clone(), told)
    });
    reply_json(StatusCode::OK, &json!({ "events": Map::from_iter(sources) }))
}
