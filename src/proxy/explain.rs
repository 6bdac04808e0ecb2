//! What would happen to a request, without it happening: the same walk as far as the cache and the
//! upstream, with a store that is only asked to look.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{HOST, LOCATION};
use http::request::Parts;
use http::{HeaderMap, Method, Response, Uri};
use serde_json::{Map, Value, json};

use super::affinity;
use super::arm;
use super::checks::{Admitted, Checks, Mode};
use super::connection::Connection;
use super::content::Content;
use super::explained;
use super::login;
use super::pools;
use super::record::Record;
use super::rejection::Rejection;
use super::request::{Received, Request, Resolved};
use super::resolve::{By, Resolution, resolve};
use super::walk::admit;
use crate::base::facts::{Caller, ClientAddr, Encryption, Peer};
use crate::base::http::authority::Authority;
use crate::plan::{LoginAnswer, OidcStep, Route, RouteEdge};
use crate::runtime::Gateway;
use crate::session::NoSession;
use crate::upstream::Foreseen;

/// A request as an operator describes it.
#[derive(Debug)]
pub struct Described {
    /// Its method.
    pub method: Method,
    /// Its target: a path with its query.
    pub target: Uri,
    /// Its fields, `Host` among them.
    pub headers: HeaderMap,
    /// The client's address.
    pub address: IpAddr,
    /// Whether it comes over TLS. Without a word on it, as clients come that reach a route: over
    /// TLS where the gateway redirects to that.
    pub is_encrypted: Option<bool>,
}

/// Who would answer a request that may pass.
enum Answers {
    /// The upstream of this name, and the server of it that would be asked.
    Upstream(String, Foreseen),
    /// The gateway itself, before anybody has to be admitted.
    Early(Response<Content>, By),
    /// The gateway itself, by this part of the route.
    Gateway(String),
}

impl Answers {
    fn describe(self) -> Value {
        match self {
            Self::Upstream(upstream, Foreseen { server, why }) => json!({
                "passes": true,
                "upstream": upstream,
                "server": server,
                "why": why,
            }),
            Self::Early(response, by) => {
                let (by, status) = (by.as_str(), response.status().as_u16());
                let location = response.headers().get(LOCATION);
                match location.map(|it| String::from_utf8_lossy(it.as_bytes())) {
                    None => json!({ "passes": false, "status": status, "by": by }),
                    Some(location) => json!({
                        "passes": false,
                        "status": status,
                        "by": by,
                        "location": location,
                    }),
                }
            }
            Self::Gateway(by) => json!({ "passes": true, "by": by }),
        }
    }
}

/// Tells which route takes a request, who calls, what its limits have left, and how it would end.
pub async fn explain(gateway: &Arc<Gateway>, described: Described) -> Value {
    let mut report = Map::new();
    let ending = match walk(gateway, described, &mut report).await {
        Ok(answers) => answers.describe(),
        Err(rejection) => json!({
            "passes": false,
            "status": rejection.status().as_u16(),
            "code": rejection.code(),
            "reason": rejection.to_string() + &explained::unlike_text(report.get("unlike")),
        }),
    };
    report.insert("outcome".to_owned(), ending);
    Value::Object(report)
}

/// The way to whoever would answer.
async fn walk(
    gateway: &Arc<Gateway>,
    described: Described,
    report: &mut Map<String, Value>,
) -> Result<Answers, Rejection> {
    let peer = peer_of(gateway, &described);
    let mut head = head_of(described);
    let connection = Connection::new(gateway, peer);
    let received = Received::new(&connection, &mut head);
    let mut resolved = Resolved::new(&connection);
    let resolution = resolve(&received, &mut resolved, &head, false);
    let request = match resolution {
        Ok(Resolution::Route(request)) => request,
        Ok(Resolution::Answer(response, by)) => {
            name_route(&received, &resolved, report);
            return Ok(Answers::Early(response, by));
        }
        Err(rejection) => {
            name_route(&received, &resolved, report);
            return Err(rejection);
        }
    };
    name_route(&received, request.resolved, report);
    // Nothing of these is kept.
    let (mut caller, mut record, mut slot) = (None, Record::new(), None);
    let mut checks = Checks::new(request, &head, Mode::Peek);
    let admitted = admit(&mut checks, &mut caller, &mut record, &mut slot).await;
    if let Some(shown) = checks.shown() {
        let Request { route, caller, .. } = checks.request;
        report.insert("caller".to_owned(), describe_caller(route, caller));
        report.insert("limits".to_owned(), json!(shown));
    }
    if let Some(headers) = explained::claim_headers(&checks.request) {
        report.insert("claim_headers".to_owned(), headers);
    }
    if let Err(Rejection::Denied(denied)) = &admitted
        && let Some(unlike) = explained::unlike(&checks.request, &head, denied)
    {
        report.insert("unlike".to_owned(), unlike);
    }
    if let Some(session) = describe_session(&checks, &admitted) {
        report.insert("session".to_owned(), session);
    }
    admitted?;
    login::judge_log_in(&request, &head)?;
    if let Some(by) = request.route.edge.as_deref().and_then(own_answer) {
        return Ok(Answers::Gateway(by));
    }
    if let Some((arm, why)) = arm::describe(&request) {
        report.insert("arm".to_owned(), json!({ "upstream": arm, "why": why }));
    }
    let (name, _) = &request.plan().upstreams[request.upstream()];
    let key = affinity::key(&checks.request, request.upstream());
    let mut foreseen = None;
    if let Some(((pool, why), reader)) = pools::foresee(&checks.request, key) {
        report.insert("pool".to_owned(), json!({ "pool": pool, "why": why }));
        foreseen = reader;
    }
    let foreseen = match foreseen {
        Some(reader) => reader,
        None => request.running().upstreams[request.upstream()].foresee(key)?,
    };
    Ok(Answers::Upstream(name.clone(), foreseen))
}

