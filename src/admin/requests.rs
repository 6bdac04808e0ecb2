//! `GET /v1/requests`: the last requests that were refused, failed or slow, and some others.

use http::{StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::query;
use super::reply::{Fault, Reply, json as reply_json};
use crate::observe::REQUESTS_MAX;
use crate::runtime::Gateway;

const EXAMPLE: &str = "/v1/requests?route=products&status=5xx&subject=42&refused=true&before=17";

/// Which of them are asked for.
#[derive(Debug, Default)]
struct Wanted {
    /// Members that must have this text.
    equal: Vec<(&'static str, String)>,
    /// The status, or its first digit where it is `5xx`.
    status: Option<(u64, bool)>,
    refused: bool,
    before: Option<u64>,
}

impl Wanted {
    fn read(uri: &Uri) -> Result<Self, Fault> {
        let mut wanted = Self::default();
        for (name, value) in query::pairs(uri.query())? {
            let wrong =
                || Fault::Invalid(format!("{name}={value} is not known. Example: {EXAMPLE}"));
            match &*name {
                "route" => wanted.equal.push(("route", value)),
                "reason" => wanted.equal.push(("reason", value)),
                "subject" => wanted.equal.push(("subject", value)),
                "client" => wanted.equal.push(("client", value)),
                "request_id" => wanted.equal.push(("request_id", value)),
                "status" => wanted.status = Some(status(&value).ok_or_else(wrong)?),
                "refused" => wanted.refused = value.parse().map_err(|_| wrong())?,
                "before" => wanted.before = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(wrong()),
            }
        }
        Ok(wanted)
    }

    fn takes(&self, id: u64, told: &Map<String, Value>) -> bool {
        let is_of = |(member, wanted): &(&str, String)| {
            told.get(*member).and_then(Value::as_str) == Some(wanted)
        };
        let status = told.get("status").and_then(Value::as_u64).unwrap_or_default();
        let is_status = |(wanted, is_class): (u64, bool)| {
            if is_class { status / 100 == wanted } else { status == wanted }
        };
        self.before.is_none_or(|before| id < before)
            && self.status.is_none_or(is_status)
            && (!self.refused || told.contains_key("reason"))
            && self.equal.iter().all(is_of)
    }
}

/// `404`, or `4xx`.
fn status(text: &str) -> Option<(u64, bool)> {
    match text.strip_suffix("xx") {
        Some(class) => class.parse().ok().filter(|it| (1..=5).contains(it)).map(|it| (it, true)),
        None => text.parse().ok().filter(|it| (100..600).contains(it)).map(|it| (it, false)),
    }
}

/// Those that a query names, the newest first.
pub(super) fn list(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let wanted = Wanted::read(uri)?;
    let all = gateway.observer.recent.all();
    let shown = all.iter().filter(|it| wanted.takes(it.id, &it.told));
    let shown: Vec<&Map<String, Value>> = shown.map(|it| &it.told).collect();
    // Those with which nothing is the matter are a sample.
    let answer = json!({ "requests": shown, "bound": REQUESTS_MAX, "sampled": true });
    Ok(reply_json(StatusCode::OK, &answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_takes_what_it_names() {
        let Value::Object(told) = json!({
            "route": "a", "status": 429, "reason": "rate_limited", "subject": "42", "client": "c",
        }) else {
            unreachable!("an object");
        };
        let takes = |query: &str| {
            let uri: Uri = format!("/v1/requests{query}").parse().unwrap();
            Wanted::read(&uri).ok().map(|wanted| wanted.takes(7, &told))
        };
        for query in [
            "",
            "?route=a&reason=rate_limited&subject=42&client=c",
            "?status=429",
            "?status=4xx",
            "?refused=true",
            "?refused=false",
            "?before=8",
        ] {
            assert_eq!(takes(query), Some(true), "{query}");
        }
        for query in ["?route=b", "?status=5xx", "?status=430", "?before=7", "?request_id=x"] {
            assert_eq!(takes(query), Some(false), "{query}");
        }
        for query in ["?status=6xx", "?status=x", "?refused=1", "?before=x", "?path=x"] {
            assert_eq!(takes(query), None, "{query}");
        }
    }
}
