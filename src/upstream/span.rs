//! The span of one attempt at a server: from when it is picked until the last byte of its answer,
//! or until it is known that there is none.

use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use super::conn::Transport;
use super::ends::{Cause, NoAnswer, meaning};
use super::outgoing::{Asked, Sender};
use crate::base::http::credentials::without_credentials;
use crate::base::trace::Trace;
use crate::observe::{Span, SpanKind, Tracer};

/// An attempt in progress. Dropping it ends it.
#[derive(Debug)]
pub(super) struct AttemptSpan {
    tracer: Arc<Tracer>,
    /// The attempt, as the server is told of it.
    pub(super) trace: Trace,
    /// The request that it is one of.
    parent: [u8; 8],
    pub(super) asked: Asked,
    began: Instant,
    /// The server: its url, its host and its port.
    server: (String, String, u16),
    status: Option<StatusCode>,
    /// Why the server has not answered, or not to the end.
    error: Option<&'static str>,
}

impl AttemptSpan {
    /// One that begins, where requests of this sender are recorded.
    pub(super) fn begin(sender: &Sender, server: &Transport, asked: Asked) -> Option<Box<Self>> {
        let tracer = Arc::clone(sender.tracer.as_ref()?);
        Some(Box::new(Self {
            tracer,
            trace: sender.trace.child(),
            parent: sender.trace.span,
            asked,
            began: Instant::now(),
            server: server.place(),
            status: None,
            error: None,
        }))
    }

    /// The head of the answer is here.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The answer has broken off.
    pub(super) fn broke(&mut self) {
        self.error = Some("cut_off");
    }

    /// There is no answer.
    pub(super) fn failed(&mut self, end: &NoAnswer) {
        self.error = Some(match meaning(end).cause {
            Some(Cause::Connect) => "connect",
            Some(Cause::Refused) => "refused",
            Some(Cause::Timeout) => "timeout",
            Some(Cause::Reset) => "cut_off",
            None => "unusable",
        });
    }

    /// It was given up: the client has left, another server was faster, or there was no time left.
    fn end_word(&self) -> Option<&'static str> {
        self.error.or_else(|| self.status.is_none().then_some("cancelled"))
    }
}

impl Drop for AttemptSpan {
    fn drop(&mut self) {
        let mut span = Span::ending(self.trace, SpanKind::Client, String::new(), self.began);
        span.parent = Some((self.parent, false));
        span.name = span.note_method(&self.asked.method).to_owned();
        let (url, host, port) = &self.server;
        span.note("server.address", host.as_str());
        span.note("server.port", *port);
        let path = without_credentials(self.asked.uri.path());
        span.note("url.full", format!("{url}{path}").as_str());
        span.note_some("http.response.status_code", self.status.map(|it| it.as_u16()));
        if self.asked.resent > 0 {
            span.note("http.request.resend_count", self.asked.resent);
        }
        let is_refused = self.status.filter(|it| it.is_client_error() || it.is_server_error());
        match (self.end_word(), &is_refused) {
            (Some(word), _) => span.note("error.type", word),
            (None, Some(status)) => span.note("error.type", status.as_str()),
            (None, None) => {}
        }
        // Nobody has failed where nobody waits any more.
        span.has_failed = self.error.is_some() || is_refused.is_some();
        self.tracer.offer(span);
    }
}
