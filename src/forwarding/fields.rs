//! Which header fields cross the gateway, in either direction.
//!
//! The upstream's head is built anew from what may pass, never by copying framing, `Host` or
//! hop-by-hop fields: what is not copied cannot smuggle. Fields that the gateway owns are dropped
//! in every spelling before it sets its own, because many upstreams read `X_User_Id` and
//! `X.User.Id` as `X-User-Id`.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, FORWARDED, HOST, TE};
use http::header::{HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode};

use crate::base::facts::{Client, ClientAddr, ForwardingFields, Peer, Target};
use crate::base::forwarded::elements;
use crate::base::http::credentials::opens;
use crate::base::http::fields::{
    connection_options, is_framing, is_misleading, is_of_another_edge, is_of_connection,
    is_of_delivery, is_told_by_gateway,
};
use crate::base::trace::{TRACEPARENT, Trace};

use super::trace::{self, BAGGAGE, Sampling, TRACESTATE};

/// `X-Request-Id`
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Longest request id that is kept, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Longest forwarding chain that is passed on, in bytes; a longer one is taken from its end.
const CHAIN_BYTES_MAX: usize = 4096;

/// What the gateway owns.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Lower-case names, with dashes, of headers that carry claims and sessions on any route.
    pub owned: Vec<String>,
}

/// The ids under which one request is found in logs and traces.
#[derive(Debug, Clone)]
pub struct Ids {
    /// `X-Request-Id`
    pub request: HeaderValue,
    /// What is done here, as part of the trace that it came with or that begins with it. Where
    /// nothing of it is recorded, the piece that it came with: nobody would find another one.
    pub trace: Trace,
    /// The trace that it came with.
    came: Option<Trace>,
    /// Whether it goes on with that one.
    is_continued: bool,
    /// Whether what is done here is recorded.
    pub is_recorded: bool,
}

impl Ids {
    /// Keeps the client's ids where they are well formed, makes new ones otherwise. `sampling`:
    /// where requests are traced, which; `is_trusted`: whether a trusted proxy sends this one.
    pub fn of(
        headers: &HeaderMap,
        sampling: Option<&Sampling>,
        is_trusted: impl FnOnce() -> bool,
    ) -> Self {
        let (mut request, mut has_trace) = (None, false);
        // One look over the names is cheaper than asking for each.
        for (name, value) in headers {
            if *name == X_REQUEST_ID {
                request = request.or(Some(value));
            } else if *name == TRACEPARENT {
                has_trace = true;
            }
        }
        let request = request.filter(|id| is_request_id(id));
        let came = if has_trace { trace::parent(headers) } else { None };
        let is_kept = came.is_some() && sampling.is_none_or(|it| it.keeps_parent(is_trusted));
        let continued = came.filter(|_| is_kept);
        let trace = continued.unwrap_or_else(Trace::begin);
        let request = request.cloned().unwrap_or_else(|| {
            // A trace that starts here is named like its first request.
            let named = if continued.is_some() { Trace::begin() } else { trace };
            let digits = Bytes::copy_from_slice(&named.id_digits());
            HeaderValue::from_maybe_shared(digits).unwrap_or(HeaderValue::from_static("none"))
        });
        let mut ids = Self { request, trace, came, is_continued: is_kept, is_recorded: false };
        if let Some(sampling) = sampling {
            ids.is_recorded = continued.map_or_else(|| sampling.takes(trace), Trace::is_sampled);
            if ids.is_recorded {
                let piece = if is_kept { trace.child() } else { trace };
                ids.trace = piece.sampled();
            }
        }
        ids
    }

    /// The piece of its trace that has caused the request; nothing where that begins here.
    pub fn parent(&self) -> Option<Trace> {
        self.came.filter(|_| self.is_continued)
    }

    /// The trace that it came with, and that it does not go on with.
    pub fn link(&self) -> Option<Trace> {
        self.came.filter(|_| !self.is_continued)
    }
}

/// Ids stand in every log, so what looks like credentials is none.
fn is_request_id(id: &HeaderValue) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'=');
    let is_plain =
        |id: &&str| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain);
    id.to_str().ok().filter(is_plain).is_some_and(|id| !opens(id))
}

/// A client's request, as far as its upstream is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Where it goes.
    pub target: &'a Target,
    /// Its fields.
    pub fields: &'a HeaderMap,
    /// Whether it is a gRPC call.
    pub is_grpc: bool,
}

