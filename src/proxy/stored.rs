//! What is stored for a URL that an operator names: its target is read, its route found and its key
//! made as those of a request are.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::Method;
use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use serde_json::{Map, Value};

use super::resolve::forwarded;
use crate::base::facts::{
    Caller, Client, ClientAddr, Credential, Encryption, Identity, Peer, Target,
};
use crate::base::http::authority::Authority;
use crate::caching::{
    Allowance, HttpCache, Inspected, Inspection, LookupRequest, RequestView, RouteCache, inspect,
};
use crate::guard::{self, Inspected as Head, Malformed};
use crate::plan::{Plan, Route};
use crate::route::NoRoute;
use crate::runtime::{Gateway, Running};
use crate::store::StoreError;

/// A URL, and of whom its response is where that depends on the caller.
#[derive(Debug)]
pub struct StoredUrl {
    /// `http`, `https` or both.
    pub schemes: Vec<&'static str>,
    /// Its host, and its port where it has one.
    pub authority: Authority,
    /// Its path and query.
    pub path: PathAndQuery,
    /// The claims by which the route's cache is parted.
    pub claims: Map<String, Value>,
}

/// Why nothing could be looked at.
#[derive(Debug)]
pub enum NotLooked {
    /// It is not well formed, as [`guard::inspect`] has it.
    Malformed(Malformed),
    /// No route takes it.
    NoRoute(NoRoute),
    /// This route has no cache.
    NoCache(String),
    /// This route's cache is parted by these claims, of which some are missing.
    Parted(String, Vec<String>),
    /// The store did not answer.
    Store(StoreError),
}

/// One stored response.
#[derive(Debug)]
pub struct StoredVariant {
    /// See [`StoredUrl::schemes`].
    pub scheme: &'static str,
    /// Whose response it is.
    pub upstream: String,
    /// The response.
    pub inspected: Inspected,
}

/// All that is stored for one URL.
#[derive(Debug)]
pub struct Held {
    /// The name of its route.
    pub route: String,
    /// Its host, path and query, as far as they are a part of the key.
    pub url: String,
    /// What is stored.
    pub variants: Vec<StoredVariant>,
    /// Whether there is more than is told of.
    pub has_more: bool,
    /// Now, in Unix milliseconds of the clock that responses are dated by.
    pub now_ms: u64,
}

/// Looks at what is stored for a GET of a URL.
///
/// # Errors
/// See [`NotLooked`].
pub async fn stored(gateway: &Arc<Gateway>, url: &StoredUrl) -> Result<Held, NotLooked> {
    let running = gateway.running();
    let head = head_of(url);
    let mut held = Held {
        route: String::new(),
        url: String::new(),
        variants: Vec::new(),
        has_more: false,
        now_ms: 0,
    };
    let mut left = Allowance::default();
    for scheme in &url.schemes {
        for asked in targets_of(&running.plan, scheme, &head).map_err(NotLooked::Malformed)? {
            let route = running.plan.find(&asked, &Method::GET).map_err(NotLooked::NoRoute)?;
            let other = forwarded(route, &Method::GET, &asked);
            let target = other.as_deref().unwrap_or(&asked);
            held.route.clone_from(&route.name);
            held.url = format!("{}{}", url.authority.as_str(), target.path_and_query);
            let address = ClientAddr::new(Ipv4Addr::LOCALHOST.into());
            let client = Client { address, scheme, via: None };
            for caller in &callers(route, &url.claims)? {
                let request = LookupRequest {
                    view: RequestView { method: &Method::GET, fields: &head.headers },
                    target,
                    client: &client,
                    caller,
                    has_body: false,
                    is_debugger: false,
                };
                for cache in caches(&running, route)? {
                    held.look(&gateway.cache, cache, &request, &mut left).await?;
                }
            }
        }
    }
    Ok(held)
}

impl Held {
    /// Adds what is stored on a route for a request.
    async fn look(
        &mut self,
        cache: &Arc<HttpCache>,
        route: &Arc<RouteCache>,
        request: &LookupRequest<'_>,
        left: &mut Allowance,
    ) -> Result<(), NotLooked> {
        let found = inspect(cache, route, request, left).await.map_err(NotLooked::Store)?;
        let Inspection { variants, has_more, now_ms } = found;
        let scheme = request.client.scheme;
        self.variants.extend(variants.into_iter().map(|inspected| StoredVariant {
            scheme,
            upstream: route.upstream().to_owned(),
            inspected,
        }));
        self.has_more |= has_more;
        self.now_ms = now_ms;
        Ok(())
    }
}

