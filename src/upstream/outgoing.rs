//! A request as it is sent, once or several times.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, StatusCode, Uri, Version};
use tokio::time::Instant;

use crate::base::body::{Progress, Replay, Upload};
use crate::base::facts::ClientAddr;
use crate::base::trace::{TRACEPARENT, Trace};
use crate::observe::Tracer;

/// After so long an upload that tries a server is given up, though it may move.
const UPLOAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Who sends a request, and how patiently.
#[derive(Debug)]
pub struct Sender {
    /// Whose share of the upstream is taken.
    pub client: ClientAddr,
    /// What the request is within its trace.
    pub trace: Trace,
    /// How long the server may rest, in place of `response_timeout` and `read_timeout`.
    pub idle_timeout: Option<Duration>,
    /// When the gateway gives the request up, where it does: a server that has not answered until
    /// then has failed, if it was asked early enough.
    pub deadline: Option<TimeLimit>,
    /// What the request is told by, where equal ones are to go to the same server.
    pub key: Option<u64>,
    /// Whether the client itself has said how long its call may take: where that is too short, no
    /// server is to blame.
    pub is_clients_time: bool,
    /// Whether it is a call of gRPC, whose status may stand in trailers.
    pub is_call: bool,
    /// Where it is told how often a request was sent, if anybody wants to know.
    pub attempts: Option<Arc<Attempts>>,
    /// Where spans of attempts go; nothing where the request is not recorded.
    pub tracer: Option<Arc<Tracer>>,
}

/// Until when a request may take. The gateway itself may use up a part of that time: who is asked
/// with less than half of it left is not to blame that it passes.
#[derive(Debug)]
pub struct TimeLimit {
    blame: Blame,
    /// Whether the upstream that was reached last was asked, and early enough.
    is_upstreams: AtomicBool,
}

impl TimeLimit {
    /// One that ends then, and is that long in all.
    pub fn until(at: Instant, time: Duration) -> Self {
        let half = at.checked_sub(time / 2).unwrap_or(at);
        Self { blame: Blame { at, half, body: None }, is_upstreams: AtomicBool::new(false) }
    }

    /// Its end.
    pub fn at(&self) -> Instant {
        self.blame.at
    }

    /// A part of the time is the client's: until it has sent this body, which is
    /// [timed](Upload::timed).
    pub fn begins_behind(&mut self, body: Option<Arc<Progress>>) {
        self.blame.body = body;
    }
}

/// When whoever has been asked early enough has failed, if it has not answered.
#[derive(Debug, Clone)]
pub(super) struct Blame {
    at: Instant,
    half: Instant,
    /// What the client sends meanwhile.
    body: Option<Arc<Progress>>,
}

impl Blame {
    /// Whether that is now.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.at && self.was_whole_early()
    }

    /// Whether the client had sent all of the request while at least half of the time was left.
    fn was_whole_early(&self) -> bool {
        let ended = self.body.as_deref().map(Progress::ended);
        ended.is_none_or(|ended| ended.is_some_and(|ended| ended <= self.half))
    }
}

/// How often a request was sent, and where.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<Told>);

/// See [`Attempts`].
#[derive(Debug, Clone, Default)]
struct Told {
    count: u32,
    server: Option<String>,
    reason: Option<&'static str>,
}

impl Attempts {
    /// How often.
    pub fn count(&self) -> u32 {
        self.told().count
    }

