//! Configuration as meant: names resolved, patterns and keys parsed, header names and values built.
//! Pure and immutable: no I/O, no task, no clock but for the dates of certificates. Compiling
//! reports every problem at once.

mod access;
mod check;
mod clauses;
mod edge;
mod events;
mod exposed;
mod header_rules;
mod itself;
mod jetstream;
mod login;
mod loose;
mod names;
mod nats;
mod own_answer;
mod pools;
mod providers;
mod purging;
mod queue_bodies;
mod queue_ends;
mod queue_fields;
mod queues;
mod respond;
mod route;
mod route_edge;
mod signers;
mod traffic;
mod upstream_tls;
mod warn;
mod withdrawal;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use rustls::ClientConfig;

pub use self::clauses::Clauses;
pub use self::edge::Edge;
pub use self::events::EventRule;
pub use self::jetstream::Streamed;
pub use self::login::{Given, Issue, Login, LoginAnswer};
pub use self::pools::{Pool, RoutePools};
pub use self::providers::{OidcRoute, OidcStep, Provider};
pub use self::purging::{distinct, sites};
pub use self::queue_ends::{Undo, callback_of, callback_upstream};
pub use self::queues::{Deferred, durability, queue_bounds, share};
pub use self::respond::Respond;
pub use self::route::{Route, Scope};
pub use self::route_edge::RouteEdge;
pub use self::signers::Signed;
pub use self::withdrawal::Withdrawal;

use self::access::Verifiers;
use self::pools::Upstreams;
use self::route::NO_UPSTREAM;
use self::signers::Signers;
use crate::auth::{CertificateVerifier, KeyVerifier, SessionVerifier, Verifier};
use crate::base::body::UploadLimits;
use crate::base::facts::Target;
use crate::base::http::path::Reading;
use crate::config::{self, Config, KeySource, OnOutage, Problems};
use crate::forwarding::trace::Sampling;
use crate::forwarding::{client, fields};
use crate::route::{HostPattern, Matcher, NoRoute, PathPattern, Table};
use crate::signing::Signer;
use crate::store::keys::Keys;
use crate::{cache, guard, limit, session, tls};

/// Everything that a request needs to know of the configuration.
#[derive(Debug)]
pub struct Plan {
    /// The file's sections that are used as they are written: listeners, bounds, log, store.
    pub config: Config,
    /// What in it deserves a second look.
    pub warnings: Problems,
    /// Certificates for clients; nothing where all is in clear.
    pub tls: Option<Arc<tls::Table>>,
    /// What TLS means for answers.
    pub edge: Edge,
    /// Who is believed.
    pub client: client::Policy,
    /// What is well formed.
    pub guard: guard::Policy,
    /// Which requests are traced; nothing where none is.
    pub sampling: Option<Sampling>,
    /// What the gateway owns.
    pub headers: fields::Policy,
    /// What a client may take with a body.
    pub upload: UploadLimits,
    /// What each function does without the store.
    pub on_outage: OnOutage,
    /// Formats store keys.
    pub keys: Keys,
    /// Who verify tokens, by their names.
    pub verifiers: BTreeMap<String, Arc<Verifier>>,
    /// Who verify API keys, by their names.
    pub key_verifiers: BTreeMap<String, Arc<KeyVerifier>>,
    /// Who say who clients with certificates are, by their names.
    pub certificate_verifiers: BTreeMap<String, Arc<CertificateVerifier>>,
    /// Who say who has sessions that the gateway has made, by their names.
    pub session_verifiers: BTreeMap<String, Arc<SessionVerifier>>,
    /// How the gateway makes sessions; nothing where it makes none.
    pub made: Option<session::Made>,
    /// At which providers browsers log in, by their names.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// Who sign tokens of the gateway's own, by their names.
    pub signers: BTreeMap<String, Arc<Signer>>,
    /// The routes.
    pub routes: Table<Arc<Route>>,
    /// The upstreams, by the index that routes use; behind them those that readers are, and those
    /// that are told how deliveries ended.
    pub upstreams: Vec<(String, config::Upstream)>,
    /// What holds for reads of each, by the same index; nothing for those without readers.
    pub pools: Vec<Option<Pool>>,
    /// What speaks TLS with each, by the same index; nothing with those in clear.
    pub upstream_tls: Vec<Option<Arc<ClientConfig>>>,
    /// The same routes, by index.
    by_index: Vec<Arc<Route>>,
    /// What applications tell, by name.
    pub events: BTreeMap<String, EventRule>,
    /// Whether any route allows an upgrade.
    pub upgrades: bool,
    /// Whether any route looks at idempotency keys.
    pub has_idempotency: bool,
    /// What undoes requests that could not be delivered, by their queues.
    pub undos: BTreeMap<String, Undo>,
}

