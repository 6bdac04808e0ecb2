//! The configuration: what runs (`GET /v1/config`), what the file says otherwise
//! (`GET /v1/config/diff`), and that the file takes effect as by SIGHUP (`POST /v1/config/reload`).

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use super::log;
use super::query;
use super::reply::{Effect, Fault, Reply, json as reply_json, parse, problem, problem_with};
use crate::runtime::{Gateway, NotReloaded, time_of};

/// Longest wait for a reload: its files may lie where nobody answers.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What runs, with its defaults and without its secrets: all of it, or one section.
pub(super) async fn show(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let mut section = None;
    for (name, value) in query::pairs(uri.query())? {
        match &*name {
            "section" => section = Some(value),
            _ => {
                let detail = format!("{name}={value} is not known. Example: ?section=routes");
                return Err(Fault::Invalid(detail));
            }
        }
    }
    let mut shown = gateway.shown_config().await;
    let mut config = shown.as_mut().map(|it| it.config.take()).unwrap_or_default();
    let of = shown.as_ref();
    if let (Some(section), Some(members)) = (&section, config.as_object_mut()) {
        members.retain(|name, _| name == section);
        if members.is_empty() {
            let detail = format!("There is no section {section:?}. Example: ?section=routes");
            return Err(Fault::Invalid(detail));
        }
    }
    let start_ms = (gateway.observer.metrics.config_since() * 1e3) as i64;
    let answer = json!({
        "path": of.map(|it| &it.path),
        "sha256": of.map(|it| &it.sha256),
        "loaded_at": time_of(of.map_or(start_ms, |it| it.since_ms)),
        "last_reload": of.and_then(|it| it.last.as_ref()),
        "log": log::told(),
        "config": config,
    });
    Ok(reply_json(StatusCode::OK, &answer))
}

/// What the file says otherwise, and what that costs.
pub(super) async fn compare(gateway: &Gateway) -> Result<Reply, Fault> {
    let compared = gateway.compare_file().await;
    let compared = compared.ok_or_else(|| Fault::Problem {
        status: StatusCode::CONFLICT,
        code: "config_without_file",
        detail: NotReloaded::NoFile.to_string(),
    })?;
    let mut answer = json!(compared);
    answer["differs"] = (compared.file.as_ref() != Some(&compared.running)).into();
    Ok(reply_json(StatusCode::OK, &answer))
}

/// The file that is meant, by the SHA-256 of its content.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sha256: Option<String>,
}

/// Reloads the file.
pub(super) async fn reload(gateway: &Arc<Gateway>, body: &[u8]) -> Result<Reply, Fault> {
    let body = if body.is_empty() { b"{}" } else { body };
    let Asked { sha256 } = parse(body, "{\"sha256\": \"9f31…\"}, or {}")?;
    let reloading = gateway.reload(sha256.as_deref());
    let Ok(reloaded) = tokio::time::timeout(RELOAD_TIMEOUT, reloading).await else {
        return Err(Fault::Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "reload_stalled",
            detail: format!(
                "The files could not be read within {RELOAD_TIMEOUT:?}, and the old configuration \
                 keeps serving. Look at the file system that they are on."
            ),
        });
    };
    let change = match reloaded {
        Ok(change) => change,
        Err(refused) => return Ok(refusal(&refused)),
    };
    let did = Effect("sha256", change.sha256.clone());
    let mut reply = reply_json(StatusCode::OK, &json!(change));
    reply.extensions_mut().insert(did);
    Ok(reply)
}

fn refusal(refused: &NotReloaded) -> Reply {
    let detail = refused.to_string();
    match refused {
        NotReloaded::NoFile => problem(StatusCode::CONFLICT, "config_without_file", &detail),
        NotReloaded::Other(sha256) => {
            let found = json!({ "sha256": sha256 });
            problem_with(StatusCode::CONFLICT, "config_changed", &detail, found)
        }
        NotReloaded::Mistaken(_) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, "config_invalid", &detail)
        }
        NotReloaded::NeedsRestart { keys, .. } => {
            let keys = json!({ "needs_restart": keys });
            problem_with(StatusCode::UNPROCESSABLE_ENTITY, "config_needs_restart", &detail, keys)
        }
        NotReloaded::QueueNotEmpty { keys, .. } => {
            let keys = json!({ "queues": keys });
            problem_with(StatusCode::UNPROCESSABLE_ENTITY, "queue_not_empty", &detail, keys)
        }
    }
}
