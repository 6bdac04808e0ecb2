//! `nats = […]` of an upstream: servers of NATS in place of servers of HTTP, what is written in
//! their messages, and who the gateway is to them.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use toml::de::DeValue;

use super::nats_key::{self, NatsKey};
use super::reader::Section;
use super::upstream_tls::{self, UpstreamTls};
use super::value::{Mistake, Read, choice, echo, host_and_port, no_credentials, string, text};
use crate::base::units::Secret;

/// The port of a server that names none.
const PORT: u16 = 4222;
/// Requests in progress where nothing is written.
pub(super) const MAX_CONNECTIONS: usize = 1024;

/// Keys that say something of HTTP, or of one server among several.
const FOREIGN: [&str; 22] = [
    "servers",
    "readers",
    "stick",
    "position",
    "protocol",
    "balance",
    "dns_refresh",
    "dns_stale",
    "dns_servers",
    "continue_timeout",
    "read_timeout",
    "idle_timeout",
    "max_requests",
    "paths",
    "fail_timeout",
    "health",
    "eject",
    "slow_start",
    "panic",
    "hedge",
    "header_bytes",
    "headers",
];

/// An upstream that is reached over NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nats {
    /// The servers of one cluster, at least one; whichever answers is used.
    pub servers: Vec<NatsServer>,
    /// What messages look like.
    pub packet: Packet,
    /// Who the gateway is.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// What it shows in place of both.
    pub token: Option<Secret>,
    /// By what it proves that it knows a key, in place of all three.
    pub key: Option<NatsKey>,
}

/// One server of NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsServer {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Behind `tls://`, the name that it must prove; none in clear.
    pub tls: Option<ServerName<'static>>,
}

/// What a message to a service looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// The body as it is.
    Plain,
    /// The JSON of `@nestjs/microservices`.
    Nest,
}

impl NatsServer {
    /// As the configuration writes it.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "tls" } else { "nats" };
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("{scheme}://[{host}]:{port}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }
}

/// Reads the keys of NATS; nothing where the upstream is one of HTTP.
pub(super) fn read(upstream: &mut Section<'_>) -> Option<Nats> {
    let is_nats = upstream.has("nats");
    if !is_nats && !upstream.is_survey() {
        for key in ["packet", "username", "password", "token", "nkey", "creds"] {
            if upstream.has(key) {
                let remedy = "add nats = [\"nats://127.0.0.1:4222\"], or remove it";
                upstream.problem(key, "is for upstreams over NATS", remedy);
            }
        }
    }
    let packets = [("plain", Packet::Plain), ("nest", Packet::Nest)];
    let nats = Nats {
        servers: upstream.list_env("nats", server).unwrap_or_default(),
        packet: upstream.or("packet", Packet::Plain, choice(&packets)),
        username: upstream.get("username", text),
        password: upstream.secret("password"),
        token: upstream.secret("token"),
        key: nats_key::read(upstream),
    };
    if !is_nats {
        return None;
    }
    for key in FOREIGN.into_iter().filter(|key| upstream.has(key)) {
        let remedy = "remove it, or give the requests that need it an upstream of servers";
        upstream.problem(key, "has no meaning beside nats", remedy);
    }
    let is_secure = |server: &NatsServer| server.tls.is_some();
    if nats.servers.iter().any(is_secure) && !nats.servers.iter().all(is_secure) {
        let what = "are in clear and under TLS: whoever reaches one could read all";
        upstream.problem("nats", what, "write tls:// before each, or nats:// before each");
    }
    if upstream.has("token") && (upstream.has("username") || upstream.has("password")) {
        let remedy = "keep one of them: a server asks for a token, or for a name and a password";
        upstream.problem("token", "is beside username and password", remedy);
    }
    nats_key::beside(upstream);
    for (one, other) in [("username", "password"), ("password", "username")] {
        if upstream.has(one) && !upstream.has(other) {
            upstream.problem(one, format!("is of no use without {other}"), format!("add {other}"));
        }
    }
    Some(nats)
}

/// What holds for servers behind `tls://`; nothing where there are none.
pub(super) fn tls(
    upstream: &Section<'_>,
    written: upstream_tls::Written,
    nats: &mut Nats,
) -> Option<Arc<UpstreamTls>> {
    let names: Vec<_> = nats.servers.iter_mut().filter_map(|it| it.tls.as_mut()).collect();
    if names.is_empty() && upstream.has("tls") {
        let what = "no server of this upstream is tls://, so all would be spoken to in clear";
        upstream.problem("tls", what, "write tls:// in nats, or remove this table");
    }
    if written.names_server() {
        let remedy = "remove it: a server of NATS must prove the host of its url";
        upstream.problem("tls.server_name", "has no meaning beside nats", remedy);
    }
    (!names.is_empty()).then(|| upstream_tls::settle(upstream, written, names))
}

/// `nats://host:port` or `tls://host:port`, with port 4222 when it is left out.
fn server(value: &DeValue<'_>) -> Read<NatsServer> {
    const EXAMPLE: &str = "write scheme, host and port alone: \"nats://127.0.0.1:4222\"";
    let url = string(value, "it in quotes, such as \"nats://127.0.0.1:4222\"")?;
    no_credentials(url)?;
    let wrong = || Mistake::new(format!("{} is no server of NATS", echo(url)), EXAMPLE);
    let (is_secure, rest) = match url.split_once("://") {
        Some(("nats", rest)) => (false, rest),
        Some(("tls", rest)) => (true, rest),
        _ => return Err(wrong()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = host_and_port(authority, PORT).ok_or_else(wrong)?;
    let tls = is_secure.then(|| upstream_tls::name(&host).ok_or_else(wrong)).transpose()?;
    Ok(NatsServer { host, port, tls })
}
