//! `/v1/keys`: makes API keys, shows and lists them, and ends them. A key itself is shown once,
//! when it is made; neither it nor its digest is ever shown again or logged.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::query;
use super::reply::{Effect, Fault, Reply, json as reply_json, parse, with_confirmed};
use crate::auth::{RECORD_BYTES_MAX, RECORD_KEPT, Record, generate, key_digest};
use crate::base::units::parse_positive_duration;
use crate::plan::Plan;
use crate::runtime::Gateway;
use crate::store::{ApiKeyWrite, Revocation, StoreError};

/// What a key is to be good for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRequest<'b> {
    owner: String,
    auth: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    tier: Option<String>,
    #[serde(borrow, default)]
    claims: Option<&'b RawValue>,
    expires_in: Option<String>,
}

/// `POST /v1/keys`: makes one.
pub(super) async fn create(gateway: &Gateway, body: &[u8]) -> Result<Reply, Fault> {
    const EXAMPLE: &str = "{\"owner\": \"acme\"}, with \"auth\": \"partners\", \"scopes\": \
                           [\"orders:read\"], \"tier\": \"gold\", \"claims\": {}, \
                           \"expires_in\": \"90d\"";
    let asked: KeyRequest<'_> = parse(body, EXAMPLE)?;
    let running = gateway.running();
    check_verifier(&running.plan, asked.auth.as_deref())?;
    let ttl = asked.expires_in.as_deref().map(parse_positive_duration).transpose();
    let ttl = ttl.map_err(|remedy| Fault::Invalid(format!("expires_in: {remedy}")))?;
    let now = unix_now();
    let expires = ttl.map(|ttl| now.saturating_add(ttl));
    let failed = || StoreError::Refused("the system's random source failed".to_owned());
    let made = generate().ok_or_else(failed)?;
    let mut record = Record {
        id: made.id,
        owner: asked.owner,
        auth: asked.auth,
        scopes: asked.scopes,
        tier: asked.tier,
        claims: Map::new(),
        expires: expires.map(seconds),
        created: Some(seconds(now)),
        exact: Default::default(),
    };
    let claims = asked.claims.map_or("{}", RawValue::get);
    let is_sound = record.claim(claims).and_then(|()| record.check());
    is_sound.map_err(|what| Fault::Invalid(format!("{what}. Example: {EXAMPLE}")))?;
    let text = record.to_json().unwrap_or_default();
    if text.len() > RECORD_BYTES_MAX {
        let detail = format!("What a key says has at most {RECORD_BYTES_MAX} bytes as JSON.");
        return Err(Fault::Invalid(detail));
    }
    let keys = &running.plan.keys;
    let digest = key_digest(made.key.as_bytes());
    let write = ApiKeyWrite {
        keys: keys.api_key_keys(&digest, &record.id, &record.owner),
        families: keys.api_key_families(),
        digest,
        record: text.into(),
        created_s: now.as_secs(),
        ttl,
    };
    gateway.store.write_api_key(&write).await?;
    let mut body = shown(&record);
    body["key"] = json!(made.key);
    let mut reply = reply_json(StatusCode::CREATED, &body);
    reply.extensions_mut().insert(Effect("id", record.id));
    Ok(reply)
}

/// `GET /v1/keys/{id}`: what one says.
pub(super) async fn show(gateway: &Gateway, uri: &Uri, id: &str) -> Result<Reply, Fault> {
    let (_, record) = find(gateway, &id_alone(uri, id)?).await?;
    Ok(reply_json(StatusCode::OK, &shown(&readable(&record)?)))
}

/// `GET /v1/keys?owner=OWNER`: those of an owner.
pub(super) async fn list(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let owner = match query::pairs(uri.query())?.as_slice() {
        [(name, owner)] if name == "owner" && !owner.is_empty() => owner.clone(),
        _ => return Err(Fault::Invalid("Name the owner alone. Example: ?owner=acme".to_owned())),
    };
    let running = gateway.running();
    let keys = &running.plan.keys;
    let index = keys.api_keys_of(&owner);
    let list = gateway.store.list_api_keys(&index, &keys.api_key_families()).await?;
    let not_listed = list.count.saturating_sub(list.records.len());
    let mut listed = Vec::with_capacity(list.records.len());
    for record in &list.records {
        listed.push(shown(&readable(record)?));
    }
    let body = json!({ "owner": owner, "keys": listed, "not_listed": not_listed });
    Ok(reply_json(StatusCode::OK, &body))
}

