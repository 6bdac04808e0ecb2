//! The only way to an upstream: the head that it gets, the interim responses that come back, the
//! body that waits to be asked for, and how long all of it takes.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{EXPECT, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use tokio::time::Instant;

use super::affinity;
use super::arm;
use super::connection::Snapshot;
use super::content::Content;
use super::edge;
use super::edged::{Reading, Side, Why, WhyServers};
use super::grpc::{Call, Deadline, Terms, within};
use super::invalidation::Invalidation;
use super::record::Record;
use super::rejection::Rejection;
use super::request::Request;
use crate::base::body::{Inbound, Progress, Upload};
use crate::base::boxed;
use crate::base::expect::Gate;
use crate::base::facts::{ClientAddr, is_event_stream};
use crate::base::grpc::GRPC_TIMEOUT;
use crate::base::grpc_web::Web;
use crate::base::interim::Interim;
use crate::base::trace::Trace;
use crate::caching::Write;
use crate::config::WriteThrough;
use crate::forwarding::fields;
use crate::observe::Took;
use crate::oidc;
use crate::runtime::Running;
use crate::store::EpochChange;
use crate::upstream::{Attempts, Download, Failure, OnInterim, Sender, TimeLimit, Upstream};
use crate::{auth, session};

/// Fields that the gateway adds to a request for its upstream.
pub(super) type Fields = Vec<(HeaderName, HeaderValue)>;

/// Sends requests of one client to one upstream. It owns what it needs, so that a response may also
/// be fetched when its client has gone.
#[derive(Debug)]
pub(super) struct Dispatch {
    running: Snapshot,
    /// Index of the upstream.
    upstream: usize,
    /// The index of a split route, and the number of the arm that is asked.
    arm: Option<(usize, usize)>,
    sender: Sender,
    /// Who takes it in place of the upstream's servers, where those need not.
    reading: Option<Arc<Reading>>,
    /// Where interim responses go.
    interim: Option<Arc<Interim>>,
    /// What holds the request's body back until the upstream asks for it.
    gate: Option<Arc<Gate>>,
    /// How long a stream of events may pause.
    stream_timeout: Duration,
    /// When the response must have begun, as the route says, also for calls.
    deadline: Option<Instant>,
}

impl Dispatch {
    /// For a client that waits for the response.
    pub(super) fn new(request: &Request<'_>) -> Self {
        let most = request.plan().config.server.limits.interim_responses;
        let Request { received, .. } = request;
        let interim = received.connection.open_interim(received.version, most);
        Self::to(request, request.upstream(), interim)
    }

    /// For a response that no client waits for.
    pub(super) fn in_background(request: &Request<'_>) -> Self {
        Self::to(request, request.upstream(), None)
    }

    fn to(request: &Request<'_>, upstream: usize, interim: Option<Arc<Interim>>) -> Self {
        let deadline = request.resolved.edged.as_ref().and_then(|edged| edged.deadline);
        let time = request.route.edge.as_ref().and_then(|edge| edge.deadline);
        // Who was asked is told where requests are sent again, and where lines are written.
        let is_told = request.running().upstreams[upstream].retries()
            || request.gateway().observer.access.is_on();
        Self {
            running: Arc::clone(&request.received.running),
            upstream,
            arm: watched(request),
            reading: reading(request),
            sender: Sender {
                deadline: deadline.zip(time).map(|(at, time)| TimeLimit::until(at, time)),
                key: affinity::key(request, upstream),
                attempts: is_told.then(Arc::default),
                tracer: request.received.tracer().cloned(),
                ..Sender::new(request.client().address, request.received.ids.trace)
            },
            interim,
            gate: None,
            stream_timeout: request.route.written.stream_timeout,
            deadline,
        }
    }

