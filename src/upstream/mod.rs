//! The services behind the gateway: choosing a server, a pooled connection to it, and the exchange
//! on it.
//!
//! A connection is driven by the task of the request that uses it (`link`), so an answer costs no
//! hand-over between tasks, and a client that goes away takes its upstream exchange with it.

mod download;
mod link;
mod pool;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::sync::Notify;

use crate::base::body::Upload;
use crate::config::{self, Balance};
use crate::observe::Occupancy;

pub use download::{Download, DownloadFault};
use link::{Link, Sent};
use pool::Endpoint;

/// How many stale pooled connections one request tries before it dials.
const STALE_LINKS_MAX: usize = 4;

/// What to do with an interim response (RFC 9110 §15.2).
pub trait OnInterim: Fn(StatusCode, &HeaderMap) + Clone + Send + Sync + 'static {}

impl<F: Fn(StatusCode, &HeaderMap) + Clone + Send + Sync + 'static> OnInterim for F {}

/// One upstream: its servers and their connections.
#[derive(Debug)]
pub struct Upstream {
    settings: config::Upstream,
    endpoints: Vec<Arc<Endpoint>>,
    /// Turns, for round-robin.
    turn: AtomicUsize,
    places: Arc<Places>,
}

/// Requests in progress, `max_connections` at most, and connections, which pass that number only
/// for the moment in which several are made at once. A thread prefers to make a connection of its
/// own; only when the bound is met does it take one that another thread made.
#[derive(Debug)]
struct Places {
    max: usize,
    taken: AtomicUsize,
    /// Connections, in use and unused.
    open: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Places {
    fn try_take(&self) -> bool {
        let more = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    async fn take(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // Also when the client leaves while it waits.
        let _done = Waiting(&self.waiting);
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.try_take() {
                return;
            }
            freed.await;
        }
    }

    fn free(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }
}

/// One connection; dropping it frees its number.
#[derive(Debug)]
struct Open(Arc<Places>);

impl Open {
    fn new(places: &Arc<Places>) -> Self {
        places.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(places))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection could be made.
    #[error("cannot connect to the upstream")]
    Connect(#[source] std::io::Error),
    /// No connection within `connect_timeout`.
    #[error("the upstream did not accept a connection within connect_timeout")]
    ConnectTimeout,
    /// All `max_connections` are busy.
    #[error("all connections to the upstream are busy; max_connections bounds them")]
    Busy,
    /// No response head within `response_timeout`.
    #[error("the upstream did not answer within response_timeout")]
    Timeout,
    /// The connection ended or broke before the response.
    #[error("the upstream ended the exchange before it answered")]
    Broken(#[source] Option<hyper::Error>),
    /// Another request for the same got no answer, and this one waited for it.
    #[error("the upstream did not answer a request for the same a moment ago")]
    Shared,
    /// The response cannot be passed on safely.
    #[error("the upstream's response is malformed: {0}")]
    Malformed(&'static str),
}

impl Failure {
    /// Whether the upstream may have acted on the request.
    pub fn may_have_acted(&self) -> bool {
        match self {
            Self::Timeout | Self::Broken(_) | Self::Malformed(_) => true,
            Self::Connect(_) | Self::ConnectTimeout | Self::Busy | Self::Shared => false,
        }
    }
}

/// What a body holds on to until it ends: a place among the connections, the busy count of the
/// server.
#[derive(Debug)]
pub(crate) struct Place {
    endpoint: Arc<Endpoint>,
    places: Arc<Places>,
    read_timeout: Duration,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.endpoint.leave();
        self.places.free();
    }
}

impl Upstream {
    /// An upstream without connections yet.
    pub fn new(settings: &config::Upstream) -> Self {
        let endpoints = settings.servers.iter().map(|server| Arc::new(Endpoint::new(server)));
        Self {
            endpoints: endpoints.collect(),
            turn: AtomicUsize::new(0),
            places: Arc::new(Places {
                max: settings.max_connections,
                taken: AtomicUsize::new(0),
                open: AtomicUsize::new(0),
                waiting: AtomicUsize::new(0),
                freed: Notify::new(),
            }),
            settings: settings.clone(),
        }
    }

    /// Whether `settings` describe this upstream, so that a reload can keep its connections.
    pub fn is_described_by(&self, settings: &config::Upstream) -> bool {
        self.settings == *settings
    }

    /// How busy its connections are.
    pub fn occupancy(&self) -> Occupancy {
        let now = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let Places { max, taken, open, waiting, .. } = &*self.places;
        Occupancy { busy: now(taken), open: now(open), waiting: now(waiting), max: *max }
    }

    /// Sends a request and returns once the response head is there.
    ///
    /// What was never sent is sent again on another connection. A request that a pooled connection
    /// took and did not answer is repeated once, on a new connection, when that is safe (RFC 9110
    /// §9.2.2) and it has no body. `on_interim` gets every interim response that comes before, but
    /// for 101, which is an error.
    pub async fn send(
        &self,
        request: Request<()>,
        body: Upload,
        on_interim: Option<impl OnInterim>,
    ) -> Result<Response<Download>, Failure> {
        let place = self.take_place().await?;
        let repeatable = body.is_none() && is_idempotent(request.method());
        let spare = repeatable.then(|| request.clone());
        let mut outgoing = request.map(|()| body);
        frame(&mut outgoing);
        watch(&mut outgoing, on_interim.as_ref());
        *outgoing.version_mut() = Version::HTTP_11;
        let head_only = *outgoing.method() == Method::HEAD;

        let mut pooled = STALE_LINKS_MAX;
        let response = loop {
            let link = match self.checkout(&place.endpoint, pooled > 0) {
                Some(link) => link,
                // Rare, and large: boxed, it takes no room in the future of every request.
                None => Box::pin(self.dial(&place.endpoint)).await?,
            };
            let reused = link.is_reused();
            match link.exchange(outgoing, self.settings.response_timeout).await {
                Sent::Answered(link, response) => {
                    break self.receive(place, link, response, head_only)?;
                }
                Sent::Never(unsent) if reused => {
                    outgoing = unsent;
                    pooled = pooled.saturating_sub(1);
                }
                Sent::Never(_) => return Err(Failure::Broken(None)),
                Sent::Lost(error) => match spare {
                    Some(ref spare) if reused && pooled > 0 => {
                        outgoing = spare.clone().map(|()| Upload::none());
                        watch(&mut outgoing, on_interim.as_ref());
                        // The other pooled connections are as old as this one was.
                        pooled = 0;
                    }
                    _ => return Err(Failure::Broken(error)),
                },
                Sent::TimedOut => return Err(Failure::Timeout),
            }
        };
        Ok(response)
    }

    /// Closes pooled connections that the server closed or that nobody used for `idle_timeout`.
    pub fn sweep(&self) {
        for endpoint in &self.endpoints {
            endpoint.sweep(self.settings.idle_timeout);
        }
    }

    /// Refuses what could be read in two ways, then attaches the connection to the body.
    fn receive(
        &self,
        place: Place,
        link: Box<Link>,
        response: Response<hyper::body::Incoming>,
        head_only: bool,
    ) -> Result<Response<Download>, Failure> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::Malformed("it switches protocols, which nobody asked for"));
        }
        let mut codings = response.headers().get_all(http::header::TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next()
            && (!coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some())
        {
            return Err(Failure::Malformed("its Transfer-Encoding is not one `chunked`"));
        }
        let (head, incoming) = response.into_parts();
        let trailers = crate::base::facts::is_grpc(&head.headers);
        let body = Download::new(incoming, link, place, trailers && !head_only);
        Ok(Response::from_parts(head, body))
    }

