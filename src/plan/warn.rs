//! What may be served, but deserves a second look: said by `check` and in the log, never a refusal.

use ipnet::IpNet;

use crate::config::{
    Config, DNS_REFRESH, DNS_STALE, Endpoint, EventSource, KeySource, Lookup, PANIC_DEFAULT,
    Problems, Protocol, Queue, Route, Scope, SessionUse, StoreUrl, StoreUse,
};
use crate::tls::Table;

/// The secret that `gateway.toml` shows. It is public, so whoever has read it can sign tokens.
const EXAMPLE_SECRET: &[u8] = b"example-only-replace-me-with-32-random-bytes";

/// Shortest `admin.token`, in bytes, that cannot be guessed: 128 bits.
const ADMIN_TOKEN_BYTES_MIN: usize = 16;
/// The widest exempt networks, by the length of their prefix, that are taken for a few machines.
const EXEMPT_PREFIX_MIN: (u8, u8) = (17, 48);

/// Everything in the file that deserves a second look.
pub(super) fn warnings(config: &Config, tls: Option<&Table>) -> Problems {
    let mut warnings = Problems::default();
    example_secrets(config, &mut warnings);
    weak_admin_token(config, &mut warnings);
    wide_exemptions(config, &mut warnings);
    super::exposed::warn(config, &mut warnings);
    super::loose::paths(config, &mut warnings);
    bodies_without_room(config, &mut warnings);
    grpc_over_http1(config, &mut warnings);
    super::upstream_tls::warn(config, &mut warnings);
    one_server_alone(config, &mut warnings);
    nobody_is_out(config, &mut warnings);
    nothing_to_look_up(config, &mut warnings);
    certificates(config, tls, &mut warnings);
    forgotten_certificates(config, &mut warnings);
    authorities(config, &mut warnings);
    told_and_cached(config, &mut warnings);
    embedded_beside_redis(config, &mut warnings);
    collector_of_the_environment(config, &mut warnings);
    held_too_long(config, &mut warnings);
    events_of_one_gateway(config, &mut warnings);
    warnings
}

/// Lines that what is dead holds until those behind it are too old.
fn held_too_long(config: &Config, warnings: &mut Problems) {
    let is_held = |queue: &Queue| queue.ends.holds_line && queue.keep_dead >= queue.max_age;
    for (name, _) in config.queues.iter().filter(|(_, queue)| is_held(queue)) {
        let what = "what is dead holds its line for keep_dead, and those behind it are too old by \
                    then: max_age is not longer";
        let remedy = "write a max_age that is longer than keep_dead";
        warnings.push(format!("queues.{name}.on_dead_line"), what, remedy);
    }
}

/// Events that one gateway hears, which alone has what they change.
fn events_of_one_gateway(config: &Config, warnings: &mut Problems) {
    if config.store.url != StoreUrl::Memory {
        return;
    }
    let is_heard_once =
        |from: &EventSource| matches!(from, EventSource::Webhook | EventSource::Jetstream { .. });
    for (name, _) in config.events.iter().filter(|(_, events)| is_heard_once(&events.from)) {
        let what = "one gateway takes each event, and with the embedded store each has a cache and \
                    revocations of its own";
        let remedy = "run one gateway alone, or name a Redis in store.url";
        warnings.push(format!("events.{name}.from"), what, remedy);
    }
}

/// A collector that the file does not name: it is meant for all programs of this machine.
fn collector_of_the_environment(config: &Config, warnings: &mut Problems) {
    if let Some(traces) = config.traces.as_ref().filter(|it| it.is_from_environment) {
        let what = format!(
            "spans go to {}, as OTEL_EXPORTER_OTLP_ENDPOINT in the environment says",
            traces.endpoint
        );
        warnings.push("telemetry.traces.endpoint", what, "write it here, where that is meant");
    }
}

/// Routes that cache for everybody what an upstream answers that is told of certificates. Where a
/// verifier takes certificates that is a problem; elsewhere the upstream may not look at them.
fn told_and_cached(config: &Config, warnings: &mut Problems) {
    if config.server.tls.iter().all(|tls| tls.clients().next().is_none()) {
        return;
    }
    let for_all = |route: &Route| {
        route.cache.as_ref().is_some_and(|it| !it.shared && it.partition.is_empty())
    };
    for (name, _) in config.routes.iter().filter(|(_, route)| for_all(route)) {
        let what = "the upstream is told of a client's certificate, and what it answers is stored \
                    for everybody";
        let remedy = "say cache.shared = true (the upstream ignores certificates), or add auth by \
                      certificates and cache.partition = [\"claim:sha256\"]";
        warnings.push(format!("routes.{name}.cache"), what, remedy);
    }
}

