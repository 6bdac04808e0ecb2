//! The record of one request: what was learned about it, for the log line and the metrics. Never
//! read to decide anything.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::{Body, Content, Fault};
use super::rejection::Rejection;
use super::why::Why;
use super::{Connection, Snapshot};
use crate::auth::Denied;
use crate::base::facts::{Caller, ClientAddr, Peer, Target, is_grpc};
use crate::cache::{self, CacheStatus, Forward};
use crate::config::LimitOutage;
use crate::forwarding::fields::{Ids, X_REQUEST_ID};
use crate::observe::RouteMeter;
use crate::observe::access::Line;
use crate::runtime::{Gateway, Held};
use crate::store::Answers;
use crate::upstream::DownloadFault;

/// Status in the log of a request whose client left before there was an answer.
const CLIENT_GONE: u16 = 499;

/// What a client of `server.cache_debuggers` is told.
#[derive(Debug)]
struct Debug {
    key: String,
    detail: Option<&'static str>,
}

/// Everything that the log and the metrics tell of one request. Closing it, or dropping it, writes
/// the line.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) connection: Arc<Connection>,
    /// The rules that the request keeps.
    pub(super) running: Snapshot,
    started: Instant,
    pub(super) ids: Ids,
    pub(super) client: ClientAddr,
    pub(super) method: Method,
    pub(super) version: Version,
    /// Whether errors must be told as a `grpc-status`.
    pub(super) grpc: bool,
    pub(super) target: Option<Target>,
    /// Index of the route.
    pub(super) route: Option<usize>,
    /// Index of the route's upstream.
    pub(super) upstream: Option<usize>,
    pub(super) caller: Caller,
    /// Who called, where his claims did not suffice.
    refused: Option<String>,
    pub(super) status: u16,
    pub(super) reason: Option<&'static str>,
    pub(super) error: Option<String>,
    /// What else the log tells of a refusal.
    why: Option<Box<Why>>,
    pub(super) limits: &'static str,
    pub(super) cache: Option<&'static str>,
    /// Why the cache let the request through, for `Cache-Status`.
    pub(super) forward: Option<Forward>,
    /// What `Cache-Status` tells beside that, for clients that may know.
    debug: Option<Debug>,
    degraded: Vec<&'static str>,
    pub(super) store_time: Option<Duration>,
    pub(super) upstream_time: Option<Duration>,
    pub(super) bytes: u64,
    /// Whether the last byte was handed over.
    completed: bool,
    /// The request's place among those in flight, which ends with the record.
    place: Option<Held>,
}

impl Exchange {
    /// The record of a request that has just arrived. Boxed, because it moves along with the
    /// response.
    pub(super) fn open(connection: &Arc<Connection>, request: &Request<Incoming>) -> Box<Self> {
        connection.gateway.metrics.request_began();
        Box::new(Self {
            connection: Arc::clone(connection),
            running: connection.running(),
            started: Instant::now(),
            ids: Ids::of(request.headers()),
            client: connection.peer.address,
            method: request.method().clone(),
            version: request.version(),
            grpc: is_grpc(request.headers()),
            target: None,
            route: None,
            upstream: None,
            caller: None,
            refused: None,
            status: CLIENT_GONE,
            reason: None,
            error: None,
            why: None,
            limits: "off",
            cache: None,
            forward: None,
            debug: None,
            degraded: Vec::new(),
            store_time: None,
            upstream_time: None,
            bytes: 0,
            completed: false,
            place: None,
        })
    }

    /// Who calls is known, also where he may not pass: whatever ends the request from here on has
    /// his name in the log.
    pub(super) fn note_caller(&mut self, identified: &Result<Caller, Denied>) {
        match identified {
            Ok(caller) => self.caller.clone_from(caller),
            Err(Denied::Insufficient { unmet, .. }) => self.refused.clone_from(&unmet.subject),
            Err(_) => {}
        }
    }

    /// What the log tells of a refusal beyond its code.
    pub(super) fn note_why(&mut self, rejection: &Rejection) {
        self.why = Some(Box::new(Why::of(rejection, self)));
    }