/// The request head for the upstream, without a body. `identity` are the claim and session headers
/// of this request. `traceparent` is left to whoever sends it, as each attempt is a piece of its
/// own.
pub fn outgoing(
    policy: &Policy,
    incoming: Incoming<'_>,
    (peer, client): (&Peer, &Client),
    ids: &Ids,
    identity: impl Iterator<Item = (HeaderName, HeaderValue)>,
) -> http::Request<()> {
    let Incoming { method, target, fields, is_grpc } = incoming;
    let nominated = nominated(fields);
    let (for_value, forwarded) = forwarding(fields, target, peer, client);
    let may_pass = |name: &HeaderName| !nominated.contains(name);
    let state = (ids.is_continued && may_pass(&TRACESTATE)).then(|| trace::state(fields));
    let baggage = client.via.is_some() && may_pass(&BAGGAGE) && trace::is_fit_baggage(fields);
    let mut request = http::Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = http::Uri::from(target.path_and_query.clone());
    let headers = request.headers_mut();
    headers.reserve(fields.len() + 12);
    headers.insert(HOST, target.authority.to_header());
    let mut cookies = 0;
    for (name, value) in fields {
        if passes(policy, name, &nominated) || baggage && *name == BAGGAGE {
            headers.append(name.clone(), value.clone());
            cookies += usize::from(*name == COOKIE);
        }
    }
    if cookies > 1 {
        join_cookies(headers);
    }
    if is_grpc {
        // A gRPC server refuses calls whose client seems unable to read trailers.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.insert(X_FORWARDED_FOR, for_value);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
    let authority = client.authority(target);
    if !authority.is_none() {
        headers.insert(X_FORWARDED_HOST, authority.to_header());
    }
    headers.insert(FORWARDED, forwarded);
    headers.insert(X_REQUEST_ID, ids.request.clone());
    if let Some(state) = state.flatten() {
        headers.insert(TRACESTATE, state);
    }
    if let Some(certificate) = peer.encryption.as_ref().and_then(|it| it.client.as_ref()) {
        headers.extend(certificate.headers.iter().cloned());
    }
    for (name, value) in identity {
        headers.insert(name, value);
    }
    request
}

/// Leaves what a request has beside its body when it is sent as a message: what the gateway says of
/// it, and of what a client says the type of its content and its key.
pub fn keep_for_message(policy: &Policy, headers: &mut HeaderMap) {
    const KEPT: [HeaderName; 3] =
        [CONTENT_TYPE, X_REQUEST_ID, HeaderName::from_static("idempotency-key")];
    let is_kept = |name: &HeaderName| KEPT.contains(name) || is_owned(policy, name);
    let names: Vec<HeaderName> = headers.keys().filter(|it| !is_kept(it)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whether a client's field may reach an upstream.
fn passes(policy: &Policy, name: &HeaderName, nominated: &[HeaderName]) -> bool {
    let plain = dashed(name.as_str());
    !(is_hop_by_hop(&plain)
        || is_gateways_own(&plain)
        || policy.owned.iter().any(|owned| *owned == *plain)
        || nominated.contains(name))
}

/// Whether the gateway itself decides what the upstream sees under this name.
pub fn is_set_by_gateway(policy: &Policy, name: &HeaderName) -> bool {
    let plain = dashed(name.as_str());
    is_gateways_own(&plain) || is_owned(policy, name)
}

/// Whether the gateway tells upstreams of callers, sessions, certificates or limits by this name.
pub fn is_owned(policy: &Policy, name: &HeaderName) -> bool {
    let plain = dashed(name.as_str());
    policy.owned.iter().any(|owned| *owned == *plain)
}

/// A name as upstreams that map headers to variables see it.
fn dashed(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|b| matches!(b, b'_' | b'.')) {
        name.replace(['_', '.'], "-").into()
    } else {
        name.into()
    }
}

/// Fields that each hop makes anew.
fn is_hop_by_hop(name: &str) -> bool {
    is_of_connection(name) || is_framing(name)
}

/// Fields that only the gateway, or nobody, may say to an upstream.
fn is_gateways_own(name: &str) -> bool {
    is_told_by_gateway(name)
        || is_of_delivery(name)
        || is_misleading(name)
        || is_of_another_edge(name)
}

/// The names that ALL `Connection` lines list.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names = Vec::new();
    // One look over the names is cheaper than asking for one.
    if !headers.keys().any(|name| *name == CONNECTION) {
        return names;
    }
    for name in connection_options(headers) {
        if !(name.eq_ignore_ascii_case(b"close") || name.eq_ignore_ascii_case(b"keep-alive"))
            && let Ok(name) = HeaderName::from_bytes(name)
        {
            names.push(name);
        }
    }
    names
}

/// Whether a client has end-to-end fields removed by naming them in `Connection`: the upstream's
/// answer is then one to a request that nobody can see in the fields.
pub fn nominates(headers: &HeaderMap) -> bool {
    let usual = |name: &HeaderName| is_hop_by_hop(name.as_str());
    nominated(headers).iter().any(|name| !usual(name))
}

/// HTTP/2 clients may send cookies in crumbs; RFC 9113 §8.2.3 has them joined before they leave
/// HTTP/2.
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(value) = HeaderValue::try_from(lines.join(&b"; "[..])) {
        headers.insert(COOKIE, value);
    }
}