    /// For a copy that goes to this upstream, and that nobody waits for.
    pub(super) fn aside(request: &Request<'_>, upstream: usize) -> Self {
        let dispatch = Self::to(request, upstream, None);
        let sender = Sender { deadline: None, attempts: None, ..dispatch.sender };
        Self { arm: None, reading: None, sender, deadline: None, ..dispatch }
    }

    /// For a request that was accepted before, of this client and as part of this trace.
    pub(super) fn of_delivery(
        running: &Arc<Running>,
        upstream: usize,
        (client, trace): (ClientAddr, Trace),
    ) -> Self {
        Self {
            running: Arc::new(Arc::clone(running)),
            upstream,
            arm: None,
            sender: Sender::new(client, trace),
            reading: None,
            interim: None,
            gate: None,
            stream_timeout: Duration::ZERO,
            deadline: None,
        }
    }

    /// What is answered is stored for all: readers may be behind what somebody has written, and
    /// made stale, a moment ago.
    pub(super) fn is_stored(&mut self) {
        if let Some(reading) = self.reading.take_if(|reading| !reading.may_be_stored) {
            let _ = reading.followed.set(WhyServers::Stored);
        }
    }

    /// Whether readers are asked, and have answered all that was asked until now.
    pub(super) fn asks_readers(&self) -> bool {
        self.readers().is_some()
    }

    /// What readers take, unless servers have followed them once.
    fn readers(&self) -> Option<&Reading> {
        self.reading.as_deref().filter(|reading| reading.followed.get().is_none())
    }

    /// Notes what a call keeps to. `of_call`: the client's fields, if it is one of gRPC.
    fn keep_to(&mut self, terms: Option<&Terms<'_>>, of_call: Option<&HeaderMap>) {
        let sender = &mut self.sender;
        sender.is_call = of_call.is_some() || terms.is_some();
        let Some(terms) = terms else {
            sender.is_clients_time = of_call.is_some_and(|it| it.contains_key(GRPC_TIMEOUT));
            return;
        };
        sender.idle_timeout = Some(terms.policy.idle_timeout);
        sender.is_clients_time = terms.deadline.is_some_and(|it| it.of_the_route().is_none());
        let of_policy = terms.deadline.and_then(Deadline::of_the_route);
        let limits = sender.deadline.take().into_iter().chain(of_policy);
        sender.deadline = limits.min_by_key(TimeLimit::at);
        self.deadline = sender.deadline.as_ref().map(TimeLimit::at);
    }

    /// The client may be slow to send this body: what it takes is none of the upstream's time.
    fn follow(&mut self, upload: &mut Upload) {
        if let Some(limit) = &mut self.sender.deadline {
            limit.begins_behind(upload.timed());
        }
    }

    /// Where it is told how often the upstream was asked.
    pub(super) fn attempts(&self) -> Option<Arc<Attempts>> {
        self.sender.attempts.clone()
    }

    fn upstream(&self) -> &Upstream {
        &self.running.upstreams[self.upstream]
    }

    /// Sends a request, and returns once the head of its response is there. `head` makes the
    /// request's as often as it is sent. `took` says how long that was, also of a failure.
    ///
    /// # Errors
    /// See [`Upstream::send`].
    pub(super) async fn send(
        &self,
        head: impl Fn() -> http::Request<()> + Send + Sync,
        upload: Upload,
        took: &mut Option<Took>,
    ) -> Result<Response<Box<Download>>, Failure> {
        let (sent_at, has_body) = (Instant::now(), !upload.is_none());
        let mut before = Duration::ZERO;
        if let Some(reading) = self.readers() {
            if let Some(read) = boxed::rare(|| self.read(reading, &head)).await {
                let elapsed = took.insert(Took::since(sent_at)).time;
                return self.told(read, elapsed, has_body);
            }
            before = sent_at.elapsed();
        }
        let on_interim = on_interim(self.interim.clone(), self.gate.clone());
        let upstream = self.upstream();
        let mut outgoing = upstream.outgoing(&self.sender, head, upload, on_interim);
        let sent = std::pin::pin!(upstream.send(&mut outgoing));
        let response = in_time(sent, self.deadline).await;
        let elapsed = took.insert(Took::since(sent_at)).time;
        upstream.note_time(elapsed.saturating_sub(before), response.as_ref().err());
        self.told(response, elapsed, has_body)
    }