    /// The route's name, or `-`.
    pub(super) fn route_name(&self) -> &str {
        let names = &self.running.plan.route_names;
        self.route.and_then(|route| names.get(route)).map_or("-", String::as_str)
    }

    /// The name of the route's upstream, or `-`.
    pub(super) fn upstream_name(&self) -> &str {
        let upstreams = &self.running.plan.upstreams;
        self.upstream.and_then(|index| upstreams.get(index)).map_or("-", |(name, _)| name)
    }

    /// Notes which functions must do without the store.
    pub(super) fn note_outage(&mut self, answers: &Answers) {
        let charged = answers.charges.as_ref().and_then(|r| r.as_ref().err());
        let leased = answers.leases.as_ref().and_then(|r| r.as_ref().err());
        let asked = answers.charges.is_some() || answers.leases.is_some();
        let failed = charged.or(leased).is_some();
        let failures = [
            ("revocation", answers.revocation.as_ref().and_then(|r| r.as_ref().err())),
            ("limits", charged.or(leased)),
            ("session", answers.session.as_ref().and_then(|r| r.as_ref().err())),
            ("cache", answers.cached.as_ref().and_then(|r| r.as_ref().err())),
        ];
        for (function, error) in failures {
            if let Some(error) = error {
                self.connection.gateway.metrics.store_failed(function);
                self.degraded.push(function);
                self.error.get_or_insert_with(|| error.to_string());
            }
        }
        self.limits = match (asked, failed, self.running.plan.on_outage.limits) {
            (false, ..) | (true, true, LimitOutage::Allow) => "off",
            (true, false, _) => "pass",
            (true, true, LimitOutage::Local) => "local",
            (true, true, LimitOutage::Refuse) => "refused",
        };
    }

    /// Keeps the request's place among those in flight until the last byte is sent.
    pub(super) fn hold(&mut self, place: Option<Held>) {
        self.place = place;
    }

    /// A limit refused the request, or let it pass although it was over.
    pub(super) fn note_limit(&self, limit: &str) {
        if let Some(meter) = self.running.over_limit.get(limit) {
            meter.over();
        }
    }