impl Plan {
    /// The route that takes a method at a target, which need not be the method of the request.
    ///
    /// # Errors
    /// There is none, or none for this method.
    pub fn find(&self, target: &Target, method: &Method) -> Result<&Arc<Route>, NoRoute> {
        self.routes.find(target.authority.host(), target.path(), method)
    }

    /// The route of an index.
    pub fn route(&self, index: usize) -> Option<&Arc<Route>> {
        self.by_index.get(index)
    }

    /// The routes' names, by index.
    pub fn route_names(&self) -> impl ExactSizeIterator<Item = &String> + Clone {
        self.by_index.iter().map(|route| &route.name)
    }

    /// The store keys that revoke the callers of a verifier of tokens or of certificates.
    pub fn store_keys(&self, verifier: &str) -> Option<&Keys> {
        let of_tokens = self.verifiers.get(verifier).map(|it| it.store_keys());
        of_tokens.or_else(|| self.certificate_verifiers.get(verifier).map(|it| it.store_keys()))
    }

    /// Those who verify tokens, of callers and of providers: the keys of some are published.
    pub fn verifiers_of_published(&self) -> impl Iterator<Item = &Arc<Verifier>> {
        self.verifiers.values().chain(self.providers.values().map(|it| &it.verifier))
    }

    /// The names of those who verify tokens or certificates.
    pub fn names_of_verifiers(&self) -> impl Iterator<Item = &str> {
        self.verifiers.keys().chain(self.certificate_verifiers.keys()).map(String::as_str)
    }

    /// The verifiers whose store keys carry their names now, and did not under the `former` plan:
    /// one of tokens that joins another one on a route, or one of certificates that joins any.
    pub fn newly_qualified(&self, former: &Self) -> impl Iterator<Item = &str> {
        let is_new = |name: &&str| {
            let was_plain = former.store_keys(name).is_some_and(|keys| *keys == former.keys);
            was_plain && self.store_keys(name).is_some_and(|keys| *keys != self.keys)
        };
        self.names_of_verifiers().filter(is_new)
    }