/// The head of a request for it, without any field that a variant might depend on.
fn head_of(url: &StoredUrl) -> Parts {
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.uri = url.path.clone().into();
    head.headers.insert(HOST, url.authority.to_header());
    head
}

/// The target as listeners read it: of one, the port that is named may be its own, which needs no
/// mention.
fn targets_of(plan: &Plan, scheme: &str, head: &Parts) -> Result<Vec<Target>, Malformed> {
    let host = head.headers.get(HOST).and_then(Authority::of_header);
    let named = host.and_then(|host| host.port());
    let mut targets: Vec<Target> = Vec::with_capacity(2);
    for port in [named.unwrap_or_default(), 0] {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let encryption = (scheme == "https")
            .then(|| Arc::new(Encryption { version: "TLSv1.3", name_policy: 0, client: None }));
        let peer = Peer::new(ClientAddr::new(local.ip()), local, encryption);
        let Head::Route(target) = guard::inspect(&plan.guard, &peer, head)? else {
            return Err(Malformed::TargetForm);
        };
        let site = target.authority.site();
        if targets.iter().all(|known| known.authority.site() != site) {
            targets.push(target);
        }
    }
    Ok(targets)
}

/// The caches of a route: one, or one for each arm where it is split.
fn caches<'r>(running: &'r Running, route: &Route) -> Result<Vec<&'r Arc<RouteCache>>, NotLooked> {
    let arms = (0..).map_while(|arm| running.cache_of(route.index, Some(arm)));
    let arms: Vec<_> = arms.collect();
    if !arms.is_empty() {
        return Ok(arms);
    }
    let only = running.cache_of(route.index, None);
    only.map(|cache| vec![cache]).ok_or_else(|| NotLooked::NoCache(route.name.clone()))
}

/// Nobody, or where the cache is parted by claims a caller who has them. Which verifier vouches is
/// a part of the key where there are several: so there is a caller of each.
fn callers(route: &Route, claims: &Map<String, Value>) -> Result<Vec<Caller>, NotLooked> {
    let Some(policy) = &route.cache else { return Err(NotLooked::NoCache(route.name.clone())) };
    if policy.partition.is_empty() {
        return Ok(vec![None]);
    }
    let caller = |qualifier: Option<&String>| Some(Arc::new(described(claims, qualifier)));
    let one = caller(None);
    let has = |name: &&String| one.as_ref().is_some_and(|it| it.find(name).is_some());
    if !policy.partition.iter().all(|name| has(&name)) {
        return Err(NotLooked::Parted(route.name.clone(), policy.partition.clone()));
    }
    let verifiers = route.written.auth.iter().flat_map(|auth| &auth.by);
    Ok(std::iter::once(one).chain(verifiers.map(|name| caller(Some(name)))).collect())
}

/// A caller as an operator describes him, who is let in nowhere.
fn described(claims: &Map<String, Value>, qualifier: Option<&String>) -> Identity {
    let qualifier: Option<Arc<str>> = qualifier.map(|name| name.as_str().into());
    Identity {
        claims: claims.clone(),
        exact: Default::default(),
        subject: None,
        issued_at: None,
        expires_at: 0,
        credential: Credential::Token { bound_to: None, proven_by: None },
        blacklist_keys: Vec::new(),
        not_before_key: None,
        verifier: "".into(),
        qualifier,
        headers: Vec::new(),
    }
}

impl NotLooked {
    /// What is the matter, and what to do about it.
    pub fn text(&self) -> String {
        match self {
            Self::Malformed(malformed) => format!("The URL is refused: {malformed}."),
            Self::NoRoute(NoRoute::NotFound) => {
                "No route takes this host and path, so nothing is ever stored for it.".to_owned()
            }
            Self::NoRoute(NoRoute::MethodNotAllowed { allow }) => {
                format!("The route takes {allow} and no GET, so nothing is ever stored for it.")
            }
            Self::NoCache(route) => format!(
                "The route {route} has no cache, so nothing is stored for it: give it one by \
                 routes.{route}.cache."
            ),
            Self::Parted(route, claims) => {
                let named: Vec<String> =
                    claims.iter().map(|name| format!("claim={name}=VALUE")).collect();
                let named = named.join("&");
                format!(
                    "The cache of the route {route} is parted by claims: say whose response is \
                     meant, by {named}."
                )
            }
            Self::Store(error) => format!("The store did not answer: {error}."),
        }
    }
}