    /// Asks readers; nothing where the upstream's servers are to answer.
    async fn read(
        &self,
        reading: &Reading,
        head: &(impl Fn() -> http::Request<()> + Send + Sync),
    ) -> Option<Result<Response<Box<Download>>, Failure>> {
        let head = || {
            let mut head = head();
            if let Some((name, value)) = &reading.position {
                head.headers_mut().insert(name, value.clone());
            }
            head
        };
        let readers = self.running.upstreams.get(reading.upstream)?;
        let on_interim = on_interim(self.interim.clone(), None);
        let mut outgoing = readers.outgoing(&self.sender, head, Upload::none(), on_interim);
        let asked_at = Instant::now();
        let sent = in_time(std::pin::pin!(readers.send(&mut outgoing)), self.deadline).await;
        readers.note_time(asked_at.elapsed(), sent.as_ref().err());
        let why = match &sent {
            Ok(response) if response.status() == StatusCode::TOO_EARLY => WhyServers::Behind,
            Err(failure) if failure.is_others_turn() => WhyServers::Out,
            _ => return Some(sent),
        };
        let _ = reading.followed.set(why);
        None
    }

    /// What is told of how a request ended, and its response. The rest is as for [`Self::note`].
    fn told(
        &self,
        mut response: Result<Response<Box<Download>>, Failure>,
        took: Duration,
        has_body: bool,
    ) -> Result<Response<Box<Download>>, Failure> {
        self.note(&response, took, has_body);
        if let Ok(response) = &mut response
            && is_event_stream(response.headers())
        {
            response.body_mut().set_stream(self.stream_timeout);
        }
        response
    }

    /// Asks for another protocol; as [`Self::send`].
    ///
    /// # Errors
    /// See [`Upstream::upgrade`].
    pub(super) async fn upgrade(
        &self,
        head: impl Fn() -> http::Request<()> + Send,
        took: &mut Option<Took>,
    ) -> Result<Response<Box<Download>>, Failure> {
        let sent_at = Instant::now();
        let opened = self.upstream().upgrade(&self.sender, head);
        let response = in_time(std::pin::pin!(opened), self.deadline).await;
        let elapsed = took.insert(Took::since(sent_at)).time;
        self.upstream().note_time(elapsed, response.as_ref().err());
        self.note(&response, elapsed, false);
        response
    }

    /// Tells the canary of a split route what was answered. `took`: how long that was, of which the
    /// client had a part where it `has_body`. What others have used up of the deadline is no time
    /// of the upstream.
    fn note(
        &self,
        sent: &Result<Response<Box<Download>>, Failure>,
        took: Duration,
        has_body: bool,
    ) {
        let Some((route, arm)) = self.arm else { return };
        let traffic = self.running.traffic_of(route);
        if let Some(canary) = traffic.and_then(|traffic| traffic.canary.as_ref()) {
            let is_clients_time = self.sender.is_clients_time;
            let is_upstreams = match sent {
                Err(Failure::Deadline) => self.sender.blames_upstream(),
                _ => !has_body,
            };
            arm::note(canary, arm, (sent, is_clients_time), is_upstreams.then_some(took));
        }
    }
}

/// Who takes a request in place of its upstream's servers.
fn reading(request: &Request<'_>) -> Option<Arc<Reading>> {
    match request.resolved.side()? {
        Side::Readers(reading) => Some(Arc::clone(reading)),
        Side::Servers(_) => None,
    }
}

