//! `PUT /v1/log`: diagnostics of another level for a time, after which that of the configuration
//! counts again by itself.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::audit;
use super::reply::{Fault, Reply, json as reply_json, parse};
use crate::base::units::{duration_text, parse_positive_duration};
use crate::config::Level;
use crate::observe::{end_level, level, set_level};
use crate::runtime::{Gateway, time_of};

const EXAMPLE: &str = "{\"level\": \"debug\", \"for\": \"10m\"}";
/// Shortest and longest time.
const FOR_MIN: Duration = Duration::from_secs(1);
const FOR_MAX: Duration = Duration::from_secs(3600);

/// What is wanted, and for how long.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: String,
    #[serde(rename = "for")]
    time: String,
}

/// Sets it, and has it taken back.
pub(super) fn set(gateway: &Arc<Gateway>, body: &[u8]) -> Result<Reply, Fault> {
    let wanted: Wanted = parse(body, EXAMPLE)?;
    let wrong = |what: String| Fault::Invalid(format!("{what} Example: {EXAMPLE}"));
    let known = Level::of(&wanted.level);
    let known = known.ok_or_else(|| {
        wrong(format!("{:?} is no level: error, warn, info or debug.", wanted.level))
    })?;
    let time = parse_positive_duration(&wanted.time).map_err(|help| wrong(format!("{help}.")))?;
    if !(FOR_MIN..=FOR_MAX).contains(&time) {
        let range = [FOR_MIN, FOR_MAX].map(duration_text).join(" to ");
        return Err(wrong(format!("It is for {range}.")));
    }
    let span_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let until_ms = jiff::Timestamp::now().as_millisecond().saturating_add(span_ms);
    let changed = set_level(known, until_ms);
    let gateway = Arc::downgrade(gateway);
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        let gateway = gateway.upgrade();
        if end_level(&changed)
            && let Some(gateway) = gateway
        {
            audit::told(&gateway, "PUT /v1/log", "log level as configured", "done");
        }
    });
    Ok(reply_json(StatusCode::OK, &told()))
}

/// From which level on diagnostics are written.
pub(super) fn told() -> Value {
    let now = level();
    json!({
        "level": now.level.word(),
        "configured": now.configured.word(),
        "until": now.until_ms.map(time_of),
    })
}
