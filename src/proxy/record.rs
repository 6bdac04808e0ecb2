//! The record of one request: what was learned about it, for the log line and the metrics. It is
//! written only: nothing is decided from it, so nothing here can be read from outside.

mod limits;
mod line;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::rejection::Rejection;
use super::request::{Received, Resolved};
use super::why::Why;
use crate::auth::Denied;
use crate::base::body::{Progress, Upload};
use crate::base::facts::Caller;
use crate::limit::Exceeded;
use crate::observe::{AnsweredBy, Marks, RouteMeter, Stage, Took};
use crate::store::StoreError;
use crate::tunnel;
use crate::upstream::Attempts;

/// Status in the log of a request whose client left before there was an answer.
const CLIENT_GONE: u16 = 499;

/// What the log and the metrics tell of one request, beside what it brought.
#[derive(Debug)]
pub(super) struct Record {
    /// Who called, where his claims did not suffice.
    refused: Option<String>,
    status: u16,
    /// The status of a gRPC call.
    grpc_status: Option<u16>,
    reason: Option<&'static str>,
    error: Option<String>,
    /// What else the log tells of a refusal.
    why: Option<Box<Why>>,
    limits: &'static str,
    /// What became of its idempotency key.
    idempotency: Option<&'static str>,
    /// The functions that did without the store.
    degraded: Vec<&'static str>,
    store_time: Option<Duration>,
    upstream_time: Option<Took>,
    /// Whom the client waits for, where that is known before the end.
    waits_for: Option<AnsweredBy>,
    /// What was waited for until an upstream was asked.
    marks: Marks,
    /// The request's body, where it has one that was passed on.
    upload: Option<Arc<Progress>>,
    /// How often the upstream was asked, where that may be more than once.
    attempts: Option<Arc<Attempts>>,
    /// Bytes of the response's body that were handed over.
    bytes: u64,
    /// Whether the last byte was handed over.
    completed: bool,
    /// Whether the body is one that lasts as long as somebody likes.
    is_stream: bool,
    /// Whether the body ended early.
    is_cut_off: bool,
    /// What became of the tunnel that the request has opened.
    tunnel: Option<Box<TunnelNotes>>,
    /// The delivery that it has become, or asks for.
    delivery: Option<Box<str>>,
}

/// What the log and the metrics tell of a tunnel.
#[derive(Debug)]
struct TunnelNotes {
    report: tunnel::Report,
    /// How long the request took that opened it.
    opened_after: Duration,
}

/// What the record is written with, when its request has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended<'a> {
    pub(super) received: &'a Received,
    pub(super) resolved: &'a Resolved,
    pub(super) caller: &'a Caller,
    /// What the cache did.
    pub(super) cache: Option<&'static str>,
}

impl Record {
    /// The record of a request of which nothing is known yet.
    pub(super) fn new() -> Self {
        Self {
            refused: None,
            status: CLIENT_GONE,
            grpc_status: None,
            reason: None,
            error: None,
            why: None,
            limits: "off",
            idempotency: None,
            degraded: Vec::new(),
            store_time: None,
            upstream_time: None,
            waits_for: None,
            marks: Marks::default(),
            upload: None,
            attempts: None,
            bytes: 0,
            completed: false,
            is_stream: false,
            is_cut_off: false,
            tunnel: None,
            delivery: None,
        }
    }

    /// Whoever calls may not pass; where his claims did not suffice, it is known who he is.
    pub(super) fn note_denied(&mut self, denied: &Denied) {
        if let Denied::Insufficient { unmet, .. } = denied {
            self.refused.clone_from(&unmet.subject);
        }
    }

    /// A function must do without the store.
    pub(super) fn note_degraded(&mut self, function: &'static str, error: &StoreError) {
        self.degraded.push(function);
        self.error.get_or_insert_with(|| error.to_string());
    }

    /// Whether it is the first one with its idempotency key, in one stable word.
    pub(super) fn note_idempotency(&mut self, word: &'static str) {
        self.idempotency = Some(word);
    }

    /// The store was asked, and took so long; nothing where there was nothing to ask.
    pub(super) fn note_store_time(&mut self, took: Option<Took>, received: &Received) {
        if let Some(took) = took {
            self.store_time = Some(took.time);
            self.marks.add(Stage::Store, received.started, took);
        }
    }

    /// So long was waited to find out who calls; mostly that is known.
    pub(super) fn note_identified(&mut self, waited: Duration, received: &Received) {
        if !waited.is_zero() {
            // It is the first that a request waits for.
            let took = Took { began: received.started, time: waited };
            self.marks.add(Stage::Identify, received.started, took);
        }
    }

    /// Where it is told how much of the request's body has come, if it has one.
    pub(super) fn note_upload(&mut self, upload: &Upload) {
        self.upload = upload.progress();
    }

    /// Where whoever asks the upstream writes how long that took.
    pub(super) fn upstream_time(&mut self) -> &mut Option<Took> {
        &mut self.upstream_time
    }

