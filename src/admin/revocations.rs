//! `/v1/revocations`: makes a revocation, and takes one back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::operations::{Fault, parse};
use super::query;
use super::{Reply, json as reply_json};
use crate::base::units::{DURATION_MAX, parse_positive_duration};
use crate::gateway::Gateway;
use crate::store::Revocation;
use crate::store::keys::Keys;

/// Added to a revocation's life beyond the token's expiry, for clocks that differ.
const REVOCATION_MARGIN: Duration = Duration::from_secs(60 * 60);

/// Exactly one of `jti`, `token`, `sid`, `sub`; `expires_in` where the token itself does not say
/// how long.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    jti: Option<String>,
    token: Option<String>,
    sid: Option<String>,
    sub: Option<String>,
    expires_in: Option<String>,
}

/// What is revoked, or was.
struct Meant {
    key: String,
    /// Whether the key holds a not-before time.
    is_user: bool,
    /// When the token expires by itself, in Unix seconds, when it says so.
    expires_at: Option<u64>,
}

impl Asked {
    fn meant(&self, keys: &Keys, example: &str) -> Result<Meant, Fault> {
        let of = |key| Meant { key, is_user: false, expires_at: None };
        match (&self.jti, &self.token, &self.sid, &self.sub) {
            (Some(jti), None, None, None) => Ok(of(keys.blacklist(jti))),
            (None, None, Some(sid), None) => Ok(of(keys.blacklist_session(sid))),
            (None, None, None, Some(sub)) => {
                Ok(Meant { is_user: true, ..of(keys.not_before(sub)) })
            }
            (None, Some(token), None, None) => {
                let (jti, expires_at) = token_facts(token)?;
                let signing_input = token.rsplit_once('.').map_or("", |(input, _)| input);
                let digest = || keys.blacklist_digest(signing_input.as_bytes());
                let key = jti.map_or_else(digest, |jti| keys.blacklist(&jti));
                Ok(Meant { expires_at, ..of(key) })
            }
            _ => {
                Err(Fault::Asked(format!("Name exactly one of the four kinds. Example: {example}")))
            }
        }
    }
}

/// `POST`
pub(super) async fn revoke(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    const EXAMPLE: &str =
        r#"{"jti": "…"}, or token, sid, sub in place of jti; with "expires_in": "24h""#;
    let asked: Asked = parse(body, EXAMPLE)?;
    let running = gateway.running();
    let stream_ttl = running.plan.config.admin.revocation_ttl;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut ttl = match &asked.expires_in {
        Some(text) => parse_positive_duration(text)
            .map_err(|remedy| Fault::Asked(format!("expires_in: {remedy}")))?,
        None => stream_ttl,
    };
    let meant = asked.meant(&running.plan.keys, EXAMPLE)?;
    if let Some(at) = meant.expires_at {
        let left = Duration::from_secs(at.saturating_sub(now));
        ttl = left.saturating_add(REVOCATION_MARGIN).min(DURATION_MAX);
    }
    // Whole seconds, as `iat` has them: a log-in right after the revocation must not be refused by
    // it.
    let not_before = meant.is_user.then(|| i64::try_from(now).unwrap_or(i64::MAX));
    let key = &meant.key;
    gateway.store.revoke(Revocation { key, not_before, ttl, stream_ttl }).await?;
    Ok(reply_json(StatusCode::CREATED, &json!({ "key": key, "expires_in_seconds": ttl.as_secs() })))
}

/// `DELETE`: by the same body, or by the query.
pub(super) async fn take_back(
    gateway: &Gateway,
    query: Option<&str>,
    body: &[u8],
) -> Result<Reply, Fault> {
    const EXAMPLE: &str = r#"the body {"jti": "…"} or the query ?jti=…, or token, sid, sub"#;
    let asked = match query {
        Some(query) if body.is_empty() => by_query(query, EXAMPLE)?,
        Some(_) => {
            let detail = format!("Send a query or a body, not both. Example: {EXAMPLE}");
            return Err(Fault::Asked(detail));
        }
        None => parse(body, EXAMPLE)?,
    };
    if asked.expires_in.is_some() {
        let detail = "A revocation is taken back at once and as a whole: leave expires_in out.";
        return Err(Fault::Asked(detail.to_owned()));
    }
    let running = gateway.running();
    let stream_ttl = running.plan.config.admin.revocation_ttl;
    let Meant { key, .. } = asked.meant(&running.plan.keys, EXAMPLE)?;
    if gateway.store.unrevoke(&key, stream_ttl).await? {
        return Ok(reply_json(StatusCode::OK, &json!({ "key": key })));
    }
    let detail = format!(
        "Nothing is revoked under {key}: it has ended or was taken back, or it was made by \
         another of jti, token, sid and sub."
    );
    Err(Fault::Told { status: StatusCode::NOT_FOUND, code: "revocation_not_found", detail })
}

fn by_query(text: &str, example: &str) -> Result<Asked, Fault> {
    let wrong = || Fault::Asked(format!("The query is not understood. Example: {example}"));
    let mut pairs = query::pairs(Some(text))?.into_iter();
    let (Some((name, value)), None) = (pairs.next(), pairs.next()) else { return Err(wrong()) };
    let value = Some(value).filter(|value| !value.is_empty());
    if value.is_none() {
        return Err(wrong());
    }
    match &*name {
        "jti" => Ok(Asked { jti: value, ..Asked::default() }),
        "token" => Ok(Asked { token: value, ..Asked::default() }),
        "sid" => Ok(Asked { sid: value, ..Asked::default() }),
        "sub" => Ok(Asked { sub: value, ..Asked::default() }),
        _ => Err(wrong()),
    }
}

/// `jti` and `exp` of a token whose signature nobody needs to check: who may revoke may revoke
/// anything.
fn token_facts(token: &str) -> Result<(Option<String>, Option<u64>), Fault> {
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
    let jti = claims.get("jti").and_then(Value::as_str).map(str::to_owned);
    let expires_at = claims.get("exp").and_then(Value::as_f64).map(|at| at.max(0.0) as u64);
    Ok((jti, expires_at))
}
