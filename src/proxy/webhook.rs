//! A request that brings an event: it is answered with 204 once the store has taken what the event
//! means, and with 503 where it has not, so that its sender repeats it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};

use super::accept;
use super::content::Content;
use super::rejection::Rejection;
use super::request::Request;
use crate::base::body::Inbound;
use crate::events::{Refused, Signed, Signer, Skipped, of_body, verify};
use crate::runtime::AppEvent;
use crate::store::StoreError;

/// Longest body, in bytes.
const BODY_BYTES_MAX: u64 = 64 * 1024;
/// How long it is remembered that an event was taken: as long as its signature may be used.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// Takes an event for these sources.
///
/// # Errors
/// It is not by one who may send it, or the store has not taken it.
pub(super) async fn take(
    request: &Request<'_>,
    names: &[String],
    (head, body): (&Parts, Inbound),
) -> Result<Response<Content>, Rejection> {
    let full = || Refused::Away("too many bodies are being read".to_owned());
    let held = accept::read(request, (head, body), BODY_BYTES_MAX, full).await?;
    let body = &held.body;
    let plan = request.plan();
    let known: Vec<(&String, &Signer)> =
        names.iter().filter_map(|name| Some((name, &plan.events.get(name)?.signer))).collect();
    let signers: Vec<&Signer> = known.iter().map(|(_, signer)| *signer).collect();
    let signed = signed(&head.headers);
    let events = &request.gateway().events;
    let by = verify(&signers, signed, body, now_s()).inspect_err(|_| {
        known.iter().for_each(|(name, _)| events.of(name).meter.count("refused"));
    })?;
    let (id, time_s) = (signed.id()?, signed.time()?);
    let event = AppEvent {
        id: id.to_owned(),
        told_ms: time_s.saturating_mul(1000),
        said: of_body(body).ok_or(Skipped::NoObject),
    };
    for ((name, _), _) in known.iter().zip(by).filter(|(_, is_by)| *is_by) {
        take_for(request, name, &event).await.map_err(|error| Refused::Away(error.to_string()))?;
    }
    let mut response = Response::new(Content::Bytes(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Takes it for one source, unless it was taken already.
async fn take_for(request: &Request<'_>, name: &str, event: &AppEvent) -> Result<(), StoreError> {
    let gateway = request.gateway();
    let key = request.plan().keys.events_taken(name, &event.id);
    if gateway.store.get(&key).await?.is_some() {
        gateway.events.of(name).meter.count("again");
        return Ok(());
    }
    gateway.take_events(name, std::slice::from_ref(event)).await?;
    let meter = &gateway.events.of(name).meter;
    meter.lags(Duration::from_millis(now_s().saturating_mul(1000).saturating_sub(event.told_ms)));
    // Only now: what has failed must be taken when it comes again. A repeat does no harm.
    let _ = gateway.store.put(&key, b"1", REMEMBERED).await;
    Ok(())
}

fn signed(fields: &HeaderMap) -> Signed<'_> {
    // Of several fields of one name, nobody knows which was meant.
    let one = |name: &str| {
        let mut all = fields.get_all(name).iter();
        all.next().filter(|_| all.next().is_none()).map(|value| value.as_bytes())
    };
    Signed {
        id: one("webhook-id"),
        timestamp: one("webhook-timestamp"),
        signatures: one("webhook-signature"),
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
