//! What is known of one request: what it brought (`Received`), what its head resolves to
//! (`Resolved`), and both together once it has a route (`Request`), which is the context that every
//! later step takes.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{CONTENT_TYPE, UPGRADE, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, Version};
use tokio::time::Instant;

use super::connection::{Connection, Snapshot};
use super::edged::{Chosen, Edged, Side};
use crate::base::facts::{Caller, Client, Target};
use crate::base::grpc;
use crate::base::grpc_web::Web;
use crate::config::Origin;
use crate::forwarding::fields::Ids;
use crate::guard;
use crate::limit;
use crate::observe::{Tracer, access};
use crate::plan::{Plan, Pool, Route};
use crate::runtime::{Gateway, Grant, Running};
use crate::session::{Sender, Shown};
use crate::store::SessionKeys;

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
    /// What the client calls itself, where the request is recorded.
    pub(super) agent: Option<HeaderValue>,
    /// Whether errors must be told as a `grpc-status`.
    pub(super) is_grpc: bool,
    /// What its access line shows of its fields; nothing where there are no lines.
    pub(super) told: Option<Box<access::Fields>>,
    /// What says that it goes on when its client leaves, where it may.
    pub(super) stays: Option<Arc<AtomicBool>>,
    /// Where it showed any. They stand in it no more.
    pub(super) own_cookies: Option<Box<OwnCookies>>,
    /// Whether it is a call of gRPC-Web, and which; only routes with `grpc.web` care.
    web: Option<Box<Web>>,
}

/// The cookies of the gateway's own sessions that a request showed.
#[derive(Debug)]
pub(super) struct OwnCookies {
    pub(super) shown: Shown,
    /// Who calls, where the session that says so has changed while the store was asked.
    pub(super) caller_of_now: OnceLock<Caller>,
}

impl Received {
    /// The cookies of the gateway's own sessions that it showed.
    pub(super) fn shown(&self) -> Option<&Shown> {
        self.own_cookies.as_deref().map(|cookies| &cookies.shown)
    }

    /// A request whose head has just been read.
    pub(super) fn new(connection: &Arc<Connection>, head: &mut Parts) -> Self {
        let running = connection.running();
        let plan = &running.plan;
        // First of all: from here on nobody can log, keep or send on what opens a session.
        let shown = plan.made.as_ref().and_then(|made| made.take(&mut head.headers));
        let own_cookies =
            shown.map(|shown| Box::new(OwnCookies { shown, caller_of_now: OnceLock::new() }));
        let is_trusted = || plan.client.trusts(connection.peer.address.ip());
        let ids = Ids::of(&head.headers, plan.sampling.as_ref(), is_trusted);
        // Looked for once: each look costs 80 instructions.
        let content_type = head.headers.get(CONTENT_TYPE);
        let agent = ids.is_recorded.then(|| head.headers.get(USER_AGENT).cloned());
        Self {
            connection: Arc::clone(connection),
            ids,
            running,
            started: Instant::now(),
            method: head.method.clone(),
            version: head.version,
            agent: agent.flatten(),
            is_grpc: content_type.is_some_and(grpc::is_type),
            told: connection.gateway.observer.access.shown.fields(&head.headers),
            stays: None,
            own_cookies,
            web: content_type.and_then(Web::of).map(Box::new),
        }
    }

    /// The kind of gRPC-Web that it is, where the route translates that.
    pub(super) fn web(&self, route: &Route) -> Option<&Web> {
        self.web.as_deref().filter(|_| route.written.grpc.as_ref().is_some_and(|grpc| grpc.web))
    }

    /// The configuration as it was compiled.
    pub(super) fn plan(&self) -> &Plan {
        &self.running.plan
    }

    /// Where its spans go; nothing where it is not recorded.
    pub(super) fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.running.tracer.as_ref().filter(|_| self.ids.is_recorded)
    }
}

