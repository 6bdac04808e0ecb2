//! The health checking service of gRPC (`health.proto` of the gRPC project) on the admin listener,
//! in clear with prior knowledge, for those who ask in no other way. It says what `/readyz` says.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::Interval;

use super::readiness::unready;
use crate::base::grpc::GRPC_STATUS;
use crate::runtime::Gateway;

/// Longest wait for a connection's first bytes, and for a request's body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often whoever watches is looked at for.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often a client is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Calls at a time on one connection.
const CALLS_MAX: u32 = 16;
/// Largest request, and largest head, in bytes.
const REQUEST_BYTES_MAX: usize = 1024;
const HEAD_BYTES_MAX: u32 = 8 * 1024;
/// What an HTTP/2 connection begins with, and no method of HTTP/1.1 (RFC 9113 §3.4).
const PREFACE: &[u8; 3] = b"PRI";

/// The key of field 1, which has a length.
const SERVICE: u64 = 1 << 3 | 2;

/// Statuses of a call (codes.md of the gRPC project).
const OK: u16 = 0;
const INVALID_ARGUMENT: u16 = 3;
const NOT_FOUND: u16 = 5;
const UNIMPLEMENTED: u16 = 12;

/// The first bytes of a connection, as many as tell whether it is one of HTTP/2. Nothing where it
/// ends before that, or takes too long.
pub(super) async fn beginning(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut seen = Vec::with_capacity(PREFACE.len());
    let read = async {
        while seen.len() < PREFACE.len() && PREFACE.starts_with(&seen) {
            seen.push(stream.read_u8().await.ok()?);
        }
        Some(())
    };
    tokio::time::timeout(REQUEST_TIMEOUT, read).await.ok()??;
    Some(seen)
}

/// Whether a connection that begins so is one of HTTP/2.
pub(super) fn is_asked(beginning: &[u8]) -> bool {
    beginning == PREFACE
}

/// Serves a connection until it ends.
pub(super) async fn serve<S>(gateway: &Arc<Gateway>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let gateway = Arc::clone(gateway);
        async move { Ok::<_, Infallible>(answer(&gateway, request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_concurrent_streams(CALLS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A broken admin connection is the client's affair.
    let _ = connection.await;
}

async fn answer(gateway: &Arc<Gateway>, request: Request<Incoming>) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let is_watch = match (&head.method, head.uri.path()) {
        (&Method::POST, "/grpc.health.v1.Health/Check") => false,
        (&Method::POST, "/grpc.health.v1.Health/Watch") => true,
        _ => return refused(UNIMPLEMENTED),
    };
    let limited = Limited::new(body, REQUEST_BYTES_MAX).collect();
    let Ok(Ok(body)) = tokio::time::timeout(REQUEST_TIMEOUT, limited).await else {
        return refused(INVALID_ARGUMENT);
    };
    let body = body.to_bytes();
    let Some(service) = service_of(&body) else { return refused(INVALID_ARGUMENT) };
    // There is one: the gateway as a whole.
    let is_known = service.is_empty();
    if is_watch {
        let gateway = Arc::clone(gateway);
        let ticks = tokio::time::interval(WATCH_INTERVAL);
        return begun(Answer::Watch(Box::new(Watch { gateway, is_known, told: None, ticks })));
    }
    if !is_known {
        return refused(NOT_FOUND);
    }
    begun(Answer::Message(Health::of(gateway).message()))
}

/// The name in a `HealthCheckRequest`: its field 1, which is left out where it is empty. Fields of
/// later versions are passed over. Nothing where it is no message (encoding.md of Protocol
/// Buffers).
fn service_of(body: &[u8]) -> Option<&str> {
    let (&[flag, a, b, c, d], mut message) = body.split_first_chunk::<5>()?;
    let is_whole = u32::from_be_bytes([a, b, c, d]) as usize == message.len();
    if flag != 0 || !is_whole {
        return None;
    }
    let mut service = "";
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let length = match key & 7 {
            0 => varint(&mut message).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let value = message.split_off(..length)?;
        if key == SERVICE {
            service = std::str::from_utf8(value).ok()?;
        }
    }
    Some(service)
}

/// The number that `bytes` begin with, which it takes off them.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// `HealthCheckResponse.ServingStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl Health {
    fn of(gateway: &Gateway) -> Self {
        if unready(gateway).is_some() { Self::NotServing } else { Self::Serving }
    }

    /// A `HealthCheckResponse` in its frame: field 1, an enum.
    fn message(self) -> Bytes {
        Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 0x08, self as u8])
    }
}

