//! `/v1/queues` and `/v1/deliveries`: what waits to be delivered, what could not be, and what an
//! operator does about it.

use std::borrow::Cow;

use http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::query;
use super::reply::{Effect, Fault, Reply, json as reply_json, parse};
use crate::base::http::credentials::without_credentials;
use crate::base::http::hex;
use crate::config::{QUEUE_SHARDS_MAX, Queue};
use crate::deliver::Head;
use crate::plan::queue_bounds;
use crate::runtime::{Gateway, Parcels, Running};
use crate::store::keys::{Keys, QueueKeys};
use crate::store::queue::{
    Cancelled, DeliveryId, Item, ItemState, Pause, QUEUE_DEAD_ROUND, QueueSafety, Requeued,
};

/// A queue that is configured.
struct Named<'a> {
    name: &'a str,
    queue: &'a Queue,
    keys: &'a Keys,
}

impl Named<'_> {
    /// Its shards, and those that hold something yet though it has fewer by now.
    async fn shards(&self, gateway: &Gateway) -> Result<Vec<QueueKeys>, Fault> {
        let store = &gateway.store;
        Ok(store.queue_shards(self.keys, self.name, self.queue.shards).await?)
    }

    /// All that it can have, now or later.
    fn all_shards(&self) -> Vec<QueueKeys> {
        (0..QUEUE_SHARDS_MAX).map(|shard| self.keys.queue(self.name, shard)).collect()
    }

    /// The shard that a delivery lies in.
    fn shard_of(&self, id: &DeliveryId) -> QueueKeys {
        self.keys.queue(self.name, id.shard())
    }
}

fn named<'a>(running: &'a Running, name: &str) -> Result<Named<'a>, Fault> {
    let found = running.plan.config.queues.get_key_value(name);
    let unknown = || Fault::Problem {
        status: StatusCode::NOT_FOUND,
        code: "queue_not_found",
        detail: format!("No queue is named {name:?}; GET /v1/queues names them."),
    };
    let (name, queue) = found.ok_or_else(unknown)?;
    Ok(Named { name, queue, keys: &running.plan.keys })
}

/// `GET /v1/queues`: all of them, and whether the store may be trusted with them.
pub(super) async fn list(gateway: &Gateway) -> Result<Reply, Fault> {
    let running = gateway.running();
    let mut queues = Map::new();
    for name in running.plan.config.queues.keys() {
        let told = tell(gateway, &named(&running, name)?).await?;
        queues.insert(name.clone(), told);
    }
    let safety = match gateway.store.queue_safety() {
        QueueSafety::Unknown => "unknown",
        QueueSafety::Safe { appends: Some(false), .. } => "not_appending",
        QueueSafety::Safe { .. } => "safe",
        QueueSafety::Evicting { .. } => "evicting",
    };
    Ok(reply_json(StatusCode::OK, &json!({ "store": safety, "queues": queues })))
}

/// `GET /v1/queues/{queue}`: one of them.
pub(super) async fn show(gateway: &Gateway, name: &str) -> Result<Reply, Fault> {
    let running = gateway.running();
    let named = named(&running, name)?;
    let mut told = tell(gateway, &named).await?;
    told["queue"] = named.name.into();
    Ok(reply_json(StatusCode::OK, &told))
}

async fn tell(gateway: &Gateway, named: &Named<'_>) -> Result<Value, Fault> {
    let Named { name, queue, .. } = named;
    let look = gateway.store.queue_look_all(&named.shards(gateway).await?).await?;
    let meter = &gateway.deliveries.queue(name).meter;
    let attempts = ["done", "retry", "dead", "back", "lost"];
    let attempts = attempts.map(|word| (word.to_owned(), json!(meter.attempts(word))));
    let is_old = look.oldest.is_some_and(|age| age > queue.warn.age);
    Ok(json!({
        "items": {
            "waiting": look.waiting, "later": look.later, "behind": look.behind,
            "delivering": look.delivering, "dead": look.dead,
        },
        "open": look.open,
        "max_items": queue.max_items,
        "bytes": look.bytes,
        "max_bytes": queue.max_bytes,
        "oldest_seconds": look.oldest.map(|age| age.as_secs()),
        "warned": is_old || look.open > queue.warn.items,
        "paused": look.pause.as_ref().map(tell_pause),
        "concurrency": queue.concurrency,
        "shards": queue.shards,
        "attempts_here": Map::from_iter(attempts),
    }))
}

