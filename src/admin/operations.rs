//! The operations under `/v1/`. Bodies are JSON objects; unknown members are refused, because a
//! misspelt one would do less than its sender thinks.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::reply::{Effect, Fault, Reply, json as reply_json, not_allowed, parse, problem};
use super::{
    canaries, certificates, config, limits, purge, revocations, status, tunnels, upstreams,
};
use crate::runtime::Gateway;
use crate::warm::{self, Refused};

/// One operation.
pub(super) async fn carry_out(gateway: &Arc<Gateway>, head: &Parts, body: &[u8]) -> Reply {
    let (method, uri) = (&head.method, &head.uri);
    let result = match (method, uri.path()) {
        (&Method::GET, "/v1/status") => Ok(status::show(gateway)),
        (&Method::POST, "/v1/revocations") => revocations::revoke(gateway, body).await,
        (&Method::DELETE, "/v1/revocations") => {
            revocations::take_back(gateway, uri.query(), body).await
        }
        (&Method::POST, "/v1/cache/purge") => purge::carry_out(gateway, body).await,
        (&Method::POST, "/v1/cache/warm") => warm(gateway, body).await,
        (&Method::POST, "/v1/config/reload") => config::reload(gateway, body).await,
        (&Method::POST, "/v1/explain") => limits::explain(gateway, body).await,
        (&Method::GET, "/v1/limits") => limits::show(gateway, uri).await,
        (&Method::DELETE, "/v1/limits") => limits::reset(gateway, uri).await,
        (&Method::GET, "/v1/limits/refused") => Ok(limits::refused(gateway)),
        (&Method::GET, "/v1/certificates") => Ok(certificates::list(gateway)),
        (&Method::GET, "/v1/tunnels") => tunnels::list(gateway, uri),
        (&Method::DELETE, "/v1/tunnels") => tunnels::close(gateway, uri),
        (&Method::GET, "/v1/upstreams") => Ok(upstreams::list(gateway)),
        (&Method::POST, "/v1/upstreams/eject") => upstreams::eject(gateway, body),
        (&Method::POST, "/v1/upstreams/restore") => upstreams::restore(gateway, body),
        (&Method::GET, "/v1/canary") => Ok(canaries::list(gateway)),
        (&Method::POST, "/v1/canary/stop") => canaries::stop(gateway, body).await,
        (&Method::POST, "/v1/canary/reset") => canaries::reset(gateway, body).await,
        (_, "/v1/canary") => return not_allowed("GET"),
        (_, "/v1/canary/stop" | "/v1/canary/reset") => return not_allowed("POST"),
        (_, "/v1/upstreams") => return not_allowed("GET"),
        (_, "/v1/upstreams/eject" | "/v1/upstreams/restore") => return not_allowed("POST"),
        (_, "/v1/tunnels") => return not_allowed("GET, DELETE"),
        (_, "/v1/status" | "/v1/limits/refused" | "/v1/certificates") => return not_allowed("GET"),
        (_, "/v1/limits") => return not_allowed("GET, DELETE"),
        (_, "/v1/revocations") => return not_allowed("DELETE, POST"),
        (_, "/v1/cache/purge" | "/v1/cache/warm" | "/v1/config/reload" | "/v1/explain") => {
            return not_allowed("POST");
        }
        _ => {
            let detail = "Known: GET /v1/status, POST and DELETE /v1/revocations, \
                          POST /v1/cache/purge, POST /v1/cache/warm, POST /v1/config/reload, \
                          POST /v1/explain, GET and DELETE /v1/limits, GET /v1/limits/refused, \
                          GET and DELETE /v1/tunnels, GET /v1/certificates, \
                          GET /v1/upstreams, POST /v1/upstreams/eject and /restore, \
                          GET /v1/canary, POST /v1/canary/stop and /reset, \
                          /v1/sessions/{id}, /v1/users/{sub}/sessions, /v1/keys, /v1/keys/{id}.";
            return problem(StatusCode::NOT_FOUND, "not_found", detail);
        }
    };
    result.unwrap_or_else(Fault::reply)
}

/// The route whose responses are to be fetched ahead of need.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Warmed {
    route: String,
}

async fn warm(gateway: &Arc<Gateway>, body: &[u8]) -> Result<Reply, Fault> {
    let Warmed { route } = parse(body, "{\"route\": \"products\"}")?;
    let report = warm::route(gateway, &route).await.map_err(|refused| match refused {
        Refused::Store(error) => Fault::Store(error),
        Refused::NotConfigured => Fault::Invalid(format!(
            "No route is named {route:?} and says in cache.warm what to fetch."
        )),
        Refused::Busy => Fault::Problem {
            status: StatusCode::CONFLICT,
            code: "warming_busy",
            detail: format!("{refused}; it ends by itself."),
        },
        Refused::Sitemap(_) => Fault::Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "warming_failed",
            detail: format!("{refused}."),
        },
    })?;
    let did = Effect("responses", format!("{report:?}"));
    let mut reply = reply_json(StatusCode::OK, &json!({ "route": route, "responses": report }));
    reply.extensions_mut().insert(did);
    Ok(reply)
}