/// What is left of an answer.
enum Answer {
    /// A message, and then the status.
    Message(Bytes),
    Status,
    Watch(Box<Watch>),
    Nothing,
}

/// A call that is told of every change.
struct Watch {
    gateway: Arc<Gateway>,
    /// Whether there is such a service.
    is_known: bool,
    told: Option<Health>,
    ticks: Interval,
}

impl Watch {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            let serving =
                if self.is_known { Health::of(&self.gateway) } else { Health::ServiceUnknown };
            if self.told.replace(serving) != Some(serving) {
                return Poll::Ready(serving.message());
            }
            ready!(self.ticks.poll_tick(cx));
        }
    }
}

fn begun(answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

fn refused(status: u16) -> Response<Answer> {
    let mut response = begun(Answer::Nothing);
    response.headers_mut().insert(GRPC_STATUS, HeaderValue::from(status));
    response
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (frame, left) = match &mut *self {
            Self::Watch(watch) => {
                let message = ready!(watch.poll(cx));
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Status),
            Self::Status => {
                let mut trailers = HeaderMap::new();
                trailers.insert(GRPC_STATUS, HeaderValue::from(OK));
                (Frame::trailers(trailers), Self::Nothing)
            }
            Self::Nothing => return Poll::Ready(None),
        };
        *self = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_tell_the_protocol_however_they_come() {
        for (bytes, seen, is_http2) in [
            ("PRI * HTTP/2.0", "PRI", true),
            ("PUT / HTTP/1.1", "PU", false),
            ("GET / HTTP/1.1", "G", false),
        ] {
            // Each byte comes when the one before was read.
            let (mut client, mut server) = tokio::io::duplex(1);
            let written = tokio::spawn(async move { client.write_all(bytes.as_bytes()).await });
            let beginning = beginning(&mut server).await.unwrap();
            assert_eq!((&*beginning, is_asked(&beginning)), (seen.as_bytes(), is_http2));
            written.abort();
        }
        let (mut client, mut server) = tokio::io::duplex(1);
        client.write_all(b"P").await.unwrap();
        assert_eq!(beginning(&mut server).await, None, "it waits for no more than its time");
        drop(client);
        assert_eq!(beginning(&mut server).await, None, "it ended");
    }

    #[test]
    fn a_request_names_a_service_or_none() {
        let long = "a".repeat(130);
        let mut named = b"\0\0\0\0\x85\x0a\x82\x01".to_vec();
        named.extend_from_slice(long.as_bytes());
        assert_eq!(service_of(&named), Some(long.as_str()));
        for (body, service) in [
            (&b"\0\0\0\0\0"[..], Some("")),
            (b"\0\0\0\0\x02\x0a\0", Some("")),
            (b"\0\0\0\0\x06\x0a\x04shop", Some("shop")),
            (b"\0\0\0\0\x06\x0a\x05shop", None),
            (b"\0\0\0\0\x07\x0a\x04shop", None),
            (b"\x01\0\0\0\0", None),
            // Fields of a later version: each kind, before and behind the name.
            (b"\0\0\0\0\x02\x10\x01", Some("")),
            (b"\0\0\0\0\x05\x0a\x01a\x10\x01", Some("a")),
            (b"\0\0\0\0\x0c\x11\0\0\0\0\0\0\0\0\x0a\x01a", Some("a")),
            (b"\0\0\0\0\x08\x15\0\0\0\0\x0a\x01a", Some("a")),
            (b"\0\0\0\0\x06\x12\x01b\x0a\x01a", Some("a")),
            (b"\0\0\0\0\x02\x13\0", None),
            (b"\0\0\0\0\x02\x15\0", None),
            (b"\0\0\0\0\x0c\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0", None),
            (b"\0\0\0\0\x0b\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", None),
            (b"\0\0\0\0\x03\x0a\x01\xff", None),
            (b"\0\0\0\0\x01\x0a", None),
            (b"\0\0\0", None),
            (b"", None),
        ] {
            assert_eq!(service_of(body), service, "{body:?}");
        }
    }
}
