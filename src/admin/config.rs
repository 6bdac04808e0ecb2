//! `POST /v1/config/reload`: the configuration file takes effect, as by SIGHUP, and the answer says
//! what that has changed, or why nothing has.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::reply::{Effect, Fault, Reply, json as reply_json, parse, problem, problem_with};
use crate::runtime::{Gateway, NotReloaded};

/// Longest wait for a reload: its files may lie where nobody answers.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

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
    }
}
