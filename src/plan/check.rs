//! Checks that need more than one section of the file.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::route::Route;
use crate::base::http::authority::Authority;
use crate::base::http::fields::is_reserved;
use crate::config::{self, Challenge, Config, Problems, SessionUse, StoreUrl};
use crate::route::{HostPattern, Matcher};

/// Routes that no request can tell apart.
pub(super) fn ambiguous_routes(routes: &[(Matcher, Arc<Route>)], problems: &mut Problems) {
    for (index, (matcher, route)) in routes.iter().enumerate() {
        for (other_matcher, other) in &routes[..index] {
            let share_upstream = route.upstream == other.upstream;
            if matcher.is_ambiguous_with(other_matcher, share_upstream) {
                let as_read = if matcher.path == other_matcher.path {
                    ""
                } else {
                    ", as the `paths` of their upstream has it"
                };
                let what =
                    format!("it matches the same requests as routes.{}{as_read}", other.name);
                let remedy =
                    "give one of them another host, path or methods, or remove it".to_owned();
                problems.push(format!("routes.{}.path", route.name), what, remedy);
            }
        }
    }
}

/// Certificates that are to be ordered, and cannot be, and secret keys that would lie bare.
pub(super) fn tls(config: &Config, problems: &mut Problems) {
    let Some(tls) = &config.server.tls else { return };
    let is_bare = config.store.url != StoreUrl::Memory && tls.secret.is_none();
    if is_bare && (tls.acme.is_some() || tls.shares_tickets()) {
        let keys = if tls.acme.is_some() { "private keys" } else { "the keys of tickets" };
        let what = format!("{keys} would lie bare in Redis");
        let remedy = "make a file with `openssl rand -hex 32 > tls.key`, the same on all gateways, \
                      and add secret = \"file:tls.key\"";
        problems.push("server.tls.secret".to_owned(), what, remedy.to_owned());
    }
    let Some(acme) = &tls.acme else { return };
    let has_clear = !tls.listen.is_empty() && !config.server.listen.is_empty();
    if !has_clear && !acme.challenges.contains(&Challenge::TlsAlpn) {
        let what = "http-01 is asked over clear HTTP, and no listener speaks it".to_owned();
        let remedy = "add \"tls-alpn-01\", or a clear listener: server.listen on port 80 beside \
                      server.tls.listen on 443";
        problems.push("server.tls.acme.challenges".to_owned(), what, remedy.to_owned());
    }
}

/// Fields that lines are to show, and in which credentials are expected.
pub(super) fn log(config: &Config, problems: &mut Problems) {
    let tokens = config.auth.values().flat_map(|verifier| &verifier.from);
    let tokens = tokens.filter_map(|place| match place {
        config::TokenSource::Header(name) => Some(name),
        _ => None,
    });
    let sessions = config.session.iter().flat_map(|session| &session.id_from);
    let sessions = sessions.filter_map(|place| match place {
        config::SessionId::Header(name) => Some(name),
        _ => None,
    });
    let secret: Vec<_> = tokens.chain(sessions).collect();
    for name in config.log.headers.iter().filter(|name| secret.contains(name)) {
        let what = format!("{:?} carries credentials, as [auth] or [session] says", name.as_str());
        let remedy = "remove it: whoever reads the log could use them".to_owned();
        problems.push("log.headers".to_owned(), what, remedy);
    }
}

/// Upgrades on routes that nobody can open one on.
pub(super) fn upgrade(
    config: &Config,
    written: &config::Route,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) {
    if written.tunnel.is_none() {
        return;
    }
    let is_http2 = |name: &&str| {
        let upstream = config.upstreams.get(*name);
        upstream.is_some_and(|upstream| upstream.protocol == config::Protocol::Http2)
    };
    if let Some(upstream) = written.upstreams().find(is_http2) {
        let what = format!(
            "a WebSocket is opened in HTTP/1.1, and upstreams.{upstream} speaks \"h2\" alone"
        );
        let remedy = "name an upstream with protocol = \"http1\" or \"auto\", or remove upgrade";
        problems.push(at("upgrade"), what, remedy.to_owned());
    }
    if written.cache.is_some() {
        let what = "a handshake is not answered from a cache, and this route has one".to_owned();
        let remedy = "give the WebSocket a route of its own, or remove cache".to_owned();
        problems.push(at("upgrade"), what, remedy);
    }
    if !written.methods.is_empty() && !written.methods.contains(&http::Method::GET) {
        let what = "a WebSocket is opened by a GET, which this route does not accept".to_owned();
        problems.push(at("methods"), what, "add \"GET\", or remove upgrade".to_owned());
    }
}

