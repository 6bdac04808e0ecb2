//! `/v1/tunnels`: the WebSockets, streams of events and gRPC calls that are open on this gateway,
//! and their end.

use std::sync::Arc;

use http::{StatusCode, Uri};
use serde_json::json;

use super::query;
use super::reply::{Effect, Fault, Reply, json as reply_json};
use crate::runtime::{Entry, Gateway};
use crate::tunnel::End;

/// Most tunnels in one answer; `open` counts the others too.
const LISTED_MAX: usize = 1000;

/// What is asked for; what is left out is anything.
#[derive(Default)]
struct Which {
    id: Option<u64>,
    sub: Option<String>,
    route: Option<String>,
}

impl Which {
    fn read(uri: &Uri) -> Result<Self, Fault> {
        const EXAMPLE: &str = "/v1/tunnels?sub=42, ?id=7 or ?route=live";
        let mut which = Self::default();
        for (name, value) in query::pairs(uri.query())? {
            match name.as_str() {
                "sub" => which.sub = Some(value),
                "route" => which.route = Some(value),
                "id" => {
                    let wrong = || Fault::Invalid(format!("{value:?} is no id of a tunnel."));
                    which.id = Some(value.parse().map_err(|_| wrong())?);
                }
                _ => {
                    let detail = format!("{name:?} is not understood. Example: {EXAMPLE}");
                    return Err(Fault::Invalid(detail));
                }
            }
        }
        Ok(which)
    }

    fn all(&self, gateway: &Gateway) -> Vec<Arc<Entry>> {
        let is_one = |entry: &Arc<Entry>| {
            self.id.is_none_or(|id| id == entry.id)
                && self.sub.as_deref().is_none_or(|sub| Some(sub) == entry.subject())
                && self.route.as_deref().is_none_or(|route| route == entry.route_name())
        };
        gateway.tunnels.all().into_iter().filter(is_one).collect()
    }
}

/// `GET /v1/tunnels?sub=SUB`: those that are open.
pub(super) fn list(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let all = Which::read(uri)?.all(gateway);
    let shown = all.iter().take(LISTED_MAX).map(|entry| {
        json!({
            "id": entry.id,
            "kind": entry.kind().word(),
            "route": entry.route_name(),
            "client": entry.client().to_string(),
            "subject": entry.subject(),
            "open_seconds": entry.since.elapsed().as_secs(),
        })
    });
    let shown: Vec<_> = shown.collect();
    Ok(reply_json(StatusCode::OK, &json!({ "open": all.len(), "tunnels": shown })))
}

/// `DELETE /v1/tunnels?sub=SUB`: has them closed.
pub(super) fn close(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    if uri.query().is_none_or(str::is_empty) {
        let detail = "Say which: ?sub=42, ?id=7 or ?route=live.";
        return Err(Fault::Invalid(detail.to_owned()));
    }
    let all = Which::read(uri)?.all(gateway);
    for entry in &all {
        entry.control.end(End::Operator);
    }
    let mut reply = reply_json(StatusCode::OK, &json!({ "closed": all.len() }));
    reply.extensions_mut().insert(Effect("tunnels", format!("{} closed", all.len())));
    Ok(reply)
}
