//! What a route does to messages on their way: what most routes do not, in one place, so that they
//! pay one look for all of it.

use std::time::Duration;

use http::HeaderName;

use super::events;
use super::jetstream::Streamed;
use super::login::{Issue, Login};
use super::nats;
use super::pools::{self, RoutePools};
use super::providers::OidcRoute;
use super::queues::{self, Deferred};
use super::respond::Respond;
use super::signers::Signed;
use super::traffic;
use crate::base::http::authority::Authority;
use crate::config::{self, Balance, Config, HashKey, Problems};
use crate::forwarding::rules::{self, Rules};
use crate::forwarding::via::Via;
use crate::route::{Matcher, Rewrite, Subject, Template};

/// What is done to requests and responses of one route.
#[derive(Debug, Default)]
pub struct RouteEdge {
    /// What is answered without an upstream.
    pub respond: Option<Respond>,
    /// The gateway's name, for upstreams.
    pub via: Option<Via>,
    /// What the upstream is asked for.
    pub rewrite: Option<Rewrite>,
    /// The subject of its messages, where the upstream is reached over NATS.
    pub subject: Option<Subject>,
    /// Largest request body, in bytes, where it is another one than elsewhere.
    pub body_bytes: Option<u64>,
    /// From the request's head to that of its response.
    pub deadline: Option<Duration>,
    /// The field that tells the upstream how many milliseconds are left.
    pub deadline_header: Option<HeaderName>,
    /// Fields of requests to the upstream.
    pub requests: Rules,
    /// Fields of responses to the client.
    pub responses: Rules,
    /// Which responses are compressed.
    pub compress: Option<config::Compress>,
    /// The upstreams among which its requests are split, by index; the base is the first.
    pub split: Option<Vec<usize>>,
    /// The upstream that gets copies of them, by index.
    pub mirror: Option<usize>,
    /// Which of them fail or wait on purpose.
    pub faults: Option<config::Faults>,
    /// The fields and cookies by which servers are chosen, at whichever of its upstreams.
    pub hash_by: Vec<HashKey>,
    /// Its upstreams that have readers.
    pub pools: Option<RoutePools>,
    /// How its requests are delivered later.
    pub deferred: Option<Box<Deferred>>,
    /// The stream that stores its requests.
    pub streamed: Option<Box<Streamed>>,
    /// Where it tells of deliveries, the path up to the id.
    pub tells_at: Option<String>,
    /// The events that its requests bring.
    pub brings: Option<Box<[String]>>,
    /// What it does with signers.
    pub signed: Option<Box<Signed>>,
    /// What it does with a provider.
    pub oidc: Option<Box<OidcRoute>>,
    /// What it does with sessions that the gateway makes.
    pub login: Option<Box<Login>>,
}

impl RouteEdge {
    /// What the route says, and all routes; nothing where nobody says anything of this.
    pub(super) fn compile(
        config: &Config,
        (written, matcher): (&config::Route, &Matcher),
        at: impl Fn(&str) -> String,
        problems: &mut Problems,
    ) -> Option<Box<Self>> {
        let server = &config.server;
        if written.deadline_header.is_some() && written.deadline.is_none() {
            let what = "there is no deadline to tell of".to_owned();
            problems.push(at("deadline_header"), what, "add deadline = \"10s\"".to_owned());
        }
        let respond = written.respond.as_ref();
        let edge = Self {
            respond: respond.and_then(|it| Respond::compile(it, (written, matcher), &at, problems)),
            via: server.via.as_deref().and_then(Via::new),
            rewrite: rewrite((written, matcher), &at, problems),
            subject: nats::subject(config, (written, matcher), &at, problems),
            body_bytes: written.body_bytes.or_else(|| {
                let is_looked_at = body_bytes_max(config) == u64::MAX;
                is_looked_at.then_some(server.limits.body_bytes)
            }),
            deadline: written.deadline,
            deadline_header: written.deadline_header.clone(),
            requests: Rules::new(&server.request_headers, &written.request_headers),
            responses: Rules::new(&server.response_headers, &written.response_headers),
            compress: written.compress.clone(),
            split: traffic::arms(config, written, &at, problems),
            mirror: traffic::mirror(config, written, &at, problems),
            faults: written.faults.clone(),
            hash_by: hash_by(config, written),
            pools: pools::of_route(config, written),
            deferred: Deferred::compile(config, written, &at, problems),
            streamed: Streamed::compile(config, written, &at, problems),
            tells_at: queues::telling(written, &at, problems),
            brings: events::check_route(config, written, &at, problems),
            signed: None,
            oidc: None,
            login: None,
        };
        let is_some = edge.respond.is_some()
            || edge.via.is_some()
            || edge.rewrite.is_some()
            || edge.subject.is_some()
            || edge.body_bytes.is_some()
            || edge.deadline.is_some()
            || !edge.requests.is_empty()
            || !edge.responses.is_empty()
            || edge.compress.is_some()
            || edge.split.is_some()
            || edge.mirror.is_some()
            || edge.faults.is_some()
            || !edge.hash_by.is_empty()
            || edge.pools.is_some()
            || edge.deferred.is_some()
            || edge.streamed.is_some()
            || edge.tells_at.is_some()
            || edge.brings.is_some();
        is_some.then(|| Box::new(edge))
    }
}