/// What a request's head resolves to, as far as that has come.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Who sends it: the peer, or the client that trusted proxies name.
    pub(super) client: Client,
    pub(super) target: Option<Target>,
    /// The target that is sent on, where it is another one.
    pub(super) forwarded: Option<Box<Target>>,
    /// Index of the route. To count a reference would cost other threads the same line.
    pub(super) route: Option<usize>,
    /// The origin of the page that sends it, where the route looks at that.
    pub(super) origin: Option<HeaderValue>,
    /// What else is known of it, where the route looks at more.
    pub(super) edged: Option<Box<Edged>>,
}

impl Resolved {
    /// Nothing yet but the peer.
    pub(super) fn new(connection: &Connection) -> Self {
        let client =
            Client { address: connection.address(), scheme: connection.peer.scheme(), via: None };
        Self { client, target: None, forwarded: None, route: None, origin: None, edged: None }
    }

    /// The route, by the plan that the request keeps.
    pub(super) fn route<'p>(&self, plan: &'p Plan) -> Option<&'p Arc<Route>> {
        plan.route(self.route?)
    }

    /// The route's name, or `-`.
    pub(super) fn route_name<'p>(&self, plan: &'p Plan) -> &'p str {
        self.route(plan).map_or("-", |route| &route.name)
    }

    /// The name of the route's upstream, or `-`.
    pub(super) fn upstream_name<'p>(&self, plan: &'p Plan) -> &'p str {
        let upstream = self.route(plan).map(|route| self.upstream(route));
        let upstream = upstream.and_then(|upstream| plan.upstreams.get(upstream));
        upstream.map_or("-", |(name, _)| name)
    }

    /// The arm of a split route that takes it, once that is known.
    pub(super) fn chosen(&self) -> Option<&Chosen> {
        self.edged.as_ref()?.chosen.get()
    }

    /// Who of an upstream with readers takes it, once that is known.
    pub(super) fn side(&self) -> Option<&Side> {
        self.edged.as_ref()?.side.get()
    }

    /// The index of the upstream that takes it.
    fn upstream(&self, route: &Route) -> usize {
        self.chosen().map_or(route.upstream, |chosen| chosen.upstream)
    }
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
    /// The session that is attached, where what the route serves may outlast it; nothing before
    /// the request is admitted.
    pub(super) session: Option<&'a Arc<SessionKeys>>,
    /// Whether the request has a body, announced or not.
    pub(super) has_body: bool,
    /// How long it has waited for the store until it was admitted.
    pub(super) waited: Duration,
}

impl<'a> Request<'a> {
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

    /// The index of the upstream that takes it.
    pub(super) fn upstream(&self) -> usize {
        self.resolved.upstream(self.route)
    }

    /// What holds for reads of its upstream; nothing where that has no readers.
    pub(super) fn pool(&self) -> Option<&'a Pool> {
        self.route.edge.as_ref()?.pools.as_ref()?;
        self.plan().pools.get(self.upstream())?.as_ref()
    }

    /// What let it in, for what goes on behind its response.
    pub(super) fn grant(&self) -> Grant {
        Grant { caller: self.caller.clone(), session: self.session.cloned() }
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

    /// Who may have sent it, as far as its fields say that.
    pub(super) fn sender<'f>(&self, head: &'f Parts) -> Sender<'f>
    where
        'a: 'f,
    {
        let opens = || head.headers.contains_key(UPGRADE) || guard::is_connect(head);
        Sender {
            method: &head.method,
            is_handshake: self.route.written.tunnel.is_some() && opens(),
            headers: &head.headers,
            scheme: self.client().scheme,
            authority: self.client().authority(self.asked),
        }
    }

    /// The pages of other origins whose unsafe requests count as the site's own.
    pub(super) fn csrf_origins(&self) -> &'a [Origin] {
        let make = self.plan().config.session.as_ref().and_then(|session| session.make.as_ref());
        make.map_or(&[], |make| &make.csrf_origins)
    }

    /// Whether the client may know what the cache knows (`server.cache_debuggers`).
    pub(super) fn may_debug_cache(&self) -> bool {
        let trusted = &self.plan().config.server.cache_debuggers;
        trusted.iter().any(|network| network.contains(&self.client().address.ip()))
    }
}