/// `X-Forwarded-For` and `Forwarded` (RFC 7239): made anew from what is believed. A trusted proxy's
/// own `X-Forwarded-For` is extended, where that is the field it speaks in.
fn forwarding(
    headers: &HeaderMap,
    target: &Target,
    peer: &Peer,
    client: &Client,
) -> (HeaderValue, HeaderValue) {
    let ours = || chain(target, peer, client);
    match &client.via {
        None => {
            let host = target.authority.to_header();
            let forwarded = peer.forwarded.of(&host, || Some(ours())).unwrap_or_else(ours);
            (peer.forwarded_for.clone(), forwarded)
        }
        Some(via) if via.fields == ForwardingFields::XForwarded => {
            (extended(headers, peer), ours())
        }
        Some(via) => {
            let mut nodes = client.address.to_string();
            for proxy in via.proxies.iter().rev() {
                nodes.extend([", ", &proxy.to_string()]);
            }
            (value_or_unknown(nodes), ours())
        }
    }
}

/// `Forwarded`: the client, the trusted proxies behind it, and the peer. Who reads the first
/// element and who reads the last one learn the same scheme and host.
fn chain(target: &Target, peer: &Peer, client: &Client) -> HeaderValue {
    let host = client.authority(target).as_str();
    let mut text = String::with_capacity(64 + host.len());
    let proxies = client.via.as_ref().map_or(&[][..], |via| &via.proxies);
    if let Some((_, between)) = proxies.split_first() {
        push_element(&mut text, client.address, Some((host, client.scheme)));
        for proxy in between.iter().rev() {
            text.push_str(", ");
            push_element(&mut text, *proxy, None);
        }
        text.push_str(", ");
    }
    push_element(&mut text, peer.address, Some((host, client.scheme)));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

/// One element of `Forwarded`. An IPv6 address stands in brackets, and what holds a colon is no
/// token and needs quotes (RFC 7239 §6).
fn push_element(text: &mut String, node: ClientAddr, beside: Option<(&str, &str)>) {
    let address = node.to_string();
    match node.ip() {
        IpAddr::V4(_) => text.extend(["for=", &address]),
        IpAddr::V6(_) => text.extend(["for=\"[", &address, "]\""]),
    }
    let Some((host, scheme)) = beside else { return };
    if !host.is_empty() {
        let quote = if host.contains(':') { "\"" } else { "" };
        text.extend([";host=", quote, host, quote]);
    }
    text.extend([";proto=", scheme]);
}

/// The `X-Forwarded-For` that a trusted proxy sent, with its own address behind it.
fn extended(headers: &HeaderMap, peer: &Peer) -> HeaderValue {
    let mut nodes: Vec<&str> = Vec::new();
    let mut bytes = 0;
    for node in elements(headers, &X_FORWARDED_FOR) {
        let Ok(node) = std::str::from_utf8(node) else { break };
        bytes += node.len() + 2;
        if bytes > CHAIN_BYTES_MAX {
            break;
        }
        nodes.push(node);
    }
    nodes.reverse();
    nodes.push(peer.forwarded_for.to_str().unwrap_or_default());
    value_or_unknown(nodes.join(", "))
}

fn value_or_unknown(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Removes from an upstream's response what belongs to its connection, and what the gateway says
/// itself.
pub fn returning(headers: &mut HeaderMap) {
    // Most responses have none of these, so one look over the names is cheaper than asking for
    // each.
    let spoken_for: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_of_connection(name.as_str()) || **name == X_REQUEST_ID)
        .cloned()
        .collect();
    if spoken_for.is_empty() {
        return;
    }
    for name in nominated(headers) {
        headers.remove(name);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 §6.3: Transfer-Encoding overrides, so a length beside it is not one.
        headers.remove(CONTENT_LENGTH);
    }
    for name in spoken_for {
        headers.remove(name);
    }
}

/// The bytes of an interim response's head (RFC 9110 §15.2), with the fields that a final response
/// would keep. `None` for those that are not forwarded: 100 asks for a body, which hyper does
/// by itself, and 101 changes a protocol that nobody asked to change.
pub fn interim(status: StatusCode, fields: &HeaderMap) -> Option<Vec<u8>> {
    let is_ours = matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS);
    if is_ours || !status.is_informational() {
        return None;
    }
    let mut fields = fields.clone();
    returning(&mut fields);
    // Without content there is no length (RFC 9110 §8.6), and a client that read one would wait.
    fields.remove(CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

#[cfg(test)]
mod tests;