    /// Why it was sent once more, the last time, in one word.
    pub fn reason(&self) -> Option<&'static str> {
        self.told().reason
    }

    /// The server to which it was sent last, as the configuration writes it.
    pub fn server(&self) -> Option<String> {
        self.told().server.clone()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// One that waits as long as the upstream's settings say.
    pub fn new(client: ClientAddr, trace: Trace) -> Self {
        Self {
            client,
            trace,
            idle_timeout: None,
            deadline: None,
            key: None,
            is_clients_time: false,
            is_call: false,
            attempts: None,
            tracer: None,
        }
    }

    /// When a server that is asked now has failed, if it has not answered; nothing where that is
    /// not bounded, or where too little of the time is left.
    pub(super) fn blames_at(&self) -> Option<Blame> {
        let blame = self.deadline.as_ref().map(|limit| &limit.blame);
        blame.filter(|blame| Instant::now() <= blame.half).cloned()
    }

    /// An upstream is reached, and not asked yet: readers may have been asked before.
    pub(super) fn reaches(&self) {
        if let Some(limit) = &self.deadline {
            limit.is_upstreams.store(false, Ordering::Relaxed);
        }
    }

    /// Its servers are asked from now on. Returns when it has failed, as [`Self::blames_at`] does.
    pub(super) fn begins(&self) -> Option<Blame> {
        let limit = self.deadline.as_ref()?;
        let blame = self.blames_at();
        limit.is_upstreams.store(blame.is_some(), Ordering::Relaxed);
        blame
    }

    /// Whether the upstream is to blame where the time has passed.
    pub fn blames_upstream(&self) -> bool {
        self.deadline.as_ref().is_some_and(|limit| {
            limit.is_upstreams.load(Ordering::Relaxed) && limit.blame.was_whole_early()
        })
    }

    /// An attempt begins at the server with this url.
    pub(super) fn note_attempt(&self, url: impl FnOnce() -> String) {
        if let Some(attempts) = &self.attempts {
            let mut told = attempts.told();
            told.count += 1;
            told.server = Some(url());
        }
    }

    /// Of several servers, the one with this url has answered.
    pub(super) fn note_server(&self, url: impl FnOnce() -> String) {
        if let Some(attempts) = &self.attempts {
            attempts.told().server = Some(url());
        }
    }

    /// There will be one more, for this reason.
    pub(super) fn note_retry(&self, reason: &'static str) {
        if let Some(attempts) = &self.attempts {
            attempts.told().reason = Some(reason);
        }
    }
}

/// What to do with an interim response (RFC 9110 §15.2).
pub trait OnInterim: Fn(StatusCode, &HeaderMap) + Clone + Send + Sync + 'static {}

impl<F: Fn(StatusCode, &HeaderMap) + Clone + Send + Sync + 'static> OnInterim for F {}

/// A request, and what it takes to send it again.
pub struct Outgoing<'s, H, I> {
    /// None while a connection has it.
    request: Option<Request<Upload>>,
    /// Makes its head anew. None where it may not be repeated.
    head: Option<H>,
    has_body: bool,
    /// Has its body again, where there is one that is kept.
    replay: Option<Replay>,
    /// Whether it asks the server to change to another protocol.
    upgrades: bool,
    on_interim: Option<I>,
    sender: &'s Sender,
    /// How many attempts have begun, where they are traced.
    sent: u16,
}

/// What an attempt asks for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// How often it was asked before.
    pub(super) resent: u16,
}

impl Asked {
    /// The same, once more.
    pub(super) fn again(&self) -> Self {
        Self { resent: self.resent.saturating_add(1), ..self.clone() }
    }
}

/// What an attempt takes of a request.
pub(super) struct Sending<'o, I> {
    /// For a connection to take, which puts back what nobody has read.
    pub(super) request: &'o mut Option<Request<Upload>>,
    /// What hears of interim responses.
    pub(super) on_interim: Option<&'o I>,
    /// Whether it asks the server to change to another protocol.
    pub(super) upgrades: bool,
    pub(super) sender: &'o Sender,
}

impl<I> Sending<'_, I> {
    /// Says to the server which piece of its trace this attempt is.
    pub(super) fn stamp(&mut self, trace: Trace) {
        if let Some(request) = self.request {
            request.headers_mut().insert(TRACEPARENT, trace.to_header());
        }
    }
}

/// A request without a body, in the gateway's own version.
fn bodiless(head: Request<()>) -> Request<Upload> {
    let mut request = head.map(|()| Upload::none());
    *request.version_mut() = Version::HTTP_11;
    request
}

impl<'s, H: Fn() -> Request<()>, I: OnInterim> Outgoing<'s, H, I> {
    /// The request in the gateway's own version and framing. It is repeatable if its method is
    /// idempotent (RFC 9110 §9.2.2) and it has no body.
    pub(super) fn new(sender: &'s Sender, head: H, body: Upload, on_interim: Option<I>) -> Self {
        let mut request = head();
        let head = is_idempotent(request.method()).then_some(head);
        *request.version_mut() = Version::HTTP_11;
        let mut request = request.map(|()| body);
        frame(&mut request);
        let has_body = !request.body().is_none();
        let (request, replay, upgrades) = (Some(request), None, false);
        Self { request, head, has_body, replay, upgrades, on_interim, sender, sent: 0 }
    }

