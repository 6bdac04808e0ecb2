//! `[server]` and `[server.limits]`: the public listener and what one client may take of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::json;
use toml::de::DeValue;

use super::header_rules::{self, HeaderRules};
use super::reader::Section;
use super::tls::{self, Tls};
use super::value::{
    GIB, KIB, MIB, Mistake, Read, address, choice, count, duration, duration_or_zero, echo, flag,
    size, string,
};
use crate::base::facts::ForwardingFields;

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Networks whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks of balancers, whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol_from: Vec<IpNet>,
    /// In which fields `trusted_proxies` name the client.
    pub forwarded: ForwardingFields,
    /// How long requests in flight may take to finish when the drain has begun.
    pub drain: Duration,
    /// How long new requests are still served after SIGTERM, while `/readyz` says 503.
    pub drain_delay: Duration,
    /// Whether SIGUSR2 hands the listeners over to a new process.
    pub handover: bool,
    /// How long that process may take to be ready.
    pub handover_timeout: Duration,
    /// How often the configuration file is looked at for changes; zero: only when asked.
    pub watch: Duration,
    /// How long an HTTP/1.1 connection is silent between two requests before it is parked: it
    /// keeps its socket and its `limits.idle_timeout`, and gives its buffers back.
    pub park_after: Duration,
    /// In which fields clients are told of their rate limits.
    pub ratelimit_fields: RatelimitFields,
    /// Networks of clients that `Cache-Status` tells the key and the detail.
    pub cache_debuggers: Vec<IpNet>,
    /// Whether responses name the functions that judged their requests without the store.
    pub degraded_header: bool,
    /// The name under which upstreams are told of the gateway (`Via`); `None`: they are not.
    pub via: Option<String>,
    /// Fields that all requests are given or lose on their way to an upstream.
    pub request_headers: HeaderRules,
    /// Fields that all responses are given or lose, whoever made them.
    pub response_headers: HeaderRules,
    /// `[server.limits]`
    pub limits: ClientLimits,
    /// `[server.tls]`; nothing where all is in clear.
    pub tls: Option<Box<Tls>>,
}

impl Server {
    /// Every address to listen on, with whether TLS is spoken there.
    pub fn listeners(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        let own = self.tls.as_ref().map_or(&[][..], |tls| &tls.listen);
        let everywhere = self.tls.is_some() && own.is_empty();
        let plain = self.listen.iter().map(move |address| (*address, everywhere));
        plain.chain(own.iter().map(|address| (*address, true)))
    }

    /// Whether connections from this address begin with a header of the PROXY protocol.
    pub fn is_proxied(&self, address: IpAddr) -> bool {
        self.proxy_protocol_from.iter().any(|network| network.contains(&address))
    }
}

/// `ratelimit_fields = ["ratelimit", "x-ratelimit"]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RatelimitFields {
    /// `RateLimit` and `RateLimit-Policy`.
    pub ratelimit: bool,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    pub x_ratelimit: bool,
}

impl Default for RatelimitFields {
    fn default() -> Self {
        Self { ratelimit: true, x_ratelimit: true }
    }
}

/// `[server.limits]`: the bounds of one connection, one request, one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    /// Largest request head, in bytes.
    pub header_bytes: u64,
    /// Largest number of header fields.
    pub headers: usize,
    /// Largest request body, in bytes.
    pub body_bytes: u64,
    /// From the first byte (or from the connection's start) to the end of the head.
    pub header_timeout: Duration,
    /// How long a connection may rest between requests.
    pub idle_timeout: Duration,
    /// The period in which a body must move by at least `progress_bytes`, in either direction.
    pub progress_timeout: Duration,
    /// See `progress_timeout`.
    pub progress_bytes: u64,
    /// Open client connections in all.
    pub connections: usize,
    /// Open client connections of one address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Concurrent requests on one HTTP/2 connection.
    pub streams: u32,
    /// Interim responses (1xx) of an upstream that an HTTP/1.1 client gets for one request.
    pub interim_responses: usize,
    /// Responses that are compressed at a time.
    pub compressions: usize,
    /// True keeps `%2F` in paths; otherwise it is refused.
    pub encoded_slash: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080))],
            trusted_proxies: Vec::new(),
            proxy_protocol_from: Vec::new(),
            forwarded: ForwardingFields::XForwarded,
            drain: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            handover: true,
            handover_timeout: Duration::from_secs(30),
            watch: Duration::ZERO,
            park_after: Duration::from_secs(1),
            ratelimit_fields: RatelimitFields::default(),
            cache_debuggers: Vec::new(),
            degraded_header: false,
            via: None,
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            limits: ClientLimits::default(),
            tls: None,
        }
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            header_bytes: 32 * KIB,
            headers: 100,
            body_bytes: 10 * MIB,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            progress_timeout: Duration::from_secs(30),
            progress_bytes: 32 * KIB,
            connections: 10_000,
            connections_per_address: 512,
            streams: 128,
            interim_responses: 8,
            compressions: 256,
            encoded_slash: false,
        }
    }
}

impl Server {
    /// What of `[server.tls]` is fixed while its listeners stand: their addresses, and how many
    /// handshakes are computed at a time.
    pub fn tls_identity(&self) -> Option<(&[SocketAddr], usize)> {
        self.tls.as_ref().map(|tls| (&*tls.listen, tls.handshakes))
    }
}