/// The arm of a split route that is asked, where it is judged by its answers: not by those that
/// somebody has asked it for.
fn watched(request: &Request<'_>) -> Option<(usize, usize)> {
    let chosen = request.resolved.chosen()?;
    (!matches!(chosen.why, Why::Forced)).then_some((request.route.index, chosen.arm))
}

/// What `sent` returns, unless the deadline comes first; dropping it cancels it then. Pinned by the
/// caller, and the clock boxed: most requests have none, and should have no room for one.
async fn in_time<T>(
    sent: Pin<&mut impl Future<Output = Result<T, Failure>>>,
    deadline: Option<Instant>,
) -> Result<T, Failure> {
    match deadline {
        None => sent.await,
        Some(at) => {
            let bounded = Box::pin(tokio::time::timeout_at(at, sent));
            bounded.await.unwrap_or(Err(Failure::Deadline))
        }
    }
}

/// Passes interim responses on to a client; a 100 lets its body go, where that is held back.
fn on_interim(interim: Option<Arc<Interim>>, gate: Option<Arc<Gate>>) -> Option<impl OnInterim> {
    let is_wanted = interim.is_some() || gate.is_some();
    let offer = move |status, fields: &HeaderMap| {
        if let (StatusCode::CONTINUE, Some(gate)) = (status, &gate) {
            gate.open();
        }
        if let Some(interim) = interim.as_ref().filter(|interim| interim.is_open())
            && let Some(head) = fields::interim(status, fields)
        {
            interim.offer(&head);
        }
    };
    is_wanted.then_some(offer)
}

/// What the head that the upstream gets is made of.
#[derive(Debug)]
pub(super) struct Outline<'a> {
    request: Request<'a>,
    /// The client's own, without what is for the gateway alone.
    fields: Cow<'a, HeaderMap>,
    added: Fields,
}

impl<'a> Outline<'a> {
    /// `fields` are those that the client sent, `added` those of the session and of limits; those
    /// of the caller's claims come from the request.
    pub(super) fn new(
        request: &Request<'a>,
        mut fields: Cow<'a, HeaderMap>,
        added: Fields,
    ) -> Self {
        if let Some(policy) = &request.route.auth {
            auth::strip(policy, fields.to_mut());
        }
        if let Some(policy) = &request.route.session {
            session::strip(policy, fields.to_mut());
        }
        if !request.plan().providers.is_empty() {
            oidc::strip_cookies(&mut fields);
        }
        Self { request: *request, fields, added }
    }

    /// The head.
    pub(super) fn head(&self) -> http::Request<()> {
        let Request { received, target, caller, .. } = self.request;
        let (method, is_grpc) = (&received.method, received.is_grpc);
        let incoming = fields::Incoming { method, target, fields: &self.fields, is_grpc };
        let between = (&received.connection.peer, self.request.client());
        let claims = caller.iter().flat_map(|identity| &identity.headers);
        let added = claims.chain(&self.added).cloned();
        let policy = &self.request.plan().headers;
        let mut head = fields::outgoing(policy, incoming, between, &received.ids, added);
        if let Some(edge) = &self.request.route.edge {
            edge::prepare(&self.request, edge, &mut head);
        }
        head
    }
}

/// A request as it is sent on, with its body.
#[derive(Debug)]
pub(super) struct Outbound<'a> {
    outline: Outline<'a>,
    upload: Upload,
    progress: Arc<Progress>,
    gate: Option<Arc<Gate>>,
    /// What a gRPC call keeps to.
    terms: Option<Terms<'a>>,
}

