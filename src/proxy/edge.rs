//! What a route does to requests and responses on their way beyond passing them on.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use tokio::time::Instant;

use super::content::{Content, Encoded};
use super::edged::Edged;
use super::request::Request;
use crate::base::http::fields::vary_on;
use crate::cache;
use crate::config::Compress;
use crate::encode::{self, Asked, Encodable, Encoding};
use crate::forwarding::fields;
use crate::plan::RouteEdge;

/// What the path has lost: upstreams that make links of their own put it before them.
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Does to a request what its route says, before it leaves for the upstream.
pub(super) fn prepare(request: &Request<'_>, edge: &RouteEdge, head: &mut http::Request<()>) {
    if let Some(target) = request.resolved.edged.as_ref().and_then(|it| it.rewritten.as_ref()) {
        *head.uri_mut() = http::Uri::from(target.path_and_query.clone());
        head.headers_mut().insert(HOST, target.authority.to_header());
    }
    if let Some(addressed) = request.resolved.edged.as_ref().and_then(|it| it.addressed.as_ref()) {
        head.extensions_mut().insert(Arc::clone(addressed));
        fields::keep_for_message(&request.plan().headers, head.headers_mut());
    }
    let headers = head.headers_mut();
    if edge.issues().is_some() {
        ask_plainly(headers);
    }
    if let Some(prefix) = edge.rewrite.as_ref().and_then(|rewrite| rewrite.prefix.as_ref()) {
        headers.insert(X_FORWARDED_PREFIX, prefix.clone());
    }
    edge.requests.apply(headers);
    if let Some(via) = &edge.via {
        via.stamp(request.received.version, headers);
    }
    if let Some((name, deadline)) = deadline_of(request, edge) {
        stamp(headers, name, deadline);
    }
}

/// Takes what would have an upstream answer in a way that cannot be looked into, or not with the
/// whole answer, out of the fields of a request that logs in.
fn ask_plainly(headers: &mut HeaderMap) {
    for name in [ACCEPT_ENCODING, RANGE, IF_RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE] {
        headers.remove(name);
    }
}

/// The field that tells the upstream how much time is left, and until when.
fn deadline_of<'r>(
    request: &Request<'_>,
    edge: &'r RouteEdge,
) -> Option<(&'r HeaderName, Instant)> {
    let deadline = request.resolved.edged.as_ref().and_then(|edged| edged.deadline)?;
    Some((edge.deadline_header.as_ref()?, deadline))
}

fn stamp(headers: &mut HeaderMap, name: &HeaderName, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    // Zero would be none to some.
    let left = u64::try_from(left).unwrap_or(u64::MAX).max(1);
    headers.insert(name, HeaderValue::from(left));
}

/// What tells an upstream how much time is left, for a head that is made long before it is sent.
pub(super) struct TimeLeft {
    name: HeaderName,
    deadline: Instant,
}

impl TimeLeft {
    /// Nothing where the route has no field for that.
    pub(super) fn of(request: &Request<'_>) -> Option<Box<Self>> {
        let (name, deadline) = deadline_of(request, request.route.edge.as_ref()?)?;
        Some(Box::new(Self { name: name.clone(), deadline }))
    }

    /// Says it as it is now.
    pub(super) fn stamp(&self, headers: &mut HeaderMap) {
        stamp(headers, &self.name, self.deadline);
    }
}

/// Does to a response what its route says, as the last of all.
pub(super) fn apply(
    request: &Request<'_>,
    edge: &RouteEdge,
    response: Response<Content>,
) -> Response<Content> {
    let (Some(policy), Some(edged)) = (&edge.compress, &request.resolved.edged) else {
        return response;
    };
    match edged.asked {
        Some(asked) => compressed(request, policy, (edged, asked), response),
        None => response,
    }
}

/// The response in the coding that its client wants, if it may have one.
fn compressed(
    request: &Request<'_>,
    policy: &Compress,
    (edged, asked): (&Edged, Asked),
    response: Response<Content>,
) -> Response<Content> {
    let (mut head, content) = response.into_parts();
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let announced = announced.and_then(|length| length.parse().ok());
    // What answers a HEAD has the length of what it stands for.
    let length = announced.or_else(|| content.size_hint().exact());
    let asked = (asked, asked.has_credentials || says_who_calls(request));
    let encodable = if content.is_plain() {
        encode::encodable(policy, asked, &head, length)
    } else {
        Encodable::Never
    };
    if encodable == Encodable::Never {
        return Response::from_parts(head, content);
    }
    vary_on(&mut head.headers, &ACCEPT_ENCODING);
    if head.status == StatusCode::NOT_MODIFIED {
        encode::weaken_as_held(&edged.conditions, &mut head.headers);
    }
    let Encodable::As(coding) = encodable else { return Response::from_parts(head, content) };
    let most = request.plan().config.server.limits.compressions;
    let place = request.gateway().compressions.take(most);
    let (Some(place), Ok(encoding)) = (place, Encoding::new(coding, length)) else {
        return Response::from_parts(head, content);
    };
    encode::describe(coding, &mut head.headers);
    let is_held = request.received.method == Method::GET
        && head.status == StatusCode::OK
        && cache::client_has(&head.headers, &edged.conditions, 0);
    if is_held {
        // An upstream that compares tags as text does not know the weak one for its own.
        return not_modified(head);
    }
    let encoded = Encoded::new(content, encoding, place);
    Response::from_parts(head, Content::Encoded(Box::new(encoded)))
}

/// The same without its content (RFC 9110 §15.4.5).
fn not_modified(mut head: http::response::Parts) -> Response<Content> {
    const OF_CONTENT: [HeaderName; 4] =
        [ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE];
    head.status = StatusCode::NOT_MODIFIED;
    for name in OF_CONTENT {
        head.headers.remove(name);
    }
    Response::from_parts(head, Content::Bytes(Bytes::new()))
}

/// Whether what lets the request in says who calls, so that content may hold what is his alone.
fn says_who_calls(request: &Request<'_>) -> bool {
    request.caller.is_some()
        || request.route.session.is_some()
        || request.received.connection.certificate().is_some()
}