/// `DELETE /v1/keys/{id}`: ends one for good.
pub(super) async fn end(gateway: &Gateway, uri: &Uri, id: &str) -> Result<Reply, Fault> {
    let id = id_alone(uri, id)?;
    let (digest, record) = find(gateway, &id).await?;
    // An unreadable record must be possible to end.
    let owner = Record::read(&record).map_or_else(|_| String::new(), |record| record.owner);
    let running = gateway.running();
    let keys = &running.plan.keys;
    let stream_ttl = running.plan.config.admin.revocation_ttl;
    // The record is gone for good; what remains is to tell nodes that remember it, which they do
    // for this long at most.
    let ttl = stream_ttl.max(RECORD_KEPT);
    let key = &keys.blacklist_key(&id);
    let revocation = Revocation { key, not_before: None, ttl, stream_ttl };
    let at = keys.api_key_keys(&digest, &id, &owner);
    if !gateway.store.end_api_key(&at, revocation).await? {
        return Err(not_found());
    }
    gateway.observer.metrics.operations().revoked("key_id");
    let written = [key.clone(), at.record];
    let confirmed = gateway.store.confirm_revocations(&written).await;
    let answer = with_confirmed(json!({ "id": id, "ended": true }), confirmed);
    Ok(reply_json(StatusCode::OK, &answer))
}

/// The id that a path has, of an operation that takes no query.
fn id_alone(uri: &Uri, escaped: &str) -> Result<String, Fault> {
    if uri.query().is_some() {
        return Err(Fault::Invalid("/v1/keys/{id} takes no query.".to_owned()));
    }
    query::percent_decoded(escaped)
}

/// Digest and record of the key with an id.
async fn find(gateway: &Gateway, id: &str) -> Result<(String, bytes::Bytes), Fault> {
    let running = gateway.running();
    let keys = &running.plan.keys;
    let found = gateway.store.find_api_key(&keys.api_key_id(id), &keys.api_key_families()).await?;
    found.ok_or_else(not_found)
}

/// How long the key with an id lives yet; nothing when it is unknown or does not end.
pub(super) async fn life(gateway: &Gateway, id: &str) -> Result<Option<Duration>, Fault> {
    match find(gateway, id).await {
        Ok((_, record)) => {
            let expires = Record::read(&record).ok().and_then(|record| record.expires);
            let expires = expires.map(|at| Duration::from_secs(u64::try_from(at).unwrap_or(0)));
            Ok(expires.map(|at| at.saturating_sub(unix_now())))
        }
        Err(Fault::Problem { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// A key for a verifier that does not exist would never be accepted.
fn check_verifier(plan: &Plan, auth: Option<&str>) -> Result<(), Fault> {
    let names: Vec<&str> = plan.key_verifiers.keys().map(String::as_str).collect();
    if names.is_empty() {
        let detail = "No verifier takes API keys: write api_keys = true in a table [auth.NAME].";
        return Err(Fault::Invalid(detail.to_owned()));
    }
    match auth {
        Some(name) if !names.contains(&name) => {
            let names = names.join(", ");
            Err(Fault::Invalid(format!("{name:?} takes no API keys. Name one of: {names}.")))
        }
        _ => Ok(()),
    }
}

/// What a record says, and nothing that an application wrote beside.
fn shown(record: &Record) -> Value {
    json!({
        "id": record.id,
        "owner": record.owner,
        "auth": record.auth,
        "scopes": record.scopes,
        "tier": record.tier,
        "claims": record.claims,
        "created": record.created,
        "expires": record.expires,
    })
}

fn readable(record: &[u8]) -> Result<Record, Fault> {
    Record::read(record).map_err(|what| Fault::Problem {
        status: StatusCode::BAD_GATEWAY,
        code: "key_unreadable",
        detail: format!("What is stored cannot be read: {what}. Write it again, or delete it."),
    })
}

fn not_found() -> Fault {
    Fault::Problem {
        status: StatusCode::NOT_FOUND,
        code: "key_not_found",
        detail: "There is no API key of this id: it was ended, has expired, or its id was not \
                 written."
            .to_owned(),
    }
}

/// The wall clock since 1970.
fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
