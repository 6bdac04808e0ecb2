//! Sessions for operators and for log-in code that does not talk to the store itself:
//! `/v1/sessions/{id}` and `/v1/users/{sub}/sessions`. Ids and users are percent-decoded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::IF_MATCH;
use http::request::Parts;
use http::{StatusCode, Uri};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::reply::{Fault, Reply, json as reply_json, with_confirmed};
use super::{query, revocations};
use crate::base::units::{parse_positive_duration, size_text};
use crate::config;
use crate::plan::Plan;
use crate::runtime::{Gateway, Running};
use crate::session::{ID_BYTES_MAX, Terms, object, open, seal};
use crate::store::keys::Keys;
use crate::store::{
    Ending, Questions, SessionKey, SessionKeys, SessionListed, SessionValue, SessionWrite,
};

/// What a PUT says beside its body.
#[derive(Default)]
struct Wishes {
    user: Option<String>,
    ttl: Option<Duration>,
    /// `If-Match: *` (RFC 9110 §13.1.1), of the head.
    only_over: bool,
}

/// As many bytes as Redis can count: operators see the whole.
const WHOLE: u64 = i64::MAX as u64;

/// `GET /v1/sessions/{id}`: what a session holds.
pub(super) async fn show(gateway: &Gateway, uri: &Uri, id: &str) -> Result<Reply, Fault> {
    let id = name_alone(uri, id)?;
    let running = gateway.running();
    let key = running.plan.keys.listed_session(&id).session;
    let session = Some(SessionKey { key: &key, ttl: true, bytes_max: WHOLE, end: None });
    let answers = gateway.store.ask(&Questions { session, ..Questions::default() }).await;
    let found = answers.session.transpose()?.flatten().ok_or_else(no_session)?;
    let unreadable = |detail: &str| Fault::Problem {
        status: StatusCode::BAD_GATEWAY,
        code: "session_unreadable",
        detail: detail.to_owned(),
    };
    let opened = open(seal_keys(&running.plan), &key, &found.value)
        .map_err(|_| unreadable("It is sealed by none of session.make.seal: delete it."))?;
    let object = match &*opened {
        SessionValue::Fields(fields) => object(fields),
        SessionValue::Text(text) => serde_json::from_slice(text).map_err(|_| {
            unreadable("What is stored is no JSON object: write it again, or delete it.")
        })?,
    };
    let ttl = found.ttl.map(|ttl| ttl.as_secs());
    let body = json!({ "id": id, "session": object, "expires_in_seconds": ttl });
    Ok(reply_json(StatusCode::OK, &body))
}

/// `PUT /v1/sessions/{id}?user=USER&ttl=TIME`: makes a session, or writes over it.
pub(super) async fn write(
    gateway: &Gateway,
    id: &str,
    head: &Parts,
    body: &Bytes,
) -> Result<Reply, Fault> {
    let id = &*name(id)?;
    let running = gateway.running();
    let settings = settings(&running)?;
    let wishes = wishes(head)?;
    if body.len() as u64 > settings.max_bytes {
        let most = size_text(settings.max_bytes);
        return Err(Fault::Problem {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "session_too_large",
            detail: format!("Send at most {most}, or raise session.max_bytes."),
        });
    }
    let object: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        Fault::Invalid(format!("The body is not a JSON object ({error}). Example: {{\"n\": 1}}"))
    })?;
    let (ttl, why) = life(settings, &wishes, &object)?;
    let keys = &running.plan.keys;
    let at = keys.listed_session(id);
    let value = seal(seal_keys(&running.plan), &at.session, body.clone())
        .map_err(|error| Fault::Invalid(format!("It cannot be sealed: {error}.")))?;
    let write = SessionWrite {
        part: Keys::session_part(id),
        keys: at,
        families: keys.session_families(),
        index: wishes.user.as_deref().map(|user| keys.sessions_of(user)),
        value,
        ttl,
        why,
        kept: settings.ended_for,
        most: settings.max_per_user,
        only_over: wishes.only_over,
    };
    let written = gateway.store.write_session(&write).await;
    // Also where the store may have done it and could not say so.
    gateway.sessions.end(&write.keys.session, Instant::now());
    let written = written?.ok_or_else(|| Fault::Problem {
        status: StatusCode::PRECONDITION_FAILED,
        code: "session_missing",
        detail: "There is no session of this id to write over: it has ended.".to_owned(),
    })?;
    for part in &written.ended {
        let ended = SessionKeys::of_part(&write.families, part);
        gateway.sessions.end(&ended.session, Instant::now());
    }
    let status = if written.replaced { StatusCode::OK } else { StatusCode::CREATED };
    let body = json!({ "id": id, "expires_in_seconds": ttl.as_secs(), "ended": written.ended });
    Ok(reply_json(status, &body))
}

/// How long a session lives from now on, and why it ends then.
fn life(
    settings: &config::Session,
    wishes: &Wishes,
    object: &Map<String, Value>,
) -> Result<(Duration, Ending), Fault> {
    let now = SystemTime::now();
    let latest = Terms::of(settings)
        .latest_end(object, now)
        .map_err(|error| Fault::Invalid(format!("No request could use this: {error}.")))?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = latest.map(|at_ms| Duration::from_millis(at_ms).saturating_sub(now));
    let wanted = wishes.ttl.or(settings.idle_timeout).or(left).ok_or_else(|| {
        Fault::Invalid("Say how long it lives, such as ?ttl=30m: no timeout says it.".to_owned())
    })?;
    let ttl = left.map_or(wanted, |left| left.min(wanted));
    let is_used_up = settings.idle_timeout.is_none() || left.is_some_and(|left| left <= wanted);
    Ok((ttl, if is_used_up { Ending::Expired } else { Ending::Idle }))
}

