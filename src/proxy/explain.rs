//! What would happen to a request, without it happening: the same walk as far as the cache and the
//! upstream, with a store that is only asked to look.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use serde_json::{Map, Value, json};

use super::affinity;
use super::arm;
use super::checks::{Admitted, Checks, Mode};
use super::connection::Connection;
use super::pools;
use super::record::Record;
use super::rejection::Rejection;
use super::request::{Received, Request, Resolved};
use super::resolve::{Resolution, resolve};
use super::walk::admit;
use crate::base::facts::{Caller, ClientAddr, Peer};
use crate::plan::Route;
use crate::runtime::Gateway;
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
}

/// Tells which route takes a request, who calls, what its limits have left, and how it would end.
pub async fn explain(gateway: &Arc<Gateway>, described: Described) -> Value {
    let mut report = Map::new();
    let ending = match walk(gateway, described, &mut report).await {
        Ok((upstream, None)) => json!({ "passes": true, "upstream": upstream }),
        Ok((upstream, Some(Foreseen { server, why }))) => json!({
            "passes": true,
            "upstream": upstream,
            "server": server,
            "why": why,
        }),
        Err(rejection) => json!({
            "passes": false,
            "status": rejection.status().as_u16(),
            "code": rejection.code(),
            "reason": rejection.to_string(),
        }),
    };
    report.insert("outcome".to_owned(), ending);
    Value::Object(report)
}

/// The way to the upstream, whose name it returns, and the server that would be asked.
async fn walk(
    gateway: &Arc<Gateway>,
    described: Described,
    report: &mut Map<String, Value>,
) -> Result<(String, Option<Foreseen>), Rejection> {
    let address = ClientAddr::new(described.address);
    let head = head_of(described);
    let local = gateway.running().plan.config.server.listen.first().copied();
    let local = local.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 80)));
    let connection = Connection::new(gateway, Peer::new(address, local, None));
    let received = Received::new(&connection, &head);
    let mut resolved = Resolved::new(&connection);
    let request = match resolve(&received, &mut resolved, &head, false)? {
        Resolution::Route(request) => request,
        Resolution::Answer(_) => return Ok(("-".to_owned(), None)),
    };
    report.insert("route".to_owned(), json!(request.route.name));
    report.insert("path".to_owned(), json!(request.asked.path()));
    // Nothing of these is kept.
    let (mut caller, mut record, mut slot) = (None, Record::new(), None);
    let mut checks = Checks::new(request, &head, Mode::Peek);
    let admitted = admit(&mut checks, &mut caller, &mut record, &mut slot).await;
    if let Some(shown) = checks.shown() {
        let Request { route, caller, .. } = checks.request;
        report.insert("caller".to_owned(), describe_caller(route, caller));
        report.insert("limits".to_owned(), json!(shown));
    }
    if let Some(session) = describe_session(&checks, &admitted) {
        report.insert("session".to_owned(), session);
    }
    admitted?;
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
    Ok((name.clone(), Some(foreseen)))
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

/// Whether the request names a session, whether there is one, and what the upstream is told of it;
/// null where the route uses none, and nothing where the request does not come so far.
fn describe_session(
    checks: &Checks<'_, '_>,
    admitted: &Result<Admitted<'_>, Rejection>,
) -> Option<Value> {
    let (is_named, is_found) = (checks.names_session(), checks.has_session());
    let fields = match admitted {
        Ok(_) if checks.request.route.session.is_none() => return Some(json!(null)),
        Ok(Admitted { added, .. }) => added,
        Err(Rejection::NoSession { why, .. }) if is_named => {
            return Some(json!({ "named": true, "unusable": why.to_string() }));
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
