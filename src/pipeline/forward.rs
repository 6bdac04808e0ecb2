//! To the upstream and back: the forwarded head, invalidation by unsafe requests, and the copy that
//! the cache keeps.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use http_body::Frame;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::asked::now_ms;
use super::body::Content;
use super::exchange::Exchange;
use super::rejection::Rejection;
use crate::auth;
use crate::base::body::Upload;
use crate::base::facts::{Caller, Client, Peer, Target, is_grpc};
use crate::cache::{self, CacheStatus, Epochs, Fill, Freshness, Pending, Stored, StoredBody};
use crate::gateway::{Gateway, Running};
use crate::headers;
use crate::limit;
use crate::plan::Route;
use crate::session;
use crate::upstream::{Download, DownloadFault};

/// Header fields for the upstream.
type Fields = Vec<(HeaderName, HeaderValue)>;

/// A request that has found its route, and what is known of it then.
pub(super) struct Arrival<'a> {
    pub(super) running: &'a Running,
    pub(super) route: &'a Route,
    pub(super) peer: &'a Peer,
    pub(super) client: &'a Client,
    pub(super) target: &'a Target,
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

    /// Forwards the request and returns the upstream's answer.
    pub(super) async fn forward(
        self,
        gateway: &Arc<Gateway>,
        exchange: &mut Exchange,
        (mut head, body): (Parts, Incoming),
        (caller, session, marks): (&Caller, Fields, Fields),
        pending: Option<Pending>,
    ) -> Result<Response<Content>, Rejection> {
        let plan = &self.running.plan;
        let method = head.method.clone();
        let copying = pending.map(|pending| Copying {
            pending,
            headers: head.headers.clone(),
            authenticated: caller.is_some(),
            per_user: self.route.cache.as_ref().is_some_and(|policy| policy.is_per_user(caller)),
            sent_ms: now_ms(),
        });
        if let Some(policy) = &self.route.auth {
            auth::strip(policy, &mut head.headers);
        }
        if let Some(policy) = &self.route.session {
            session::strip(policy, &mut head.headers);
        }
        // A streaming call may rest; over HTTP/1.1 there is none, whatever the content type says.
        let may_rest = head.version == Version::HTTP_2 && is_grpc(&head.headers);
        let (body, progress) = Upload::new(body, plan.upload, may_rest);
        let claims = caller.iter().flat_map(|identity| identity.headers.iter().cloned());
        let request = headers::outgoing(
            &plan.headers,
            head,
            self.target,
            (self.peer, self.client),
            &exchange.ids,
            claims.chain(session).chain(marks),
        );
        let sent_at = Instant::now();
        let upstream = &self.running.upstreams[self.route.upstream];
        // From here on the upstream may act; a client that leaves now must not leave stale copies
        // behind.
        let mut guard = Invalidation::arm(gateway, &self, &method);
        guard.store_is_away = exchange.is_degraded();
        let result = upstream.send(request, body).await;
        exchange.upstream_time = Some(sent_at.elapsed());
        match result {
            Ok(response) => {
                guard.carry_out(Some(response.status())).await;
                Ok(self.returned(gateway, exchange, response, copying))
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

    fn returned(
        &self,
        gateway: &Arc<Gateway>,
        exchange: &Exchange,
        response: Response<Download>,
        copying: Option<Copying>,
    ) -> Response<Content> {
        let (mut head, download) = response.into_parts();
        let tee = copying.and_then(|copying| {
            copying.begin(gateway, &self.running.plan, self.route, head.status, &head.headers)
        });
        headers::returning(&mut head.headers);
        if self.route.cache.is_some() {
            cache::strip_tags(&mut head.headers);
        }
        if let Some(why) = exchange.forward {
            let status = CacheStatus::forwarded(why, tee.is_some());
            cache::append_status(&mut head.headers, &status);
        }
        Response::from_parts(head, Content::Download(Box::new(download), tee.map(Box::new)))
    }
}

/// What must be remembered of a request whose answer may be stored.
struct Copying {
    pending: Pending,
    /// The client's fields, which `Vary` selects from.
    headers: HeaderMap,
    authenticated: bool,
    per_user: bool,
    sent_ms: u64,
}

impl Copying {
    fn begin(
        self,
        gateway: &Arc<Gateway>,
        plan: &crate::plan::Plan,
        route: &Route,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Tee> {
        let policy = route.cache.as_ref()?;
        let asked = cache::Asked {
            intent: &self.pending.intent,
            headers: &self.headers,
            authenticated: self.authenticated,
            per_user: self.per_user,
            cookie: self.headers.contains_key(http::header::COOKIE),
            sent_ms: self.sent_ms,
        };
        let freshness = cache::storable(policy, &asked, status, headers, now_ms()).ok()?;
        // What must be validated first is of no use to anybody yet.
        let freshness = Some(freshness).filter(Freshness::is_fresh)?;
        // A response that varies on what the gateway itself sends cannot be compared with what a
        // client sends.
        if freshness.vary.iter().any(|(name, _)| headers::is_set_by_gateway(&plan.headers, name)) {
            return None;
        }
        let length =
            headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let mut tee = Tee {
            gateway: Arc::clone(gateway),
            pending: self.pending,
            status,
            headers: cache::stored_headers(headers),
            freshness,
            length,
            fill: Fill::new(policy.max_bytes),
        };
        // A body of known length zero may never be polled.
        if length == Some(0) || status == StatusCode::NO_CONTENT {
            let fill = std::mem::replace(&mut tee.fill, Fill::new(0));
            tee.commit(fill);
            return None;
        }
        Some(tee)
    }
}

/// The copy that grows while a response passes.
#[derive(Debug)]
pub(super) struct Tee {
    gateway: Arc<Gateway>,
    pending: Pending,
    status: StatusCode,
    headers: HeaderMap,
    freshness: Freshness,
    length: Option<u64>,
    fill: Fill,
}

impl Tee {
    /// Takes note of one frame; `ended` when it was the last. A copy that cannot be completed is
    /// dropped.
    pub(super) fn observe(
        tee: &mut Option<Box<Self>>,
        frame: &Option<Result<Frame<Bytes>, DownloadFault>>,
        ended: bool,
    ) {
        let Some(copy) = tee else { return };
        let intact = match frame {
            Some(Ok(frame)) => frame.data_ref().is_some_and(|data| copy.fill.push(data)),
            Some(Err(_)) => false,
            None => true,
        };
        if !intact {
            *tee = None;
        } else if (frame.is_none() || ended)
            && let Some(mut copy) = tee.take()
        {
            let fill = std::mem::replace(&mut copy.fill, Fill::new(0));
            copy.commit(fill);
        }
    }

    /// The body is complete: this node's copy is there at once, the store's as soon as it is
    /// written.
    fn commit(self, fill: Fill) {
        let Some(body) = fill.finish(self.length) else { return };
        let Pending { place, epochs, path_epoch, .. } = self.pending;
        let path_epoch_key = place.path_epoch().to_owned();
        let epochs = Epochs { hard: epochs, soft: Bytes::new() };
        let body = StoredBody::Inline(body);
        let stored =
            Stored::new(place.entry, epochs, self.status, self.headers, self.freshness, body);
        self.gateway.remember(stored, path_epoch_key, path_epoch);
    }
}

/// The duty to make stale what an unsafe request changes, from before it is sent until its outcome
/// is dealt with.
struct Invalidation {
    gateway: Arc<Gateway>,
    epochs: Vec<String>,
    method: Method,
    armed: bool,
    /// This request has waited for the store in vain already, and waits no second time.
    store_is_away: bool,
}

impl Invalidation {
    fn arm(
        gateway: &Arc<Gateway>,
        Arrival { running, route, target, .. }: &Arrival<'_>,
        method: &Method,
    ) -> Self {
        let keys = &running.plan.keys;
        let armed = running.caches && cache::invalidates(method, None);
        let mut epochs = Vec::new();
        if armed {
            let site = target.authority.site();
            epochs.push(cache::scope(keys, &site, target.path(), false));
            let also = route.invalidates.iter();
            epochs
                .extend(also.map(|scope| cache::scope(keys, &site, &scope.path, scope.and_below)));
        }
        Self {
            gateway: Arc::clone(gateway),
            epochs,
            method: method.clone(),
            armed,
            store_is_away: false,
        }
    }

    /// Makes copies stale when the outcome calls for it (RFC 9111 §4.4), before the answer is
    /// passed on.
    async fn carry_out(&mut self, status: Option<StatusCode>) {
        if self.armed && cache::invalidates(&self.method, status.map(|status| status.as_u16())) {
            if self.store_is_away {
                self.gateway.invalidate_later(std::mem::take(&mut self.epochs));
            } else {
                Box::pin(self.gateway.invalidate(self.epochs.clone())).await;
            }
        }
        self.armed = false;
    }

    fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Invalidation {
    /// The client left while the upstream was at work: the outcome is unknown, so the copies go.
    fn drop(&mut self) {
        if self.armed {
            self.gateway.invalidate_later(std::mem::take(&mut self.epochs));
        }
    }
}