    /// An unused connection: one of this thread's, or any when no more may be made.
    fn checkout(&self, endpoint: &Endpoint, pooled: bool) -> Option<Box<Link>> {
        let full = || self.places.open.load(Ordering::Relaxed) >= self.places.max;
        if !pooled {
            // A new one is wanted; room for it is made if need be.
            return None;
        }
        endpoint.checkout().or_else(|| if full() { endpoint.checkout_any() } else { None })
    }

    async fn take_place(&self) -> Result<Place, Failure> {
        if !self.places.try_take() {
            let waited = tokio::time::timeout(self.settings.connect_timeout, self.places.take());
            Box::pin(waited).await.map_err(|_| Failure::Busy)?;
        }
        let endpoint = Arc::clone(self.choose());
        endpoint.enter();
        let places = Arc::clone(&self.places);
        Ok(Place { endpoint, places, read_timeout: self.settings.read_timeout })
    }

    fn choose(&self) -> &Arc<Endpoint> {
        match (self.endpoints.as_slice(), self.settings.balance) {
            ([only], _) => only,
            (all, Balance::P2c) => pool::less_busy_of_two(all),
            (all, Balance::RoundRobin) => {
                pool::by_turn(all, self.turn.fetch_add(1, Ordering::Relaxed))
            }
        }
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<Box<Link>, Failure> {
        if self.places.open.load(Ordering::Relaxed) >= self.places.max {
            // Room is made by closing an unused connection, to whichever server. There is one: the
            // requests in progress are fewer than the connections.
            drop(self.endpoints.iter().find_map(|endpoint| endpoint.checkout_any()));
        }
        match tokio::time::timeout(
            self.settings.connect_timeout,
            endpoint.dial(self.settings.response_timeout, Open::new(&self.places)),
        )
        .await
        {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(Failure::Connect(error)),
            Err(_) => Err(Failure::ConnectTimeout),
        }
    }
}

/// Says how the body is framed, where there is one: left to itself, hyper sends none with a GET of
/// unknown length.
fn frame(request: &mut Request<Upload>) {
    use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
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

/// Has hyper report interim responses, which it drops otherwise. Not part of what is kept for a
/// repeat: cloning it there would cost every request.
fn watch(request: &mut Request<Upload>, on_interim: Option<&impl OnInterim>) {
    if let Some(on_interim) = on_interim.cloned() {
        hyper::ext::on_informational(request, move |interim| {
            on_interim(interim.status(), interim.headers());
        });
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}
