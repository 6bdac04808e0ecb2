//! What a request is about: something on a route, or something that the gateway answers itself.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::content::Content;
use super::deliver;
use super::edged::Edged;
use super::rejection::Rejection;
use super::request::{Received, Request, Resolved};
use crate::base::facts::Target;
use crate::base::grpc::{self, GRPC_STATUS};
use crate::config::Cors;
use crate::forwarding::client;
use crate::guard::{self, Inspected, Malformed};
use crate::limit::Exceeded;
use crate::plan::{Plan, Respond, Route};
use crate::route::NoRoute;
use crate::{auth, cache, cors};

/// What a well-formed head asks for.
pub(super) enum Resolution<'a> {
    /// Something on a route.
    Route(Request<'a>),
    /// Something that the gateway answers itself, before anybody has to be admitted.
    Answer(Response<Content>, By),
}

/// What in the configuration has the gateway answer before anybody has to be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Nothing: `OPTIONS *` asks about the gateway itself.
    Itself,
    /// `server.tls.redirect`
    Redirect,
    /// `cors` of the route.
    Cors,
    /// `respond` of the route.
    Respond,
}

impl By {
    /// In the words of the configuration.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Itself => "the gateway itself",
            Self::Redirect => "server.tls.redirect",
            Self::Cors => "cors of the route",
            Self::Respond => "respond of the route",
        }
    }
}

/// Reads the head: who asks for what, on which route.
///
/// # Errors
/// It is not well formed, or no route takes it.
pub(super) fn resolve<'a>(
    received: &'a Received,
    resolved: &'a mut Resolved,
    head: &Parts,
    has_body: bool,
) -> Result<Resolution<'a>, Rejection> {
    let (plan, peer) = (received.plan(), &received.connection.peer);
    resolved.client = client::identify(&plan.client, peer, &head.headers);
    resolved.target = match guard::inspect(&plan.guard, peer, head)? {
        Inspected::Route(target) => Some(target),
        Inspected::ServerOptions => None,
    };
    let Some(asked) = &resolved.target else {
        return Ok(Resolution::Answer(server_options(received, resolved), By::Itself));
    };
    if is_misdirected(received, asked) {
        return Err(Rejection::Misdirected);
    }
    if peer.encryption.is_none()
        && resolved.client.scheme == "http"
        && let Some(location) = plan.edge.redirect(peer, asked)
    {
        return Ok(Resolution::Answer(redirect(received, resolved, location), By::Redirect));
    }
    let (route, preflight) = find(plan, asked, head)?;
    resolved.route = Some(route.index);
    if route.written.cors.is_some() {
        resolved.origin = cors::origin(&head.headers).cloned();
    }
    if let Some(policy) = preflight {
        if route.limits.blocks(resolved.client.address) {
            return Err(Exceeded::Blocked.into());
        }
        let fields = cors::preflight(policy, head)?;
        let response = answer(received, resolved, StatusCode::NO_CONTENT, fields);
        return Ok(Resolution::Answer(response, By::Cors));
    }
    resolved.forwarded = forwarded(route, &head.method, asked);
    if let Some(edge) = &route.edge {
        let target = resolved.forwarded.as_deref().unwrap_or(asked);
        if let Some(respond) = &edge.respond {
            let fields = respond.fields(target).map_err(Malformed::Path)?;
            let response = responded(received, resolved, respond, fields);
            return Ok(Resolution::Answer(response, By::Respond));
        }
        resolved.edged = Some(Edged::of(edge, head, target, received.started)?);
    }
    let resolved = &*resolved;
    let target = resolved.forwarded.as_deref().unwrap_or(asked);
    let caller = &None;
    let (session, waited) = (None, Duration::ZERO);
    let request =
        Request { received, resolved, route, asked, target, caller, session, has_body, waited };
    Ok(Resolution::Route(request))
}

/// The target as it is keyed and sent on, where it is another one than the client's.
pub(super) fn forwarded(route: &Route, method: &Method, asked: &Target) -> Option<Box<Target>> {
    let target = auth::forwarded(route.auth.as_ref(), asked);
    match cache::forwarded(route.cache.as_deref(), method, target) {
        Cow::Borrowed(_) => None,
        Cow::Owned(target) => Some(Box::new(target)),
    }
}

/// The route, by the method that a preflight asks about where the route answers those; and what it
/// answers them by, if this is one.
fn find<'p>(
    plan: &'p Plan,
    asked: &Target,
    head: &Parts,
) -> Result<(&'p Arc<Route>, Option<&'p Cors>), NoRoute> {
    let preflight = cors::asked(head).map(|method| plan.find(asked, &method));
    if let Some(Ok(route)) = preflight
        && let Some(policy) = &route.written.cors
    {
        return Ok((route, Some(policy)));
    }
    let route = plan.find(asked, &head.method)?;
    match preflight {
        // What is asked about would be refused: that is the answer, and not the upstream's.
        Some(Err(no_route)) if route.written.cors.is_some() => Err(no_route),
        _ => Ok((route, None)),
    }
}

/// Whether TLS asks something else of the host's clients than it asked on this connection.
fn is_misdirected(received: &Received, asked: &Target) -> bool {
    let Some(encryption) = &received.connection.peer.encryption else { return false };
    let host = asked.authority.host();
    let live = received.running.tls.as_ref();
    live.is_some_and(|live| !live.table().suits(encryption.name_policy, host))
}

/// The answer to `OPTIONS *`: what the gateway itself can do (RFC 9110 §9.3.7).
fn server_options(received: &Received, resolved: &Resolved) -> Response<Content> {
    const METHODS: HeaderValue =
        HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");
    answer(received, resolved, StatusCode::NO_CONTENT, [(ALLOW, METHODS)])
}

/// The answer to a request in clear for what is served over TLS alone. It is the same request
/// there, body and all (RFC 9110 §15.4.9).
fn redirect(received: &Received, resolved: &Resolved, location: HeaderValue) -> Response<Content> {
    answer(received, resolved, StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)])
}

/// What the route answers by itself; a call reads it as its status.
fn responded(
    received: &Received,
    resolved: &Resolved,
    respond: &Respond,
    mut fields: HeaderMap,
) -> Response<Content> {
    let route = resolved.route(received.plan());
    let web = route.and_then(|route| received.web(route));
    let is_call = received.is_grpc || web.is_some();
    let (mut status, mut body) = (respond.status, respond.body.clone());
    if is_call {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(GRPC_STATUS, HeaderValue::from(grpc::status_of_http(status)));
        if let Some(web) = web {
            web.settle(&mut fields);
        }
        (status, body) = (StatusCode::OK, Bytes::new());
    }
    let mut response = Response::new(Content::Bytes(body));
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    deliver::own(response, received, resolved)
}

fn answer(
    received: &Received,
    resolved: &Resolved,
    status: StatusCode,
    fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> Response<Content> {
    let mut response = Response::new(Content::Bytes(Bytes::new()));
    *response.status_mut() = status;
    response.headers_mut().extend(fields);
    deliver::own(response, received, resolved)
}
