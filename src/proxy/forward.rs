//! To the upstream and back: the forwarded head, and what an unsafe request makes stale.

use std::sync::Arc;
use std::time::Duration;

use http::header::{EXPECT, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::Content;
use super::caching::{self, Errand, Fetch, Wish};
use super::exchange::Exchange;
use super::offering;
use super::rejection::Rejection;
use crate::auth;
use crate::base::body::Upload;
use crate::base::expect::Gate;
use crate::base::facts::{Caller, Client, Peer, Target, is_grpc};
use crate::base::interim::Interim;
use crate::cache::{self, CacheStatus, Scope};
use crate::forwarding::fields::{self, Ids};
use crate::limit;
use crate::plan::Route;
use crate::runtime::{Gateway, Running};
use crate::session;
use crate::upstream::Download;

/// Header fields for the upstream.
type Fields = Vec<(HeaderName, HeaderValue)>;

/// Who calls, and the headers of the session and of limits that the upstream is told.
pub(super) type Identity<'a> = (&'a Caller, Fields, Fields);

/// A request that has found its route, and what is known of it then.
pub(super) struct Arrival<'a> {
    pub(super) running: &'a Running,
    pub(super) route: &'a Route,
    pub(super) peer: &'a Peer,
    pub(super) client: &'a Client,
    pub(super) target: &'a Target,
    /// Whether the request has a body, announced or not.
    pub(super) has_body: bool,
}

