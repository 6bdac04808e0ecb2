//! The spans of a request that has ended. Its attempts at upstreams have told of themselves
//! (`upstream/span`), where it was known from the start that the request is recorded.

use std::time::Duration;

use super::{CLIENT_GONE, Ended, Record};
use crate::base::trace::Trace;
use crate::observe::{Span, SpanKind, Tracer, Value};

impl Record {
    /// Tells of the request, if it was sampled, or else if it is one of those that are told of all
    /// the same and there is room for one more.
    pub(super) fn tell_spans(&self, ended: Ended<'_>, duration: Duration) {
        let Some(tracer) = &ended.received.running.tracer else { return };
        let ids = &ended.received.ids;
        if ids.is_recorded {
            tracer.offer(self.server_span(ended, ids.trace));
        } else if self.is_worth_telling(tracer, duration) && tracer.takes_late() {
            // The upstream was told that nothing is recorded: there are spans of ours alone.
            let piece = if ids.parent().is_some() { ids.trace.child() } else { ids.trace };
            let mut span = self.server_span(ended, piece.sampled());
            span.note("portcullis.sampled_late", true);
            tracer.offer(span);
        }
    }

    /// Whether a request has failed by no fault of its client's, or was slow.
    fn is_worth_telling(&self, tracer: &Tracer, duration: Duration) -> bool {
        let answered_after = self.tunnel.as_ref().map_or(duration, |tunnel| tunnel.opened_after);
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
            span.note("url.path", target.path());
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
