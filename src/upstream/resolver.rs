//! Asks for the addresses of names, and for the servers of services. Whatever blocks (getaddrinfo)
//! runs on threads of its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::config::{self, Lookup};

/// Longest wait for one answer of a name server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a question is asked that got no answer.
const ATTEMPTS: usize = 2;
/// Longest wait for all that one name needs; an answer about services may name others.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the addresses of one target of a service.
const TARGET_TIMEOUT: Duration = Duration::from_secs(3);
/// Servers that one name may have; what is beyond is not used.
const SERVERS_MAX: usize = 256;
/// Shortest and longest time for which an answer holds, whatever its TTL.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5 * 60));

/// Who is asked.
pub(super) struct Resolver {
    refresh: Duration,
    /// None where the system's own resolver is asked.
    own: Option<TokioResolver>,
}

/// What was said.
#[derive(Debug)]
pub(super) struct Answer {
    /// At least one, sorted.
    pub(super) servers: Vec<config::Endpoint>,
    /// Targets among what was asked for that nobody has answered for now: their servers may be
    /// there.
    pub(super) unknown: Vec<Unknown>,
    /// When to ask again.
    pub(super) holds_for: Duration,
}

/// A target that nobody has answered for. A service may have several ports at one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) target: String,
    pub(super) port: u16,
    pub(super) why: String,
}

impl Resolver {
    /// For the names of this upstream.
    pub(super) fn new(settings: &config::Upstream) -> Result<Self, String> {
        let is_srv = |server: &config::Endpoint| server.lookup == Lookup::Services;
        let of_system = settings.dns_servers.is_empty();
        let own = if of_system && !settings.servers.iter().any(is_srv) {
            None
        } else {
            let built = if of_system { of_the_system() } else { of_these(&settings.dns_servers) };
            Some(built.map_err(|why| why.to_string())?)
        };
        Ok(Self { refresh: settings.dns_refresh, own })
    }

    /// The servers behind what is written.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) async fn look_up(&self, written: &config::Endpoint) -> Result<Answer, String> {
        let asked = timeout(LOOKUP_TIMEOUT, self.ask(written)).await;
        let mut answer =
            asked.unwrap_or_else(|_| Err(format!("no answer within {LOOKUP_TIMEOUT:?}")))?;
        if answer.servers.is_empty() {
            return Err("the answer has no address".to_owned());
        }
        sort(&mut answer.servers);
        Ok(answer)
    }

    async fn ask(&self, written: &config::Endpoint) -> Result<Answer, String> {
        let known = |servers, holds_for| Answer { servers, unknown: Vec::new(), holds_for };
        match (&self.own, written.lookup) {
            (Some(own), Lookup::Services) => services(own, written, self.refresh).await,
            (Some(own), _) => {
                let found = addresses(own, &written.host).await;
                let (addresses, ttl) = found.map_err(|missing| missing.why)?;
                let all = addresses.into_iter().map(|it| at(written, &written.host, it));
                Ok(known(all.collect(), held(ttl)))
            }
            (None, _) => {
                let found = tokio::net::lookup_host((written.host.as_str(), written.port)).await;
                let found: Vec<SocketAddr> = found.map_err(|why| why.to_string())?.collect();
                // One of two families may lead nowhere; the system knows which (RFC 6724).
                let is_v4 = found.first().is_some_and(SocketAddr::is_ipv4);
                let found = found.into_iter().filter(|it| it.is_ipv4() == is_v4);
                let all = found.map(|address| at(written, &written.host, address.ip()));
                Ok(known(all.collect(), self.refresh))
            }
        }
    }
}

fn of_the_system() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    options.cache_size = 0;
    builder.build()
}

fn of_these(servers: &[SocketAddr]) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let name_server = |address: &SocketAddr| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = address.port();
        }
        NameServerConfig::new(address.ip(), true, connections)
    };
    let servers = servers.iter().map(name_server).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = ANSWER_TIMEOUT;
    options.attempts = ATTEMPTS;
    // Each name is asked for when its answer is old, and then what is remembered is of no use.
    options.cache_size = 0;
    builder.build()
}