/// `DELETE /v1/sessions/{id}`: ends it.
pub(super) async fn end(gateway: &Gateway, uri: &Uri, id: &str) -> Result<Reply, Fault> {
    let id = &*name_alone(uri, id)?;
    let keys = gateway.running().plan.keys.listed_session(id);
    let ended = gateway.store.end_session(&keys, &Keys::session_part(id)).await;
    gateway.sessions.end(&keys.session, Instant::now());
    if ended? {
        let confirmed = gateway.store.confirm(std::slice::from_ref(&keys.session)).await;
        let answer = with_confirmed(json!({ "id": id, "ended": true }), confirmed);
        Ok(reply_json(StatusCode::OK, &answer))
    } else {
        Err(no_session())
    }
}

/// `GET /v1/users/{sub}/sessions`: those of a user.
pub(super) async fn list(gateway: &Gateway, uri: &Uri, user: &str) -> Result<Reply, Fault> {
    let user = &*name_alone(uri, user)?;
    let running = gateway.running();
    let keys = &running.plan.keys;
    let index = keys.sessions_of(user);
    let list = gateway.store.list_sessions(&index, &keys.session_families()).await?;
    let more = list.count.saturating_sub(list.sessions.len());
    let told = |session: SessionListed| {
        json!({
            "id": session.part,
            "created_at": session.created_s,
            "seen_at": session.seen_ms.map(|ms| ms / 1000),
            "expires_in_seconds": session.ttl.map(|ttl| ttl.as_secs()),
        })
    };
    let sessions: Vec<Value> = list.sessions.into_iter().map(told).collect();
    let body = json!({ "user": user, "sessions": sessions, "not_listed": more });
    Ok(reply_json(StatusCode::OK, &body))
}

/// `DELETE /v1/users/{sub}/sessions?auth=NAME`: ends all of a user, and revokes the user's tokens.
pub(super) async fn log_out_everywhere(
    gateway: &Gateway,
    uri: &Uri,
    user: &str,
) -> Result<Reply, Fault> {
    let user = &*name(user)?;
    let mut auth = None;
    for (name, value) in query::pairs(uri.query())? {
        if name != "auth" || auth.replace(value).is_some() {
            let detail = format!("{name:?} is unknown or given twice. Example: ?auth=users");
            return Err(Fault::Invalid(detail));
        }
    }
    let done = revocations::log_out_everywhere(gateway, user, auth).await?;
    let mut answer = json!({ "user": user });
    if let Some(done) = done {
        answer["ended"] = json!(done.sessions_ended);
        answer["not_before"] = json!(done.not_before);
        answer = with_confirmed(answer, done.confirmed);
    }
    Ok(reply_json(StatusCode::OK, &answer))
}

fn settings(running: &Running) -> Result<&config::Session, Fault> {
    running.plan.config.session.as_ref().ok_or_else(|| {
        Fault::Invalid("There is no [session] table in gateway.toml: add it.".to_owned())
    })
}

/// With what sessions are sealed.
fn seal_keys(plan: &Plan) -> &[config::SealKey] {
    plan.made.as_ref().map_or(&[], |made| &made.seal)
}

fn no_session() -> Fault {
    Fault::Problem {
        status: StatusCode::NOT_FOUND,
        code: "session_missing",
        detail: "There is no session of this id.".to_owned(),
    }
}

/// A name that a path has, of an operation that takes no query.
fn name_alone(uri: &Uri, escaped: &str) -> Result<String, Fault> {
    let name = name(escaped)?;
    if uri.query().is_some() {
        let detail = "Only PUT …/sessions/{id}?user=42&ttl=30m and DELETE \
                      …/users/{sub}/sessions?auth=users take a query.";
        return Err(Fault::Invalid(detail.to_owned()));
    }
    Ok(name)
}

/// A name as a client's request could carry it.
fn name(escaped: &str) -> Result<String, Fault> {
    checked(query::percent_decoded(escaped)?)
}

fn checked(name: String) -> Result<String, Fault> {
    if (1..=ID_BYTES_MAX).contains(&name.len()) {
        return Ok(name);
    }
    Err(Fault::Invalid(format!("An id or a user has 1 to {ID_BYTES_MAX} bytes.")))
}

fn wishes(head: &Parts) -> Result<Wishes, Fault> {
    let mut wishes = Wishes::default();
    if let Some(tag) = head.headers.get(IF_MATCH) {
        wishes.only_over = tag == "*";
        if !wishes.only_over {
            return Err(Fault::Invalid(
                "Sessions have no tags: send If-Match: * alone.".to_owned(),
            ));
        }
    }
    for (key, value) in query::pairs(head.uri.query())? {
        match &*key {
            "user" if wishes.user.is_none() => wishes.user = Some(checked(value)?),
            "ttl" if wishes.ttl.is_none() => {
                let ttl = parse_positive_duration(&value);
                wishes.ttl = Some(ttl.map_err(|help| Fault::Invalid(format!("ttl: {help}.")))?);
            }
            _ => {
                let detail =
                    format!("{key:?} is unknown or given twice. Example: ?user=42&ttl=30m");
                return Err(Fault::Invalid(detail));
            }
        }
    }
    Ok(wishes)
}