impl<'a> Arrival<'a> {
    /// What limits may know before anybody knows who calls.
    pub(super) fn origin<'h>(&self, head: &'h Parts) -> limit::Facts<'h>
    where
        'a: 'h,
    {
        limit::Facts {
            address: self.client.address,
            caller: &None,
            method: &head.method,
            headers: &head.headers,
            session: None,
            route: &self.route.name,
        }
    }

    /// Forwards the request and returns the upstream's answer, or what the cache makes of it.
    pub(super) async fn forward(
        self,
        gateway: &Arc<Gateway>,
        exchange: &mut Exchange,
        (head, body): (Parts, Incoming),
        identity: Identity<'_>,
        errand: Option<Box<Errand>>,
    ) -> Result<Response<Content>, Rejection> {
        self.note_upgrade(gateway, &head);
        if let Some(errand) = errand {
            // Large: boxed, it takes no room in the request of a route without a cache.
            return Box::pin(self.cached(gateway, exchange, head, identity, errand)).await;
        }
        let upstream = &self.running.upstreams[self.route.upstream];
        let plan = &self.running.plan;
        let (method, version) = (head.method.clone(), head.version);
        // A streaming call may rest; over HTTP/1.1 there is none, whatever the content type says.
        let may_rest = version == Version::HTTP_2 && is_grpc(&head.headers);
        let (mut body, progress) = Upload::new(body, plan.upload, may_rest);
        let gate = held_back(&head, &mut body, upstream.continue_timeout());
        let mut request = self.outbound(&exchange.ids, head, identity);
        if gate.is_some() {
            request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        let on_interim = offering(exchange.connection.open_interim(version, plan), gate);
        let sent_at = Instant::now();
        // From here on the upstream may act; a client that leaves now must not leave stale copies
        // behind.
        let mut guard = Invalidation::arm(gateway, &self, &method);
        guard.store_is_away = exchange.is_degraded();
        let result = upstream.send(self.client.address, request, body, on_interim).await;
        exchange.upstream_time = Some(sent_at.elapsed());
        match result {
            Ok(response) => {
                guard.carry_out(Some((response.status(), response.headers()))).await;
                Ok(self.returned(exchange, response))
            }
            Err(failure) => {
                if failure.may_have_acted() {
                    guard.carry_out(None).await;
                } else {
                    guard.disarm();
                }
                // When the client's own body was the reason, the upstream is not to blame.
                Err(match progress.fault() {
                    Some(fault) => fault.into(),
                    None => failure.into(),
                })
            }
        }
    }

    /// Says once for each route that an upgrade was asked for: its upstream gets a plain request,
    /// and answers something that explains nothing.
    fn note_upgrade(&self, gateway: &Gateway, head: &Parts) {
        let Some(wanted) = head.headers.get(UPGRADE).map(HeaderValue::as_bytes) else { return };
        // Offered by clients that can do without: HTTP/1.0 has none, `h2c` is an HTTP of its own.
        let is = |protocol: &[u8]| wanted.trim_ascii().eq_ignore_ascii_case(protocol);
        if head.version != Version::HTTP_11 || is(b"h2c") {
            return;
        }
        let protocol = if is(b"websocket") { "a WebSocket" } else { "another protocol" };
        let route = &self.route.name;
        if gateway.observer.logged.first(protocol, route) {
            tracing::warn!(
                "routes.{route}: a client asked for {protocol} (Upgrade), and the upstream got a \
                 plain {} without it: tunnels are not built yet; this is said once for each \
                 route\n    help: let such clients reach the upstream past the gateway, or use \
                 server-sent events or long polling",
                head.method
            );
        }
    }

    /// What the cache makes of a request that it could not answer.
    async fn cached(
        self,
        gateway: &Arc<Gateway>,
        exchange: &mut Exchange,
        head: Parts,
        identity: Identity<'_>,
        errand: Box<Errand>,
    ) -> Result<Response<Content>, Rejection> {
        // The cache wants the client's own fields: what Vary selects from.
        let (method, fields) = (head.method.clone(), Arc::new(head.headers.clone()));
        let interim = exchange.connection.open_interim(head.version, &self.running.plan);
        let from = (head, Arc::clone(&fields));
        let fetch = self.fetch(gateway, (exchange, interim), from, identity, errand);
        let wish = Wish { method: &method, fields: &fields };
        caching::fetch(gateway, fetch, wish, exchange).await
    }

    /// Fetches a stored response anew, behind the client's back, unless somebody does already.
    pub(super) fn refresh(
        self,
        gateway: &Arc<Gateway>,
        exchange: &Exchange,
        head: Parts,
        identity: Identity<'_>,
        errand: Box<Errand>,
    ) {
        if let Some(lead) = errand.refresh(gateway) {
            let fields = Arc::new(head.headers.clone());
            let fetch = self.fetch(gateway, (exchange, None), (head, fields), identity, errand);
            tokio::spawn(fetch.refresh(lead));
        }
    }

    fn fetch(
        &self,
        gateway: &Arc<Gateway>,
        (exchange, interim): (&Exchange, Option<Arc<Interim>>),
        (head, fields): (Parts, Arc<HeaderMap>),
        identity: Identity<'_>,
        errand: Box<Errand>,
    ) -> Fetch {
        let caller = identity.0;
        Fetch {
            gateway: Arc::clone(gateway),
            upstream: Arc::clone(&self.running.upstreams[self.route.upstream]),
            client: self.client.address,
            authenticated: caller.is_some(),
            ends_identity: self.route.auth.is_some() || self.route.session.is_some(),
            per_user: errand.is_per_user(caller),
            request: self.outbound(&exchange.ids, head, identity),
            interim,
            fields,
            errand,
        }
    }

    /// The request as the upstream gets it.
    fn outbound(
        &self,
        ids: &Ids,
        mut head: Parts,
        (caller, session, marks): Identity<'_>,
    ) -> Request<()> {
        if let Some(policy) = &self.route.auth {
            auth::strip(policy, &mut head.headers);
        }
        if let Some(policy) = &self.route.session {
            session::strip(policy, &mut head.headers);
        }
        let claims = caller.iter().flat_map(|identity| identity.headers.iter().cloned());
        fields::outgoing(
            &self.running.plan.headers,
            head,
            self.target,
            (self.peer, self.client),
            ids,
            claims.chain(session).chain(marks),
        )
    }

    fn returned(&self, exchange: &Exchange, response: Response<Download>) -> Response<Content> {
        let (mut head, download) = response.into_parts();
        fields::returning(&mut head.headers);
        if self.route.cache.is_some() {
            cache::strip_tags(&mut head.headers);
        }
        if let Some(why) = exchange.forward {
            exchange.tell(&mut head.headers, CacheStatus::forwarded(why, false));
        }
        Response::from_parts(head, Content::Download(Box::new(download)))
    }
}

