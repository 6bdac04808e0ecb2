//! `[upstreams.NAME]`: the services behind the gateway.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use toml::de::DeValue;

use super::balance::{Balance, balance};
use super::care::{self, Care, Question};
use super::nats::{self, Nats, NatsServer};
use super::pools::{self, Pools};
use super::reader::Section;
use super::retry::{self, Retry};
use super::upstream_tls::{self, UpstreamTls};
use super::value::{
    KIB, MIB, Mistake, Read, address, choice, count, duration, duration_or_zero, echo, flag,
    host_and_port, size, string,
};
use super::walk::Reader;
use crate::base::http::path::Reading;
use crate::base::units::duration_text;

/// `[upstreams.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The servers, at least one; over NATS the one place that all of its servers are.
    pub servers: Vec<Endpoint>,
    /// Where it is reached over NATS in place of HTTP, and how.
    pub nats: Option<Arc<Nats>>,
    /// Those that take reads in their place; none where they take all themselves.
    pub readers: Vec<Endpoint>,
    /// What holds between the two.
    pub pools: Pools,
    /// Whether others take its requests where all of its servers fail, so that no server of it is
    /// used for want of a better one.
    pub gives_way: bool,
    /// Which HTTP they speak.
    pub protocol: Protocol,
    /// What holds for those behind `https://`, where there are any.
    pub tls: Option<Arc<UpstreamTls>>,
    /// How one is chosen.
    pub balance: Balance,
    /// How often the addresses of a name are asked for, where the answer has no TTL.
    pub dns_refresh: Duration,
    /// How long the last addresses of a name are used that has none any more.
    pub dns_stale: Duration,
    /// Who is asked for them; the system's resolver where nobody is named.
    pub dns_servers: Vec<SocketAddr>,
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
    /// Open connections in all; over NATS requests in progress.
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
    /// Whether gateways that share a store tell each other of it.
    pub fleet: bool,
    /// Largest response head, in bytes.
    pub header_bytes: u64,
    /// Largest number of fields in a response head.
    pub headers: usize,
}

impl Upstream {
    /// Its readers, as the upstream of their own that they are; nothing where it has none.
    pub fn of_readers(&self) -> Option<Self> {
        if self.readers.is_empty() {
            return None;
        }
        let servers = self.readers.clone();
        let mut care = Care { panic: 0, ..self.care.clone() };
        if let Some(eject) = &mut care.eject {
            eject.most = 100;
        }
        Some(Self { servers, readers: Vec::new(), gives_way: true, care, ..self.clone() })
    }
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
    /// Whether it is used only where too few of the others are in.
    pub backup: bool,
    /// What stands for `host`.
    pub lookup: Lookup,
    /// The name that was looked up, where `host` is one of its addresses.
    pub name: Option<String>,
}

impl Endpoint {
    /// The place of servers of NATS, one of which this is. Who connects to them looks their names
    /// up itself.
    fn of_nats(server: &NatsServer) -> Self {
        let NatsServer { host, port, .. } = server.clone();
        let (weight, backup, lookup, name) = (1, false, Lookup::Never, None);
        Self { host, port, tls: None, weight, backup, lookup, name }
    }
}

/// How the servers behind a url are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Its host is an address, or this machine.
    Never,
    /// Each address of its host is a server.
    Addresses,
    /// They stand in the SRV records of its host (RFC 2782).
    Services,
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

/// `dns_refresh` where nothing is written.
pub const DNS_REFRESH: Duration = Duration::from_secs(5);
/// `dns_stale` where nothing is written.
pub const DNS_STALE: Duration = Duration::from_secs(60 * 60);
/// Requests in progress where one connection carries many.
const HTTP2_REQUESTS: usize = 1024;

/// Keys that are planned, and what would silently not happen.
const PLANNED: [(&str, &str); 1] =
    [("send_proxy", "the upstream would see the gateway's address alone")];

/// Reads `[upstreams.NAME]`.
pub(super) fn read(upstream: &mut Section<'_>) -> Upstream {
    for (key, without) in PLANNED {
        upstream.not_built(key, without);
    }
    let mut nats = nats::read(upstream);
    let mut servers = match &nats {
        Some(nats) => nats.servers.first().map(Endpoint::of_nats).into_iter().collect(),
        None => read_servers(upstream, "servers", "[\"http://127.0.0.1:3000\"]"),
    };
    let mut readers = Vec::new();
    if upstream.has("readers") && nats.is_none() || upstream.is_survey() {
        readers = read_servers(upstream, "readers", "[\"http://127.0.0.1:3002\"]");
    }
    let written = upstream.section("tls", upstream_tls::read);
    let words = [("http1", Protocol::Http1), ("h2", Protocol::Http2), ("auto", Protocol::Auto)];
    let protocol = upstream.or("protocol", Protocol::Http1, choice(&words));
    let usual = if nats.is_some() { nats::MAX_CONNECTIONS } else { 256 };
    let max_connections = upstream.or("max_connections", usual, count(1..=1_000_000));
    let tls = match &mut nats {
        Some(nats) => nats::tls(upstream, written, nats),
        None => tls(upstream, written, servers.iter_mut().chain(&mut readers)),
    };
    Upstream {
        tls,
        continue_timeout: continue_timeout(upstream, nats.is_some()),
        nats: nats.map(Arc::new),
        servers,
        readers,
        pools: pools::read(upstream),
        gives_way: false,
        protocol,
        balance: upstream.or("balance", Balance::P2c, balance),
        dns_refresh: upstream.or("dns_refresh", DNS_REFRESH, refresh),
        dns_stale: upstream.or("dns_stale", DNS_STALE, duration_or_zero),
        dns_servers: upstream.list_or_empty("dns_servers", address),
        connect_timeout: upstream.or("connect_timeout", Duration::from_secs(1), duration),
        response_timeout: upstream.or("response_timeout", Duration::from_secs(30), duration),
        read_timeout: upstream.or("read_timeout", Duration::from_secs(5 * 60), duration),
        idle_timeout: upstream.or("idle_timeout", Duration::from_secs(60), duration),
        max_connections,
        max_requests: max_requests(upstream, protocol, max_connections),
        client_share: upstream.or("client_share", ClientShare::Percent(25), client_share),
        fail_timeout: upstream.or("fail_timeout", Duration::from_secs(5), duration),
        care: read_care(upstream, protocol),
        retry: retry::read(upstream),
        fleet: upstream.or("fleet", true, flag),
        header_bytes: upstream.or("header_bytes", 64 * KIB, size(KIB..=MIB)),
        headers: upstream.or("headers", 100, count(1..=10_000)),
        paths: read_paths(upstream),
    }
}

