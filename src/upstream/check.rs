//! Active checks: each server is asked regularly how it is, on a connection of its own, in the
//! protocol and under the TLS of its upstream. No route and no metric of requests sees them.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::care::{Care, QUIET};
use super::checked::Said;
use super::conn::{self, Body, Carrier, Connection, ConnectionCount, Trunk, Unanswered};
use super::endpoint::Endpoint;
use crate::base::body::{Inbound, Upload, UploadLimits};
use crate::base::grpc;
use crate::config::{self, Protocol, Question};

/// Who asks.
const AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"), " health check");
/// Longest message of an answer of gRPC, in bytes.
const ANSWER_BYTES_MAX: usize = 64;
/// What stands before each message of gRPC, in bytes.
const PREFIX_BYTES: usize = 5;
/// `status: SERVING` of a `HealthCheckResponse` (health.proto of the gRPC project).
const SERVING: [u8; 2] = [0x08, 0x01];
/// The field `service` of a `HealthCheckRequest`.
const SERVICE_FIELD: u8 = 0x0A;

/// One question and what follows from its answer.
pub(super) type Check = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The questions that are due.
pub(super) fn due(care: &Arc<Care>) -> Vec<Check> {
    let Some(health) = &care.settings().care.health else { return Vec::new() };
    let longest = health.interval.max(QUIET);
    let interval = if care.is_in_use() { health.interval } else { longest };
    let servers = care
        .servers()
        .iter()
        .filter(|server| server.checked().claim(server.verdict().now(), interval, fastrand::f64()));
    servers.map(|server| check(Open(Arc::clone(server)), Arc::clone(care))).collect()
}

/// An open question; dropping it ends that.
struct Open(Arc<Endpoint>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.checked().is_over();
    }
}

fn check(open: Open, care: Arc<Care>) -> Check {
    Box::pin(async move {
        let settings = Arc::clone(care.settings());
        let Some(health) = &settings.care.health else { return };
        let deadline = Instant::now() + health.timeout;
        let asked = timeout_at(deadline, ask(&open.0, &settings, health, deadline)).await;
        let late = || Err("it did not answer within health.timeout".to_owned());
        let fault = asked.unwrap_or_else(|_| late()).err();
        learn(&care, &open.0, health, fault);
    })
}

/// What follows from an answer.
fn learn(care: &Care, server: &Endpoint, health: &config::Health, fault: Option<String>) {
    // A reload has asked somebody else meanwhile.
    let Some(_one) = care.judging() else { return };
    let begins_slowly = care.begins_slowly();
    let verdict = server.verdict();
    if fault.is_none() {
        verdict.note_life(begins_slowly);
        if health.trusted && verdict.end_ejection(begins_slowly) {
            server.tally().forget();
            // One that is out for another reason is not back.
            if verdict.word().is_usable() {
                care.tell_back(server, "its check went well");
            }
        }
    }
    let why = fault.clone().unwrap_or_default();
    match server.checked().note(fault, health.down, health.up) {
        Said::Up if verdict.set_down(false, begins_slowly) => {
            care.tell_back(server, "its checks go well");
        }
        Said::Down if verdict.set_down(true, begins_slowly) => {
            care.tell_out(server, &format!("its checks fail: {why}"));
        }
        Said::Up | Said::Down | Said::Nothing => {}
    }
}

/// Asks a server.
///
/// # Errors
/// What is wrong with it.
async fn ask(
    server: &Endpoint,
    settings: &config::Upstream,
    health: &config::Health,
    deadline: Instant,
) -> Result<(), String> {
    let socket = server.transport().connect(deadline).await.map_err(|why| with_sources(&why))?;
    // Its connection is none of those that max_connections bounds.
    let counted = ConnectionCount::new(usize::MAX).add();
    let has_prior_knowledge = settings.protocol == Protocol::Http2 && !socket.is_secure();
    let carrier = if has_prior_knowledge || socket.protocol() == Some(b"h2") {
        let trunk = Trunk::over(socket, settings, counted).await;
        let trunk = trunk.map_err(|why| format!("it did not begin HTTP/2: {why}"))?;
        Carrier::Branch(trunk.seat().ok_or("it takes no request on a new connection")?)
    } else if settings.protocol == Protocol::Http2 {
        return Err("it does not choose HTTP/2 (ALPN)".to_owned());
    } else {
        let connection = Connection::over(socket, settings, counted).await;
        Carrier::Link(connection.map_err(|why| why.to_string())?)
    };
    let mut request = Some(request(&health.question, &server.transport().host())?);
    let nobody = None::<&fn(StatusCode, &HeaderMap)>;
    let answer = conn::exchange(carrier, &mut request, nobody, health.timeout, false).await;
    let answer = answer.map_err(|why| unanswered(&why))?;
    match &health.question {
        Question::Path(_) => judge_status(answer.status()),
        Question::Grpc(_) => judge_call(answer).await,
    }
}