    /// Keeps up to so many bytes of its body while it is sent: as long as all of it is, it is
    /// repeatable.
    pub(super) fn keep(&mut self, bytes: usize) {
        let body = self.request.as_mut().map(Request::body_mut);
        if let (Some(body), Some(_)) = (body.filter(|body| !body.is_none()), &self.head) {
            self.replay = body.keep(bytes);
        }
    }

    /// It has `Upgrade` among its fields.
    pub(super) fn upgrade(&mut self) {
        self.upgrades = true;
    }

    /// What an attempt takes of it.
    pub(super) fn sending(&mut self) -> Sending<'_, I> {
        Sending {
            request: &mut self.request,
            on_interim: self.on_interim.as_ref(),
            upgrades: self.upgrades,
            sender: self.sender,
        }
    }

    /// Whether two servers may be asked at a time.
    pub(super) fn may_be_doubled(&self) -> bool {
        self.head.is_some() && !self.has_body && !self.upgrades
    }

    /// What two attempts at a time take of it: the second one's request is made when it is wanted.
    /// Nothing where it may not be doubled.
    pub(super) fn doubled(&mut self) -> Option<(Sending<'_, I>, impl FnOnce() -> Request<Upload>)> {
        if !self.may_be_doubled() {
            return None;
        }
        // Lent as a whole, as a head need not be one that threads can share.
        let head = self.head.as_mut()?;
        let sending = Sending {
            request: &mut self.request,
            on_interim: self.on_interim.as_ref(),
            upgrades: self.upgrades,
            sender: self.sender,
        };
        Some((sending, move || bodiless(head())))
    }

    /// What the attempt asks for that begins now; nothing where it is not traced.
    pub(super) fn asks(&mut self) -> Option<Asked> {
        let request = self.request.as_ref().filter(|_| self.sender.tracer.is_some())?;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let resent = self.sent;
        self.sent = self.sent.saturating_add(1);
        Some(Asked { method, uri, resent })
    }

    /// Who sends it.
    pub(super) fn sender(&self) -> &'s Sender {
        self.sender
    }

    /// How long what tries a server may take, where that is no matter of `response_timeout` alone:
    /// an upload ends by itself, that long after it has moved last.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.has_body.then(|| self.sender.idle_timeout.unwrap_or(UPLOAD_MAX))
    }

    /// A server may have read it, though not the one whose connection has put it back.
    pub(super) fn was_read(&mut self) {
        self.request = None;
    }

    /// Whether all of it is still here.
    pub(super) fn is_whole(&self) -> bool {
        self.request.is_some()
    }

    /// Whether it may be sent again though a server may have read it.
    pub(super) fn is_repeatable(&self) -> bool {
        let is_body_here = self.replay.as_ref().map_or(!self.has_body, Replay::is_here);
        self.head.is_some() && is_body_here
    }

    /// Makes the request anew that a connection took and a server may have read, if it is
    /// repeatable.
    pub(super) fn repeat(&mut self) {
        if !self.is_repeatable() {
            return;
        }
        if let Some(head) = &self.head {
            let body = self.replay.as_ref().and_then(Replay::take);
            let mut request = head().map(|()| body.unwrap_or_else(Upload::none));
            *request.version_mut() = Version::HTTP_11;
            frame(&mut request);
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
        let sender = Sender::new(client, Trace::begin());
        let nobody = None::<fn(StatusCode, &HeaderMap)>;
        let head = || Request::get("/").body(()).unwrap();
        let mut outgoing = Outgoing::new(&sender, head, Upload::none(), nobody);
        for _ in 0..3 {
            outgoing.sending().stamp(sender.trace);
            outgoing.sending().stamp(sender.trace);
            let sent = outgoing.sending().request.take().unwrap();
            let lines: Vec<_> = sent.headers().get_all(TRACEPARENT).iter().collect();
            assert_eq!(lines, [&sender.trace.to_header()]);
            assert!(outgoing.is_repeatable() && !outgoing.is_whole());
            outgoing.repeat();
        }
        let head = || Request::post("/").body(()).unwrap();
        let mut outgoing = Outgoing::new(&sender, head, Upload::none(), nobody);
        outgoing.sending().request.take();
        outgoing.repeat();
        assert!(!outgoing.is_repeatable() && !outgoing.is_whole());
    }
}