/// An upstream of one server, with what holds where nothing else is written.
pub(super) fn of_server(server: Endpoint, tls: Option<Arc<UpstreamTls>>) -> Upstream {
    Upstream { servers: vec![server], tls, ..Reader::of_nothing(read) }
}

/// A list of servers, those first that are used first.
pub(super) fn read_servers(
    upstream: &mut Section<'_>,
    key: &'static str,
    example: &str,
) -> Vec<Endpoint> {
    let mut servers = upstream.need_list_of_either(key, example, endpoint, read_weighted);
    if !servers.is_empty() && servers.iter().all(|server| server.backup) {
        let what = "every server is a backup, of none";
        upstream.problem(key, what, "remove backup = true from those that are used first");
    }
    servers.sort_by_key(|server| server.backup);
    servers
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

/// Over NATS nobody asks a client for its body but the gateway.
fn continue_timeout(upstream: &mut Section<'_>, is_nats: bool) -> Duration {
    let written = upstream.or("continue_timeout", Duration::from_secs(1), duration_or_zero);
    if is_nats { Duration::ZERO } else { written }
}

/// What holds for the servers behind `https://`; nothing where there are none.
pub(super) fn tls<'e>(
    upstream: &Section<'_>,
    written: upstream_tls::Written,
    servers: impl Iterator<Item = &'e mut Endpoint>,
) -> Option<Arc<UpstreamTls>> {
    let all: Vec<_> = servers.map(|server| &mut server.tls).collect();
    if !all.is_empty() && all.iter().all(|tls| tls.is_none()) && upstream.has("tls") {
        let what = "no server of this upstream is https://, so all would be asked in clear";
        upstream.problem("tls", what, "write https:// in servers, or remove this table");
    }
    let names: Vec<_> = all.into_iter().filter_map(Option::as_mut).collect();
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
    let backup = server.or("backup", false, flag);
    endpoint.map(|endpoint| Endpoint { weight, backup, ..endpoint })
}

/// `http://host:port` or `https://host:port`, with port 80 or 443 when it is left out. A url with a
/// user or a password is not echoed.
pub(super) fn endpoint(value: &DeValue<'_>) -> Read<Endpoint> {
    const EXAMPLE: &str = "write scheme, host and port alone: \"http://127.0.0.1:3000\"";
    let text = string(value, "it in quotes, such as \"http://127.0.0.1:3000\"")?;
    if text.contains('@') {
        let what = "has a user or a password inside the url";
        return Err(Mistake::new(what, EXAMPLE));
    }
    let wrong = || Mistake::new(format!("{} is not a server", echo(text)), EXAMPLE);
    let (is_srv, url) = match text.strip_prefix("srv+") {
        Some(url) => (true, url),
        None => (false, text),
    };
    let (secure, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => return Err(wrong()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let port = if secure { 443 } else { 80 };
    if let Some((authority, _)) = authority.split_once('/').filter(|_| !is_srv)
        && host_and_port(authority, port).is_some()
    {
        let what = format!("{} has a path", echo(text));
        let remedy = "write scheme, host and port alone: a path goes into `rewrite` of the route";
        return Err(Mistake::new(what, remedy));
    }
    let (host, port) = host_and_port(authority, port).ok_or_else(wrong)?;
    let lookup = lookup(&host, is_srv);
    if is_srv && (authority.contains(':') || lookup != Lookup::Services) {
        let what = format!("{} does not name SRV records", echo(text));
        let remedy = "write their name alone, without a port: \"srv+http://_http._tcp.shop.test\"";
        return Err(Mistake::new(what, remedy));
    }
    // Whoever forges the records must not choose who is believed (RFC 6125 §6.2.1).
    let proven = host.split('.').skip_while(|label| is_srv && label.starts_with('_'));
    let proven = proven.collect::<Vec<_>>().join(".");
    let tls = secure.then(|| upstream_tls::name(&proven).ok_or_else(wrong)).transpose()?;
    Ok(Endpoint { host, port, tls, weight: 1, backup: false, lookup, name: None })
}

/// What stands for this host. This machine is where it is (RFC 6761 §6.3).
fn lookup(host: &str, is_srv: bool) -> Lookup {
    let is_this_machine = host == "localhost" || host.ends_with(".localhost");
    match host.parse::<IpAddr>() {
        Err(_) if is_srv => Lookup::Services,
        Err(_) if !is_this_machine => Lookup::Addresses,
        _ => Lookup::Never,
    }
}

/// A second to five minutes.
fn refresh(value: &DeValue<'_>) -> Read<Duration> {
    let refresh = duration(value)?;
    if (Duration::from_secs(1)..=Duration::from_secs(5 * 60)).contains(&refresh) {
        return Ok(refresh);
    }
    let what = format!("{} is out of range", duration_text(refresh));
    Err(Mistake::new(what, "write a time from \"1s\" to \"5m\""))
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
