//! A request that a stream of JetStream stores: its answer says that it is there. What becomes of
//! it is the matter of whoever reads the stream.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;

use super::accept::{self, json};
use super::content::Content;
use super::dispatch::{Dispatch, Fields, Outline};
use super::record::Record;
use super::rejection::Rejection;
use super::request::Request;
use crate::base::addressed::Stored;
use crate::base::body::{Inbound, Upload, UploadLimits};
use crate::deliver::Refused;
use crate::idempotency::{Key, Owner, scoped};
use crate::observe::Took;
use crate::plan::Streamed;
use crate::store::queue::DeliveryId;
use crate::upstream::{Ack, Failure};

/// Says that a request was stored before, under the same key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// The shard of a fresh id, as of a queue that has one.
const SHARD: u8 = 0;
/// Longest answer of a stream, in bytes.
const ACK_BYTES_MAX: usize = 16 * 1024;

/// Has the stream store a request.
///
/// # Errors
/// It is not stored, or nobody can say whether it is; its caller is told which.
pub(super) async fn store(
    request: &Request<'_>,
    streamed: &Streamed,
    (head, body): (&mut Parts, Inbound),
    added: Fields,
    record: &mut Record,
) -> Result<Response<Content>, Rejection> {
    let key = Key::of(&head.headers);
    let key = key.map_err(|error| Refused::KeyInvalid(error.to_string()))?;
    if key.is_none() && streamed.is_key_required {
        return Err(Refused::KeyMissing.into());
    }
    let full = || Refused::StreamFull(streamed.stream.clone());
    let held = accept::read(request, (&*head, body), streamed.max_body, full).await?;
    let message_id = message_id(request, streamed, key.as_ref())?;
    record.note_delivery(&message_id);
    let own = std::mem::take(&mut head.headers);
    let outline = Outline::new(request, Cow::Owned(own), added);
    let stored = Arc::new(Stored { stream: streamed.stream.clone(), message_id });
    let ack = send(request, &outline, (&stored, held), record).await?;
    told(streamed, &stored.message_id, ack)
}

/// Sends it, and reads what is answered.
///
/// # Errors
/// There is no answer.
async fn send(
    request: &Request<'_>,
    outline: &Outline<'_>,
    (stored, held): (&Arc<Stored>, accept::Held),
    record: &mut Record,
) -> Result<Ack, Rejection> {
    let dispatch = Dispatch::new(request);
    record.note_forwarded();
    record.note_attempts(dispatch.attempts());
    // It was within its bounds when it was read.
    let limits = UploadLimits { bytes_max: u64::MAX, ..request.plan().upload };
    let (upload, _) = Upload::new(Inbound::Bytes(held.body.clone()), limits, false);
    let head = || {
        let mut head = outline.head();
        head.extensions_mut().insert(Arc::clone(stored));
        head
    };
    let sent = dispatch.send(head, upload, record.upstream_time()).await;
    if sent.is_err() {
        record.upstream_time().get_or_insert_with(|| Took::since(request.received.started));
    }
    let response = sent.map_err(|failure| unheard(failure, request, &stored.stream))?;
    let read = Limited::new(*response.into_body(), ACK_BYTES_MAX).collect().await;
    let read = read.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Ok(Ack::read(&read, &stored.stream))
}

/// What is the same of two messages of which the stream is to store one.
fn message_id(
    request: &Request<'_>,
    streamed: &Streamed,
    key: Option<&Key>,
) -> Result<String, Refused> {
    let Some(key) = key else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let id = DeliveryId::new(SHARD, now_ms).ok_or_else(|| Refused::StreamAway {
            stream: streamed.stream.clone(),
            why: "the system has no random bytes".into(),
        })?;
        return Ok(id.as_str().to_owned());
    };
    let owner = Owner::of(request.caller, request.client().address);
    // A stream drops what it takes for a repetition without a word. So the subject is part of it:
    // what goes to another one is another request. A subject has no blank.
    let place = format!("{} {}", streamed.stream, subject(request));
    Ok(scoped(owner, &place, key))
}

fn subject<'r>(request: &Request<'r>) -> &'r str {
    let addressed = request.resolved.edged.as_ref().and_then(|it| it.addressed.as_deref());
    addressed.map_or("", |addressed| &addressed.subject)
}

/// Why there is no answer of the stream.
fn unheard(failure: Failure, request: &Request<'_>, stream: &str) -> Rejection {
    let stream = stream.to_owned();
    match failure {
        Failure::NoResponders => {
            let subject = subject(request);
            let why = format!(
                "no stream stores the subject {subject}; see `nats stream info {stream}`, and \
                 whether JetStream is enabled"
            );
            Refused::StreamAway { stream, why }.into()
        }
        Failure::Disconnected | Failure::ConnectTimeout => {
            Refused::StreamAway { stream, why: failure.to_string() }.into()
        }
        Failure::Timeout | Failure::Broken(_) => Refused::StreamSilent(stream).into(),
        failure => failure.into(),
    }
}

#[derive(Serialize)]
struct Said<'a> {
    id: &'a str,
    state: &'a str,
    stream: &'a str,
    seq: u64,
}

/// What the caller is told.
fn told(streamed: &Streamed, id: &str, ack: Ack) -> Result<Response<Content>, Rejection> {
    let stream = &streamed.stream;
    let (seq, is_again) = match ack {
        Ack::Stored { seq, is_again } => (seq, is_again),
        Ack::Full => return Err(Refused::StreamFull(stream.clone()).into()),
        Ack::Refused { code, why } => {
            let why = format!("{why} (error {code} of JetStream)");
            return Err(Refused::StreamAway { stream: stream.clone(), why }.into());
        }
        Ack::Foreign => {
            let what = "a service that listens to the subject has answered in place of the stream";
            return Err(Failure::Malformed(what).into());
        }
    };
    let said = Said { id, state: "queued", stream, seq };
    let mut response = json(StatusCode::ACCEPTED, &said);
    if is_again {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}