/// Upstreams with one server alone, and keys that say what is to become of several.
fn one_server_alone(config: &Config, warnings: &mut Problems) {
    // A name may have several addresses.
    let is_one = |servers: &[Endpoint]| matches!(servers, [it] if it.lookup == Lookup::Never);
    for (name, upstream) in config.upstreams.iter().filter(|(_, it)| is_one(&it.servers)) {
        // Readers are ejected all the same.
        if upstream.care.eject.is_some() && upstream.readers.is_empty() {
            let what = "the upstream has one server, and the last one is never ejected";
            let remedy = "name more servers, or write breaker, which refuses requests instead";
            warnings.push(format!("upstreams.{name}.eject"), what, remedy);
        }
        if upstream.retry.as_ref().is_some_and(|retry| retry.hedge.is_some()) {
            let what = "the upstream has one server, and there is no second one to ask";
            warnings.push(
                format!("upstreams.{name}.hedge"),
                what,
                "name more servers, or remove it",
            );
        }
    }
}

/// Upstreams of which a share of the servers is to be in, and none is ever taken out.
fn nobody_is_out(config: &Config, warnings: &mut Problems) {
    for (name, upstream) in &config.upstreams {
        let care = &upstream.care;
        if care.panic != PANIC_DEFAULT && care.health.is_none() && care.eject.is_none() {
            let what = "without health and eject no server is taken out, so this says nothing";
            let remedy = "write health or eject beside it, or remove it";
            warnings.push(format!("upstreams.{name}.panic"), what, remedy);
        }
    }
}

/// Upstreams that say how names are looked up, and have none.
fn nothing_to_look_up(config: &Config, warnings: &mut Problems) {
    let is_fixed = |it: &Endpoint| it.lookup == Lookup::Never;
    let fixed = config.upstreams.iter().filter(|(_, it)| it.servers.iter().all(is_fixed));
    for (name, upstream) in fixed {
        let written = [
            ("dns_refresh", upstream.dns_refresh != DNS_REFRESH),
            ("dns_stale", upstream.dns_stale != DNS_STALE),
            ("dns_servers", !upstream.dns_servers.is_empty()),
        ];
        for (key, _) in written.into_iter().filter(|(_, is_written)| *is_written) {
            let what = "all servers are written by their addresses, so nothing is looked up";
            let remedy = "write names in servers, or remove it";
            warnings.push(format!("upstreams.{name}.{key}"), what, remedy);
        }
    }
}

/// Routes whose callers could be vouched for by any of several authorities: each could give a
/// client of its own the name of another's.
fn authorities(config: &Config, warnings: &mut Problems) {
    let mut asked = config.server.tls.iter().flat_map(|tls| tls.clients());
    let first = asked.next();
    if first.is_none_or(|first| asked.all(|other| other.ca == first.ca)) {
        return;
    }
    let takes = |name: &String| {
        let written = config.auth.get(name);
        written.is_some_and(|it| matches!(it.keys, Some(KeySource::Certificates)))
    };
    for (name, route) in config.routes.iter().filter(|(_, route)| route.host.is_none()) {
        if route.auth.as_ref().is_some_and(|auth| auth.by.iter().any(takes)) {
            let what = "clients of several client_ca pass here, and one authority could give the \
                        name of another's client";
            let remedy = "give the route a host whose certificate has the client_ca that is meant";
            warnings.push(format!("routes.{name}.auth"), what, remedy);
        }
    }
}

/// Certificates that are over or not yet good, and hosts of routes that none has.
fn certificates(config: &Config, tls: Option<&Table>, warnings: &mut Problems) {
    let Some(table) = tls else { return };
    let now = jiff::Timestamp::now().as_second();
    for (index, (name, not_before, not_after)) in table.dates().enumerate() {
        let what = if not_after < now {
            format!("the certificate of {name} has expired: clients refuse it")
        } else if not_before > now {
            format!("the certificate of {name} is not good yet: clients refuse it")
        } else {
            continue;
        };
        let remedy = "put a new certificate and its key into the files; they are read anew";
        warnings.push(format!("server.tls.certificates[{index}].cert"), what, remedy);
    }
    let acme = config.server.tls.as_ref().and_then(|tls| tls.acme.as_deref());
    let is_ordered = |host: &str| {
        let mut names = acme.iter().flat_map(|acme| acme.names.iter().flatten());
        names.any(|name| name.eq_ignore_ascii_case(host))
    };
    for (name, route) in &config.routes {
        let host = route.host.as_deref().filter(|host| !host.starts_with("*."));
        if let Some(host) = host.filter(|host| !table.covers(host) && !is_ordered(host)) {
            let what =
                format!("no certificate is for {host}: its clients come in clear or not at all");
            let remedy = "add one to server.tls.certificates, or mark one default = true";
            warnings.push(format!("routes.{name}.host"), what, remedy);
        }
    }
}

/// Certificates that a gateway without Redis and without a folder orders at every start.
fn forgotten_certificates(config: &Config, warnings: &mut Problems) {
    let acme = config.server.tls.as_ref().and_then(|tls| tls.acme.as_ref());
    let is_forgetful = config.store.url == StoreUrl::Memory;
    if acme.is_some_and(|acme| is_forgetful && acme.folder.is_none()) {
        let what = "certificates and the account end with the process, and each start orders anew: \
                    authorities stop that after a few times";
        let remedy = "add folder = \"acme\", where they are kept, or use Redis: store.url";
        warnings.push("server.tls.acme", what, remedy);
    }
}