    /// The names under which a path is made stale: its own, and what the upstreams that read paths
    /// loosely take it for. Nobody knows from a path alone which of them answered.
    pub fn names_of<'p>(&self, path: &'p str) -> Vec<Cow<'p, str>> {
        let mut names = vec![Cow::Borrowed(path)];
        let readings = self.upstreams.iter().map(|(_, upstream)| upstream.paths);
        for reading in readings.filter(|reading| !reading.is_exact()) {
            let name = reading.name(path);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Compiles a configuration, or says everything that is wrong with it.
    pub fn compile(config: Config) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let keys = access::keys(&config);
        let (signers, verifiers) = compile_signers(&config, &keys, &mut problems);
        let routes = compile_routes(&config, (&verifiers, &signers), &mut problems);
        check::ambiguous_routes(&routes, &mut problems);
        check::owned_headers(&config, &mut problems);
        let mut owned = owned_headers(&config, &verifiers);
        pools::check(&config, &owned, &mut problems);
        own(&mut owned, pools::told(&config).map(|(_, position)| position.to.as_str().to_owned()));
        header_rules::check(&config, &owned, &mut problems);
        route_edge::deadline_headers(&config, &owned, &mut problems);
        check::listeners(&config, &mut problems);
        itself::servers(&config, &mut problems);
        queues::check(&config, &mut problems);
        let is_qualified = verifiers.tokens.values().any(|it| *it.store_keys() != keys);
        let events = events::compile(&config, is_qualified, &mut problems);
        let undos = queue_ends::undos(&config, &routes, &mut problems);
        check::tls(&config, &mut problems);
        check::log(&config, &mut problems);
        let upstream_tls = upstream_tls::compile(&config, &mut problems);
        let callbacks = queue_ends::callbacks(&config, &mut problems);
        let tls = compile_tls(&config, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let upstreams = pools::upstreams(&config, upstream_tls, callbacks);
        let Upstreams { named, tls: upstream_tls, pools } = upstreams;
        Ok(Self {
            warnings: warn::warnings(&config, tls.as_ref()),
            tls: tls.map(Arc::new),
            edge: Edge::of(&config.server),
            client: client::Policy {
                trusted: config.server.trusted_proxies.clone(),
                fields: config.server.forwarded,
            },
            guard: guarding(&config),
            sampling: config.traces.as_ref().map(Sampling::new),
            headers: fields::Policy { owned },
            upload: upload_limits(&config),
            on_outage: config.store.on_outage,
            keys,
            verifiers: verifiers.tokens,
            key_verifiers: verifiers.api_keys,
            certificate_verifiers: verifiers.certificates,
            session_verifiers: verifiers.sessions,
            made: made(&config).map(session::Made::of),
            providers: verifiers.providers,
            signers,
            upstreams: named,
            pools,
            upstream_tls,
            by_index: routes.iter().map(|(_, route)| Arc::clone(route)).collect(),
            events,
            upgrades: config.routes.values().any(|route| route.tunnel.is_some()),
            has_idempotency: config.routes.values().any(|route| route.idempotency.is_some()),
            undos,
            routes: Table::new(routes),
            config,
        })
    }
}

/// How the gateway makes sessions, where it does.
fn made(config: &Config) -> Option<&config::Make> {
    config.session.as_ref()?.make.as_ref()
}

fn upload_limits(config: &Config) -> UploadLimits {
    let limits = &config.server.limits;
    UploadLimits {
        bytes_max: limits.body_bytes,
        progress_timeout: limits.progress_timeout,
        progress_bytes: limits.progress_bytes,
    }
}

/// What is asked of the form of requests.
fn guarding(config: &Config) -> guard::Policy {
    let limits = &config.server.limits;
    guard::Policy {
        headers_max: limits.headers,
        body_bytes_max: route_edge::body_bytes_max(config),
        encoded_slash: limits.encoded_slash,
    }
}

/// Who sign tokens, and who verify some.
fn compile_signers(config: &Config, keys: &Keys, problems: &mut Problems) -> (Signers, Verifiers) {
    let signers = signers::compile(config, problems);
    let mut verifiers = access::verifiers((config, &signers), keys, problems);
    verifiers.providers = providers::compile(config, keys, problems);
    (signers, verifiers)
}

fn compile_tls(config: &Config, problems: &mut Problems) -> Option<tls::Table> {
    let written = config.server.tls.as_ref()?;
    match tls::Table::compile(written, None) {
        Ok(table) => Some(table),
        Err(flaws) => {
            for flaw in flaws {
                problems.push(format!("server.tls.{}", flaw.key), flaw.what, flaw.remedy);
            }
            None
        }
    }
}

