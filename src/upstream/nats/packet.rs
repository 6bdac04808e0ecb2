//! What services write and read in messages: the body as it is, or the JSON of NestJS
//! (`@nestjs/microservices`).

use std::borrow::Cow;
use std::fmt::Write as _;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use http::header::HeaderValue;
use http::request::Parts;
use http::{Method, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::VALUES_MAX;
use crate::base::addressed::Addressed;
use crate::base::http::percent;
use crate::config::Packet;

/// The field of a service's error (NATS micro services).
const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// The field in which a service says its status.
const STATUS: &str = "Status";
/// Longest text of an error that the log tells, in characters.
const ERROR_CHARS_MAX: usize = 200;

/// An answer of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) body: Bytes,
}

/// Why a message is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bad {
    /// It cannot be read.
    Malformed(&'static str),
    /// It is an error of which no status is made.
    Failed(String),
}

/// The payload of a request with this body. Nothing where the service reads JSON, and the body is
/// none.
pub(super) fn encode(
    packet: Packet,
    head: &Parts,
    addressed: &Addressed,
    (body, id): (&Bytes, u64),
) -> Option<Bytes> {
    if packet == Packet::Plain {
        return Some(body.clone());
    }
    let is_asked = matches!(head.method, Method::GET | Method::HEAD | Method::DELETE);
    let data = if is_asked || body.is_empty() {
        Cow::Owned(asked(head, addressed).to_string())
    } else {
        let read: &RawValue = serde_json::from_slice(body).ok()?;
        Cow::Borrowed(read.get())
    };
    let subject = Value::from(&*addressed.subject);
    // Without an id it would be an event, which nobody answers.
    Some(format!("{{\"pattern\":{subject},\"data\":{data},\"id\":\"{id}\"}}").into())
}

/// What a request without a body asks for.
fn asked(head: &Parts, addressed: &Addressed) -> Value {
    let mut query = Map::new();
    for pair in head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (unescaped(name), Value::from(unescaped(value)));
        match query.get_mut(&name) {
            None => {
                query.insert(name, value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    let parameters = addressed.parameters.iter();
    let parameters: Map<_, _> =
        parameters.map(|(name, value)| (name.clone(), Value::from(&**value))).collect();
    serde_json::json!({ "params": parameters, "query": query })
}

/// A piece of a query as forms write it.
fn unescaped(text: &str) -> String {
    let text = text.replace('+', " ");
    String::from_utf8_lossy(&percent::decode(text.as_bytes())).into_owned()
}

/// What a service has answered so far.
#[derive(Debug)]
pub(super) enum Decoder {
    /// One message is all.
    Plain,
    /// What a stream says of what it was to store; one message, too.
    Ack,
    /// Values, until the service says that there are no more.
    Nest(Vec<Bytes>),
}

impl Decoder {
    /// Of a request that was sent as such a packet.
    pub(super) fn new(packet: Packet) -> Self {
        match packet {
            Packet::Plain => Self::Plain,
            Packet::Nest => Self::Nest(Vec::new()),
        }
    }

    /// Reads the next message. Nothing where there are more to come.
    ///
    /// # Errors
    /// It is no answer.
    pub(super) fn read(&mut self, message: &Message) -> Result<Option<Answer>, Bad> {
        match self {
            Self::Plain => plain(message).map(Some),
            Self::Ack => Ok(Some(json(StatusCode::OK, message.payload.clone()))),
            Self::Nest(values) => nest(values, &message.payload),
        }
    }
}

fn plain(message: &Message) -> Result<Answer, Bad> {
    let field = |name| message.headers.as_ref().and_then(|fields| field(fields, name));
    let status = match (field(ERROR_CODE), field(STATUS)) {
        (Some(code), _) => of_error(code.parse().ok()).ok_or_else(|| {
            let text = field("Nats-Service-Error").unwrap_or(code);
            Bad::Failed(short(text))
        })?,
        (None, Some(status)) => {
            let read = status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
            let is_final = |it: &StatusCode| (200..=599).contains(&it.as_u16());
            read.filter(is_final).ok_or(Bad::Malformed("the field status of its reply"))?
        }
        (None, None) => StatusCode::OK,
    };
    let content_type = field("Content-Type").and_then(|it| HeaderValue::try_from(it).ok());
    Ok(Answer { status, content_type, body: message.payload.clone() })
}

/// A field by its name, in whichever case.
fn field<'m>(fields: &'m HeaderMap, name: &str) -> Option<&'m str> {
    let named = |(known, _): &(&async_nats::HeaderName, _)| {
        let known: &str = known.as_ref();
        known.eq_ignore_ascii_case(name)
    };
    fields.iter().find(named).and_then(|(_, values)| values.first()).map(|value| value.as_str())
}

/// A reply of NestJS. What is null was said, and is something else than what was not.
#[derive(Deserialize)]
struct NestReply<'m> {
    #[serde(borrow, default, deserialize_with = "said")]
    err: Option<&'m RawValue>,
    #[serde(borrow, default, deserialize_with = "said")]
    response: Option<&'m RawValue>,
    #[serde(rename = "isDisposed", default)]
    is_disposed: bool,
}