/// Leaves the body with a client that waits to be asked for it, until the upstream asks. Not over
/// HTTP/2, where hyper asks nobody: its clients send when they have waited long enough.
fn held_back(head: &Parts, body: &mut Upload, timeout: Duration) -> Option<Arc<Gate>> {
    let waits =
        head.version == Version::HTTP_11 && !timeout.is_zero() && head.headers.contains_key(EXPECT);
    if waits { body.hold_back(timeout) } else { None }
}

/// The duty to make stale what an unsafe request changes, from before it is sent until its outcome
/// is dealt with.
struct Invalidation<'a> {
    gateway: &'a Arc<Gateway>,
    arrival: &'a Arrival<'a>,
    method: Method,
    armed: bool,
    /// What is being carried out, should the client leave meanwhile.
    pending: Vec<String>,
    /// This request has waited for the store in vain already, and waits no second time.
    store_is_away: bool,
}

impl<'a> Invalidation<'a> {
    fn arm(gateway: &'a Arc<Gateway>, arrival: &'a Arrival<'a>, method: &Method) -> Self {
        let armed = arrival.running.caches && cache::invalidates(method, None);
        let (method, pending) = (method.clone(), Vec::new());
        Self { gateway, arrival, method, armed, pending, store_is_away: false }
    }

    /// The epochs that an outcome changes (RFC 9111 §4.4, RFC 9875 §3), and those that the route
    /// says it changes.
    fn epochs(&self, answer: Option<(StatusCode, &HeaderMap)>) -> Vec<String> {
        let Arrival { running, route, client, target, .. } = self.arrival;
        let keys = &running.plan.keys;
        let encoded_slash = running.plan.config.server.limits.encoded_slash;
        let own = cache::Own { scheme: client.scheme, target, encoded_slash };
        let targets = cache::targets(&self.method, answer, &own);
        if targets.paths.is_empty() {
            return Vec::new();
        }
        let site = target.authority.site();
        let mut epochs = Vec::new();
        if !targets.groups.is_empty() {
            epochs.push(keys.cache_tags_clock());
        }
        epochs.extend(targets.groups.iter().map(|group| {
            let group = group.as_bytes();
            Scope::Group { scheme: client.scheme, site: &site, group }.epoch(keys)
        }));
        let also = route.invalidates.iter().map(|scope| (&scope.path, scope.and_below));
        for (path, and_below) in targets.paths.iter().map(|path| (path, false)).chain(also) {
            let names = running.plan.names_of(path);
            epochs.extend(names.iter().map(|name| cache::scope(keys, &site, name, and_below)));
        }
        epochs
    }

    /// Makes copies stale when the outcome calls for it, before the answer is passed on.
    async fn carry_out(&mut self, answer: Option<(StatusCode, &HeaderMap)>) {
        if self.armed {
            let epochs = self.epochs(answer);
            if epochs.is_empty() {
                // It failed, and changed nothing.
            } else if self.store_is_away {
                self.gateway.invalidate_later(epochs);
            } else {
                self.pending.clone_from(&epochs);
                Box::pin(self.gateway.invalidate(epochs)).await;
                self.pending.clear();
            }
        }
        self.armed = false;
    }

    fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Invalidation<'_> {
    /// The client left while the upstream was at work: the outcome is unknown, so the copies go.
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.gateway.invalidate_later(std::mem::take(&mut self.pending));
        } else if self.armed {
            self.gateway.invalidate_later(self.epochs(None));
        }
    }
}
