//! One attempt over NATS: a message, and the answer to it.

use std::sync::Arc;

use async_nats::client::PublishErrorKind;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::time::timeout;

use super::link::{Link, Live};
use super::message::{self, NoPayload};
use super::packet::{self, Answer, Bad, Decoder};
use super::replies::{NoPlace, Reply, Waiter};
use crate::base::addressed::{Addressed, Stored};
use crate::base::body::Upload;
use crate::config;
use crate::upstream::conn::{Body, Unanswered};
use crate::upstream::ends::NoAnswer;
use crate::upstream::failure::Failure;
use crate::upstream::outgoing::{OnInterim, Sending};
use crate::upstream::visit::Visit;

/// One attempt. A request that nobody has read is put back.
///
/// # Errors
/// Why there is no answer.
pub(in crate::upstream) async fn ask(
    link: &Link,
    settings: &config::Upstream,
    visit: &Visit,
    mut sending: Sending<'_, impl OnInterim>,
) -> Result<Response<Body>, NoAnswer> {
    // A reload that ends the connection waits for whoever is here.
    let Some(_user) = link.enter() else {
        return Err(NoAnswer::Unconnected(Failure::Disconnected));
    };
    let live = link.live().ok_or(NoAnswer::Unconnected(Failure::Disconnected))?;
    sending.stamp(visit.span().map_or(sending.sender.trace, |span| span.trace));
    let Some(request) = sending.request.take() else { return Err(lost(Unanswered::Unsent)) };
    let (head, mut upload) = request.into_parts();
    let most = Link::message_bytes(&live);
    let body = message::payload(&mut upload, most).await.map_err(|why| match why {
        NoPayload::TooLong => NoAnswer::Unconnected(Failure::TooLong),
        NoPayload::Withdrawn => lost(Unanswered::Withdrawn),
    })?;
    let is_head = head.method == Method::HEAD;
    let sent = send(link, settings, &head, &body).await;
    let (waiter, live) = match sent {
        Ok(sent) => sent,
        Err(failure) => return Err(put_back(sending.request, (head, upload), failure)),
    };
    let decoder = match head.extensions.get::<Arc<Stored>>() {
        Some(_) => Decoder::Ack,
        None => Decoder::new(link.packet()),
    };
    let patience = sending.sender.idle_timeout.unwrap_or(settings.response_timeout);
    let heard = timeout(patience, hear(waiter, decoder)).await;
    // Until then the connection is one that somebody uses.
    drop(live);
    match heard {
        Err(_) => Err(lost(Unanswered::TimedOut)),
        Ok(Ok(answer)) => Ok(response(answer, is_head)),
        Ok(Err(Unheard::NoResponders)) => {
            Err(put_back(sending.request, (head, upload), Failure::NoResponders))
        }
        Ok(Err(Unheard::Other(why))) => Err(lost(why)),
    }
}

/// Publishes the request, and waits no longer than that takes.
///
/// # Errors
/// Nobody has read it.
async fn send(
    link: &Link,
    settings: &config::Upstream,
    head: &Parts,
    body: &Bytes,
) -> Result<(Waiter, Arc<Live>), Failure> {
    // Reading the body may have taken long.
    let live = link.live().ok_or(Failure::Disconnected)?;
    let waiter = live.replies.wait(settings.max_connections).map_err(|why| match why {
        NoPlace::Closed => Failure::Disconnected,
        NoPlace::Full => Failure::Busy,
    })?;
    let addressed = head.extensions.get::<Arc<Addressed>>().ok_or(Failure::NoResponders)?;
    let token = waiter.token();
    let payload = packet::encode(link.packet(), head, addressed, (body, token));
    let payload = payload.ok_or(Failure::NotJson)?;
    if payload.len() > Link::message_bytes(&live) {
        return Err(Failure::TooLong);
    }
    let reply = format!("{}.{token}", live.inbox);
    let (subject, fields) = (addressed.subject.clone(), message::fields(head));
    let published = live.client.publish_with_reply_and_headers(subject, reply, fields, payload);
    match timeout(settings.connect_timeout, published).await {
        Err(_) => Err(Failure::ConnectTimeout),
        Ok(Ok(())) => Ok((waiter, live)),
        Ok(Err(error)) => Err(match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Failure::TooLong,
            PublishErrorKind::InvalidSubject | PublishErrorKind::Send => Failure::Disconnected,
        }),
    }
}

/// Why nothing was heard that is an answer.
enum Unheard {
    NoResponders,
    Other(Unanswered),
}

/// Reads messages until they are an answer.
async fn hear(mut waiter: Waiter, mut decoder: Decoder) -> Result<Answer, Unheard> {
    loop {
        let message = match waiter.next().await {
            None => return Err(Unheard::Other(Unanswered::Lost(None))),
            Some(Reply::TooMuch) => {
                let what = "the reply has more messages, or more bytes, than one answer may have";
                return Err(Unheard::Other(Unanswered::Malformed(what)));
            }
            Some(Reply::Message(message)) => message,
        };
        if message.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
            return Err(Unheard::NoResponders);
        }
        match decoder.read(&message) {
            Ok(None) => {}
            Ok(Some(answer)) => return Ok(answer),
            Err(Bad::Malformed(what)) => return Err(Unheard::Other(Unanswered::Malformed(what))),
            Err(Bad::Failed(what)) => return Err(Unheard::Other(Unanswered::Failed(what))),
        }
    }
}

fn lost(why: Unanswered) -> NoAnswer {
    NoAnswer::Exchanged { reused: false, why }
}

/// Nobody has read the request: it may be sent again as it is.
fn put_back(
    request: &mut Option<Request<Upload>>,
    (head, upload): (Parts, Upload),
    failure: Failure,
) -> NoAnswer {
    *request = Some(Request::from_parts(head, upload));
    NoAnswer::Unconnected(failure)
}

fn response(answer: Answer, is_head: bool) -> Response<Body> {
    let Answer { status, content_type, body } = answer;
    let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = body.len();
    let body = if is_head || has_none { Bytes::new() } else { body };
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    if let Some(content_type) = content_type {
        fields.insert(CONTENT_TYPE, content_type);
    }
    if !has_none {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}
