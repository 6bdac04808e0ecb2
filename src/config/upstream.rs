//! `[upstreams.NAME]`: the services behind the gateway.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use toml::de::DeValue;

use super::care::{self, Care, Question};
use super::reader::Section;
use super::retry::{self, Retry};
use super::upstream_tls::{self, UpstreamTls};
use super::value::{
    KIB, MIB, Mistake, Read, choice, count, duration, duration_or_zero, echo, host_and_port, size,
    string,
};
use crate::base::http::path::Reading;

/// `[upstreams.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The servers, at least one.
    pub servers: Vec<Endpoint>,
    /// Which HTTP they speak.
    pub protocol: Protocol,
    /// What holds for those behind `https://`, where there are any.
    pub tls: Option<Arc<UpstreamTls>>,
    /// How one is chosen.
    pub balance: Balance,
    /// Longest wait for a connection, and for a free place under `max_requests`.
    pub connect_timeout: Duration,
    /// Longest wait for the response head.
    pub response_timeout: Duration,
    /// Longest wait for the 100 that a client's `Expect: 100-continue` asks for; zero leaves the
    /// field out and asks the client at once.
    pub continue_timeout: Duration,
    /// Longest pause within a response body.
    pub read_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Open connections in all.
    pub max_connections: usize,
    /// Requests in progress in all; no more than connections over HTTP/1.1, which has one on each.
    pub max_requests: usize,
    /// How loosely it reads paths.
    pub paths: Reading,
    /// How many requests are one client's share.
    pub client_share: ClientShare,
    /// How long a server that took no connection is avoided while there is another.
    pub fail_timeout: Duration,
    /// What becomes of servers that fail.
    pub care: Care,
    /// When a request is sent more than once; nothing where it never is.
    pub retry: Option<Retry>,
    /// Largest response head, in bytes.
    pub header_bytes: u64,
    /// Largest number of fields in a response head.
    pub headers: usize,
}

/// `client_share = "25%"` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientShare {
    /// Of `max_requests`, 1 to 100.
    Percent(u8),
    /// So many.
    Count(usize),
}

impl ClientShare {
    /// The share of `max` in requests, rounded down.
    pub fn of(self, max: usize) -> usize {
        match self {
            Self::Percent(percent) => {
                (max / 100) * usize::from(percent) + (max % 100) * usize::from(percent) / 100
            }
            Self::Count(count) => count.min(max),
        }
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Behind `https://`, the name that it must prove; none for clear HTTP.
    pub tls: Option<ServerName<'static>>,
    /// Share of requests relative to the others.
    pub weight: u32,
}

/// Which HTTP servers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; in clear with prior knowledge (RFC 9113 §3.3).
    Http2,
    /// What a server chooses under TLS (ALPN); HTTP/1.1 in clear.
    Auto,
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The less busy of two random servers.
    P2c,
    /// In turn, by weight.
    RoundRobin,
}

/// Requests in progress where one connection carries many.
const HTTP2_REQUESTS: usize = 1024;

/// Keys that are planned, and what would silently not happen.
const PLANNED: [(&str, &str); 8] = [
    ("dns_refresh", "names would be looked up for each connection"),
    ("dns_stale", "a name that is gone would be an error at once"),
    ("send_proxy", "the upstream would see the gateway's address alone"),
    ("readers", "all requests would go to servers"),
    ("stick", "reads would not follow their caller's writes"),
    ("position", "reads would not follow their caller's writes"),
    ("nats", "nothing would be sent over NATS"),
    ("packet", "nothing would be sent over NATS"),
];

/// Reads `[upstreams.NAME]`.
pub(super) fn read(upstream: &mut Section<'_>) -> Upstream {
    for (key, without) in PLANNED {
        upstream.not_built(key, without);
    }
    let example = "[\"http://127.0.0.1:3000\"]";
    let mut servers = upstream.need_list_of_either("servers", example, endpoint, read_weighted);
    let written = upstream.section("tls", upstream_tls::read);
    let words = [("http1", Protocol::Http1), ("h2", Protocol::Http2), ("auto", Protocol::Auto)];
    let protocol = upstream.or("protocol", Protocol::Http1, choice(&words));
    let max_connections = upstream.or("max_connections", 256, count(1..=1_000_000));
    Upstream {
        tls: tls(upstream, written, &mut servers),
        servers,
        protocol,
        balance: upstream.or("balance", Balance::P2c, balance),
        connect_timeout: upstream.or("connect_timeout", Duration::from_secs(1), duration),
        response_timeout: upstream.or("response_timeout", Duration::from_secs(30), duration),
        continue_timeout: upstream.or("continue_timeout", Duration::from_secs(1), duration_or_zero),
        read_timeout: upstream.or("read_timeout", Duration::from_secs(5 * 60), duration),
        idle_timeout: upstream.or("idle_timeout", Duration::from_secs(60), duration),
        max_connections,
        max_requests: max_requests(upstream, protocol, max_connections),
        client_share: upstream.or("client_share", ClientShare::Percent(25), client_share),
        fail_timeout: upstream.or("fail_timeout", Duration::from_secs(5), duration),
        care: read_care(upstream, protocol),
        retry: retry::read(upstream),
        header_bytes: upstream.or("header_bytes", 64 * KIB, size(KIB..=MIB)),
        headers: upstream.or("headers", 100, count(1..=10_000)),
        paths: read_paths(upstream),
    }
}