fn tell_pause(pause: &Pause) -> Value {
    json!({ "why": pause.why, "seconds_left": pause.left.map(|left| left.as_secs()) })
}

/// `GET /v1/queues/{queue}/items?state=dead&after=ID`: a page of them, the oldest first.
pub(super) async fn items(gateway: &Gateway, uri: &Uri, name: &str) -> Result<Reply, Fault> {
    let running = gateway.running();
    let named = named(&running, name)?;
    let (mut state, mut after) = (None, None);
    for (name, value) in query::pairs(uri.query())? {
        match &*name {
            "state" => {
                let wrong = || {
                    let words = ItemState::ALL.map(ItemState::word).join(", ");
                    Fault::Invalid(format!("{value:?} is no state; there are {words}."))
                };
                state = Some(ItemState::of_word(&value).ok_or_else(wrong)?);
            }
            "after" => after = Some(id_of(&value)?),
            _ => {
                let detail = format!("{name:?} is not understood. Example: ?state=dead");
                return Err(Fault::Invalid(detail));
            }
        }
    }
    let shards = named.shards(gateway).await?;
    let page = gateway.store.queue_list_all(&shards, state, after.as_ref()).await?;
    let items: Vec<Value> = page.items.iter().map(|item| tell_item(&named, item)).collect();
    let next = page.next.map(|id| id.to_string());
    Ok(reply_json(StatusCode::OK, &json!({ "items": items, "next": next })))
}

fn tell_item(named: &Named<'_>, item: &Item) -> Value {
    let opened = parcels(named, item).open_head(&item.head);
    let head = opened.ok().and_then(|it| Head::unpack(&it.head));
    let head = head.as_ref();
    json!({
        "id": item.id.as_str(),
        "state": item.state.word(),
        "owner": item.owner,
        "route": head.map(|head| &head.route),
        "method": head.map(|head| head.method.as_str()),
        "path": head.map(path),
        "accepted_at": time(item.accepted_ms),
        "due_at": time(item.due_ms),
        "settled_at": item.settled_ms.and_then(time),
        "give_up_at": time(item.give_up_ms),
        "failures": item.failures,
        "stalls": item.stalls,
        "claims": item.claims,
        "node": Some(&item.node).filter(|node| !node.is_empty()),
        "status": Some(item.status).filter(|status| *status > 0),
        "error": Some(&item.error).filter(|error| !error.is_empty()),
        "bytes": item.bytes,
    })
}

/// Where it goes, without what opens something; a callback's place is the configuration's.
fn path(head: &Head) -> Cow<'_, str> {
    if head.is_callback() { "-".into() } else { without_credentials(head.target.path()) }
}

fn parcels(named: &Named<'_>, item: &Item) -> Parcels {
    Parcels::of_request(named.name, named.queue, item.id)
}

fn time(unix_ms: u64) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?;
    (unix_ms > 0).then(|| format!("{at:.3}"))
}

fn id_of(text: &str) -> Result<DeliveryId, Fault> {
    let wrong = || Fault::Invalid(format!("{text:?} is no id of a delivery."));
    let is_known = |id: &DeliveryId| id.shard() < QUEUE_SHARDS_MAX;
    DeliveryId::parse(text).filter(is_known).ok_or_else(wrong)
}

/// The delivery of an id, in whichever queue it is.
async fn find<'r>(
    gateway: &Gateway,
    running: &'r Running,
    id: &str,
) -> Result<(Named<'r>, Item), Fault> {
    let id = id_of(id)?;
    for name in running.plan.config.queues.keys() {
        let named = named(running, name)?;
        if let Some(item) = gateway.store.queue_find(&named.shard_of(&id), &id).await? {
            return Ok((named, item));
        }
    }
    Err(Fault::Problem {
        status: StatusCode::NOT_FOUND,
        code: "delivery_not_found",
        detail: format!("No queue has a delivery {id}; finished ones are kept for a while only."),
    })
}