/// Idempotency keys that nobody would look at.
pub(super) fn idempotency(
    written: &config::Route,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) {
    let Some(policy) = &written.idempotency else { return };
    let mut problem = |key: &str, what: String, remedy: &str| {
        problems.push(at(key), what, remedy.to_owned());
    };
    if written.grpc.is_some() {
        let what = "the answer to a gRPC call is not kept, and this route is for such".to_owned();
        problem("idempotency", what, "remove idempotency, or grpc");
    }
    if written.respond.is_some() {
        let what = "the route answers by itself, and sends nothing".to_owned();
        problem("idempotency", what, "remove idempotency, or respond");
    }
    let is_refused = |it: &&http::Method| !written.methods.contains(it);
    let is_any = written.methods.is_empty();
    if !is_any && policy.methods.iter().all(|it| is_refused(&it)) {
        let what = "the route takes none of the methods whose keys are looked at".to_owned();
        problem("idempotency.methods", what, "name one of the route's methods");
    }
}

/// Sessions that are used but not described, and caches that could hand one caller's response to
/// another.
pub(super) fn session_and_cache(
    config: &Config,
    written: &config::Route,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) {
    let uses_session = written.session != SessionUse::Off;
    if uses_session && config.session.is_none() {
        let what = "there is no [session] section that says where the id is".to_owned();
        let remedy = "add [session] with id_from, or remove session from the route".to_owned();
        problems.push(at("session"), what, remedy);
    }
    let shares_route = written.auth.as_ref().is_some_and(|auth| auth.by.len() > 1);
    let by_claim = config.session.as_ref().is_some_and(|session| {
        session.id_from.iter().any(|place| matches!(place, config::SessionId::Claim(_)))
    });
    if uses_session && shares_route && by_claim {
        let what = "one issuer's tokens could name the sessions of another issuer's callers";
        let remedy = "split the route by verifier, or take the session's id from a cookie or a \
                      header alone";
        problems.push(at("session"), what.to_owned(), remedy.to_owned());
    }
    let Some(cache) = &written.cache else { return };
    let names = written.auth.iter().flat_map(|auth| &auth.by);
    let mut verifiers = names.filter_map(|name| config.auth.get(name));
    // The upstream is told of a certificate, whatever claims_to_headers says.
    let injects = uses_session
        || written.assertion.is_some()
        || verifiers.any(|v| {
            let is_told = matches!(v.keys, Some(config::KeySource::Certificates));
            is_told || !v.claims_to_headers.is_empty() || v.forward_token
        });
    if injects && !cache.shared && cache.partition.is_empty() {
        let what =
            "the route sends the caller's identity to the upstream and caches the response, \
                    so one \
                    caller could get another's"
                .to_owned();
        let remedy =
            "say cache.partition = [\"claim:NAME\"] (the response depends on these alone) or \
                      cache.shared = true (the upstream ignores the identity)"
                .to_owned();
        problems.push(at("cache"), what, remedy);
    }
    let knows_callers = written.auth.is_some() || uses_session;
    let is_kept = cache.set_cookie == config::SetCookie::Store;
    if is_kept && knows_callers && cache.partition.is_empty() {
        let what = "a cookie that one caller was given would be sent to others".to_owned();
        let remedy = "say cache.partition = [\"claim:NAME\"], or leave set_cookie at \"explicit\"";
        problems.push(at("cache.set_cookie"), what, remedy.to_owned());
    }
    if !cache.partition.is_empty() && written.auth.is_none() {
        let what = "a partition by claim needs a verified caller".to_owned();
        problems.push(
            at("cache.partition"),
            what,
            "add auth to the route, or remove partition".to_owned(),
        );
    }
    if cache.shared && !cache.partition.is_empty() {
        let what = "shared and partition contradict each other".to_owned();
        problems.push(at("cache.shared"), what, "keep one of them".to_owned());
    }
}

/// Warming that would ask nobody, or be refused.
pub(super) fn warming(
    written: &config::Route,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) {
    let Some(warm) = written.cache.as_ref().and_then(|cache| cache.warm.as_ref()) else { return };
    let mut problem = |key: &str, what: &str, remedy: &str| {
        problems.push(at(&format!("cache.warm{key}")), what.to_owned(), remedy.to_owned());
    };
    if written.auth.as_ref().is_some_and(|auth| !auth.optional) {
        let remedy = "make auth optional, or remove warm: it has no token to send";
        problem("", "every request to the route needs a caller", remedy);
    }
    if written.session == SessionUse::Required {
        problem("", "every request to the route needs a session", "remove warm");
    }
    if warm.urls.is_empty() && warm.sitemap.is_none() {
        problem(
            "",
            "names nothing to fetch",
            "add urls = [\"/path\"] or sitemap = \"/sitemap.xml\"",
        );
    }
    if !written.methods.is_empty() && !written.methods.contains(&http::Method::GET) {
        problem("", "the route takes no GET", "remove warm, or add \"GET\" to methods");
    }
    let own = written.host.as_deref().filter(|host| !host.starts_with('*'));
    match (&warm.host, own) {
        (None, None) => {
            let remedy = "write host = \"shop.example.com\", as clients name it: each host has its \
                          own responses";
            problem("", "does not say for which host", remedy);
        }
        (Some(host), _) => {
            let authority = Authority::parse(host.as_bytes());
            let pattern = written.host.as_deref().and_then(|host| HostPattern::parse(host).ok());
            let is_meant = authority.as_ref().is_some_and(|authority| {
                pattern.as_ref().is_none_or(|pattern| pattern.matches(authority.host()))
            });
            if !is_meant {
                problem(
                    ".host",
                    "is no host of the route",
                    "write one that the route's host covers",
                );
            }
        }
        (None, Some(_)) => {}
    }
}

