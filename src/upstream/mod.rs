//! The services behind the gateway: choosing a server, a pooled connection to it, and the exchange
//! on it.
//!
//! A connection is driven by the task of the request that uses it (`link`), so an answer costs no
//! hand-over between tasks, and a client that goes away takes its upstream exchange with it.

mod download;
mod length;
mod link;
mod permits;
mod pool;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use crate::base::body::Upload;
use crate::base::facts::ClientAddr;
use crate::config::{self, Balance};
use crate::observe::Occupancy;

pub use download::{Download, DownloadFault};
use link::{Link, Sent};
use permits::{Permit, Permits};
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
    permits: Arc<Permits>,
}

/// Connections, which pass `max_connections` only for the moment in which several are made at once.
/// A thread prefers to make a connection of its own; only when the bound is met does it take one
/// that another thread made.
#[derive(Debug)]
struct Places {
    max: usize,
    /// Connections, in use and unused.
    open: AtomicUsize,
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
    /// The body was announced, and broke off before its first byte.
    #[error("the upstream ended the exchange before the first byte of the response's body")]
    CutOff(#[source] DownloadFault),
    /// Another request for the same got no answer, and this one waited for it.
    #[error("the upstream did not answer a request for the same a moment ago")]
    Shared,
    /// The response head is longer than its bounds.
    #[error(
        "the upstream's head is beyond the bounds `header_bytes` (its size) or `headers` (its \
         fields) of its table [upstreams.NAME], or announces an impossible length"
    )]
    HeadTooLarge,
    /// The response cannot be passed on safely.
    #[error("the upstream's response is malformed: {0}")]
    Malformed(&'static str),
}

impl Failure {
    /// Of an exchange whose connection ended.
    fn lost(error: Option<hyper::Error>) -> Self {
        match error {
            Some(error) if error.is_parse_too_large() => Self::HeadTooLarge,
            error => Self::Broken(error),
        }
    }

    /// Whether no server is to blame: this process has no more files, ports or memory.
    fn is_our_own(&self) -> bool {
        const NO_MORE_FILES: [i32; 2] = [23, 24];
        let Self::Connect(error) = self else { return false };
        matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory)
            || error.raw_os_error().is_some_and(|code| NO_MORE_FILES.contains(&code))
    }

    /// Whether the upstream may have acted on the request.
    pub fn may_have_acted(&self) -> bool {
        match self {
            Self::Timeout
            | Self::Broken(_)
            | Self::CutOff(_)
            | Self::HeadTooLarge
            | Self::Malformed(_) => true,
            Self::Connect(_) | Self::ConnectTimeout | Self::Busy | Self::Shared => false,
        }
    }
}

/// What a body holds on to until it ends: a permit of the upstream, and the busy count of the
/// server, which may change before anything was sent.
#[derive(Debug)]
pub(crate) struct Place {
    endpoint: Arc<Endpoint>,
    _permit: Permit,
    read_timeout: Duration,
}

impl Place {
    fn move_to(&mut self, endpoint: &Arc<Endpoint>) {
        endpoint.enter();
        std::mem::replace(&mut self.endpoint, Arc::clone(endpoint)).leave();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.endpoint.leave();
    }
}

/// The servers that one request has tried to reach.
#[derive(Debug, Default)]
struct Attempts {
    tried: Vec<Arc<Endpoint>>,
    /// When all attempts together have taken too long.
    deadline: Option<Instant>,
    /// Whether one of them has used all the time up, and there was more for another.
    has_waited: bool,
}

impl Upstream {
    /// An upstream without connections yet.
    pub fn new(settings: &config::Upstream) -> Self {
        let max = settings.max_connections;
        let endpoints = settings.servers.iter().map(|server| Arc::new(Endpoint::new(server)));
        Self {
            endpoints: endpoints.collect(),
            turn: AtomicUsize::new(0),
            places: Arc::new(Places { max, open: AtomicUsize::new(0) }),
            permits: Permits::new(max, settings.client_share.of(max)),
            settings: settings.clone(),
        }
    }

    /// Whether `settings` describe this upstream, so that a reload can keep its connections.
    pub fn is_described_by(&self, settings: &config::Upstream) -> bool {
        self.settings == *settings
    }

