//! The admin listener: health, metrics and operations. Never the public listener.
//!
//! `/healthz`, `/readyz`, `/metrics` and the health checks of gRPC answer everybody who reaches the
//! listener. Everything under `/v1/` wants the token of `admin.token`, or a loopback address where
//! there is none, and refuses what a web page of another site could send.

mod api_keys;
mod audit;
mod canaries;
mod certificates;
mod config;
mod grpc_health;
mod limits;
mod operations;
mod purge;
mod query;
mod readiness;
mod reply;
mod revocations;
mod routes;
mod sessions;
mod status;
mod store;
mod tunnels;
mod ui;
mod upstreams;

use std::convert::Infallible;
use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, VARY, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub use self::audit::told;
pub use self::routes::{Access, ROUTES, Route};

use self::audit::Audit;
use self::reply::{Reply, not_allowed, problem, text};
use crate::base::http::authority::Authority;
use crate::observe::Format;
use crate::runtime::Gateway;

/// Largest body of an operation, in bytes; that of a session may be as large as sessions are.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for a request's head, and for its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Open admin connections.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The admin listener, bound.
#[derive(Debug)]
pub struct Admin {
    gateway: Arc<Gateway>,
    listener: Arc<TcpListener>,
}

impl Admin {
    /// Serves on a listener of `admin.listen`.
    pub fn new(gateway: &Arc<Gateway>, listener: Arc<TcpListener>) -> Self {
        Self { gateway: Arc::clone(gateway), listener }
    }

    /// The address that was bound.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, or until another process has the listener. Health answers must outlive
    /// the public listener's drain.
    pub async fn serve(self, stop: CancellationToken) {
        let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return,
                () = self.gateway.left().cancelled() => return,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let gateway = Arc::clone(&self.gateway);
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = serve(&gateway, peer, stream) => {}
                    () = stop.cancelled() => {}
                }
                drop(place);
            });
        }
    }
}

/// Serves a connection until it ends. HTTP/2 is for the health checks of gRPC alone.
async fn serve(gateway: &Arc<Gateway>, peer: SocketAddr, mut stream: TcpStream) {
    let Some(beginning) = grpc_health::beginning(&mut stream).await else { return };
    let is_grpc = grpc_health::is_asked(&beginning);
    let (reading, writing) = stream.into_split();
    let stream = tokio::io::join(Cursor::new(beginning).chain(reading), writing);
    if is_grpc {
        return grpc_health::serve(gateway, stream).await;
    }
    let service = service_fn(|request| {
        let gateway = Arc::clone(gateway);
        async move { Ok::<_, Infallible>(answer(&gateway, peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A broken admin connection is the client's affair.
    let _ = connection.await;
}

async fn answer(gateway: &Arc<Gateway>, peer: SocketAddr, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if path.starts_with("/v1/") {
        // Whatever is not only looked at leaves a line, however it ends.
        let mut audit = Audit::begin(peer, &head);
        let reply = operate(gateway, peer, &head, body, audit.as_mut()).await;
        if let Some(audit) = audit {
            audit.end(&reply);
        }
        return reply;
    }
    if path == "/ui" || path.starts_with("/ui/") {
        return ui::serve(&head);
    }
    match (&head.method, path) {
        (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, "/readyz") => readiness::ready(gateway),
        (&Method::GET | &Method::HEAD, "/metrics") => metrics(gateway, &head.headers),
        (_, "/healthz" | "/readyz" | "/metrics") => not_allowed("GET, HEAD"),
        _ => problem(
            StatusCode::NOT_FOUND,
            "not_found",
            "The admin listener serves /healthz, /readyz, /metrics and /v1/….",
        ),
    }
}

/// One operation, if its sender may have it.
async fn operate(
    gateway: &Arc<Gateway>,
    peer: SocketAddr,
    head: &Parts,
    body: Incoming,
    mut audit: Option<&mut Audit>,
) -> Reply {
    if let Some(refusal) = refuse(gateway, peer, &head.method, &head.headers) {
        return refusal;
    }
    if let Some(audit) = &mut audit {
        let has_token = gateway.running().plan.config.admin.token.is_some();
        audit.admit(if has_token { "admin.token" } else { "loopback" });
    }
    let bytes_max = body_bytes_max(gateway);
    let collected = tokio::time::timeout(REQUEST_TIMEOUT, Limited::new(body, bytes_max).collect());
    let body = match collected.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            let detail = format!("The body could not be read, or has more than {bytes_max} bytes.");
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", &detail);
        }
        Err(_) => {
            return problem(StatusCode::REQUEST_TIMEOUT, "body_stalled", "Send the body faster.");
        }
    };
    if let Some(audit) = audit {
        audit.body(&body);
    }
    operations::carry_out(gateway, head, &body).await
}

fn body_bytes_max(gateway: &Gateway) -> usize {
    let session = gateway.running().plan.config.session.as_ref().map_or(0, |it| it.max_bytes);
    usize::try_from(session).unwrap_or(usize::MAX).max(BODY_BYTES_MAX)
}

/// The answer to those who may not operate the gateway.
fn refuse(
    gateway: &Gateway,
    peer: SocketAddr,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Reply> {
    let running = gateway.running();
    match &running.plan.config.admin.token {
        Some(token) => {
            let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
            let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
            // Equal time for equal lengths, so that the token cannot be guessed byte by byte.
            if aws_lc_rs::constant_time::verify_slices_are_equal(given, token.expose()).is_err() {
                let detail = "Send Authorization: Bearer with the value of admin.token.";
                let mut reply = problem(StatusCode::UNAUTHORIZED, "admin_token_invalid", detail);
                let challenge = HeaderValue::from_static("Bearer realm=\"portcullis-admin\"");
                reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                return Some(reply);
            }
        }
        None => {
            // A page that was rebound to this address still names its own host (DNS rebinding).
            let host = headers.get(HOST).and_then(|host| Authority::parse(host.as_bytes()));
            let local_name = host.is_some_and(|host| {
                let address = host.host().trim_matches(['[', ']']).parse::<std::net::IpAddr>();
                host.host() == "localhost" || address.is_ok_and(|address| address.is_loopback())
            });
            if !peer.ip().to_canonical().is_loopback() || !local_name {
                let detail = "Without admin.token, operations are for this machine alone: \
                              set admin.token to operate from elsewhere.";
                return Some(problem(StatusCode::FORBIDDEN, "admin_loopback_only", detail));
            }
        }
    }
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().to_ascii_lowercase().starts_with(b"application/json")
    });
    // What a form or a script of another site can send without asking first.
    if headers.contains_key(ORIGIN) || (*method == Method::POST && !is_json) {
        let detail = "Send Content-Type: application/json and no Origin.";
        return Some(problem(StatusCode::FORBIDDEN, "cross_site_refused", detail));
    }
    None
}

/// All metrics, in the form that their reader likes best.
fn metrics(gateway: &Gateway, headers: &HeaderMap) -> Reply {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let format = Format::accepted(accept);
    let mut reply = Response::new(Full::new(Bytes::from(gateway.render_metrics(format))));
    let kind = HeaderValue::from_static(format.content_type());
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    reply
}
