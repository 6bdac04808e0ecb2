//! Limits for operators: what one key has left, a reset, whom the limits refuse, and what would
//! happen to a request.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use super::query;
use super::reply::{Fault, Reply, json as reply_json, parse};
use crate::config::Scope;
use crate::limit::{Countable, Counters, KEYS_MAX, NEAR, Usage};
use crate::plan::Plan;
use crate::proxy::{self, Described, without_credentials};
use crate::runtime::Gateway;
use crate::store::keys::limit_parts;

/// Most keys that are told of as refused.
const REFUSED_MAX: usize = 50;

/// What a query names: the counters of one limit and one principal.
struct LimitQuery {
    policy: String,
    principal: String,
    counters: Counters,
}

/// `GET /v1/limits?policy=NAME&key=PRINCIPAL`: what is left.
pub(super) async fn show(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let LimitQuery { policy, principal, counters } = query_of(gateway, uri)?;
    let body = match gateway.limits.usage(&counters).await? {
        Usage::InFlight { most, held } => json!({
            "policy": policy, "key": principal, "concurrent": most, "in_flight": held,
        }),
        Usage::Windows(windows) => {
            json!({ "policy": policy, "key": principal, "windows": windows })
        }
    };
    Ok(reply_json(StatusCode::OK, &body))
}

/// `DELETE /v1/limits?policy=NAME&key=PRINCIPAL`: forgets what was counted.
pub(super) async fn reset(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let LimitQuery { policy, principal, counters } = query_of(gateway, uri)?;
    let forgotten = gateway.limits.reset(&counters).await?;
    let body = json!({ "policy": policy, "key": principal, "counters_reset": forgotten });
    Ok(reply_json(StatusCode::OK, &body))
}

/// `GET /v1/limits/refused`: the keys that this gateway refuses most, of late.
pub(super) fn refused(gateway: &Gateway) -> Reply {
    let top = gateway.limits.state.pressed.refused(REFUSED_MAX);
    let shown: Vec<_> = top
        .iter()
        .filter_map(|(key, refusals)| {
            let (principal, policy, window) = limit_parts(key)?;
            let shown = json!({
                "policy": policy, "window": window, "key": without_credentials(principal),
                "refusals": refusals,
            });
            Some(shown)
        })
        .collect();
    reply_json(StatusCode::OK, &json!({ "refused": shown }))
}

/// `GET /v1/limits/pressed?min=SHARE`: the keys that are near a limit or over it, as far as this
/// gateway knows.
pub(super) fn pressed(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let wrong = || {
        let detail = "min is the share of a limit that is in use, from 0 to 1, such as 0.8.";
        Fault::Invalid(detail.to_owned())
    };
    let mut min = NEAR;
    for (name, value) in query::pairs(uri.query())? {
        let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        min = share.filter(|_| name == "min").ok_or_else(wrong)?;
    }
    let now = jiff::Timestamp::now();
    let pressed = gateway.limits.state.pressed.list(min);
    let shown = pressed.iter().filter_map(|it| {
        let (principal, policy, window) = limit_parts(&it.key)?;
        let seen = now.checked_sub(jiff::SignedDuration::try_from(it.age).ok()?).ok()?;
        Some(json!({
            "policy": policy,
            "window": window,
            "key": without_credentials(principal),
            "used": it.used,
            "allowed": it.allowed,
            "refused_per_minute": it.refused_per_minute,
            "seen": format!("{seen:.3}"),
        }))
    });
    let shown: Vec<_> = shown.collect();
    Ok(reply_json(StatusCode::OK, &json!({ "keys": shown, "bound": KEYS_MAX })))
}

fn query_of(gateway: &Gateway, uri: &Uri) -> Result<LimitQuery, Fault> {
    const EXAMPLE: &str = "/v1/limits?policy=api&key=claim:sub=42";
    let wrong = |what: &str| Fault::Invalid(format!("{what} Example: {EXAMPLE}"));
    let running = gateway.running();
    let config = &running.plan.config;
    let query: BTreeMap<_, _> = query::pairs(uri.query())?.into_iter().collect();
    let (Some(policy), Some(key)) = (query.get("policy"), query.get("key")) else {
        return Err(wrong("Name the policy and the key."));
    };
    let Some(limit) = config.limits.get(policy.as_str()) else {
        let known: Vec<&str> = config.limits.keys().map(String::as_str).collect();
        let known = known.join(", ");
        return Err(Fault::Invalid(format!("No limit is named {policy:?}; there are: {known}.")));
    };
    if limit.scope == Scope::Local {
        let detail = format!("Each gateway counts {policy:?} for itself, in no store.");
        return Err(Fault::Invalid(detail));
    }
    let routes: Vec<&str> = config.routes.keys().map(String::as_str).collect();
    let qualifiers = qualifiers(&running.plan);
    let (key_of, routes) = (limit.key.as_slice(), routes.as_slice());
    let countable = Countable { policy, key: key_of, qualifiers: &qualifiers, routes };
    let principal = countable.principal(key).map_err(Fault::Invalid)?;
    let counters = Counters::of(policy, limit, &running.plan.keys, &principal);
    Ok(LimitQuery { policy: policy.to_owned(), principal, counters })
}

/// What stands before the claims of callers, for each verifier.
fn qualifiers(plan: &Plan) -> Vec<Option<Arc<str>>> {
    let of_tokens = plan.verifiers.values().map(|it| it.qualifier());
    let of_keys = plan.key_verifiers.values().map(|it| it.qualifier());
    let of_certificates = plan.certificate_verifiers.values().map(|it| it.qualifier());
    let of_sessions = plan.session_verifiers.values().map(|it| it.qualifier());
    of_tokens.chain(of_keys).chain(of_certificates).chain(of_sessions).collect()
}

/// A request in words; only `path` is needed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    path: String,
    method: Option<String>,
    host: Option<String>,
    address: Option<IpAddr>,
    scheme: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// `POST /v1/explain`: what would happen, without it happening.
pub(super) async fn explain(gateway: &Arc<Gateway>, body: &[u8]) -> Result<Reply, Fault> {
    const EXAMPLE: &str = r#"{"path": "/products?page=2", "method": "GET",
        "scheme": "https", "host": "shop.example.com", "address": "192.0.2.1",
        "headers": {"authorization": "Bearer …"}}"#;
    let asked: Question = parse(body, EXAMPLE)?;
    let wrong = |what: String| Fault::Invalid(format!("{what} Example: {EXAMPLE}"));
    let method = asked.method.as_deref().unwrap_or("GET");
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| wrong(format!("{method:?} is no method.")))?;
    let target = asked.path.parse().map_err(|_| wrong(format!("{:?} is no path.", asked.path)))?;
    let mut headers = HeaderMap::new();
    let host = asked.host.as_deref().unwrap_or("localhost");
    let fields = asked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in fields.chain([(HOST.as_str(), host)]) {
        let field = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let (name, value) = field.ok_or_else(|| wrong(format!("{name:?} is no header.")))?;
        headers.insert(name, value);
    }
    let address = asked.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let is_encrypted = match asked.scheme.as_deref() {
        None => None,
        Some("http") => Some(false),
        Some("https") => Some(true),
        Some(_) => return Err(wrong("The scheme is http or https.".to_owned())),
    };
    let described = Described { method, target, headers, address, is_encrypted };
    Ok(reply_json(StatusCode::OK, &proxy::explain(gateway, described).await))
}