impl<'a> Outbound<'a> {
    /// The client's request for its upstream.
    pub(super) fn new(
        request: &Request<'a>,
        head: &mut Parts,
        body: Inbound,
        added: Fields,
    ) -> Self {
        let Request { received, .. } = *request;
        note_upgrade(request, head);
        // A streaming call may rest; over HTTP/1.1 there is none, whatever the content type says.
        let may_rest = received.version == Version::HTTP_2 && received.is_grpc;
        let mut limits = request.plan().upload;
        if let Some(most) = request.route.edge.as_ref().and_then(|edge| edge.body_bytes) {
            limits.bytes_max = most;
        }
        let (mut upload, progress) = Upload::new(body, limits, may_rest);
        let terms = Terms::of(request, &head.headers);
        if let Some(terms) = &terms {
            upload.bound_messages(terms.policy.message_bytes);
            if terms.web.is_some_and(Web::is_text) {
                upload.decode();
            }
        }
        let timeout = request.running().upstreams[request.upstream()].continue_timeout();
        let gate = held_back(head, &mut upload, timeout);
        let fields = Cow::Owned(std::mem::take(&mut head.headers));
        let outline = Outline::new(request, fields, added);
        Self { outline, upload, progress, gate, terms }
    }

    /// What others may know of its body.
    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

/// Leaves the body with a client that waits to be asked for it, until the upstream asks. Not over
/// HTTP/2, where hyper asks nobody: its clients send when they have waited long enough.
fn held_back(head: &Parts, upload: &mut Upload, timeout: Duration) -> Option<Arc<Gate>> {
    let may_wait = head.version == Version::HTTP_11 && !timeout.is_zero() && !upload.is_none();
    if may_wait && head.headers.contains_key(EXPECT) { upload.hold_back(timeout) } else { None }
}

/// What came of a request that was sent, or why it was cut short.
type Sent = Result<Result<Response<Box<Download>>, Failure>, Rejection>;

/// Sends a request on, and makes stale what it changes. `write` is what becomes of its answer,
/// where that may be stored. `store_is_away`: the store has just not answered this request, and is
/// not waited for again.
///
/// # Errors
/// The upstream's failure, or the client's own where its body was the reason.
pub(super) async fn forward(
    request: &Request<'_>,
    outbound: Outbound<'_>,
    (mut write, store_is_away): (Option<Box<Write>>, bool),
    record: &mut Record,
) -> Result<Response<Content>, Rejection> {
    let Outbound { outline, mut upload, progress, gate, mut terms } = outbound;
    let mut standing = terms.as_mut().and_then(|terms| terms.standing.take());
    let is_held_back = gate.is_some();
    let mut dispatch = Dispatch::new(request);
    dispatch.gate = gate;
    let of_call = request.received.is_grpc.then_some(&*outline.fields);
    dispatch.keep_to(terms.as_ref(), of_call);
    dispatch.follow(&mut upload);
    record.note_forwarded();
    record.note_attempts(dispatch.attempts());
    record.note_upload(&upload);
    let head = || {
        let mut head = outline.head();
        if is_held_back {
            head.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        if let Some(terms) = &terms {
            terms.stamp(head.headers_mut());
        }
        head
    };
    // From here on the upstream may act; a client that leaves now must not leave stale copies
    // behind.
    let mut invalidation = Invalidation::arm(request, store_is_away);
    let clients = terms.as_ref().and_then(|terms| terms.deadline?.of_the_client());
    let sent = {
        let sent = std::pin::pin!(dispatch.send(head, upload, record.upstream_time()));
        within(sent, clients, &mut standing).await
    };
    if sent.is_err() {
        record.upstream_time().get_or_insert_with(|| Took::since(request.received.started));
    }
    let mut changes = None;
    if let Some(invalidation) = &mut invalidation {
        let invalidated = boxed::rare(|| invalidate(request, invalidation, (&sent, &mut write)));
        changes = invalidated.await;
    }
    match sent {
        Ok(Ok(response)) => {
            if let (Some(write), Some(changes)) = (write, changes) {
                let method = &request.received.method;
                let stored = boxed::rare(|| write.store(&changes, response, method));
                return Ok(stored.await.map(Content::from));
            }
            let terms = terms.map(|terms| Terms { standing, ..terms });
            Ok(response.map(|download| match terms {
                None => Content::Download(download),
                Some(terms) => Content::Call(Box::new(Call::new(download, progress, terms))),
            }))
        }
        Ok(Err(failure)) => Err(refusal(failure, &progress, terms.as_ref())),
        Err(ended) => Err(ended),
    }
}

/// Makes stale what a request has changed, or may have; what was there before, if that is wanted
/// for `write` and known.
async fn invalidate(
    request: &Request<'_>,
    invalidation: &mut Invalidation<'_>,
    (sent, write): (&Sent, &mut Option<Box<Write>>),
) -> Option<Vec<EpochChange>> {
    let answered = match sent {
        Ok(Ok(response)) => {
            let method = &request.received.method;
            write.take_if(|it| !it.is_read_by(&invalidation.own(), response, method));
            outcome(response, stores_writes(request))
        }
        Ok(Err(failure)) if !failure.may_have_acted() => {
            invalidation.disarm();
            return None;
        }
        _ => {
            invalidation.carry_out(None).await;
            return None;
        }
    };
    invalidation.carry_out_for(answered, write.is_some()).await
}

/// Whether answers to writes are stored on its route.
fn stores_writes(request: &Request<'_>) -> bool {
    let policy = request.route.written.cache.as_ref();
    policy.is_some_and(|it| it.write_through != WriteThrough::Off)
}

/// What an answer says of what was done: nothing, where it says that nothing was, and another
/// server, or the same one before, may have done it. Nor does the failure of a server where answers
/// to writes are stored (`stores_writes`): another write that it overlaps must not store what was
/// there before it.
pub(super) fn outcome(
    response: &Response<Box<Download>>,
    stores_writes: bool,
) -> Option<(StatusCode, &HeaderMap)> {
    let status = response.status();
    let has_failed = status.is_client_error() || status.is_server_error();
    let is_unknown =
        has_failed && response.body().is_in_doubt() || status.is_server_error() && stores_writes;
    (!is_unknown).then(|| (status, response.headers()))
}

/// What a client reads of a failure. When its own body was the reason, no upstream is to blame.
fn refusal(failure: Failure, progress: &Progress, call: Option<&Terms<'_>>) -> Rejection {
    match (progress.fault(), failure, call) {
        (Some(fault), ..) => fault.into(),
        (None, Failure::Timeout | Failure::Starved, Some(_)) => Rejection::CallIdle,
        // The route has two: one for all requests, and one for calls.
        (None, Failure::Deadline, Some(Terms { deadline: Some(own), .. })) if own.has_passed() => {
            own.exceeded()
        }
        (None, failure, _) => failure.into(),
    }
}

/// Says once for each route that an upgrade was asked for: its upstream gets a plain request, and
/// answers something that explains nothing.
pub(super) fn note_upgrade(request: &Request<'_>, head: &Parts) {
    let Some(wanted) = head.headers.get(UPGRADE).map(HeaderValue::as_bytes) else { return };
    // Offered by clients that can do without: HTTP/1.0 has none, `h2c` is an HTTP of its own.
    let is = |protocol: &[u8]| wanted.trim_ascii().eq_ignore_ascii_case(protocol);
    if head.version != Version::HTTP_11 || is(b"h2c") {
        return;
    }
    let protocol = if is(b"websocket") { "a WebSocket" } else { "another protocol" };
    let route = &request.route.name;
    if request.gateway().observer.logged.first(protocol, route) {
        tracing::warn!(
            "routes.{route}: a client asked for {protocol} (Upgrade), and the upstream got a \
             plain {} without it; this is said once for each route\n    help: {}",
            head.method,
            if is(b"websocket") {
                "set upgrade = [\"websocket\"] on the route, if its upstream speaks it"
            } else {
                "let such clients reach the upstream past the gateway: WebSocket is the only \
                 protocol that a route can change to"
            }
        );
    }
}
