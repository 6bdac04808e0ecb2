//! The only way to a client: which fields of a response pass, and what the gateway adds to it. What
//! it answers itself, refusals above all, goes the same way.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version};

use super::content::Content;
use super::degraded::Degraded;
use super::edge;
use super::own_cookie;
use super::record::Record;
use super::rejection::Rejection;
use super::request::{Received, Request, Resolved};
use super::upgrade;
use crate::caching::CacheNotes;
use crate::forwarding::fields::{self, X_REQUEST_ID};
use crate::forwarding::rules;
use crate::limit::Quota;
use crate::upstream::Failure;
use crate::{cache, cors};

/// The field of [`stamp_degraded`].
const DEGRADED: HeaderName = HeaderName::from_static("x-portcullis-degraded");

/// A response that the gateway did not make itself.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<Content>,
    /// Whether it was stored before the request came.
    pub(super) is_stored: bool,
    /// Whether its client, or another one of the same caller, has been given it before.
    pub(super) is_replayed: bool,
}

impl Answer {
    /// From the upstream, also where the cache had a part in it. From here on nobody reads what
    /// belongs to the upstream's connection. What is stored was stored without that.
    pub(super) fn fetched(mut response: Response<Content>) -> Self {
        fields::returning(response.headers_mut());
        Self { response, is_stored: false, is_replayed: false }
    }

    /// From the cache alone.
    pub(super) fn stored(response: Response<Content>) -> Self {
        Self { response, is_stored: true, is_replayed: false }
    }

    /// From what is kept under an idempotency key, as the upstream gave it.
    pub(super) fn replayed(response: Response<Content>) -> Self {
        Self { response, is_stored: false, is_replayed: true }
    }
}

/// Delivers a response, with what the cache did and what the limits have left.
pub(super) fn answer(
    request: &Request<'_>,
    answer: Answer,
    cache: Option<&CacheNotes>,
    quota: &Quota,
) -> Response<Content> {
    let Answer { response, is_stored, .. } = answer;
    let (mut head, mut content) = response.into_parts();
    if let Content::Call(call) = &mut content {
        call.settle(&mut head);
    }
    let mut response = Response::from_parts(head, content);
    let headers = response.headers_mut();
    // What is stored was stored without them.
    if !is_stored && request.route.cache.is_some() {
        cache::strip_tags(headers);
    }
    if let Some(notes) = cache {
        notes.append_to(headers);
    }
    quota.stamp(headers, SystemTime::now);
    own_cookie::settle(&mut response, request.plan());
    let headers = response.headers_mut();
    finish(headers, request.received, request.resolved);
    if let Some(edge) = &request.route.edge {
        response = edge::apply(request, edge, response);
    }
    upgrade::stamp(response)
}

/// Refuses a request, and tells its record why.
pub(super) fn refusal(
    rejection: &Rejection,
    received: &Received,
    resolved: &Resolved,
    record: &mut Record,
) -> Response<Content> {
    record.note_refusal(rejection, received, resolved);
    let request_id = received.ids.request.to_str().unwrap_or_default();
    let route = resolved.route(received.plan()).map(|route| &**route);
    let web = route.and_then(|route| received.web(route));
    let mut response = rejection.response(received.is_grpc || web.is_some(), request_id);
    let headers = response.headers_mut();
    if let Some(web) = web {
        web.settle(headers);
    }
    if received.version != Version::HTTP_2 && rejection.spoils_connection() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    finish(headers, received, resolved);
    response.map(Content::Bytes)
}

/// Puts what an upstream has for that in place of the refusal of its open breaker. Only where
/// somebody reads: who writes must know that nothing was done, and a call has statuses of its own.
/// Nobody keeps it: the upstream may be back with the next request.
pub(super) fn stand_in(
    request: &Request<'_>,
    rejection: &Rejection,
    response: &mut Response<Content>,
) {
    let Request { received, route, .. } = request;
    let is_call = received.is_grpc || received.web(route).is_some();
    if !matches!(rejection, Rejection::Upstream(Failure::Open(_)))
        || is_call
        || !received.method.is_safe()
    {
        return;
    }
    let Some(fallback) = request.running().upstreams[request.upstream()].fallback() else { return };
    *response.status_mut() = fallback.status;
    *response.body_mut() = Content::Bytes(Bytes::copy_from_slice(fallback.body.as_bytes()));
    let headers = response.headers_mut();
    headers.remove(RETRY_AFTER);
    headers.remove(CONTENT_TYPE);
    if !fallback.body.is_empty() {
        headers.insert(CONTENT_TYPE, fallback.content_type.clone());
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Delivers what the gateway answers itself, on a route or on none.
pub(super) fn own(
    mut response: Response<Content>,
    received: &Received,
    resolved: &Resolved,
) -> Response<Content> {
    finish(response.headers_mut(), received, resolved);
    response
}

/// Tells the client, where it is to know, which functions judged its request without the store.
/// Nobody else says that.
pub(super) fn stamp_degraded(headers: &mut HeaderMap, degraded: Degraded, received: &Received) {
    if received.plan().config.server.degraded_header {
        match degraded.field() {
            Some(field) => drop(headers.insert(DEGRADED, field)),
            None => drop(headers.remove(DEGRADED)),
        }
    }
}

/// What every response gets, whoever made it. Rules of the route for its responses belong here.
fn finish(headers: &mut HeaderMap, received: &Received, resolved: &Resolved) {
    let plan = received.plan();
    let route = resolved.route(plan);
    match route {
        Some(route) => {
            if let Some(edge) = &route.edge {
                edge.responses.apply(headers);
            }
        }
        None => rules::apply(&plan.config.server.response_headers, headers),
    }
    headers.insert(X_REQUEST_ID, received.ids.request.clone());
    if let Some(hsts) = &plan.edge.hsts
        && received.connection.encryption().is_some()
    {
        headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
    if let Some(policy) = route.and_then(|route| route.written.cors.as_ref()) {
        cors::stamp(policy, resolved.origin.as_ref(), headers);
    }
}