/// Puts servers in order, each of them once, and no more than are used.
pub(super) fn sort(servers: &mut Vec<config::Endpoint>) {
    servers.sort_unstable_by(|one, other| (&one.host, one.port).cmp(&(&other.host, other.port)));
    servers.dedup_by(|one, other| (&one.host, one.port) == (&other.host, other.port));
    servers.truncate(SERVERS_MAX);
}

/// Why a name has no address.
struct Missing {
    why: String,
    /// Whether that is known, and not only that nobody has said so.
    is_certain: bool,
}

/// The addresses of a name, and how long they hold.
async fn addresses(
    resolver: &TokioResolver,
    name: &str,
) -> Result<(Vec<IpAddr>, Duration), Missing> {
    let found = resolver.lookup_ip(name).await.map_err(|why| Missing {
        is_certain: why.is_nx_domain() || why.is_no_records_found(),
        why: why.to_string(),
    })?;
    let ttl = found.valid_until().saturating_duration_since(Instant::now().into_std());
    Ok((found.iter().collect(), ttl))
}

/// The servers of a service (RFC 2782): those of the best priority, by their weights. Targets
/// without an address are left out, and asked for again after `retry` at the latest.
async fn services(
    resolver: &TokioResolver,
    written: &config::Endpoint,
    retry: Duration,
) -> Result<Answer, String> {
    let found = resolver.srv_lookup(written.host.as_str()).await.map_err(|why| why.to_string())?;
    let mut ttl = found.valid_until().saturating_duration_since(Instant::now().into_std());
    let records = found.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(srv),
        _ => None,
    });
    let best = records.clone().map(|srv| srv.priority).min();
    // At once: one that nobody answers for must not take the time of the others.
    let mut targets = JoinSet::new();
    for srv in records.filter(|srv| Some(srv.priority) == best).take(SERVERS_MAX) {
        let (resolver, name) = (resolver.clone(), srv.target.to_utf8());
        let weight = u32::from(srv.weight.max(1)).saturating_mul(written.weight);
        let one = config::Endpoint { port: srv.port, weight, ..written.clone() };
        targets.spawn(async move {
            let found = timeout(TARGET_TIMEOUT, addresses(&resolver, &name)).await;
            let late = || Missing { why: "no answer".to_owned(), is_certain: false };
            (one, found.unwrap_or_else(|_| Err(late())), name)
        });
    }
    let (mut servers, mut unknown, mut fault) = (Vec::new(), Vec::new(), None);
    while let Some(Ok((one, found, name))) = targets.join_next().await {
        let name = name.trim_end_matches('.');
        match found {
            Ok((found, valid_for)) => {
                ttl = ttl.min(valid_for);
                servers.extend(found.into_iter().map(|address| at(&one, name, address)));
            }
            Err(Missing { why, is_certain }) => {
                tracing::debug!("{}: its target {name} cannot be looked up: {why}", written.host);
                ttl = ttl.min(retry);
                fault = Some(format!("{name}: {why}"));
                if !is_certain {
                    unknown.push(Unknown { target: name.to_owned(), port: one.port, why });
                }
            }
        }
    }
    match fault {
        Some(why) if servers.is_empty() => Err(why),
        _ => Ok(Answer { servers, unknown, holds_for: held(ttl) }),
    }
}

/// A server at one of the addresses of a name.
fn at(written: &config::Endpoint, name: &str, address: IpAddr) -> config::Endpoint {
    config::Endpoint {
        host: address.to_string(),
        name: Some(name.to_owned()),
        lookup: Lookup::Never,
        ..written.clone()
    }
}

/// How long an answer of this TTL holds: within bounds, and give or take a tenth, so that not all
/// gateways ask at once.
fn held(ttl: Duration) -> Duration {
    ttl.clamp(TTL.0, TTL.1).mul_f64(0.9 + 0.2 * fastrand::f64())
}