/// `GET /v1/deliveries/{id}`: one delivery.
pub(super) async fn delivery(gateway: &Gateway, id: &str) -> Result<Reply, Fault> {
    let running = gateway.running();
    let (named, item) = find(gateway, &running, id).await?;
    let mut told = tell_item(&named, &item);
    told["queue"] = named.name.into();
    Ok(reply_json(StatusCode::OK, &told))
}

/// `POST /v1/deliveries/{id}/body`: its body, which is somebody's: whoever reads it leaves a line.
pub(super) async fn body(gateway: &Gateway, id: &str, body: &[u8]) -> Result<Reply, Fault> {
    let _: Nothing = parse_or_empty(body, "{}")?;
    let running = gateway.running();
    let (named, item) = find(gateway, &running, id).await?;
    let body = gateway.store.queue_body(&named.shard_of(&item.id), &item.id).await?;
    let gone = || Fault::Problem {
        status: StatusCode::NOT_FOUND,
        code: "body_not_kept",
        detail: "The body is kept until the delivery is done.".to_owned(),
    };
    let body = body.ok_or_else(gone)?;
    let opened = parcels(&named, &item).open(&item.head, body).await;
    let body = opened.map_err(|_| unreadable(named.name))?.body;
    let told = match std::str::from_utf8(&body) {
        Ok(text) => json!({ "id": item.id.as_str(), "text": text }),
        Err(_) => json!({ "id": item.id.as_str(), "hex": hex::encode(&body) }),
    };
    let mut reply = reply_json(StatusCode::OK, &told);
    reply.extensions_mut().insert(Effect("bytes", body.len().to_string()));
    Ok(reply)
}

fn unreadable(queue: &str) -> Fault {
    let detail = format!("No key of queues.{queue}.seal opens it, or it was damaged.");
    Fault::Problem { status: StatusCode::CONFLICT, code: "body_unreadable", detail }
}

/// `POST /v1/deliveries/{id}/requeue`: has a dead one tried again, as if it were new.
pub(super) async fn requeue(gateway: &Gateway, id: &str, body: &[u8]) -> Result<Reply, Fault> {
    let _: Nothing = parse_or_empty(body, "{}")?;
    let running = gateway.running();
    let (named, item) = find(gateway, &running, id).await?;
    let Named { name, queue, .. } = named;
    let (keys, bounds) = (named.shard_of(&item.id), queue_bounds(queue, item.id.shard()));
    let requeued = gateway.store.queue_requeue(&keys, &item.id, queue.max_age, bounds).await?;
    let refused = |status, code, detail| Err(Fault::Problem { status, code, detail });
    match requeued {
        Requeued::Requeued => {
            gateway.deliveries.queue(name).wake.notify_one();
            Ok(done(&item.id, ItemState::Waiting))
        }
        Requeued::NotDead(state) => {
            let detail = format!("It is {}: only what is dead is tried again.", state.word());
            refused(StatusCode::CONFLICT, "delivery_not_dead", detail)
        }
        Requeued::Full => {
            let detail = "The queue has no room for it.".to_owned();
            refused(StatusCode::CONFLICT, "queue_full", detail)
        }
        Requeued::Unknown => {
            let detail = "Its body is gone.".to_owned();
            refused(StatusCode::NOT_FOUND, "body_not_kept", detail)
        }
    }
}

/// `POST /v1/deliveries/{id}/cancel`: has one not delivered that waits.
pub(super) async fn cancel(gateway: &Gateway, id: &str, body: &[u8]) -> Result<Reply, Fault> {
    let _: Nothing = parse_or_empty(body, "{}")?;
    let running = gateway.running();
    let (named, item) = find(gateway, &running, id).await?;
    let (keys, keep) = (named.shard_of(&item.id), named.queue.keep);
    let state = match gateway.store.queue_cancel(&keys, &item.id, keep).await? {
        Cancelled::Cancelled => return Ok(done(&item.id, ItemState::Cancelled)),
        Cancelled::InProgress => ItemState::Delivering,
        Cancelled::Settled(state) => state,
        Cancelled::Unknown => item.state,
    };
    Err(Fault::Problem {
        status: StatusCode::CONFLICT,
        code: "delivery_not_waiting",
        detail: format!("It is {}: only what waits can be cancelled.", state.word()),
    })
}