fn compile_routes(
    config: &Config,
    (verifiers, signers): (&Verifiers, &Signers),
    problems: &mut Problems,
) -> Vec<(Matcher, Arc<Route>)> {
    let mut routes = Vec::new();
    for (index, (name, written)) in config.routes.iter().enumerate() {
        let path = format!("routes.{name}");
        let at = |key: &str| format!("{path}.{key}");
        let reading = config.upstreams.get(&written.upstream).map(|upstream| upstream.paths);
        let matcher = compile_matcher(written, reading.unwrap_or_default(), at, problems);
        let mut upstream = config.upstreams.keys().position(|it| *it == written.upstream);
        if (written.respond.is_some() || written.answers.is_some()) && written.upstream.is_empty() {
            upstream = Some(NO_UPSTREAM);
        }
        if upstream.is_none() && !written.upstream.is_empty() {
            let known = names::names(config.upstreams.keys(), "[upstreams.NAME]");
            let what = format!("no upstream is named {:?}", written.upstream);
            let key = if written.split.is_some() { "split" } else { "upstream" };
            problems.push(at(key), what, format!("name one of {known}"));
        }
        let auth = access::policy(config, written, verifiers, at, problems);
        let limits = compile_limits(config, written, at, problems);
        let session = compile_session(config, written);
        check::session_and_cache(config, written, at, problems);
        check::warming(written, at, problems);
        check::upgrade(config, written, at, problems);
        check::idempotency(written, at, problems);
        let edge = matcher
            .as_ref()
            .and_then(|matcher| RouteEdge::compile(config, (written, matcher), at, problems));
        let clauses = matcher.as_ref().and_then(|matcher| {
            let pattern = queues::pattern(written).unwrap_or_else(|| written.path.clone());
            Clauses::compile((written, &pattern), matcher, at, problems)
        });
        let signed = signers::of_route((config, signers), written, at, problems);
        let oidc = providers::of_route((config, &verifiers.providers), written, at, problems);
        let login = login::of_route((config, signers), written, at, problems);
        let edge = RouteEdge::with(edge, (signed, login, oidc));
        let invalidates = compile_scopes(written, at, problems);
        let (Some(matcher), Some(upstream)) = (matcher, upstream) else { continue };
        let route = Route {
            name: name.clone(),
            index,
            auth,
            clauses,
            limits,
            session,
            cache: written
                .cache
                .as_ref()
                .map(|cache| Arc::new(compile_cache(cache, &config.store))),
            edge,
            upstream,
            invalidates,
            written: written.clone(),
        };
        routes.push((matcher, Arc::new(route)));
    }
    routes
}

/// How its sessions are attached, where they are.
fn compile_session(config: &Config, written: &config::Route) -> Option<session::Policy> {
    let outage = config.store.on_outage.session;
    let session = config.session.as_ref()?;
    if written.session == config::SessionUse::Off && needs_session(config, written) {
        let is_told = written.answers == Some(config::Answers::Session);
        return session::Policy::of_callers(session, is_told);
    }
    let policy = session::Policy::compile(session, written.session, outage)?;
    let asserted = written.assertion.as_ref().map(|assertion| assertion.session.clone());
    Some(policy.asserting(asserted.unwrap_or_default()))
}

/// Whether a session of the gateway's own says who calls, or is what a route tells of.
fn needs_session(config: &Config, written: &config::Route) -> bool {
    let takes = |name: &String| {
        config.auth.get(name).is_some_and(|it| matches!(it.keys, Some(KeySource::Sessions)))
    };
    let is_known_by_it = written.auth.iter().flat_map(|auth| &auth.by).any(takes);
    is_known_by_it || written.answers == Some(config::Answers::Session)
}

fn compile_matcher(
    written: &config::Route,
    reading: Reading,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Matcher> {
    let host = match &written.host {
        None => Some(HostPattern::Any),
        Some(text) => HostPattern::parse(text)
            .map_err(|help| {
                problems.push(at("host"), format!("{text:?} is no host"), help.to_owned())
            })
            .ok(),
    };
    let path = if written.path.is_empty() {
        None
    } else {
        let text = &queues::pattern(written).unwrap_or_else(|| written.path.clone());
        PathPattern::parse(text)
            .map_err(|help| {
                problems.push(at("path"), format!("{text:?} is no path pattern"), help.to_owned());
            })
            .ok()
    };
    let refused = written.methods.iter().find(|m| matches!(m.as_str(), "CONNECT" | "TRACE"));
    if let Some(method) = refused {
        let remedy = "remove it: the gateway refuses CONNECT and TRACE on every route".to_owned();
        problems.push(at("methods"), format!("{method} cannot be routed"), remedy);
    }
    let mut methods = written.methods.clone();
    if written.answers_deliveries() && methods.is_empty() {
        methods.extend(queues::METHODS);
    }
    if written.answers_events() && methods.is_empty() {
        methods.push(Method::POST);
    }
    match written.answers {
        Some(config::Answers::Jwks) if methods.is_empty() => {
            methods.extend([Method::GET, Method::HEAD]);
        }
        Some(config::Answers::Refresh) if methods.is_empty() => methods.push(Method::POST),
        Some(config::Answers::Session) if methods.is_empty() => {
            methods.extend([Method::GET, Method::HEAD]);
        }
        Some(config::Answers::Logout) if methods.is_empty() => {
            methods.extend([Method::GET, Method::POST]);
        }
        _ => methods.extend(providers::methods(written)),
    }
    Some(Matcher { host: host?, path: path?, methods, reading })
}

fn compile_limits(
    config: &Config,
    written: &config::Route,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) -> limit::Policy {
    let mut named = Vec::new();
    for name in &written.limits {
        match config.limits.get_key_value(name) {
            Some((name, limit)) => named.push((name.as_str(), limit)),
            None => {
                let known = names::names(config.limits.keys(), "[limits.NAME]");
                let what = format!("no limit is named {name:?}");
                problems.push(at("limits"), what, format!("name one of {known}"));
            }
        }
    }
    let mut sorted = written.limits.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        let remedy = "name each limit once: a request is charged once per limit".to_owned();
        problems.push(at("limits"), "a limit is named twice".to_owned(), remedy);
    }
    let OnOutage { nodes, reconcile, .. } = config.store.on_outage;
    limit::Policy::compile(named.into_iter(), nodes, reconcile)
}