/// gRPC is spoken over HTTP/2 alone.
fn read_care(upstream: &mut Section<'_>, protocol: Protocol) -> Care {
    let care = care::read(upstream);
    let asks_grpc = care.health.as_ref().is_some_and(|it| matches!(it.question, Question::Grpc(_)));
    if asks_grpc && protocol == Protocol::Http1 {
        let what = "asks in gRPC, which needs HTTP/2";
        upstream.problem("health", what, "write protocol = \"h2\", or ask for a path");
    }
    care
}

/// What holds for the servers behind `https://`; nothing where there are none.
fn tls(
    upstream: &Section<'_>,
    written: upstream_tls::Written,
    servers: &mut [Endpoint],
) -> Option<Arc<UpstreamTls>> {
    let is_clear = !servers.is_empty() && servers.iter().all(|server| server.tls.is_none());
    if is_clear && upstream.has("tls") {
        let what = "no server of this upstream is https://, so all would be asked in clear";
        upstream.problem("tls", what, "write https:// in servers, or remove this table");
    }
    let names: Vec<_> = servers.iter_mut().filter_map(|server| server.tls.as_mut()).collect();
    (!names.is_empty()).then(|| upstream_tls::settle(upstream, written, names))
}

/// As many as connections over HTTP/1.1, and [`HTTP2_REQUESTS`] otherwise.
fn max_requests(upstream: &mut Section<'_>, protocol: Protocol, max_connections: usize) -> usize {
    let default = if protocol == Protocol::Http1 { max_connections } else { HTTP2_REQUESTS };
    let max = upstream.or("max_requests", default, count(1..=1_000_000));
    if protocol == Protocol::Http1 && max > max_connections {
        let what = "is more than max_connections, and HTTP/1.1 has one request on each";
        let remedy = "raise max_connections, or let the servers speak HTTP/2: protocol = \"h2\"";
        upstream.problem("max_requests", what, remedy);
    }
    max
}

/// `paths = ["any-case", "trailing-slash", "parameters"]`
fn read_paths(upstream: &mut Section<'_>) -> Reading {
    let words = [("any-case", 0), ("trailing-slash", 1), ("parameters", 2)];
    let named = upstream.list_or_empty("paths", choice(&words));
    Reading {
        any_case: named.contains(&0),
        trailing_slash: named.contains(&1),
        parameters: named.contains(&2),
    }
}

/// `{ url = "…", weight = 2 }`
fn read_weighted(server: &mut Section<'_>) -> Option<Endpoint> {
    let endpoint = server.need_env("url", "\"http://127.0.0.1:3000\"", endpoint);
    let weight = server.or("weight", 1, count(1..=65_535));
    endpoint.map(|endpoint| Endpoint { weight, ..endpoint })
}

/// `http://host:port` or `https://host:port`, with port 80 or 443 when it is left out. A url with a
/// user or a password is not echoed.
fn endpoint(value: &DeValue<'_>) -> Read<Endpoint> {
    const EXAMPLE: &str = "write scheme, host and port alone: \"http://127.0.0.1:3000\"";
    let text = string(value, "it in quotes, such as \"http://127.0.0.1:3000\"")?;
    if let Some(scheme) = ["srv+http://", "srv+https://"].into_iter().find(|s| text.starts_with(s))
    {
        let remedy = "name each server by host and port: \"http://127.0.0.1:3000\"";
        return Err(Mistake::not_built(&format!("{scheme} (servers from SRV records)"), remedy));
    }
    if text.contains('@') {
        let what = "has a user or a password inside the url";
        return Err(Mistake::new(what, EXAMPLE));
    }
    let wrong = || Mistake::new(format!("{} is not a server", echo(text)), EXAMPLE);
    let (secure, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => return Err(wrong()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let port = if secure { 443 } else { 80 };
    let (host, port) = host_and_port(authority, port).ok_or_else(wrong)?;
    let tls = secure.then(|| upstream_tls::name(&host).ok_or_else(wrong)).transpose()?;
    Ok(Endpoint { host, port, tls, weight: 1 })
}

/// A whole percentage in quotes, or a number.
fn client_share(value: &DeValue<'_>) -> Read<ClientShare> {
    const EXAMPLE: &str = "a percentage from \"1%\" to \"100%\", or a number of connections";
    if value.is_integer() {
        return count(1..=1_000_000)(value).map(ClientShare::Count);
    }
    let text = string(value, EXAMPLE)?;
    let digits = text.strip_suffix('%').filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse::<u8>().ok())
        .filter(|percent| (1..=100).contains(percent))
        .map(ClientShare::Percent)
        .ok_or_else(|| {
            let what = format!("{} is not a share", echo(text));
            Mistake::new(what, format!("write {EXAMPLE}"))
        })
}

fn balance(value: &DeValue<'_>) -> Read<Balance> {
    const EXAMPLE: &str = "\"p2c\" or \"round-robin\"";
    match string(value, EXAMPLE)? {
        "p2c" => Ok(Balance::P2c),
        "round-robin" => Ok(Balance::RoundRobin),
        text if text == "ewma" || text.starts_with("hash:") => {
            let what = format!("balancing by {}", echo(text));
            Err(Mistake::not_built(&what, &format!("write {EXAMPLE}")))
        }
        text => {
            let what = format!("{} is not a choice here", echo(text));
            Err(Mistake::new(what, format!("write {EXAMPLE}")))
        }
    }
}
