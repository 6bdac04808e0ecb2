//! The answers of the admin listener and the bodies of its operations: how they are written, read,
//! and refused. It must not know any operation.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use serde::Deserialize;
use tokio::sync::mpsc::Receiver;

use crate::store::StoreError;

/// A JSON or text answer.
pub(super) type Reply = Response<Body>;

/// What an answer holds.
#[derive(Debug, Default)]
pub(super) enum Body {
    /// Nothing, or nothing more.
    #[default]
    Empty,
    /// All of it.
    Whole(Bytes),
    /// Pieces that come one by one.
    Streamed(Receiver<Bytes>),
}

impl Body {
    pub(super) fn new(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(bytes.into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = self.get_mut();
        if let Self::Streamed(pieces) = body {
            return pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))));
        }
        match std::mem::take(body) {
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Self::Empty | Self::Streamed(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(_) => SizeHint::default(),
        }
    }
}

/// The code of a refusal, for its line.
#[derive(Debug, Clone)]
pub(super) struct Code(pub(super) String);

/// What an operation did, beyond its status.
#[derive(Debug, Clone)]
pub(super) struct Effect(pub(super) &'static str, pub(super) String);

/// Why an operation was not carried out.
pub(super) enum Fault {
    /// It was not understood, or cannot be meant.
    Invalid(String),
    /// Anything else that has a code of its own.
    Problem { status: StatusCode, code: &'static str, detail: String },
    /// The store.
    Store(StoreError),
}

impl Fault {
    pub(super) fn reply(self) -> Reply {
        match self {
            Self::Invalid(detail) => problem(StatusCode::BAD_REQUEST, "request_invalid", &detail),
            Self::Problem { status, code, detail } => problem(status, code, &detail),
            Self::Store(error) => {
                let detail =
                    format!("Nothing is promised to have changed: {error}. Repeat the request.");
                problem(StatusCode::SERVICE_UNAVAILABLE, "store_unreachable", &detail)
            }
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The body of an operation, a JSON object; `example` is shown to those who sent something else.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], example: &str) -> Result<T, Fault> {
    let refused = |why: &str| {
        Fault::Invalid(format!("The body is not understood ({why}). Example: {example}"))
    };
    // An array would be taken for the members in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(refused("it is no object"));
    }
    serde_json::from_slice(body).map_err(|error| refused(&error.to_string()))
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Body::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Reply {
    let mut reply = Response::new(Body::new(format!("{value}\n")));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// Says in an answer whether all replicas of the store have what was done, where it has some.
pub(super) fn with_confirmed(
    mut answer: serde_json::Value,
    confirmed: Option<bool>,
) -> serde_json::Value {
    if let Some(confirmed) = confirmed {
        answer["confirmed"] = confirmed.into();
    }
    answer
}

/// `application/problem+json` (RFC 9457).
pub(super) fn problem(status: StatusCode, code: &str, detail: &str) -> Reply {
    problem_with(status, code, detail, serde_json::json!({}))
}

/// The same, with members of its own.
pub(super) fn problem_with(
    status: StatusCode,
    code: &str,
    detail: &str,
    mut members: serde_json::Value,
) -> Reply {
    members["type"] = format!("urn:portcullis:problem:{code}").into();
    members["title"] = status.canonical_reason().unwrap_or("Error").into();
    members["status"] = status.as_u16().into();
    members["detail"] = detail.into();
    let mut reply = json(status, &members);
    let kind = HeaderValue::from_static("application/problem+json");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply.extensions_mut().insert(Code(code.to_owned()));
    reply
}

/// The path takes other methods; `allow` lists them.
pub(super) fn not_allowed(allow: &str) -> Reply {
    let detail = format!("This path accepts {allow}.");
    let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &detail);
    reply.headers_mut().extend(HeaderValue::from_str(allow).ok().map(|allow| (ALLOW, allow)));
    reply
}
