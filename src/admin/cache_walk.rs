//! `POST /v1/cache/walk`: what Redis holds of the cache, some of it with each answer. Redis is
//! asked by `[store.operator]`, on a connection that no request uses.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::masked::name_of;
use super::reply::{Fault, Reply, json as reply_json, parse};
use crate::base::http::credentials::without_credentials;
use crate::cache::named;
use crate::config::StoreUse;
use crate::runtime::Gateway;
use crate::store::{NotWalked, STEPS_MAX, Walk, Walked, WalkedEntry};

const EXAMPLE: &str = r#"{"cursor": "0", "match": "/products/", "steps": 5}"#;
/// Steps where nobody says how many.
const STEPS: u32 = 5;
/// Longest text that paths are compared with, in bytes.
const MATCH_BYTES_MAX: usize = 512;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    cursor: Option<String>,
    #[serde(rename = "match")]
    matching: Option<String>,
    steps: Option<u32>,
}

/// Goes some steps on.
pub(super) async fn walk(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    let Asked { cursor, matching, steps } = parse(body, EXAMPLE)?;
    let steps = steps.unwrap_or(STEPS);
    if !(1..=STEPS_MAX).contains(&steps) {
        return Err(wrong(&format!("A walk has 1 to {STEPS_MAX} steps for one answer.")));
    }
    let matching = matching.unwrap_or_default();
    if matching.len() > MATCH_BYTES_MAX {
        return Err(wrong("No host and path is as long as what they are to contain."));
    }
    let cursor = cursor.unwrap_or_else(|| "0".to_owned());
    let walked = gateway.store.walk(&Walk { cursor, matching, steps }).await;
    let walked = walked.map_err(|not_walked| fault(gateway, not_walked))?;
    Ok(reply_json(StatusCode::OK, &told(&walked)))
}

fn wrong(what: &str) -> Fault {
    Fault::Invalid(format!("{what} Example: {EXAMPLE}"))
}

fn fault(gateway: &Gateway, not_walked: NotWalked) -> Fault {
    let own = gateway.store.has(StoreUse::Cache);
    let table = if own { StoreUse::Cache } else { StoreUse::Main }.table();
    match not_walked {
        NotWalked::Embedded => Fault::Problem {
            status: StatusCode::CONFLICT,
            code: "walk_unavailable",
            detail: "The cache lies in the memory of this process, which is not walked through. \
                     Look a URL up: GET /v1/cache/entry?url=…"
                .to_owned(),
        },
        NotWalked::NoOperator => Fault::Problem {
            status: StatusCode::CONFLICT,
            code: "walk_unavailable",
            detail: format!(
                "Nobody may look at Redis. `portcullis acl --operator` prints the command that \
                 makes a user who may; name it in [{table}.operator]."
            ),
        },
        NotWalked::Busy => Fault::Problem {
            status: StatusCode::CONFLICT,
            code: "walk_busy",
            detail: "Somebody walks already; one walk at a time is enough for Redis.".to_owned(),
        },
        NotWalked::NotPermitted { user, rights } => {
            let rights: Vec<String> = rights.iter().map(|right| format!("+{right}")).collect();
            let grant = format!("ACL SETUSER {user} {}", rights.join(" "));
            Fault::Problem {
                status: StatusCode::CONFLICT,
                code: "walk_not_permitted",
                detail: format!("Redis does not let {user} walk. Grant it: {grant}"),
            }
        }
        NotWalked::Cursor => wrong(
            "The cursor is none of the last answer, or its server is gone. Begin anew with \"0\".",
        ),
        NotWalked::Away(why) => Fault::Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "store_unreachable",
            detail: format!("Redis does not answer [{table}.operator]: {why}."),
        },
    }
}

fn told(walked: &Walked) -> Value {
    let entries = walked.entries.iter().filter_map(|WalkedEntry { key, left, bytes }| {
        let named = named(key)?;
        Some(json!({
            // Several entries may look alike: values of queries and claims are not shown.
            "id": name_of(key),
            "url": named.url.as_deref().map(without_credentials),
            "route": named.route,
            "parted": named.is_parted,
            "ttl_s": left.map(|left| left.as_secs()),
            "bytes": bytes,
        }))
    });
    json!({
        "cursor": walked.cursor,
        "seen": walked.seen,
        "entries": entries.collect::<Vec<_>>(),
    })
}