/// What the route says of caching; no body is longer than the store keeps.
fn compile_cache(written: &config::Cache, store: &config::Store) -> config::Cache {
    let max_bytes = written.max_bytes.min(store.body_bytes_max());
    config::Cache { max_bytes, ..written.clone() }
}

fn compile_scopes(
    written: &config::Route,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Vec<Scope> {
    let mut scopes = Vec::new();
    for pattern in &written.invalidates {
        match PathPattern::parse(pattern).ok().and_then(|pattern| pattern.literal()) {
            Some((path, and_below)) => {
                let paths = cache::spellings(&path).into_iter();
                scopes.extend(paths.map(|path| Scope { path, and_below }));
            }
            None => {
                let what = format!("{pattern:?} does not name paths literally");
                let remedy = "write a path, or a prefix that ends in /*, without {placeholders}";
                problems.push(at("invalidates"), what, remedy.to_owned());
            }
        }
    }
    scopes
}

/// All headers that carry claims, assertions, sessions or marks of limits on any route: a client's
/// own are removed on every route, because an upstream cannot know which route a request took.
fn owned_headers(config: &Config, verifiers: &Verifiers) -> Vec<String> {
    let of_tokens = verifiers.tokens.values().flat_map(|verifier| verifier.owned_headers());
    let of_keys = verifiers.api_keys.values().flat_map(|verifier| verifier.owned_headers());
    let of_certificates = verifiers.certificates.values().flat_map(|it| it.owned_headers());
    let of_sessions = verifiers.sessions.values().flat_map(|it| it.owned_headers());
    let of_verifiers = of_tokens.chain(of_keys).chain(of_certificates).chain(of_sessions);
    let mut owned: Vec<String> = of_verifiers.map(|name| name.as_str().to_owned()).collect();
    let of_providers = config.providers.values().filter_map(|it| it.forward_access_token.as_ref());
    owned.extend(of_providers.map(|name| name.as_str().to_owned()));
    if let Some(session) = &config.session {
        owned.extend(session.header.iter().cloned());
        owned.extend(session.fields_to_headers.keys().cloned());
    }
    let marks = config.limits.values().filter_map(|limit| match &limit.over {
        config::Over::Mark(header) => Some(header.as_str().to_owned()),
        config::Over::Refuse | config::Over::Shadow => None,
    });
    owned.extend(marks);
    let assertions = config.routes.values().filter_map(|route| route.assertion.as_ref());
    owned.extend(assertions.map(|assertion| assertion.header.as_str().to_owned()));
    if config.server.tls.is_some() {
        owned.extend(tls::FIELDS.map(str::to_owned));
    }
    let mut all = Vec::new();
    own(&mut all, owned.into_iter());
    all
}

/// Adds names to those that the gateway owns, in the one spelling of all of them.
fn own(owned: &mut Vec<String>, more: impl Iterator<Item = String>) {
    owned.extend(more.map(|name| name.to_ascii_lowercase().replace(['_', '.'], "-")));
    owned.sort_unstable();
    owned.dedup();
}

#[cfg(test)]
mod tests;