/// What each gateway has of its own, while they share the rest.
fn embedded_beside_redis(config: &Config, warnings: &mut Problems) {
    let is_embedded = |usage| config.store.used_for(usage).url == StoreUrl::Memory;
    let is_one_node = StoreUse::ALL.into_iter().all(is_embedded);
    let mut warn = |usage: StoreUse, what: &str, remedy: &str| {
        if !is_one_node && is_embedded(usage) {
            let table = config.store.used_for(usage).usage.table();
            warnings.push(format!("{table}.url"), what, remedy);
        }
    };
    let one = "use Redis, or let this be the only gateway";
    if config.routes.values().any(|route| route.cache.is_some()) {
        let what = "each gateway has a cache of its own: what a write or a purge at one makes \
                    stale is served on by the others until it ends";
        let remedy = "use Redis, or let this be the only gateway, or cache for seconds alone";
        warn(StoreUse::Cache, what, remedy);
    }
    let is_shared = |name: &String| {
        let limit = config.limits.get(name);
        limit.is_some_and(|limit| limit.scope == Scope::Shared)
    };
    if config.routes.values().any(|route| route.limits.iter().any(is_shared)) {
        let what = "each gateway counts for itself: a caller has each limit at every gateway";
        warn(StoreUse::Limits, what, one);
    }
    if config.routes.values().any(|route| route.auth.is_some() || route.session != SessionUse::Off)
    {
        let what = "each gateway has sessions, revocations and API keys of its own";
        warn(StoreUse::Main, what, one);
    }
}

/// gRPC servers speak HTTP/2 alone.
fn grpc_over_http1(config: &Config, warnings: &mut Problems) {
    for (name, route) in config.routes.iter().filter(|(_, route)| route.grpc.is_some()) {
        let is_http1 = |name: &&str| {
            let upstream = config.upstreams.get(*name);
            upstream.is_some_and(|upstream| upstream.protocol == Protocol::Http1)
        };
        for upstream in route.upstreams().filter(is_http1) {
            let what = format!(
                "the upstream {upstream} is spoken to over HTTP/1.1, and gRPC servers speak HTTP/2"
            );
            let remedy = format!("write protocol = \"h2\" in [upstreams.{upstream}]");
            warnings.push(format!("routes.{name}.grpc"), what, remedy);
        }
    }
}

fn bodies_without_room(config: &Config, warnings: &mut Problems) {
    let most = config.store.body_bytes_max();
    for (name, route) in &config.routes {
        if route.cache.as_ref().is_some_and(|cache| cache.max_bytes > most) {
            let what = format!(
                "bodies above {most} bytes are not kept: the embedded store has \
                 memory_cache_bytes = {} for all of them",
                config.store.memory_cache_bytes
            );
            let remedy = "raise store.memory_cache_bytes to twice max_bytes or more, lower \
                          max_bytes, or use Redis";
            warnings.push(format!("routes.{name}.cache.max_bytes"), what, remedy);
        }
    }
}

fn example_secrets(config: &Config, warnings: &mut Problems) {
    for (name, verifier) in &config.auth {
        if let Some(KeySource::Secret(secret)) = &verifier.keys
            && secret.expose() == EXAMPLE_SECRET
        {
            let what = "this is the secret of the example, and everybody can read it";
            let remedy = "replace it with 32 random bytes, such as `openssl rand -hex 32` prints, \
                          in an environment variable: secret = \"env:NAME\"";
            warnings.push(format!("auth.{name}.secret"), what, remedy);
        }
    }
}

fn weak_admin_token(config: &Config, warnings: &mut Problems) {
    let admin = &config.admin;
    let tokens = [
        ("admin.token", &admin.token, "revokes, purges and makes keys"),
        ("admin.read_token", &admin.read_token, "reads what operators read"),
    ];
    for (key, token, does) in tokens {
        let Some(bytes) = token.as_ref().map(|token| token.expose().len()) else { continue };
        if bytes < ADMIN_TOKEN_BYTES_MIN {
            let what = format!("{bytes} bytes can be guessed, and who has the token {does}");
            let remedy = format!(
                "use {ADMIN_TOKEN_BYTES_MIN} random bytes or more, such as `openssl rand -hex 32` \
                 prints"
            );
            warnings.push(key, what, remedy);
        }
    }
}

/// Behind a balancer that is no trusted proxy, everybody has its address: where a network of that
/// kind is exempt, nobody is limited.
fn wide_exemptions(config: &Config, warnings: &mut Problems) {
    let is_wide = |network: &&IpNet| match network {
        IpNet::V4(v4) => v4.prefix_len() < EXEMPT_PREFIX_MIN.0,
        IpNet::V6(v6) => v6.prefix_len() < EXEMPT_PREFIX_MIN.1,
    };
    for (name, limit) in &config.limits {
        for network in limit.exempt.addresses.iter().filter(is_wide) {
            let what = format!("everybody who comes from {network} is not counted");
            let remedy = "exempt single machines or small networks; a balancer or a NAT in there \
                          would make everybody behind it exempt";
            warnings.push(format!("limits.{name}.exempt.addresses"), what, remedy);
        }
    }
}