impl RouteEdge {
    /// The same, with what the route does with signers, with sessions and with providers.
    pub(super) fn with(
        edge: Option<Box<Self>>,
        (signed, login, oidc): (Option<Box<Signed>>, Option<Box<Login>>, Option<OidcRoute>),
    ) -> Option<Box<Self>> {
        if signed.is_none() && login.is_none() && oidc.is_none() {
            return edge;
        }
        let (edge, oidc) = (edge.unwrap_or_default(), oidc.map(Box::new));
        Some(Box::new(Self { signed, login, oidc, ..*edge }))
    }

    /// What the answers of its upstream give to callers; nothing on most routes.
    pub fn issues(&self) -> Option<&Issue> {
        self.login.as_deref()?.issues.as_ref()
    }

    /// Whether the gateway itself answers, once a request is admitted.
    pub fn answers(&self) -> bool {
        self.deferred.is_some()
            || self.streamed.is_some()
            || self.tells_at.is_some()
            || self.brings.is_some()
            || self.oidc.is_some()
            || self.signed.as_ref().is_some_and(|signed| signed.answers())
            || self.login.as_ref().is_some_and(|login| login.answers.is_some())
    }
}

/// What stands in the head alone, and is gone when a server is chosen.
fn hash_by(config: &Config, written: &config::Route) -> Vec<HashKey> {
    let arms = written.split.iter().flat_map(|split| &split.arms).map(|arm| &arm.upstream);
    let copies = written.mirror.iter().map(|mirror| &mirror.upstream);
    let mut keys = Vec::new();
    for upstream in std::iter::once(&written.upstream).chain(arms).chain(copies) {
        if let Some(upstream) = config.upstreams.get(upstream)
            && let Balance::Hash(by @ (HashKey::Header(_) | HashKey::Cookie(_))) = &upstream.balance
            && !keys.contains(by)
        {
            keys.push(by.clone());
        }
    }
    keys
}

/// What is longer is refused before there is a route: nothing, where a route takes more than
/// others. Then each looks by itself.
pub(super) fn body_bytes_max(config: &Config) -> u64 {
    let usual = config.server.limits.body_bytes;
    let mut of_routes = config.routes.values().filter_map(|route| route.body_bytes);
    if of_routes.any(|most| most > usual) { u64::MAX } else { usual }
}

/// Fields that tell of deadlines, and mean something else.
pub(super) fn deadline_headers(config: &Config, owned: &[String], problems: &mut Problems) {
    for (name, route) in &config.routes {
        let Some(header) = &route.deadline_header else { continue };
        if let Some(why) = rules::forbidden_in_requests(owned, header) {
            let what = format!("{:?} {why}", header.as_str());
            let remedy = "choose a name of your own, such as \"x-deadline-ms\"".to_owned();
            problems.push(format!("routes.{name}.deadline_header"), what, remedy);
        }
    }
}

fn rewrite(
    (written, matcher): (&config::Route, &Matcher),
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Rewrite> {
    let rewrite = written.rewrite.as_ref()?;
    let mut refuse = |key: &str, text: &str, help: &str| {
        problems.push(at(key), format!("{text:?} cannot be used here"), help.to_owned());
    };
    let mut path = None;
    if let Some(prefix) = &rewrite.strip_prefix {
        match Template::without(prefix, &matcher.path, matcher.reading) {
            Ok(template) => path = Some(template),
            Err(help) => refuse("rewrite.strip_prefix", prefix, help),
        }
    } else if let Some(text) = &rewrite.replace {
        match Template::parse(text, (&written.path, &matcher.path), matcher.reading) {
            Ok(template) => path = Some(template),
            Err(help) => refuse("rewrite.replace", text, help),
        }
    }
    let host = rewrite.host.as_ref().and_then(|text| {
        let host = Authority::parse(text.as_bytes()).filter(|host| !host.is_none());
        if host.is_none() {
            refuse("rewrite.host", text, "write a host, such as \"shop.internal\" or \"a:8080\"");
        }
        host
    });
    let prefix = rewrite.strip_prefix.as_ref().and_then(|prefix| prefix.parse().ok());
    Some(Rewrite { path, host, prefix })
}
