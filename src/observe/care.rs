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
    /// What is sent more than once; nothing where each request is sent once.
    pub retries: Option<RetriesNow>,
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

/// What is known of the requests of one upstream that are sent more than once.
#[derive(Debug, Clone, Default)]
pub struct RetriesNow {
    /// How many, by what became of them.
    pub outcomes: Vec<(&'static str, u64)>,
    /// How many may begin now.
    pub budget_left: u64,
    /// Of two servers that were asked, how often the first was faster, and how often the second;
    /// nothing where one is asked at a time.
    pub hedges: Option<[u64; 2]>,
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
    /// Its unused connections.
    pub idle: usize,
    /// Attempts that have ended there.
    pub requests: u64,
    /// Those of them that failed, by what they came to.
    pub errors: Vec<(&'static str, u64)>,
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
    encode_retries(all, encoder)?;
    let ejections = all.iter().flat_map(|(name, it)| {
        let by_reason = it.ejections.iter();
        by_reason.map(|(reason, count)| {
            ([("upstream", name.as_str()), ("reason", *reason)], ConstCounter::new(*count))
        })
    });
    let help = "Ejections of servers of an upstream, by reason: failures, ratio, probe or fleet.";
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

fn encode_retries(all: &[(String, CareNow)], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let known = || all.iter().filter_map(|(name, it)| Some((name.as_str(), it.retries.as_ref()?)));
    let retries = known().flat_map(|(name, it)| {
        let outcomes = it.outcomes.iter();
        outcomes.map(move |(outcome, count)| {
            ([("upstream", name), ("outcome", *outcome)], ConstCounter::new(*count))
        })
    });
    let help =
        "Requests that were sent once more (good, failed), or were not (over_budget, no_time).";
    family(encoder, &Described::new("upstream_retries", help), retries)?;
    let left = known().map(|(name, it)| {
        let left = i64::try_from(it.budget_left).unwrap_or(i64::MAX);
        ([("upstream", name)], ConstGauge::new(left))
    });
    let help = "How many requests may be sent once more now.";
    family(encoder, &Described::new("upstream_retry_budget_left", help), left)?;
    let hedges = known().flat_map(|(name, it)| {
        let counts =
            it.hedges.into_iter().flat_map(|counts| ["false", "true"].into_iter().zip(counts));
        counts
            .map(move |(won, count)| ([("upstream", name), ("won", won)], ConstCounter::new(count)))
    });
    let help = "Requests for which two servers were asked, by whether the second was faster.";
    family(encoder, &Described::new("upstream_hedges", help), hedges)
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
    let help = "1 for what holds of a server: by_hand, down, ejected, fleet, avoided, slow_start.";
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