    /// The limits that the request is over all the same.
    pub(super) fn note_over(&mut self, over: &[(&str, &'static str)]) {
        for (limit, action) in over {
            self.note_limit(limit);
            self.limits = action;
        }
    }

    /// The cache looks for the response under `key`, which only those may know who are trusted.
    pub(super) fn note_key(&mut self, key: &str) {
        let trusted = &self.running.plan.config.server.cache_debuggers;
        if trusted.iter().any(|network| network.contains(&self.client.ip())) {
            self.debug = Some(Debug { key: key.to_owned(), detail: None });
        }
    }

    /// Whether the client is told the key and the detail.
    pub(super) fn is_debugged(&self) -> bool {
        self.debug.is_some()
    }

    /// What the cache did, beyond what everybody is told.
    pub(super) fn note_detail(&mut self, detail: &'static str) {
        if let Some(debug) = &mut self.debug {
            debug.detail = Some(detail);
        }
    }

    /// Appends this gateway's member to `Cache-Status`.
    pub(super) fn tell(&self, headers: &mut HeaderMap, status: CacheStatus<'_>) {
        let key = self.debug.as_ref().map(|debug| debug.key.as_str());
        let detail = self.debug.as_ref().and_then(|debug| debug.detail);
        cache::append_status(headers, &CacheStatus { key, detail, ..status });
    }

    /// Whether the store did not answer this request.
    pub(super) fn is_degraded(&self) -> bool {
        !self.degraded.is_empty()
    }

    /// The gateway that serves the request.
    pub(super) fn gateway(&self) -> &Arc<Gateway> {
        &self.connection.gateway
    }

    /// The response's body ended early.
    pub(super) fn cut_off(&mut self, fault: &Fault) {
        self.reason = Some(match fault {
            Fault::Download(DownloadFault::Broken(_)) => "upstream_cut_off",
            Fault::Download(DownloadFault::Stalled) => "upstream_stalled",
            Fault::Shared => "shared_cut_off",
            Fault::Lost => "cache_chunk_lost",
        });
        self.error = Some(fault.to_string());
        if matches!(fault, Fault::Download(DownloadFault::Stalled)) {
            let bound = format!("upstreams.{}.read_timeout", self.upstream_name());
            self.why = Some(Box::new(Why::bounded_by(bound)));
        }
    }

    /// The last byte was handed over.
    pub(super) fn complete(&mut self) {
        self.completed = true;
    }

    /// Attaches the record to the response, to be closed at its end.
    pub(super) fn close_with(
        mut self: Box<Self>,
        mut response: Response<Content>,
    ) -> Response<Body> {
        self.status = response.status().as_u16();
        // Nobody asks for the body of a response that has none.
        if response.body().is_end_stream() {
            self.complete();
        }
        response.headers_mut().insert(X_REQUEST_ID, self.ids.request.clone());
        response.map(|content| Body::new(content, self))
    }

    /// The counters of the request's route.
    pub(super) fn meter(&self) -> &RouteMeter {
        match self.route {
            Some(route) => &self.running.meters[route],
            // `OPTIONS *` has no target, and nothing is wrong with it.
            None if self.target.is_none() && self.reason.is_some() => {
                &self.connection.gateway.metrics.malformed
            }
            None => &self.connection.gateway.metrics.unmatched,
        }
    }

    fn close(&self) {
        let duration = self.started.elapsed();
        let meter = self.meter();
        meter.request(self.status, duration, self.upstream_time);
        if let Some(verdict) = self.cache {
            meter.cache(verdict);
            if matches!(verdict, "hit" | "stale" | "revalidated") {
                meter.cache_sent(self.bytes);
            }
        }
        if self.connection.gateway.access.is_on() {
            self.write_line(self.route_name(), duration);
        }
    }

    fn write_line(&self, route: &str, duration: Duration) {
        let ms = |duration: Duration| duration.as_micros() as f64 / 1000.0;
        let now = jiff::Timestamp::now();
        let started =
            jiff::SignedDuration::try_from(duration).ok().and_then(|d| now.checked_sub(d).ok());
        let (host, path) = match &self.target {
            Some(target) => (target.authority.host(), target.path()),
            None => ("-", "-"),
        };
        let was_asked = self.upstream_time.is_some()
            || self.reason.is_some_and(|reason| reason.starts_with("upstream_"));
        let subject = self.caller.as_ref().and_then(|identity| identity.subject.as_deref());
        let mut line = Line {
            time: format!("{:.3}", started.unwrap_or(now)),
            request_id: self.ids.request.to_str().unwrap_or_default(),
            trace_id: self.ids.trace_id(),
            client: self.client.to_string(),
            method: self.method.as_str(),
            host,
            path,
            route,
            status: self.status,
            reason: self.reason,
            error: self.error.as_deref(),
            subject: subject.or(self.refused.as_deref()),
            limits: self.limits,
            cache: self.cache,
            upstream: was_asked.then(|| self.upstream_name()),
            degraded: &self.degraded,
            bytes: self.bytes,
            duration_ms: ms(duration),
            store_ms: self.store_time.map(ms),
            upstream_ms: self.upstream_time.map(ms),
            ..Line::default()
        };
        if let Some(why) = &self.why {
            why.tell(&mut line);
        }
        self.connection.gateway.access.write(&line);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let bodiless = self.method == Method::HEAD || matches!(self.status, 204 | 304);
        if !self.completed && !bodiless && self.reason.is_none() {
            self.reason = Some("client_gone");
        }
        self.close();
        self.connection.gateway.metrics.request_ended();
    }
}

/// The line of a head that never became a request.
pub(super) fn write_unparsed(gateway: &Arc<Gateway>, peer: &Peer, unparsed: super::Unparsed) {
    if unparsed.is_answer_to_a_head() {
        gateway.metrics.malformed.request(unparsed.status(), Duration::ZERO, None);
    }
    if !gateway.access.is_on() {
        return;
    }
    gateway.access.write(&Line {
        time: format!("{:.3}", jiff::Timestamp::now()),
        request_id: "-",
        trace_id: "-",
        client: peer.address.to_string(),
        method: "-",
        host: "-",
        path: "-",
        route: "-",
        status: unparsed.status(),
        reason: Some(unparsed.code()),
        bound: unparsed.bound(),
        limits: "off",
        ..Line::default()
    });
}