/// Two sections that write the same header, and headers that the gateway sets for other ends.
pub(super) fn owned_headers(config: &Config, problems: &mut Problems) {
    let mut writers: BTreeMap<String, String> = BTreeMap::new();
    let mut claim = |header: &str, path: String, by_verifier: bool| {
        let plain = header.to_ascii_lowercase().replace(['_', '.'], "-");
        if is_reserved(&plain) {
            let remedy = "choose a name of your own, for example x-user-id".to_owned();
            problems.push(path, format!("{header:?} has another meaning"), remedy);
        } else if let Some(other) = writers.insert(plain, path.clone()) {
            // Verifiers may share names: a request has one verifier.
            let both_verifiers = by_verifier && other.starts_with("auth.");
            let same_verifier = other.split('.').nth(1) == path.split('.').nth(1);
            if !both_verifiers || same_verifier {
                let remedy = "give each value a header of its own".to_owned();
                problems.push(path, format!("{header:?} is written by {other} too"), remedy);
            }
        }
    };
    for (name, verifier) in &config.auth {
        for header in verifier.claims_to_headers.keys() {
            claim(header, format!("auth.{name}.claims_to_headers.{header}"), true);
        }
    }
    if let Some(session) = &config.session {
        if let Some(header) = &session.header {
            claim(header, "session.header".to_owned(), false);
        }
        for place in &session.id_from {
            if let config::SessionId::Header(header) = place {
                claim(header.as_str(), "session.id_from".to_owned(), false);
            }
        }
        for header in session.fields_to_headers.keys() {
            claim(header, format!("session.fields_to_headers.{header}"), false);
        }
    }
    // Several routes may use one name: a request has one route.
    let assertions = config.routes.iter().filter_map(|(name, route)| {
        route.assertion.as_ref().map(|assertion| (assertion.header.as_str(), name))
    });
    for (header, name) in assertions.collect::<BTreeMap<_, _>>() {
        claim(header, format!("routes.{name}.assertion.header"), false);
    }
    // Several limits may share a mark, which then lists them.
    let marks = config.limits.iter().filter_map(|(name, limit)| match &limit.over {
        config::Over::Mark(header) => Some((header.as_str(), name)),
        config::Over::Refuse | config::Over::Shadow => None,
    });
    for (header, name) in marks.collect::<BTreeMap<_, _>>() {
        claim(header, format!("limits.{name}.mark"), false);
    }
}

/// The admin listener must not be reachable where the public is.
pub(super) fn listeners(config: &Config, problems: &mut Problems) {
    let admin = config.admin.listen;
    let same = |public: &std::net::SocketAddr| {
        admin.port() != 0
            && public.port() == admin.port()
            && (public.ip() == admin.ip()
                || public.ip().is_unspecified()
                || admin.ip().is_unspecified())
    };
    if config.server.listen.iter().any(same) {
        let what = "the admin listener is the same as a public one".to_owned();
        problems.push("admin.listen".to_owned(), what, "give it a port of its own".to_owned());
    }
    if let Some(tls) = &config.server.tls {
        if tls
            .listen
            .iter()
            .any(|address| config.server.listen.contains(address) && address.port() != 0)
        {
            let what = "an address cannot be in clear and speak TLS".to_owned();
            let remedy = "give one of server.listen and server.tls.listen another port, or leave \
                          server.tls.listen out: then server.listen speaks TLS";
            problems.push("server.tls.listen".to_owned(), what, remedy);
        }
        if tls.listen.iter().any(same) {
            let what = "the admin listener is the same as a public one".to_owned();
            problems.push("admin.listen".to_owned(), what, "give it a port of its own".to_owned());
        }
        if tls.redirect && tls.listen.is_empty() {
            let what =
                "there is no listener in clear whose requests could be redirected".to_owned();
            let remedy =
                "add server.tls.listen = [\"0.0.0.0:8443\"], or remove redirect".to_owned();
            problems.push("server.tls.redirect".to_owned(), what, remedy);
        }
    }
    if config.routes.is_empty() {
        let what = "there are no routes, so every request would be a 404".to_owned();
        let remedy = "add a [routes.NAME] table with path and upstream".to_owned();
        problems.push("routes".to_owned(), what, remedy);
    }
}