/// Reads `[server]`.
pub(super) fn read(server: &mut Section<'_>) -> Server {
    let default = Server::default();
    server.holds("listen", || Some(default.listen.iter().map(ToString::to_string).collect()));
    server.holds("ratelimit_fields", || Some(json!(["ratelimit", "x-ratelimit"])));
    Server {
        listen: server.list_env("listen", address).unwrap_or(default.listen),
        trusted_proxies: server.list_or_empty("trusted_proxies", network),
        proxy_protocol_from: server.list_or_empty("proxy_protocol_from", network),
        forwarded: server.or("forwarded", default.forwarded, choice(&FORWARDED)),
        drain: server.or("drain", default.drain, duration_or_zero),
        drain_delay: server.or("drain_delay", default.drain_delay, duration_or_zero),
        handover: server.or("handover", default.handover, flag),
        handover_timeout: server.or("handover_timeout", default.handover_timeout, duration),
        watch: server.or("watch", default.watch, pause_or_never),
        park_after: server.or("park_after", default.park_after, pause),
        ratelimit_fields: read_ratelimit_fields(server),
        cache_debuggers: server.list_or_empty("cache_debuggers", network),
        degraded_header: server.or("degraded_header", default.degraded_header, flag),
        via: server.get("via", pseudonym),
        request_headers: server.section("request_headers", header_rules::read),
        response_headers: server.section("response_headers", header_rules::read),
        limits: server.section("limits", read_limits),
        tls: server.optional("tls", tls::read).map(Box::new),
    }
}

/// A name that stands for a host in `Via` (RFC 9110 §7.6.3).
fn pseudonym(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "a name in quotes, such as \"edge\"")?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        let what = format!("{} cannot be the name of a gateway", echo(text));
        return Err(Mistake::new(what, "write one word, such as \"edge\""));
    }
    Ok(text.to_owned())
}

/// Shorter ones would park connections that are in use, or read the file all the time; longer than
/// an hour is a mistake.
const PAUSES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

fn pause(value: &DeValue<'_>) -> Read<Duration> {
    let length = duration(value)?;
    if PAUSES.contains(&length) {
        return Ok(length);
    }
    Err(Mistake::new("the duration is out of range", "write one from \"100ms\" to \"1h\""))
}

/// Zero, or as [`pause`].
fn pause_or_never(value: &DeValue<'_>) -> Read<Duration> {
    let length = duration_or_zero(value)?;
    if length.is_zero() { Ok(length) } else { pause(value) }
}

/// What `forwarded` may be.
const FORWARDED: [(&str, ForwardingFields); 2] =
    [("x-forwarded", ForwardingFields::XForwarded), ("forwarded", ForwardingFields::Forwarded)];

fn read_ratelimit_fields(server: &mut Section<'_>) -> RatelimitFields {
    const KEY: &str = "ratelimit_fields";
    let words = [("ratelimit", true), ("x-ratelimit", false)];
    let named = server.list_or_empty(KEY, choice(&words));
    if server.has(KEY) {
        RatelimitFields { ratelimit: named.contains(&true), x_ratelimit: named.contains(&false) }
    } else {
        RatelimitFields::default()
    }
}

fn read_limits(limits: &mut Section<'_>) -> ClientLimits {
    let default = ClientLimits::default();
    ClientLimits {
        // The HTTP/1 engine needs a buffer of at least 8 KiB.
        header_bytes: limits.or("header_bytes", default.header_bytes, size(8 * KIB..=MIB)),
        headers: limits.or("headers", default.headers, count(1..=10_000)),
        // Zero means "no bound" elsewhere and "no body" to the letter, so it is neither here.
        body_bytes: limits.or("body_bytes", default.body_bytes, size(1..=1024 * GIB)),
        header_timeout: limits.or("header_timeout", default.header_timeout, duration),
        idle_timeout: limits.or("idle_timeout", default.idle_timeout, duration),
        progress_timeout: limits.or("progress_timeout", default.progress_timeout, duration),
        progress_bytes: limits.or("progress_bytes", default.progress_bytes, size(1..=GIB)),
        connections: limits.or("connections", default.connections, count(1..=10_000_000)),
        connections_per_address: limits.or(
            "connections_per_address",
            default.connections_per_address,
            count(1..=10_000_000),
        ),
        streams: limits.or("streams", default.streams, count(1..=65_535)),
        interim_responses: limits.or(
            "interim_responses",
            default.interim_responses,
            count(0..=1000),
        ),
        compressions: limits.or("compressions", default.compressions, count(0..=1_000_000)),
        encoded_slash: limits.or("encoded_slash", default.encoded_slash, flag),
    }
}

/// A network, or one address as the network of itself alone.
pub(super) fn network(value: &DeValue<'_>) -> Read<IpNet> {
    let text = string(value, "it in quotes, such as \"10.0.0.0/8\"")?;
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map(|net| net.trunc()).map_err(|_| {
        let what = format!("{} is not a network", echo(text));
        Mistake::new(what, "write one like \"10.0.0.0/8\" or \"2001:db8::/32\"")
    })
}
