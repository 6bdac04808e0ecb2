//! The spans of a request that has ended. Its attempts at upstreams have told of themselves
//! (`upstream/span`), where it was known from the start that the request is recorded.

use std::time::Duration;

use super::{CLIENT_GONE, Ended, Record};
use crate::base::http::credentials::{REDACTED, opens, without_credentials};
use crate::base::trace::Trace;
use crate::config::StoreUrl;
use crate::observe::{Span, SpanKind, Stage, Tracer, Value};

/// A client that takes the answer within this time, in nanoseconds, is not worth a span.
const SEND_NS_MIN: u64 = 1_000_000;

impl Record {
    /// Tells of the request, if it was sampled, or else if it is one of those that are told of all
    /// the same and there is room for one more.
    pub(super) fn tell_spans(&self, ended: Ended<'_>, duration: Duration) {
        let Some(tracer) = &ended.received.running.tracer else { return };
        let ids = &ended.received.ids;
        if ids.is_recorded {
            let span = self.server_span(ended, ids.trace);
            self.tell_waits(&ended, duration, &span, tracer);
            tracer.offer(span);
        } else if self.is_worth_telling(tracer, self.answered_after(ended.received, duration))
            && tracer.takes_late()
        {
            // The upstream was told that nothing is recorded: there are spans of ours alone.
            let piece = if ids.parent().is_some() { ids.trace.child() } else { ids.trace };
            let mut span = self.server_span(ended, piece.sampled());
            span.note("portcullis.sampled_late", true);
            self.tell_waits(&ended, duration, &span, tracer);
            tracer.offer(span);
        }
    }

    /// What the request has waited for, beside its attempts.
    fn tell_waits(&self, ended: &Ended<'_>, duration: Duration, server: &Span, tracer: &Tracer) {
        let is_redis = ended.received.running.plan.config.store.url != StoreUrl::Memory;
        for mark in self.stages(ended, duration).all() {
            let (began, took) = (mark.begin_ns, mark.end_ns.saturating_sub(mark.begin_ns));
            let mut span = match mark.stage {
                // Each attempt has told of itself.
                Stage::Upstream => continue,
                Stage::Send if took < SEND_NS_MIN => continue,
                Stage::Collapsed => {
                    server.piece(SpanKind::Internal, "portcullis.collapsed", began, took)
                }
                Stage::Send => server.piece(SpanKind::Internal, "portcullis.send", began, took),
                // This process's own memory is asked in no time.
                Stage::Identify | Stage::Store if !is_redis => continue,
                Stage::Identify | Stage::Store => {
                    server.piece(SpanKind::Client, "PIPELINE", began, took)
                }
            };
            if span.kind == SpanKind::Client {
                // Never the commands: keys hold subjects.
                span.note("db.system.name", "redis");
                span.note("db.operation.name", "PIPELINE");
                span.note("portcullis.stage", mark.stage.word());
                if mark.stage == Stage::Store && !self.degraded.is_empty() {
                    span.note("error.type", "unavailable");
                    span.has_failed = true;
                }
            }
            tracer.offer(span);
        }
    }

    /// Whether a request has failed by no fault of its client's, or was slow.
    fn is_worth_telling(&self, tracer: &Tracer, answered_after: Duration) -> bool {
        self.status >= 500
            || self.is_cut_off
            || !self.degraded.is_empty()
            || answered_after >= tracer.slow
    }

    /// The request itself.
    fn server_span(&self, ended: Ended<'_>, piece: Trace) -> Span {
        let Ended { received, resolved, cache, .. } = ended;
        let (ids, peer) = (&received.ids, &received.connection.peer);
        let mut span = Span::ending(piece, SpanKind::Server, String::new(), received.started);
        span.parent = ids.parent().map(|parent| (parent.span, true));
        span.link = ids.link();
        let method = span.note_method(&received.method);
        let route = resolved.route(received.plan());
        span.name = match route {
            Some(route) => format!("{method} {}", route.written.path),
            None => method.to_owned(),
        };
        span.note_some("http.route", route.map(|route| route.written.path.as_str()));
        span.note_some("portcullis.route", route.map(|route| route.name.as_str()));
        span.note("url.scheme", resolved.client.scheme);
        if let Some(target) = &resolved.target {
            span.note("url.path", &*without_credentials(target.path()));
            let authority = resolved.client.authority(target);
            let own = if resolved.client.scheme == "https" { 443 } else { 80 };
            if !authority.is_none() {
                span.note("server.address", authority.host().trim_matches(['[', ']']));
                span.note("server.port", authority.port().unwrap_or(own));
            }
        }
        span.note("client.address", resolved.client.address.to_string().as_str());
        span.note("network.peer.address", peer.address.to_string().as_str());
        span.note_some("network.protocol.version", version(received.version));
        let agent = received.agent.as_ref().and_then(|agent| agent.to_str().ok());
        let agent = agent.map(|agent| if opens(agent) { REDACTED } else { agent });
        span.note_some("user_agent.original", agent);
        self.tell_outcome(&mut span, cache);
        span
    }

    /// What became of the request.
    fn tell_outcome(&self, span: &mut Span, cache: Option<&'static str>) {
        if self.status != CLIENT_GONE {
            span.note("http.response.status_code", self.status);
        }
        span.has_failed = self.status >= 500 || self.is_cut_off;
        match self.reason {
            Some(reason) => span.note("error.type", reason),
            None if self.status >= 500 => span.note("error.type", self.status.to_string().as_str()),
            None => {}
        }
        span.note_some("portcullis.limit", self.why.as_ref().and_then(|why| why.limit()));
        span.note_some("portcullis.cache", cache);
        if !self.degraded.is_empty() {
            span.note("portcullis.degraded", Value::Words(self.degraded.clone()));
        }
    }
}

/// As the conventions write it.
fn version(version: http::Version) -> Option<&'static str> {
    match version {
        http::Version::HTTP_10 => Some("1.0"),
        http::Version::HTTP_11 => Some("1.1"),
        http::Version::HTTP_2 => Some("2"),
        _ => None,
    }
}
