//! A request as it is sent, once or several times.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, StatusCode, Version};

use crate::base::body::Upload;

/// What to do with an interim response (RFC 9110 §15.2).
pub trait OnInterim: Fn(StatusCode, &HeaderMap) + Clone + Send + Sync + 'static {}

impl<F: Fn(StatusCode, &HeaderMap) + Clone + Send + Sync + 'static> OnInterim for F {}

/// A request, and what it takes to send it again.
pub(super) struct Outgoing<I> {
    /// None while a connection has it.
    request: Option<Request<Upload>>,
    /// None where it may not be repeated.
    spare: Option<Spare<I>>,
    /// Whether it asks the server to change to another protocol.
    upgrades: bool,
}

struct Spare<I> {
    request: Request<()>,
    on_interim: Option<I>,
}

impl<I: OnInterim> Outgoing<I> {
    /// The request in the gateway's own version and framing. It is repeatable if it has no body and
    /// its method is idempotent (RFC 9110 §9.2.2).
    pub(super) fn new(request: Request<()>, body: Upload, on_interim: Option<I>) -> Self {
        let is_repeatable = body.is_none() && is_idempotent(request.method());
        let spare = is_repeatable
            .then(|| Spare { request: request.clone(), on_interim: on_interim.clone() });
        let mut request = request.map(|()| body);
        frame(&mut request);
        Self { request: Some(finished(request, on_interim)), spare, upgrades: false }
    }

    /// The same, with `Upgrade` among its fields.
    pub(super) fn upgrading(self) -> Self {
        Self { upgrades: true, ..self }
    }

    /// Whether it asks the server to change to another protocol.
    pub(super) fn upgrades(&self) -> bool {
        self.upgrades
    }

    /// The request, for a connection to take. It puts back what it did not write.
    pub(super) fn request(&mut self) -> &mut Option<Request<Upload>> {
        &mut self.request
    }

    /// Whether it may be sent a second time though a server may have read it.
    pub(super) fn is_repeatable(&self) -> bool {
        self.spare.is_some()
    }

    /// Makes the request anew that a connection took and a server may have read. That happens once:
    /// afterwards it is not repeatable.
    pub(super) fn repeat(&mut self) {
        if let Some(Spare { request, on_interim }) = self.spare.take() {
            self.request = Some(finished(request.map(|()| Upload::none()), on_interim));
        }
    }
}

/// Has hyper report interim responses, which it drops otherwise.
fn finished(mut request: Request<Upload>, on_interim: Option<impl OnInterim>) -> Request<Upload> {
    *request.version_mut() = Version::HTTP_11;
    if let Some(on_interim) = on_interim {
        hyper::ext::on_informational(&mut request, move |interim| {
            on_interim(interim.status(), interim.headers());
        });
    }
    request
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
