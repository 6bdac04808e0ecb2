//! `/v1/certificates`: the certificates for clients, where they come from and how long they last.

use http::StatusCode;
use serde_json::{Value, json};

use super::reply::{Reply, json as reply_json};
use crate::runtime::Gateway;

/// `GET /v1/certificates`: those of files and those that are ordered, with what they wait for.
pub(super) fn list(gateway: &Gateway) -> Reply {
    let running = gateway.running();
    let ordered = running.acme.as_ref().map(|acme| acme.states()).unwrap_or_default();
    let is_ordered = |name: &str| ordered.iter().any(|it| it.names.iter().any(|own| own == name));
    let table = running.tls.as_ref().map(|live| live.table());
    let of_files = table.iter().flat_map(|table| table.dates());
    let of_files = of_files.filter(|(name, ..)| !is_ordered(name)).map(|(name, begin, end)| {
        json!({
            "names": [name],
            "source": "file",
            "not_before": time(begin),
            "not_after": time(end),
        })
    });
    let of_acme = ordered.iter().map(|state| {
        json!({
            "names": state.names,
            "source": "acme",
            "state": state.state,
            "why": state.why,
            "not_before": state.dates.map(|(begin, _)| time(begin)),
            "not_after": state.dates.map(|(_, end)| time(end)),
        })
    });
    let certificates: Vec<Value> = of_files.chain(of_acme).collect();
    reply_json(StatusCode::OK, &json!({ "certificates": certificates }))
}

/// RFC 3339; nothing where it is no time.
fn time(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}
