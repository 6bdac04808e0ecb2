//! The operations under `/v1/`. Bodies are JSON objects; unknown members are refused, because a
//! misspelt one would do less than its sender thinks.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Reply, json as reply_json, not_allowed, problem};
use crate::auth::Verifier;
use crate::base::authority::Authority;
use crate::base::path::canonical;
use crate::base::units::parse_positive_duration;
use crate::cache::scope;
use crate::gateway::Gateway;
use crate::plan::Plan;
use crate::store::StoreError;
use crate::store::keys::Keys;

/// Added to a revocation's life beyond the token's expiry, for clocks that differ.
const REVOCATION_MARGIN: Duration = Duration::from_secs(60 * 60);

/// One operation.
pub(super) async fn carry_out(
    gateway: &Arc<Gateway>,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Reply {
    let result = match (method, path) {
        (&Method::GET, "/v1/status") => Ok(status(gateway)),
        (&Method::POST, "/v1/revocations") => revoke(gateway, body).await,
        (&Method::POST, "/v1/cache/purge") => purge(gateway, body).await,
        (_, "/v1/status") => return not_allowed("GET"),
        (_, "/v1/revocations" | "/v1/cache/purge") => return not_allowed("POST"),
        _ => {
            let detail = "Known: GET /v1/status, POST /v1/revocations, POST /v1/cache/purge.";
            return problem(StatusCode::NOT_FOUND, "not_found", detail);
        }
    };
    result.unwrap_or_else(|fault| match fault {
        Fault::Asked(detail) => problem(StatusCode::BAD_REQUEST, "request_invalid", &detail),
        Fault::Store(error) => {
            let detail =
                format!("Nothing is promised to have changed: {error}. Repeat the request.");
            problem(StatusCode::SERVICE_UNAVAILABLE, "store_unreachable", &detail)
        }
    })
}

/// Why an operation was not carried out.
enum Fault {
    Asked(String),
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], example: &str) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| {
        Fault::Asked(format!("The body is not understood ({error}). Example: {example}"))
    })
}

fn status(gateway: &Gateway) -> Reply {
    let running = gateway.running();
    let plan = &running.plan;
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
            "routes": plan.route_names,
            "issuers": issuers.collect::<Vec<_>>(),
            "upstreams": plan.upstreams.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "near_cache_bytes": gateway.near.bytes(),
        }),
    )
}

/// Exactly one of `jti`, `token`, `sid`, `sub`; `expires_in` where the token itself does not say
/// how long; `auth` names the verifier whose callers are meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    jti: Option<String>,
    token: Option<String>,
    sid: Option<String>,
    sub: Option<String>,
    expires_in: Option<String>,
    auth: Option<String>,
}

async fn revoke(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    const EXAMPLE: &str = "{\"jti\": \"…\"}, or token, sid, sub in place of jti; with \
                           \"auth\": \"users\", \"expires_in\": \"24h\"";
    let asked: Revocation = parse(body, EXAMPLE)?;
    let running = gateway.running();
    let plan = &running.plan;
    let whose = |issuer| whose_keys(plan, asked.auth.as_deref(), issuer);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut ttl = match &asked.expires_in {
        Some(text) => parse_positive_duration(text).map_err(Fault::Asked)?,
        None => plan.config.admin.revocation_ttl,
    };
    let mut value = b"1".to_vec();
    let named: Vec<String> = match (&asked.jti, &asked.token, &asked.sid, &asked.sub) {
        (Some(jti), None, None, None) => {
            whose(Issuer::Unsaid)?.iter().map(|keys| keys.blacklist(jti)).collect()
        }
        (None, None, Some(sid), None) => {
            whose(Issuer::Unsaid)?.iter().map(|keys| keys.blacklist_session(sid)).collect()
        }
        (None, None, None, Some(sub)) => {
            // Whole seconds, as `iat` has them: a log-in right after the revocation must not be
            // refused by it.
            value = now.as_secs().to_string().into_bytes();
            whose(Issuer::Unsaid)?.iter().map(|keys| keys.not_before(sub)).collect()
        }
        (None, Some(token), None, None) => {
            let facts = token_facts(token)?;
            if let Some(at) = facts.expires_at {
                ttl = Duration::from_secs(at.saturating_sub(now.as_secs())) + REVOCATION_MARGIN;
            }
            let whose = whose(Issuer::Said(facts.issuer.as_deref()))?;
            match facts.jti {
                Some(jti) => whose.iter().map(|keys| keys.blacklist(&jti)).collect(),
                None => {
                    let signing_input = token.rsplit_once('.').map_or("", |(input, _)| input);
                    vec![plan.keys.blacklist_digest(signing_input.as_bytes())]
                }
            }
        }
        _ => {
            return Err(Fault::Asked(format!(
                "Name exactly one thing to revoke. Example: {EXAMPLE}"
            )));
        }
    };
    for key in &named {
        gateway.store.put(key, &value, ttl).await?;
    }
    let mut answer = json!({ "key": named.first(), "expires_in_seconds": ttl.as_secs() });
    if named.len() > 1 {
        answer["keys"] = json!(named);
    }
    Ok(reply_json(StatusCode::CREATED, &answer))
}

