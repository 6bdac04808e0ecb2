//! What is known of the servers of upstreams, as it is told to operators.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::series::{Described, family};

/// Servers of one upstream beyond which none has series of its own.
const SERVERS_MAX: usize = 64;
/// What a breaker may be.
const BREAKER_STATES: [&str; 3] = ["closed", "open", "half_open"];

/// What is known of one upstream.
#[derive(Debug, Clone, Default)]
pub struct CareNow {
    /// What its breaker is; nothing where it has none.
    pub breaker: Option<&'static str>,
    /// Whether all servers are used, because too few are in.
    pub is_panic: bool,
    /// How many ejections there were, by reason; nothing where no server is ejected.
    pub ejections: Vec<(&'static str, u64)>,
    /// Its servers.
    pub servers: Vec<ServerNow>,
    /// The names among them.
    pub names: Vec<NameNow>,
}

/// What is known of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameNow {
    /// The name.
    pub name: String,
    /// How many servers it stands for.
    pub servers: usize,
    /// How old the last answer is.
    pub age: Option<Duration>,
    /// Why there is no newer one.
    pub fault: Option<String>,
}

/// What is known of one server.
#[derive(Debug, Clone, Default)]
pub struct ServerNow {
    /// As the configuration writes it.
    pub url: String,
    /// Its share relative to the others.
    pub weight: usize,
    /// How long it is expected to take, in seconds, where servers are chosen by that.
    pub latency: Option<f64>,
    /// Whether it is used only where too few of the others are in.
    pub is_backup: bool,
    /// Requests in progress.
    pub busy: usize,
    /// Whether it is used, as far as it alone decides.
    pub is_in: bool,
    /// Whether one request tries it.
    pub is_probing: bool,
    /// Each thing that may hold of it, and whether it does.
    pub states: Vec<(&'static str, bool)>,
    /// How long it is out yet, where time ends that.
    pub left: Option<Duration>,
    /// Ejections in a row.
    pub times: u64,
    /// Failed requests in a row.
    pub failures_in_a_row: u32,
    /// Failed requests by kind; nothing where they are not counted.
    pub failures: Vec<(&'static str, u64)>,
    /// What was wrong with the last answer to a check.
    pub fault: Option<String>,
}

/// Writes what is known of all upstreams.
pub(super) fn encode(
    all: &[(String, CareNow)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    encode_servers(all, encoder)?;
    let ejections = all.iter().flat_map(|(name, it)| {
        let by_reason = it.ejections.iter();
        by_reason.map(|(reason, count)| {
            ([("upstream", name.as_str()), ("reason", *reason)], ConstCounter::new(*count))
        })
    });
    let help = "Ejections of servers of an upstream, by reason: failures, ratio or probe.";
    family(encoder, &Described::new("upstream_ejections", help), ejections)?;
    let panics = all
        .iter()
        .map(|(name, it)| ([("upstream", name.as_str())], ConstGauge::new(i64::from(it.is_panic))));
    let help = "1 while so few servers of an upstream are in that all are used (panic).";
    family(encoder, &Described::new("upstream_panic", help), panics)?;
    let breakers = all.iter().flat_map(|(name, it)| {
        let states = it.breaker.into_iter().flat_map(|is| BREAKER_STATES.map(|state| (state, is)));
        states.map(|(state, is)| {
            (
                [("upstream", name.as_str()), ("state", state)],
                ConstGauge::new(i64::from(state == is)),
            )
        })
    });
    let names = all.iter().flat_map(|(upstream, it)| {
        it.names.iter().filter_map(move |name| {
            let labels = [("upstream", upstream.as_str()), ("name", name.name.as_str())];
            Some((labels, ConstGauge::new(name.age?.as_secs_f64())))
        })
    });
    let help = "How long ago the addresses of a name among the servers of an upstream were told.";
    let described = Described::new("upstream_dns_age", help).in_unit(Unit::Seconds);
    family(encoder, &described, names)?;
    let help = "1 for what the breaker of an upstream is: closed, open or half_open.";
    family(encoder, &Described::new("upstream_breaker_state", help), breakers)
}

fn encode_servers(all: &[(String, CareNow)], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let servers = || {
        let few = all.iter().filter(|(_, it)| it.servers.len() <= SERVERS_MAX);
        few.flat_map(|(name, it)| it.servers.iter().map(|server| (name.as_str(), server)))
    };
    let states = servers().flat_map(|(name, server)| {
        server.states.iter().map(move |(state, holds)| {
            let labels = [("upstream", name), ("server", server.url.as_str()), ("state", *state)];
            (labels, ConstGauge::new(i64::from(*holds)))
        })
    });
    let help = "1 for what holds of a server: by_hand, down, ejected, avoided, slow_start.";
    family(encoder, &Described::new("upstream_server_state", help), states)?;
    let busy = servers().map(|(name, server)| {
        let labels = [("upstream", name), ("server", server.url.as_str())];
        (labels, ConstGauge::new(i64::try_from(server.busy).unwrap_or(i64::MAX)))
    });
    let help = "Requests in progress at a server of an upstream.";
    family(encoder, &Described::new("upstream_server_busy", help), busy)?;
    let failures = servers().flat_map(|(name, server)| {
        server.failures.iter().map(move |(kind, count)| {
            let labels = [("upstream", name), ("server", server.url.as_str()), ("kind", *kind)];
            (labels, ConstCounter::new(*count))
        })
    });
    let help = "Requests that failed at a server of an upstream, by kind.";
    family(encoder, &Described::new("upstream_server_failures", help), failures)
}