fn done(id: &DeliveryId, state: ItemState) -> Reply {
    let told = json!({ "id": id.as_str(), "state": state.word() });
    let mut reply = reply_json(StatusCode::OK, &told);
    reply.extensions_mut().insert(Effect("state", state.word().to_owned()));
    reply
}

/// What nothing is said of.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn parse_or_empty<'a, T: Deserialize<'a> + Default>(
    body: &'a [u8],
    example: &str,
) -> Result<T, Fault> {
    if body.trim_ascii().is_empty() { Ok(T::default()) } else { parse(body, example) }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Paused {
    why: Option<String>,
}

/// Most bytes of a reason.
const WHY_BYTES_MAX: usize = 200;

/// `POST /v1/queues/{queue}/pause`: has nothing taken, at any gateway, until it is resumed.
pub(super) async fn pause(gateway: &Gateway, name: &str, body: &[u8]) -> Result<Reply, Fault> {
    let Paused { why } = parse_or_empty(body, "{\"why\": \"the mail server is moved\"}")?;
    let why = why.unwrap_or_else(|| "an operator".to_owned());
    if why.len() > WHY_BYTES_MAX {
        return Err(Fault::Invalid(format!("why has at most {WHY_BYTES_MAX} bytes.")));
    }
    let running = gateway.running();
    let named = named(&running, name)?;
    // Also those that it has not yet: a reload must not end what an operator began.
    gateway.store.queue_pause_all(&named.all_shards(), &Pause { why, left: None }).await?;
    Ok(changed(named.name, true))
}

/// `POST /v1/queues/{queue}/resume`: ends a pause, whoever began it.
pub(super) async fn resume(gateway: &Gateway, name: &str, body: &[u8]) -> Result<Reply, Fault> {
    let _: Nothing = parse_or_empty(body, "{}")?;
    let running = gateway.running();
    let named = named(&running, name)?;
    gateway.store.queue_resume_all(&named.all_shards()).await?;
    let name = named.name;
    gateway.deliveries.queue(name).wake.notify_one();
    Ok(changed(name, false))
}

fn changed(queue: &str, is_paused: bool) -> Reply {
    let told = json!({ "queue": queue, "paused": is_paused });
    let mut reply = reply_json(StatusCode::OK, &told);
    let word = if is_paused { "paused" } else { "resumed" };
    reply.extensions_mut().insert(Effect("state", word.to_owned()));
    reply
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Which {
    error: Option<String>,
    limit: Option<usize>,
}

/// `POST /v1/queues/{queue}/requeue`: has dead ones tried again, the oldest first.
pub(super) async fn requeue_dead(
    gateway: &Gateway,
    name: &str,
    body: &[u8],
) -> Result<Reply, Fault> {
    let Which { error, limit } =
        parse_or_empty(body, "{\"error\": \"exhausted\", \"limit\": 100}")?;
    let limit = limit.unwrap_or(QUEUE_DEAD_ROUND);
    if !(1..=QUEUE_DEAD_ROUND).contains(&limit) {
        return Err(Fault::Invalid(format!("limit is a number from 1 to {QUEUE_DEAD_ROUND}.")));
    }
    let running = gateway.running();
    let named = named(&running, name)?;
    let Named { name, queue, .. } = named;
    let (shards, which) = (named.shards(gateway).await?, (error.as_deref(), limit));
    let bounds = |shard| queue_bounds(queue, shard);
    let store = &gateway.store;
    let requeued = store.queue_requeue_dead(&shards, which, queue.max_age, bounds).await?;
    gateway.deliveries.queue(name).wake.notify_one();
    let mut reply = reply_json(StatusCode::OK, &json!({ "queue": name, "requeued": requeued }));
    reply.extensions_mut().insert(Effect("requeued", requeued.to_string()));
    Ok(reply)
}

/// `DELETE /v1/queues/{queue}/dead`: deletes dead ones for good, the oldest first.
pub(super) async fn drop_dead(gateway: &Gateway, name: &str) -> Result<Reply, Fault> {
    let running = gateway.running();
    let named = named(&running, name)?;
    let deleted = gateway.store.queue_drop_dead_all(&named.shards(gateway).await?).await?;
    let name = named.name;
    let mut reply = reply_json(StatusCode::OK, &json!({ "queue": name, "deleted": deleted }));
    reply.extensions_mut().insert(Effect("deleted", deleted.to_string()));
    Ok(reply)
}