    /// How long a body whose client expects a 100 may wait for the upstream's: less than the answer
    /// may take. Zero where nobody is to wait.
    pub fn continue_timeout(&self) -> Duration {
        self.settings.continue_timeout.min(self.settings.response_timeout / 2)
    }

    /// How busy its connections are.
    pub fn occupancy(&self) -> Occupancy {
        let (busy, waiting) = self.permits.count();
        let open = self.places.open.load(Ordering::Relaxed);
        Occupancy { busy, open, waiting, max: self.places.max }
    }

    /// Sends a request of this client and returns once the response head is there.
    ///
    /// What was never sent is sent again on another connection, to another server where this one
    /// takes none. A request that a pooled connection
    /// took and did not answer is repeated once, on a new connection, when that is safe (RFC 9110
    /// §9.2.2) and it has no body. `on_interim` gets every interim response that comes before, but
    /// for 101, which is an error.
    pub async fn send(
        &self,
        client: ClientAddr,
        request: Request<()>,
        body: Upload,
        on_interim: Option<impl OnInterim>,
    ) -> Result<Response<Download>, Failure> {
        let mut place = self.take_place(client).await?;
        let repeatable = body.is_none() && is_idempotent(request.method());
        let spare = repeatable.then(|| request.clone());
        let mut outgoing = request.map(|()| body);
        frame(&mut outgoing);
        watch(&mut outgoing, on_interim.as_ref());
        *outgoing.version_mut() = Version::HTTP_11;
        let head_only = *outgoing.method() == Method::HEAD;

        let mut pooled = STALE_LINKS_MAX;
        let mut attempts = Attempts::default();
        let mut response = loop {
            let link = match self.checkout(&place.endpoint, pooled > 0) {
                Some(link) => link,
                // Rare, and large: boxed, it takes no room in the future of every request.
                None => Box::pin(self.connect(&mut place, &mut attempts, pooled > 0)).await?,
            };
            let reused = link.is_reused();
            match link.exchange(outgoing, self.settings.response_timeout).await {
                Sent::Answered(link, response) => {
                    place.endpoint.answered();
                    break self.receive(place, link, response, head_only)?;
                }
                Sent::Never(unsent) if reused => {
                    outgoing = unsent;
                    pooled = pooled.saturating_sub(1);
                }
                Sent::Never(unsent) => {
                    outgoing = unsent;
                    self.turn_away(&mut place, &mut attempts, Failure::Broken(None))?;
                }
                Sent::Lost(error) => match spare {
                    Some(ref spare) if reused && pooled > 0 => {
                        outgoing = spare.clone().map(|()| Upload::none());
                        watch(&mut outgoing, on_interim.as_ref());
                        // The other pooled connections are as old as this one was.
                        pooled = 0;
                    }
                    _ => {
                        let failure = Failure::lost(error);
                        if !reused && matches!(failure, Failure::Broken(_)) {
                            place.endpoint.lost(self.settings.fail_timeout);
                        }
                        return Err(failure);
                    }
                },
                Sent::TimedOut => return Err(Failure::Timeout),
            }
        };
        download::begun(&mut response).await.map_err(Failure::CutOff)?;
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
        mut link: Box<Link>,
        mut response: Response<hyper::body::Incoming>,
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
        if response.version() == Version::HTTP_10 {
            // RFC 9112 §6.1: the framing of such a message is faulty.
            if response.headers().contains_key(http::header::TRANSFER_ENCODING) {
                return Err(Failure::Malformed("it is HTTP/1.0 and has a Transfer-Encoding"));
            }
            link.is_of_an_old_server();
        }
        let status = response.status();
        length::settle(status, response.headers_mut())
            .map_err(|_| Failure::Malformed("its Content-Length is not one number"))?;
        // What the client gets is in the gateway's version (RFC 9112 §2.3).
        *response.version_mut() = Version::HTTP_11;
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

    async fn take_place(&self, client: ClientAddr) -> Result<Place, Failure> {
        let permit = match self.permits.try_take(client) {
            Some(permit) => permit,
            None => {
                let permit = self.permits.take(client);
                let waited = tokio::time::timeout(self.settings.connect_timeout, permit);
                Box::pin(waited).await.ok().flatten().ok_or(Failure::Busy)?
            }
        };
        let endpoint = self.choose(&[]).or(self.endpoints.first()).ok_or(Failure::Busy)?;
        let endpoint = Arc::clone(endpoint);
        endpoint.enter();
        Ok(Place { endpoint, _permit: permit, read_timeout: self.settings.read_timeout })
    }

    /// A server that was not tried yet, one that is not avoided before one that is. None where all
    /// were tried.
    fn choose(&self, tried: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
        if let [only] = self.endpoints.as_slice() {
            return tried.is_empty().then_some(only);
        }
        if tried.is_empty() && !self.endpoints.iter().any(|endpoint| endpoint.is_avoided()) {
            return Some(self.balanced(&self.endpoints));
        }
        // Rare: a server is dead.
        let mut untried: Vec<&Arc<Endpoint>> = self.endpoints.iter().collect();
        untried.retain(|endpoint| !tried.iter().any(|known| Arc::ptr_eq(known, endpoint)));
        let fail_timeout = self.settings.fail_timeout;
        // A request that has met one dead server already is not to try another one.
        if tried.is_empty()
            && let Some(due) = untried.iter().find(|endpoint| endpoint.is_due(fail_timeout))
        {
            return Some(due);
        }
        let mut preferred = untried.clone();
        preferred.retain(|endpoint| !endpoint.is_avoided());
        let all = if preferred.is_empty() { untried } else { preferred };
        if all.is_empty() { None } else { Some(*self.balanced(&all)) }
    }

    /// One of several servers, as `balance` says.
    fn balanced<'e, E: AsRef<Endpoint>>(&self, all: &'e [E]) -> &'e E {
        match self.settings.balance {
            Balance::P2c => pool::less_busy_of_two(all),
            Balance::RoundRobin => pool::by_turn(all, self.turn.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// A connection to the place's server, or to the next one that takes it.
    async fn connect(
        &self,
        place: &mut Place,
        attempts: &mut Attempts,
        pooled: bool,
    ) -> Result<Box<Link>, Failure> {
        loop {
            let patience = self.settings.connect_timeout;
            let deadline = *attempts.deadline.get_or_insert_with(|| Instant::now() + patience);
            match self.dial(&place.endpoint, deadline).await {
                Ok(link) => return Ok(link),
                Err(failure) => self.turn_away(place, attempts, failure)?,
            }
            if let Some(link) = self.checkout(&place.endpoint, pooled) {
                return Ok(link);
            }
        }
    }

    /// The place's server took no connection, and nothing was sent: the next one is tried, each
    /// once.
    ///
    /// # Errors
    /// The failure, where there is no other server or no more time.
    fn turn_away(
        &self,
        place: &mut Place,
        attempts: &mut Attempts,
        failure: Failure,
    ) -> Result<(), Failure> {
        if self.endpoints.len() == 1 {
            return Err(failure);
        }
        if !failure.is_our_own() {
            place.endpoint.avoid(self.settings.fail_timeout);
        }
        attempts.tried.push(Arc::clone(&place.endpoint));
        if matches!(failure, Failure::ConnectTimeout) {
            // One that does not even refuse has used the time up; there is as much for one more.
            if std::mem::replace(&mut attempts.has_waited, true) {
                return Err(failure);
            }
            attempts.deadline = None;
        }
        let Some(next) = self.choose(&attempts.tried) else { return Err(failure) };
        place.move_to(next);
        Ok(())
    }

    async fn dial(&self, endpoint: &Endpoint, deadline: Instant) -> Result<Box<Link>, Failure> {
        if self.places.open.load(Ordering::Relaxed) >= self.places.max {
            // Room is made by closing an unused connection, to whichever server. There is one: the
            // requests in progress are fewer than the connections.
            drop(self.endpoints.iter().find_map(|endpoint| endpoint.checkout_any()));
        }
        let dial = endpoint.dial(&self.settings, Open::new(&self.places));
        match tokio::time::timeout_at(deadline, dial).await {
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
