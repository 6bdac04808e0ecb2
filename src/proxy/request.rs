//! What is known of one request: what it brought (`Received`), what its head resolves to
//! (`Resolved`), and both together once it has a route (`Request`), which is the context that every
//! later step takes.

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Version};
use tokio::time::Instant;

use super::connection::{Connection, Snapshot};
use super::rejection::Rejection;
use crate::base::facts::{Caller, Client, Target};
use crate::base::grpc::is_grpc;
use crate::base::grpc_web::Web;
use crate::forwarding::client;
use crate::forwarding::fields::Ids;
use crate::guard::{self, Inspected};
use crate::plan::{Plan, Route};
use crate::runtime::{Gateway, Running};
use crate::{auth, cache, limit, tls};

/// What a request brought, and the rules that it keeps to the last byte of its response.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) connection: Arc<Connection>,
    /// The rules that were in force when it came.
    pub(super) running: Snapshot,
    pub(super) started: Instant,
    pub(super) ids: Ids,
    pub(super) method: Method,
    pub(super) version: Version,
    /// Whether errors must be told as a `grpc-status`.
    pub(super) is_grpc: bool,
    /// Whether it is a call of gRPC-Web, and which; only routes with `grpc.web` care.
    web: Option<Box<Web>>,
}

impl Received {
    /// A request whose head has just been read.
    pub(super) fn new(connection: &Arc<Connection>, head: &Parts) -> Self {
        Self {
            connection: Arc::clone(connection),
            running: connection.running(),
            started: Instant::now(),
            ids: Ids::of(&head.headers),
            method: head.method.clone(),
            version: head.version,
            is_grpc: is_grpc(&head.headers),
            web: Web::of(&head.headers).map(Box::new),
        }
    }

    /// The kind of gRPC-Web that it is, where the route translates that.
    pub(super) fn web(&self, route: &Route) -> Option<&Web> {
        self.web.as_deref().filter(|_| route.grpc.as_ref().is_some_and(|grpc| grpc.web))
    }

    /// The configuration as it was compiled.
    pub(super) fn plan(&self) -> &Plan {
        &self.running.plan
    }
}

/// What a request's head resolves to, as far as that has come.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Who sends it: the peer, or the client that trusted proxies name.
    pub(super) client: Client,
    pub(super) target: Option<Target>,
    /// The target that is sent on, where it is another one.
    forwarded: Option<Box<Target>>,
    /// Index of the route.
    pub(super) route: Option<usize>,
    /// Index of the route's upstream.
    upstream: Option<usize>,
}

impl Resolved {
    /// Nothing yet but the peer.
    pub(super) fn new(connection: &Connection) -> Self {
        let client =
            Client { address: connection.address(), scheme: connection.peer.scheme(), via: None };
        Self { client, target: None, forwarded: None, route: None, upstream: None }
    }

    /// The route's name, or `-`.
    pub(super) fn route_name<'p>(&self, plan: &'p Plan) -> &'p str {
        self.route.and_then(|route| plan.route_names.get(route)).map_or("-", String::as_str)
    }

    /// The name of the route's upstream, or `-`.
    pub(super) fn upstream_name<'p>(&self, plan: &'p Plan) -> &'p str {
        self.upstream.and_then(|index| plan.upstreams.get(index)).map_or("-", |(name, _)| name)
    }
}

/// What a well-formed head asks for.
pub(super) enum Resolution<'a> {
    /// Something on a route.
    Route(Request<'a>),
    /// What the gateway itself can do (`OPTIONS *`).
    ServerOptions,
    /// Something that is only served over TLS, at this place.
    Redirect(HeaderValue),
}

/// A request that has found its route. The head is not part of it: it moves on to the upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) received: &'a Received,
    pub(super) resolved: &'a Resolved,
    pub(super) route: &'a Arc<Route>,
    /// The target as the client asked for it, with a token in its query.
    pub(super) asked: &'a Target,
    /// The target as it is keyed and sent on.
    pub(super) target: &'a Target,
    /// Who calls; nobody before he is identified, and where the route is public.
    pub(super) caller: &'a Caller,
    /// Whether the request has a body, announced or not.
    pub(super) has_body: bool,
}

impl<'a> Request<'a> {
    /// Reads the head: who asks for what, on which route.
    ///
    /// # Errors
    /// It is not well formed, or no route takes it.
    pub(super) fn resolve(
        received: &'a Received,
        resolved: &'a mut Resolved,
        head: &Parts,
        has_body: bool,
    ) -> Result<Resolution<'a>, Rejection> {
        let (plan, peer) = (received.plan(), &received.connection.peer);
        resolved.client = client::identify(&plan.client, peer, &head.headers);
        resolved.target = match guard::inspect(&plan.guard, peer, head)? {
            Inspected::Route(target) => Some(target),
            Inspected::ServerOptions => None,
        };
        let Some(asked) = &resolved.target else { return Ok(Resolution::ServerOptions) };
        if let Some(encryption) = &peer.encryption {
            let live = received.running.tls.as_ref();
            let suits = |live: &tls::Live| {
                live.table().suits(encryption.name_policy, asked.authority.host())
            };
            if !live.is_none_or(|live| suits(live)) {
                return Err(Rejection::Misdirected);
            }
        } else if resolved.client.scheme == "http"
            && let Some(location) = plan.edge.redirect(peer, asked)
        {
            return Ok(Resolution::Redirect(location));
        }
        let route = plan.routes.find(asked.authority.host(), asked.path(), &head.method)?;
        (resolved.route, resolved.upstream) = (Some(route.index), Some(route.upstream));
        let forwarded = auth::forwarded(route.auth.as_ref(), asked);
        resolved.forwarded = match cache::forwarded(route.cache.as_deref(), &head.method, forwarded)
        {
            Cow::Borrowed(_) => None,
            Cow::Owned(target) => Some(Box::new(target)),
        };
        let resolved = &*resolved;
        let target = resolved.forwarded.as_deref().unwrap_or(asked);
        let caller = &None;
        let request = Self { received, resolved, route, asked, target, caller, has_body };
        Ok(Resolution::Route(request))
    }

    /// The gateway that serves it.
    pub(super) fn gateway(&self) -> &'a Arc<Gateway> {
        &self.received.connection.gateway
    }

    /// The rules that it keeps.
    pub(super) fn running(&self) -> &'a Running {
        &self.received.running
    }

    /// The configuration as it was compiled.
    pub(super) fn plan(&self) -> &'a Plan {
        self.received.plan()
    }

    /// Who sends it.
    pub(super) fn client(&self) -> &'a Client {
        &self.resolved.client
    }

    /// What limits count by.
    pub(super) fn facts<'f>(&self, head: &'f Parts, session: Option<&'f str>) -> limit::Facts<'f>
    where
        'a: 'f,
    {
        limit::Facts {
            address: self.client().address,
            caller: self.caller,
            method: &head.method,
            headers: &head.headers,
            session,
            route: &self.route.name,
        }
    }

    /// Whether the client may know what the cache knows (`server.cache_debuggers`).
    pub(super) fn may_debug_cache(&self) -> bool {
        let trusted = &self.plan().config.server.cache_debuggers;
        trusted.iter().any(|network| network.contains(&self.client().address.ip()))
    }
}
