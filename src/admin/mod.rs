//! The admin listener: health, metrics and operations. Never the public listener.
//!
//! `/healthz`, `/readyz`, `/metrics` and the health checks of gRPC answer everybody who reaches the
//! listener. Everything under `/v1/` wants a token or a session of the dashboard, or a loopback
//! address where there is no `admin.token`, and refuses what a web page of another site could send.

mod api_keys;
mod audit;
mod cache;
mod cache_entry;
mod cache_top;
mod cache_walk;
mod canaries;
mod certificates;
mod config;
mod connection;
mod doctor;
mod events;
mod families;
mod findings;
mod grpc_health;
mod guard;
mod hints;
mod limits;
mod live;
mod log;
mod login;
mod logins;
mod masked;
mod operations;
mod overview;
mod purge;
mod query;
mod queues;
mod readiness;
mod reply;
mod requests;
mod revocation_list;
mod revocations;
mod routes;
mod series;
mod sessions;
mod status;
mod store;
mod throttle;
mod tunnels;
mod ui;
mod upstreams;

use std::convert::Infallible;
use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub use self::audit::told;
pub use self::doctor::examine;
pub use self::routes::{Access, ROUTES, Route};

use self::audit::Audit;
use self::connection::Connection;
use self::guard::{Known, Stranger};
use self::logins::Logins;
use self::operations::Asked;
use self::reply::{Body, Reply, not_allowed, problem, text};
use crate::config::Dashboard;
use crate::observe::Format;
use crate::runtime::Gateway;

/// Largest body of an operation, in bytes; that of a session may be as large as sessions are.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for a request's head, and for its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Open admin connections.
const CONNECTIONS_MAX: usize = 64;
/// Longest time in which a client reads nothing of what is sent.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that may wait in a socket unsent.
const UNSENT_BYTES_MAX: u32 = 64 * 1024;
/// How long an address waits for each answer that has sent too many wrong tokens.
const STRANGER_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The admin listener, bound.
#[derive(Debug)]
pub struct Admin {
    state: Arc<State>,
    listener: Arc<TcpListener>,
}

/// What answers are made from.
#[derive(Debug)]
struct State {
    gateway: Arc<Gateway>,
    /// Who is logged in to the dashboard.
    logins: Arc<Logins>,
}

impl Admin {
    /// Serves on a listener of `admin.listen`.
    pub fn new(gateway: &Arc<Gateway>, listener: Arc<TcpListener>) -> Self {
        let state = State { gateway: Arc::clone(gateway), logins: Arc::default() };
        Self { state: Arc::new(state), listener }
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
                () = self.state.gateway.left().cancelled() => return,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let state = Arc::clone(&self.state);
            let stop = stop.clone();
            let connection = Arc::new(Connection::new(peer, place));
            tokio::spawn(async move {
                tokio::select! {
                    () = serve(&state, &connection, stream) => {}
                    () = connection.ended() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }
}

/// Serves a connection until it ends. HTTP/2 is for the health checks of gRPC alone.
async fn serve(state: &Arc<State>, connection: &Arc<Connection>, mut stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    // Who reads a stream no more is noticed soon, and costs no memory meanwhile.
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    // Who reads an answer no more keeps nobody else out.
    let _ = socket.set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
    let Some(beginning) = grpc_health::beginning(&mut stream).await else { return };
    let is_grpc = grpc_health::is_asked(&beginning);
    let (reading, writing) = stream.into_split();
    let stream = tokio::io::join(Cursor::new(beginning).chain(reading), writing);
    if is_grpc {
        return grpc_health::serve(&state.gateway, stream).await;
    }
    let service = service_fn(|request| {
        let (state, connection) = (Arc::clone(state), Arc::clone(connection));
        async move { Ok::<_, Infallible>(answer(&state, &connection, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A broken admin connection is the client's affair.
    let _ = served.await;
}

async fn answer(state: &State, connection: &Arc<Connection>, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let (gateway, path) = (&state.gateway, head.uri.path());
    if path.starts_with("/v1/") {
        // Whatever is not only looked at leaves a line, however it ends; so does each wrong token.
        let mut audit = Audit::begin(connection.peer, &head, gateway);
        let mut reply = operate(state, connection, &head, body, audit.as_mut()).await;
        let stranger = reply.extensions().get::<Stranger>().copied();
        if audit.is_none() && stranger.is_some() {
            audit = Some(Audit::of_stranger(connection.peer, &head, gateway));
        }
        if let Some(audit) = audit {
            audit.end(&reply);
        }
        if stranger.is_some_and(|stranger| stranger.is_slowed) {
            tokio::time::sleep(STRANGER_PAUSE).await;
        }
        guard::secure(reply.headers_mut());
        return reply;
    }
    match (&head.method, path) {
        (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, "/readyz") => readiness::ready(gateway),
        (&Method::GET | &Method::HEAD, "/metrics") => metrics(gateway, &head.headers),
        (_, "/healthz" | "/readyz" | "/metrics") => not_allowed("GET, HEAD"),
        _ if path == "/ui" || path.starts_with("/ui/") => {
            let mut reply = dashboard(gateway, connection.peer, &head);
            guard::secure(reply.headers_mut());
            reply
        }
        _ => not_served(),
    }
}

fn not_served() -> Reply {
    let detail = "The admin listener serves /healthz, /readyz, /metrics and /v1/….";
    problem(StatusCode::NOT_FOUND, "not_found", detail)
}

/// The files of the dashboard, which hold nothing that is to be kept from anybody.
fn dashboard(gateway: &Gateway, peer: SocketAddr, head: &Parts) -> Reply {
    let running = gateway.running();
    let admin = &running.plan.config.admin;
    if let Err(refusal) = guard::screen(admin, peer, head) {
        return *refusal;
    }
    if admin.dashboard == Dashboard::Off {
        return guard::dashboard_off();
    }
    ui::serve(head)
}

/// One operation, if its sender may have it.
async fn operate(
    state: &State,
    connection: &Arc<Connection>,
    head: &Parts,
    body: Incoming,
    mut audit: Option<&mut Audit>,
) -> Reply {
    let State { gateway, logins } = state;
    let admitted =
        guard::admit(&gateway.running().plan.config.admin, logins, connection.peer, head);
    let caller = match admitted {
        Ok(caller) => caller,
        Err(refusal) => {
            if let (Some(audit), Some(Known(by))) = (audit, refusal.extensions().get()) {
                audit.admit(by.clone());
            }
            return *refusal;
        }
    };
    if let Some(audit) = &mut audit {
        audit.admit(caller.told());
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
    let asked = Asked { gateway, logins, connection, caller: &caller, head };
    operations::carry_out(&asked, &body).await
}

fn body_bytes_max(gateway: &Gateway) -> usize {
    let session = gateway.running().plan.config.session.as_ref().map_or(0, |it| it.max_bytes);
    usize::try_from(session).unwrap_or(usize::MAX).max(BODY_BYTES_MAX)
}

/// All metrics, in the form that their reader likes best.
fn metrics(gateway: &Gateway, headers: &HeaderMap) -> Reply {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let format = Format::accepted(accept);
    let mut reply = Response::new(Body::new(gateway.render_metrics(format)));
    let kind = HeaderValue::from_static(format.content_type());
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    reply
}