    /// The request waits for an upstream from now on, or for another request that asks it.
    pub(super) fn note_forwarded(&mut self) {
        self.waits_for = Some(AnsweredBy::Upstream);
    }

    /// Where it will be told how often the upstream was asked.
    pub(super) fn note_attempts(&mut self, attempts: Option<Arc<Attempts>>) {
        self.attempts = attempts;
    }

    /// The gateway itself ends the request.
    pub(super) fn note_refusal(
        &mut self,
        rejection: &Rejection,
        received: &Received,
        resolved: &Resolved,
    ) {
        self.reason = Some(rejection.code());
        if self.waits_for.is_none() || !rejection.has_waited() {
            self.waits_for = Some(AnsweredBy::Gateway);
        }
        self.meter(received, resolved).rejection(rejection.code());
        if let Rejection::Exceeded(Exceeded::Limit { .. }) = rejection {
            self.note_exceeded();
        }
        let observer = &received.connection.gateway.observer;
        let is_read = || observer.access.is_on() || observer.recent.has_room(received.started);
        // A flood of refusals costs little where nobody reads of them.
        if received.ids.is_recorded || is_read() {
            self.why = Some(Box::new(Why::of(rejection, received, resolved)));
        }
        if let Some(error) = rejection.internal() {
            self.error = Some(error);
        }
    }

    /// It has become this delivery, or asks for it.
    pub(super) fn note_delivery(&mut self, id: &str) {
        self.delivery = Some(id.into());
    }

    /// The head of the response goes out.
    pub(super) fn note_status(&mut self, status: u16) {
        self.status = status;
    }

    /// The status of a gRPC call, where the head or the trailers that go out tell it.
    pub(super) fn note_grpc_status(&mut self, status: Option<u16>) {
        self.grpc_status = status.or(self.grpc_status);
    }

    /// The body is a stream of events or of messages.
    pub(super) fn note_stream(&mut self) {
        self.is_stream = true;
    }

    /// Bytes of the response's body were handed over.
    pub(super) fn note_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// The response's body ended early; `bound` is the key of `gateway.toml` that bounds it.
    pub(super) fn note_cut_off(
        &mut self,
        reason: &'static str,
        error: String,
        bound: Option<String>,
    ) {
        self.reason = Some(reason);
        self.error = Some(error);
        self.is_cut_off = true;
        if let Some(bound) = bound {
            self.why = Some(Box::new(Why::bounded_by(bound)));
        }
    }

    /// The gateway has ended the response's body before its upstream did, and cleanly.
    pub(super) fn note_ended(&mut self, reason: &'static str) {
        self.reason = Some(reason);
    }

    /// The last byte was handed over.
    pub(super) fn note_complete(&mut self) {
        self.completed = true;
    }

    /// The tunnel has ended that the request has opened, which took so long.
    pub(super) fn note_tunnel(&mut self, report: tunnel::Report, opened_after: Duration) {
        self.bytes = report.sent;
        self.reason = report.reason();
        self.tunnel = Some(Box::new(TunnelNotes { report, opened_after }));
    }

    /// The request has ended: counts it, and writes its line.
    pub(super) fn close(&mut self, ended: Ended<'_>) {
        let Ended { received, resolved, cache, .. } = ended;
        let bodiless = received.method == Method::HEAD || matches!(self.status, 204 | 304);
        if !self.completed && !bodiless && self.reason.is_none() {
            self.reason = Some("client_gone");
        }
        let duration = received.started.elapsed();
        let meter = self.meter(received, resolved);
        let answered_after = self.answered_after(received, duration);
        // Who asks the cache and waits for nobody was answered by it.
        let own = if cache.is_some() { AnsweredBy::Cache } else { AnsweredBy::Gateway };
        let by = self.waits_for.unwrap_or(own);
        meter.request(self.status, by, answered_after);
        if let Some(verdict) = cache {
            meter.cache(verdict);
            if matches!(verdict, "hit" | "stale" | "revalidated") {
                meter.cache_sent(self.bytes);
            }
            self.tell_url(ended, verdict, duration);
        }
        self.tell(ended, duration);
        self.tell_spans(ended, duration);
    }

    /// How long the client has waited, of a request that took so long. What lasts as long as
    /// somebody likes is not slow for that: a tunnel and a stream are answered by their head.
    fn answered_after(&self, received: &Received, duration: Duration) -> Duration {
        if let Some(tunnel) = &self.tunnel {
            return tunnel.opened_after;
        }
        let head = self.upstream_time.filter(|_| self.is_stream);
        head.map_or(duration, |took| {
            (took.began + took.time).saturating_duration_since(received.started)
        })
    }

    /// The counters of the request's route.
    fn meter<'r>(&self, received: &'r Received, resolved: &Resolved) -> &'r RouteMeter {
        let metrics = &received.connection.gateway.observer.metrics;
        match resolved.route {
            Some(route) => &received.running.meters[route],
            // `OPTIONS *` has no target, and nothing is wrong with it.
            None if resolved.target.is_none() && self.reason.is_some() => &metrics.malformed,
            None => &metrics.unmatched,
        }
    }
}