fn said<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

fn nest(values: &mut Vec<Bytes>, payload: &Bytes) -> Result<Option<Answer>, Bad> {
    let reply: NestReply<'_> = serde_json::from_slice(payload)
        .map_err(|_| Bad::Malformed("the reply is no packet of NestJS"))?;
    if let Some(err) = reply.err.filter(|err| err.get() != "null") {
        return nest_error(err).map(Some);
    }
    match reply.response {
        Some(_) if values.len() >= VALUES_MAX => {
            return Err(Bad::Malformed("the reply has more values than one answer may have"));
        }
        Some(response) => values.push(Bytes::copy_from_slice(response.get().as_bytes())),
        None if !reply.is_disposed => {
            return Err(Bad::Malformed("the reply has neither a response nor an end"));
        }
        None => {}
    }
    if !reply.is_disposed {
        return Ok(None);
    }
    let body = match &mut **values {
        [] => None,
        [one] => Some(std::mem::take(one)),
        all => {
            let mut list = Vec::with_capacity(all.iter().map(|it| it.len() + 1).sum::<usize>() + 1);
            for value in all {
                list.push(if list.is_empty() { b'[' } else { b',' });
                list.extend_from_slice(value);
            }
            list.push(b']');
            Some(list.into())
        }
    };
    Ok(Some(match body {
        None => Answer { status: StatusCode::NO_CONTENT, content_type: None, body: Bytes::new() },
        Some(body) => json(StatusCode::OK, body),
    }))
}

/// What a handler has thrown. `RpcException` comes as it was made; of others the service tells a
/// text alone.
fn nest_error(err: &RawValue) -> Result<Answer, Bad> {
    let err: Value = serde_json::from_str(err.get()).unwrap_or_default();
    let code = |name: &str| err.get(name).and_then(Value::as_u64);
    let code = code("status").or_else(|| code("statusCode"));
    let message = err.get("message");
    match of_error(code) {
        Some(status) => {
            let reason = || Value::from(status.canonical_reason().unwrap_or("Error"));
            let message = message.cloned().unwrap_or_else(reason);
            let body = serde_json::json!({ "message": message }).to_string();
            Ok(json(status, body.into()))
        }
        None => {
            let text = message.unwrap_or(&err);
            Err(Bad::Failed(short(text.as_str().unwrap_or(&text.to_string()))))
        }
    }
}

fn json(status: StatusCode, body: Bytes) -> Answer {
    let content_type = Some(HeaderValue::from_static("application/json"));
    Answer { status, content_type, body }
}

/// A status that says that something failed.
fn of_error(code: Option<u64>) -> Option<StatusCode> {
    let code = code.filter(|code| (400..=599).contains(code))?;
    StatusCode::from_u16(u16::try_from(code).ok()?).ok()
}

/// The begin of a text, on one line.
fn short(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars().take(ERROR_CHARS_MAX) {
        let shown = if letter.is_control() { ' ' } else { letter };
        let _ = out.write_char(shown);
    }
    out
}

#[cfg(test)]
mod tests;