fn request(question: &Question, authority: &str) -> Result<Request<Upload>, String> {
    let request = Request::builder().header(HOST, authority).header(USER_AGENT, AGENT);
    let request = match question {
        Question::Path(path) => request.uri(path.as_str()).body(Upload::none()),
        Question::Grpc(service) => request
            .method("POST")
            .uri("/grpc.health.v1.Health/Check")
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(upload(message(service))),
    };
    request.map_err(|why| why.to_string())
}

fn upload(bytes: Bytes) -> Upload {
    let limits =
        UploadLimits { bytes_max: u64::MAX, progress_timeout: Duration::MAX, progress_bytes: 0 };
    Upload::new(Inbound::Bytes(bytes), limits, true).0
}

/// A `HealthCheckRequest` behind its prefix.
fn message(service: &str) -> Bytes {
    let mut payload = BytesMut::new();
    if !service.is_empty() {
        payload.put_u8(SERVICE_FIELD);
        // The name is shorter than 128 bytes, so its length is one.
        payload.put_u8(u8::try_from(service.len()).unwrap_or_default());
        payload.extend_from_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(payload.len()).unwrap_or_default());
    framed.unsplit(payload);
    framed.freeze()
}

fn judge_status(status: StatusCode) -> Result<(), String> {
    let is_good = status.is_success() || status.is_redirection();
    if is_good { Ok(()) } else { Err(format!("it answered with status {}", status.as_u16())) }
}

/// Reads the answer of a call to its end.
async fn judge_call(answer: Response<Body>) -> Result<(), String> {
    let (head, mut body) = answer.into_parts();
    if !head.status.is_success() {
        return judge_status(head.status);
    }
    let mut status = grpc::status(&head.headers);
    let mut message = Vec::new();
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        match frame.map_err(|why| why.to_string())?.into_data() {
            Ok(data) if message.len() + data.len() <= ANSWER_BYTES_MAX => {
                message.extend_from_slice(&data);
            }
            Ok(_) => return Err("its answer is too long for a health check".to_owned()),
            Err(frame) => {
                status = frame.trailers_ref().and_then(grpc::status).or(status);
            }
        }
    }
    match status {
        Some(0) => {}
        Some(status) => return Err(format!("its health check ended with gRPC status {status}")),
        None => return Err("its health check ended without a gRPC status".to_owned()),
    }
    let is_serving = message.get(PREFIX_BYTES..).is_some_and(|it| it.starts_with(&SERVING));
    if is_serving { Ok(()) } else { Err("it says that it does not serve".to_owned()) }
}

fn unanswered(why: &Unanswered) -> String {
    match why {
        Unanswered::TurnedAway(error)
        | Unanswered::Reset(error)
        | Unanswered::Lost(Some(error))
        | Unanswered::CutOff(error) => with_sources(error),
        Unanswered::Malformed(what) => format!("its answer is malformed: {what}"),
        Unanswered::Failed(what) => format!("it answered with an error: {what}"),
        Unanswered::TooLarge => "its answer has more fields than `headers`".to_owned(),
        Unanswered::TimedOut | Unanswered::Starved => {
            "it did not answer within health.timeout".to_owned()
        }
        Unanswered::Unsent | Unanswered::Withdrawn | Unanswered::Lost(None) => {
            "it closed the connection without an answer".to_owned()
        }
    }
}

fn with_sources(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_sources(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_service() {
        assert_eq!(message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(message("shop")[..], *b"\0\0\0\0\x06\x0A\x04shop");
    }

    #[test]
    fn good_are_those_from_200_to_399() {
        let judge = |status| judge_status(StatusCode::from_u16(status).unwrap()).is_ok();
        let good = [199, 200, 299, 302, 399, 400, 404, 500, 503].map(judge);
        assert_eq!(good, [false, true, true, true, true, false, false, false, false]);
    }
}