/// The other end of a connection that would carry the request.
fn peer_of(gateway: &Arc<Gateway>, described: &Described) -> Peer {
    let running = gateway.running();
    let server = &running.plan.config.server;
    let is_encrypted = described.is_encrypted.unwrap_or(running.plan.edge.redirects());
    let live = running.tls.as_ref().filter(|_| is_encrypted);
    let encryption = live.map(|live| {
        let host = described.headers.get(HOST).and_then(|host| Authority::parse(host.as_bytes()));
        let name_policy = host.map(|host| live.table().name_policy_of(host.host()));
        let name_policy = name_policy.unwrap_or_default();
        Arc::new(Encryption { version: "TLSv1.3", name_policy, client: None })
    });
    let of_tls = server.tls.as_ref().filter(|_| encryption.is_some()).map(|tls| &tls.listen);
    let local = of_tls.and_then(|listen| listen.first()).or(server.listen.first()).copied();
    let local = local.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 80)));
    Peer::new(ClientAddr::new(described.address), local, encryption)
}

/// Says which route takes the request, as soon as that is known.
fn name_route(received: &Received, resolved: &Resolved, report: &mut Map<String, Value>) {
    if let Some(route) = resolved.route(received.plan()) {
        report.insert("route".to_owned(), json!(route.name));
        if let Some(asked) = &resolved.target {
            report.insert("path".to_owned(), json!(asked.path()));
        }
    }
}

/// What has the gateway itself answer a request that was admitted; nothing where an upstream does.
fn own_answer(edge: &RouteEdge) -> Option<String> {
    if !edge.answers() {
        return None;
    }
    Some(if let Some(deferred) = &edge.deferred {
        format!("the queue {}, which delivers it later", deferred.written.queue)
    } else if let Some(streamed) = &edge.streamed {
        format!("the stream {}, which stores it", streamed.stream)
    } else if edge.tells_at.is_some() {
        own("deliveries")
    } else if edge.brings.is_some() {
        own("events")
    } else if let Some(answers) = edge.login.as_ref().and_then(|login| login.answers.as_ref()) {
        own(match answers {
            LoginAnswer::Session => "session",
            LoginAnswer::Logout { .. } => "logout",
        })
    } else if let Some(route) = &edge.oidc {
        own(match route.step {
            OidcStep::Login => "login",
            OidcStep::Callback => "callback",
            OidcStep::BackchannelLogout => "backchannel_logout",
        })
    } else if edge.signed.as_ref().is_some_and(|signed| signed.refresh.is_some()) {
        own("refresh")
    } else {
        own("jwks")
    })
}

fn own(word: &str) -> String {
    format!("answers = \"{word}\" of the route")
}

fn head_of(described: Described) -> Parts {
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = described.method;
    head.uri = described.target;
    head.headers = described.headers;
    head
}

fn describe_caller(route: &Route, caller: &Caller) -> Value {
    match (&route.auth, caller) {
        (None, _) if route.session.is_some() => json!("no credentials are asked for"),
        (None, _) => json!("the route is public"),
        (Some(_), None) => json!(null),
        (Some(_), Some(identity)) => json!({
            "subject": identity.subject,
            "issued_at": identity.issued_at,
            "expires_at": Some(identity.expires_at).filter(|at| *at != i64::MAX),
            "verifier": &*identity.verifier,
        }),
    }
}

/// Whether upstreams are told of sessions: one that only says who calls is told as the caller.
fn attaches(route: &Route) -> bool {
    route.session.as_ref().is_some_and(|policy| !policy.is_for_caller())
}

/// Whether the request names a session, whether there is one, and what the upstream is told of it;
/// null where the route uses none, and nothing where the request does not come so far.
fn describe_session(
    checks: &Checks<'_, '_>,
    admitted: &Result<Admitted<'_>, Rejection>,
) -> Option<Value> {
    let (is_named, is_found) = (checks.names_session(), checks.has_session());
    let fields = match admitted {
        Ok(_) if !attaches(checks.request.route) => return Some(json!(null)),
        Ok(Admitted { added, .. }) => added,
        Err(Rejection::NoSession { why, .. }) if is_named => {
            let mut told = json!({ "named": true, "unusable": why.to_string() });
            if *why == NoSession::Required {
                told["found"] = false.into();
            }
            return Some(told);
        }
        Err(Rejection::NoSession { .. }) => return Some(json!({ "named": false })),
        Err(_) => return None,
    };
    if !is_named {
        return Some(json!({ "named": false }));
    }
    // Marks of limits are among them.
    let config = checks.request.plan().config.session.as_ref();
    let is_of_session = |name: &&str| {
        config.is_some_and(|session| {
            session.header.as_deref() == Some(*name)
                || session.fields_to_headers.contains_key(*name)
        })
    };
    let names = fields.iter().map(|(name, _)| name.as_str()).filter(is_of_session);
    let names: Vec<_> = names.collect();
    Some(json!({ "named": true, "found": is_found, "headers": names }))
}
