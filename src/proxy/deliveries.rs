//! What became of a request that was accepted for later: whoever sent it asks by its id, reads the
//! answer to it, or cancels it. To everybody else there is no such id.

use http::{Method, Response, StatusCode};
use serde::Serialize;

use super::accept::{answer_of, away, json, owner_digest, time};
use super::content::Content;
use super::record::Record;
use super::rejection::Rejection;
use super::request::Request;
use crate::config::QUEUE_SHARDS_MAX;
use crate::deliver::Refused;
use crate::store::keys::QueueKeys;
use crate::store::queue::{Cancelled, DeliveryId, Item, ItemState};

/// What stands behind an id to ask for the answer.
const RESPONSE: &str = "response";

#[derive(Serialize)]
struct Said<'a> {
    id: &'a str,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<String>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Answers a request on a route that tells of deliveries, whose paths begin so.
///
/// # Errors
/// The caller has no such delivery, or it cannot be done.
pub(super) async fn answer(
    request: &Request<'_>,
    prefix: &str,
    record: &mut Record,
) -> Result<Response<Content>, Rejection> {
    let rest = request.target.path().strip_prefix(prefix).ok_or(Refused::NotFound)?;
    let (id, below) = match rest.split_once('/') {
        Some((id, below)) => (id, Some(below)),
        None => (rest, None),
    };
    let known = |id: &DeliveryId| id.shard() < QUEUE_SHARDS_MAX;
    let id = DeliveryId::parse(id).filter(known).ok_or(Refused::NotFound)?;
    in_time(request, tell(request, id, below, record)).await
}

/// What is asked of a delivery: itself, or what stands `below` its id.
async fn tell(
    request: &Request<'_>,
    id: DeliveryId,
    below: Option<&str>,
    record: &mut Record,
) -> Result<Response<Content>, Rejection> {
    let (name, keys, item) = find(request, &id).await?;
    record.note_delivery(id.as_str());
    let method = &request.received.method;
    match below {
        None if *method == Method::DELETE => cancel(request, &keys, &item).await,
        None => Ok(json(StatusCode::OK, &said(&item))),
        Some(RESPONSE) if *method != Method::DELETE => {
            response(request, (name, &keys), &item).await
        }
        Some(_) => Err(Refused::NotFound.into()),
    }
}

/// Answers within the time that a request has for the store, whatever is asked and how often.
async fn in_time<T>(
    request: &Request<'_>,
    told: impl Future<Output = Result<T, Rejection>>,
) -> Result<T, Rejection> {
    let timeout = request.plan().config.store.timeout;
    let told = tokio::time::timeout(timeout, told).await;
    told.unwrap_or_else(|_| Err(Refused::Away("not within store.timeout".into()).into()))
}

/// The delivery with this id, if the caller has it. An id does not say which queue it is of: there
/// are few.
async fn find<'r>(
    request: &Request<'r>,
    id: &DeliveryId,
) -> Result<(&'r str, QueueKeys, Item), Rejection> {
    let owner = owner_digest(request);
    let plan = request.plan();
    for name in plan.config.queues.keys() {
        let keys = plan.keys.queue(name, id.shard());
        let found = request.gateway().store.queue_find(&keys, id).await.map_err(away)?;
        if let Some(item) = found.filter(|item| item.owner == owner) {
            return Ok((name, keys, item));
        }
    }
    Err(Refused::NotFound.into())
}

fn said(item: &Item) -> Said<'_> {
    Said {
        id: item.id.as_str(),
        state: item.state.word(),
        accepted_at: time(item.accepted_ms),
        deliver_at: time(item.due_ms),
        settled_at: item.settled_ms.and_then(time),
        attempts: item.failures.saturating_add(u32::from(item.state == ItemState::Done)),
        status: Some(item.status).filter(|status| *status > 0),
        error: Some(&*item.error).filter(|error| !error.is_empty()),
    }
}

async fn response(
    request: &Request<'_>,
    of_queue: (&str, &QueueKeys),
    item: &Item,
) -> Result<Response<Content>, Rejection> {
    if !item.state.is_settled() {
        return Err(Refused::InProgress.into());
    }
    let answer = answer_of(request, of_queue, item).await.map_err(away)?;
    let answer = answer.ok_or(Refused::NotKept)?;
    Ok(answer.map(Content::Bytes))
}

async fn cancel(
    request: &Request<'_>,
    keys: &QueueKeys,
    item: &Item,
) -> Result<Response<Content>, Rejection> {
    let queues = request.plan().config.queues.iter();
    let mut of_item =
        queues.filter(|(name, _)| request.plan().keys.queue(name, keys.shard) == *keys);
    let keep = of_item.next().map(|(_, queue)| queue.keep).unwrap_or_default();
    let store = &request.gateway().store;
    match store.queue_cancel(keys, &item.id, keep).await.map_err(away)? {
        Cancelled::Cancelled | Cancelled::Settled(ItemState::Cancelled) => {
            let mut response = Response::new(Content::Bytes(bytes::Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        Cancelled::InProgress => Err(Refused::InProgress.into()),
        Cancelled::Settled(_) => Err(Refused::Ended.into()),
        Cancelled::Unknown => Err(Refused::NotFound.into()),
    }
}