/// What a revocation says about who issued what it revokes.
#[derive(Clone, Copy)]
enum Issuer<'t> {
    Unsaid,
    /// The token's own `iss`.
    Said(Option<&'t str>),
}

/// The keys under which a revocation is written: those of the verifier that it names, or of all
/// that a token could come from; never of one that was guessed.
fn whose_keys(plan: &Plan, auth: Option<&str>, issuer: Issuer<'_>) -> Result<Vec<Keys>, Fault> {
    let names = || plan.verifiers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    if let Some(name) = auth {
        let verifier = plan.verifiers.get(name).ok_or_else(|| {
            Fault::Asked(format!("No verifier is named {name:?}. Name one of: {}.", names()))
        })?;
        return Ok(vec![verifier.store_keys().clone()]);
    }
    if plan.verifiers.values().all(|verifier| verifier.qualifier().is_none()) {
        return Ok(vec![plan.keys.clone()]);
    }
    let Issuer::Said(issuer) = issuer else {
        return Err(Fault::Asked(format!(
            "Several verifiers share a route here, so say whose callers are meant: \
             add \"auth\": \"NAME\", one of: {}.",
            names()
        )));
    };
    let could_verify =
        |verifier: &&Arc<Verifier>| verifier.issuer().is_none() || verifier.issuer() == issuer;
    let mut keys = Vec::new();
    for verifier in plan.verifiers.values().filter(could_verify) {
        // Verifiers that are not qualified have the same keys.
        if !keys.contains(verifier.store_keys()) {
            keys.push(verifier.store_keys().clone());
        }
    }
    if keys.is_empty() {
        return Err(Fault::Asked(format!(
            "No verifier accepts tokens of the issuer {:?}. Name one of these as auth: {}.",
            issuer.unwrap_or_default(),
            names()
        )));
    }
    Ok(keys)
}

/// What a token says about itself.
struct TokenFacts {
    jti: Option<String>,
    issuer: Option<String>,
    /// Unix seconds.
    expires_at: Option<u64>,
}

/// `jti`, `iss` and `exp` of a token whose signature nobody needs to check: who may revoke may
/// revoke anything.
fn token_facts(token: &str) -> Result<TokenFacts, Fault> {
    let wrong = || {
        Fault::Asked("The token is no JWT: three parts, of which the second is JSON.".to_owned())
    };
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| wrong())?;
    let claims: Value = serde_json::from_slice(&claims).map_err(|_| wrong())?;
    let text = |name| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let expires_at = claims.get("exp").and_then(Value::as_f64).map(|at| at.max(0.0) as u64);
    Ok(TokenFacts { jti: text("jti"), issuer: text("iss"), expires_at })
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
    gateway.store.invalidate(&epochs).await?;
    Ok(reply_json(StatusCode::OK, &json!({ "epochs": epochs })))
}

fn canonical_path(path: &PathAndQuery, encoded_slash: bool) -> Result<String, Fault> {
    canonical(path, encoded_slash)
        .map(|path| path.path().to_owned())
        .map_err(|what| Fault::Asked(format!("The path holds {what}.")))
}
