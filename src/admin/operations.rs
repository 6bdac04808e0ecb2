//! The operations under `/v1/`. Bodies are JSON objects; unknown members are refused, because a
//! misspelt one would do less than its sender thinks.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use super::{Reply, json as reply_json, limits, not_allowed, problem, revocations};
use crate::base::authority::Authority;
use crate::base::path::canonical;
use crate::cache::scope;
use crate::gateway::Gateway;
use crate::store::StoreError;

/// One operation.
pub(super) async fn carry_out(
    gateway: &Arc<Gateway>,
    method: &Method,
    uri: &Uri,
    body: &[u8],
) -> Reply {
    let result = match (method, uri.path()) {
        (&Method::GET, "/v1/status") => Ok(status(gateway)),
        (&Method::POST, "/v1/revocations") => revocations::revoke(gateway, body).await,
        (&Method::DELETE, "/v1/revocations") => {
            revocations::take_back(gateway, uri.query(), body).await
        }
        (&Method::POST, "/v1/cache/purge") => purge(gateway, body).await,
        (&Method::POST, "/v1/explain") => limits::explain(gateway, body).await,
        (&Method::GET, "/v1/limits") => limits::show(gateway, uri).await,
        (&Method::DELETE, "/v1/limits") => limits::reset(gateway, uri).await,
        (&Method::GET, "/v1/limits/refused") => Ok(limits::refused(gateway)),
        (_, "/v1/status" | "/v1/limits/refused") => return not_allowed("GET"),
        (_, "/v1/limits") => return not_allowed("GET, DELETE"),
        (_, "/v1/revocations") => return not_allowed("DELETE, POST"),
        (_, "/v1/cache/purge" | "/v1/explain") => return not_allowed("POST"),
        _ => {
            let detail = "Known: GET /v1/status, POST and DELETE /v1/revocations, \
                          POST /v1/cache/purge, POST /v1/explain, GET and DELETE /v1/limits, \
                          GET /v1/limits/refused, /v1/sessions/{id}, /v1/users/{sub}/sessions, \
                          /v1/keys, /v1/keys/{id}.";
            return problem(StatusCode::NOT_FOUND, "not_found", detail);
        }
    };
    result.unwrap_or_else(Fault::reply)
}

/// Why an operation was not carried out.
pub(super) enum Fault {
    /// It was not understood, or cannot be meant.
    Asked(String),
    /// Anything else that has a code of its own.
    Told { status: StatusCode, code: &'static str, detail: String },
    /// The store.
    Store(StoreError),
}

impl Fault {
    pub(super) fn reply(self) -> Reply {
        match self {
            Self::Asked(detail) => problem(StatusCode::BAD_REQUEST, "request_invalid", &detail),
            Self::Told { status, code, detail } => problem(status, code, &detail),
            Self::Store(error) => {
                let detail =
                    format!("Nothing is promised to have changed: {error}. Repeat the request.");
                problem(StatusCode::SERVICE_UNAVAILABLE, "store_unreachable", &detail)
            }
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], example: &str) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| {
        Fault::Asked(format!("The body is not understood ({error}). Example: {example}"))
    })
}

fn status(gateway: &Gateway) -> Reply {
    let running = gateway.running();
    let plan = &running.plan;
    let followed = gateway.store.followed(plan.on_outage.revocation_max_stale);
    let revocations = followed.map(|it| {
        let (connected, complete) = (it.connected, it.complete);
        json!({ "connected": connected, "known": it.known, "complete": complete })
    });
    let issuers = running.issuers.states().into_iter().map(|state| {
        json!({
            "url": state.url,
            "keys_age_seconds": state.age.map(|age| age.as_secs()),
            "failure": state.failure,
        })
    });
    reply_json(
        StatusCode::OK,
        &json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": gateway.uptime().as_secs(),
            "draining": gateway.is_draining(),
            "store": { "connected": gateway.store.is_connected() },
            "revocations": revocations,
            "routes": plan.route_names,
            "issuers": issuers.collect::<Vec<_>>(),
            "upstreams": plan.upstreams.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "near_cache_bytes": gateway.near.bytes(),
        }),
    )
}

/// Exactly one of `url`, `path`, `all`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    url: Option<String>,
    path: Option<String>,
    #[serde(default)]
    all: bool,
}

async fn purge(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    const EXAMPLE: &str = r#"{"url": "http://host/a"}, {"path": "/a/*"} or {"all": true}"#;
    let asked: Purge = parse(body, EXAMPLE)?;
    let running = gateway.running();
    let keys = &running.plan.keys;
    let epochs = match (&asked.url, &asked.path, asked.all) {
        (None, None, true) => vec![gateway.base_epoch().to_owned()],
        (Some(url), None, false) => {
            let wrong = || Fault::Asked(format!("{url:?} is no http URL. Example: {EXAMPLE}"));
            let uri: Uri = url.parse().map_err(|_| wrong())?;
            let authority = uri.authority().ok_or_else(wrong)?;
            let authority = Authority::parse(authority.as_str().as_bytes()).ok_or_else(wrong)?;
            let path = uri.path_and_query().ok_or_else(wrong)?;
            let path = canonical_path(path, running.plan.guard.encoded_slash)?;
            // With its port, and as the site whose port is a listener's own, on whichever node.
            vec![
                scope(keys, &authority.site(), &path, false),
                scope(keys, authority.host(), &path, false),
            ]
        }
        (None, Some(path), false) => {
            let (literal, below) = match path.strip_suffix("/*") {
                Some("") => ("/", true),
                Some(prefix) => (prefix, true),
                // Without a host, one path is purged like what lies below it.
                None => (path.as_str(), true),
            };
            let wrong = || Fault::Asked(format!("{path:?} is no path. Example: {EXAMPLE}"));
            if !literal.starts_with('/') {
                return Err(wrong());
            }
            let parsed: PathAndQuery = literal.parse().map_err(|_| wrong())?;
            let path = canonical_path(&parsed, running.plan.guard.encoded_slash)?;
            vec![scope(keys, "", &path, below)]
        }
        _ => {
            return Err(Fault::Asked(format!(
                "Name exactly one thing to purge. Example: {EXAMPLE}"
            )));
        }
    };
    let purges: Vec<_> = epochs.iter().cloned().map(crate::store::Purge::hard).collect();
    gateway.store.purge(&purges).await?;
    Ok(reply_json(StatusCode::OK, &json!({ "epochs": epochs })))
}

fn canonical_path(path: &PathAndQuery, encoded_slash: bool) -> Result<String, Fault> {
    canonical(path, encoded_slash)
        .map(|path| path.path().to_owned())
        .map_err(|what| Fault::Asked(format!("The path holds {what}.")))
}
