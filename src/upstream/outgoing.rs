//! A request as it is sent, once or several times.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, StatusCode, Version};
use tokio::time::Instant;

use crate::base::body::Upload;
use crate::base::facts::ClientAddr;
use crate::base::trace::{TRACEPARENT, Trace};

/// Who sends a request, and how patiently.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Whose share of the upstream is taken.
    pub client: ClientAddr,
    /// What the request is within its trace.
    pub trace: Trace,
    /// How long the server may rest, in place of `response_timeout` and `read_timeout`.
    pub idle_timeout: Option<Duration>,
    /// When the gateway gives the request up, where it does: a server that has not answered until
    /// then has failed.
    pub deadline: Option<Instant>,
    /// What the request is told by, where equal ones are to go to the same server.
    pub key: Option<u64>,
}

/// What to do with an interim response (RFC 9110 §15.2).
pub trait OnInterim: Fn(StatusCode, &HeaderMap) + Clone + Send + Sync + 'static {}

impl<F: Fn(StatusCode, &HeaderMap) + Clone + Send + Sync + 'static> OnInterim for F {}

/// A request, and what it takes to send it again.
pub(super) struct Outgoing<'s, H, I> {
    /// None while a connection has it.
    request: Option<Request<Upload>>,
    /// Makes its head anew. None where it may not be repeated.
    head: Option<H>,
    /// Whether it asks the server to change to another protocol.
    upgrades: bool,
    on_interim: Option<I>,
    sender: &'s Sender,
}

impl<'s, H: Fn() -> Request<()>, I: OnInterim> Outgoing<'s, H, I> {
    /// The request in the gateway's own version and framing. It is repeatable if it has no body and
    /// its method is idempotent (RFC 9110 §9.2.2).
    pub(super) fn new(sender: &'s Sender, head: H, body: Upload, on_interim: Option<I>) -> Self {
        let mut request = head();
        let is_repeatable = body.is_none() && is_idempotent(request.method());
        *request.version_mut() = Version::HTTP_11;
        let head = is_repeatable.then_some(head);
        let mut request = request.map(|()| body);
        frame(&mut request);
        Self { request: Some(request), head, upgrades: false, on_interim, sender }
    }

    /// The same, with `Upgrade` among its fields.
    pub(super) fn upgrading(self) -> Self {
        Self { upgrades: true, ..self }
    }

    /// Whether it asks the server to change to another protocol.
    pub(super) fn upgrades(&self) -> bool {
        self.upgrades
    }

    /// The request, for a connection to take, and what hears of interim responses. A connection
    /// puts back what nobody has read.
    pub(super) fn parts(&mut self) -> (&mut Option<Request<Upload>>, Option<&I>) {
        (&mut self.request, self.on_interim.as_ref())
    }

    /// Says to the server which piece of its trace this attempt is.
    pub(super) fn stamp(&mut self, trace: Trace) {
        if let Some(request) = &mut self.request {
            request.headers_mut().insert(TRACEPARENT, trace.to_header());
        }
    }

    /// Who sends it.
    pub(super) fn sender(&self) -> &'s Sender {
        self.sender
    }

    /// Whether all of it is still here.
    pub(super) fn is_whole(&self) -> bool {
        self.request.is_some()
    }

    /// Whether it may be sent again though a server may have read it.
    pub(super) fn is_repeatable(&self) -> bool {
        self.head.is_some()
    }

    /// Makes the request anew that a connection took and a server may have read, if it is
    /// repeatable.
    pub(super) fn repeat(&mut self) {
        if let Some(head) = &self.head {
            let mut request = head().map(|()| Upload::none());
            *request.version_mut() = Version::HTTP_11;
            self.request = Some(request);
        }
    }
}

/// Says how the body is framed, where there is one: left to itself, hyper sends none with a GET of
/// unknown length.
fn frame(request: &mut Request<Upload>) {
    if request.body().is_none() {
        return;
    }
    match http_body::Body::size_hint(request.body()).exact() {
        Some(length) => request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => {
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(TRANSFER_ENCODING, chunked)
        }
    };
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_anew_as_often_as_it_is_repeated() {
        let client = ClientAddr::new("192.0.2.1".parse().unwrap());
        let sender =
            Sender { client, trace: Trace::begin(), idle_timeout: None, deadline: None, key: None };
        let nobody = None::<fn(StatusCode, &HeaderMap)>;
        let head = || Request::get("/").body(()).unwrap();
        let mut outgoing = Outgoing::new(&sender, head, Upload::none(), nobody);
        for _ in 0..3 {
            outgoing.stamp(sender.trace);
            outgoing.stamp(sender.trace);
            let sent = outgoing.parts().0.take().unwrap();
            let lines: Vec<_> = sent.headers().get_all(TRACEPARENT).iter().collect();
            assert_eq!(lines, [&sender.trace.to_header()]);
            assert!(outgoing.is_repeatable() && !outgoing.is_whole());
            outgoing.repeat();
        }
        let head = || Request::post("/").body(()).unwrap();
        let mut outgoing = Outgoing::new(&sender, head, Upload::none(), nobody);
        outgoing.parts().0.take();
        outgoing.repeat();
        assert!(!outgoing.is_repeatable() && !outgoing.is_whole());
    }
}
