//! The way of one request through the gateway: admitted, served, delivered. Read `answer` from top
//! to bottom; `admit` is shared with `explain`, which asks what would happen.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::request::Parts;
use http::{HeaderMap, Method, Response};
use tokio::sync::oneshot;

use super::accept;
use super::arm;
use super::body::Body;
use super::challenge;
use super::checks::{Admitted, By, Checks, Mode};
use super::clauses;
use super::connection::Connection;
use super::content::Content;
use super::degraded::Degraded;
use super::deliver::{self, Answer};
use super::deliveries;
use super::dispatch::{self, Dispatch, Fields, Outbound, Outline};
use super::faults;
use super::login;
use super::mirror;
use super::oidc;
use super::once::{self, Before, First, Turn};
use super::pools;
use super::provider_tokens;
use super::record::Record;
use super::rejection::Rejection;
use super::request::{Received, Request, Resolved};
use super::resolve::{Resolution, resolve};
use super::settle::{ended, settle};
use super::signed;
use super::streamed;
use super::transaction::Transaction;
use super::transport::CacheTransport;
use super::upgrade;
use super::webhook;
use crate::auth::Places;
use crate::base::body::Inbound;
use crate::base::boxed;
use crate::base::facts::Caller;
use crate::caching::{self, CacheNotes, Found, Miss, NotFetched, Refresh, Served, Write};
use crate::deliver::Refused;
use crate::guard::{self, Handshake};
use crate::limit::{Quota, Receipt, SlotGuard};
use crate::plan::RouteEdge;
use crate::runtime::Grant;
use crate::store::budget;

/// Answers one request. There is always a response: whatever goes wrong becomes one.
///
/// No `async fn`, which would have room for the request beside that for its parts.
pub fn handle<B: Into<Inbound>>(
    connection: &Arc<Connection>,
    request: http::Request<B>,
) -> impl Future<Output = Response<Body>> + Send + use<B> {
    let (mut head, body) = request.into_parts();
    if head.method == Method::CONNECT {
        guard::settle_connect(&mut head);
    }
    let mut transaction = Transaction::open(connection, &mut head);
    let mut body = body.into();
    async move {
        // Rare: boxed, it takes no room in the other requests.
        let Transaction { received, resolved, .. } = &*transaction;
        if let Some(token) = challenge::token(received, &head)
            && let Some(response) = Box::pin(challenge::answer(received, resolved, token)).await
        {
            return Body::attach(response, transaction);
        }
        if once::may_outlive(&transaction.received, &head) {
            // Rare, too.
            return Box::pin(outlive(transaction, head, body)).await;
        }
        let response = answer(&mut transaction, &mut head, &mut body).await;
        Body::attach(response, transaction)
    }
}

/// Answers a request in a task of its own: once it has taken its idempotency key and is sent, it
/// goes on when its client leaves, so that it is known how it ended. Until then, a client that
/// leaves ends it.
async fn outlive(
    mut transaction: Box<Transaction>,
    mut head: Parts,
    mut body: Inbound,
) -> Response<Body> {
    let stays = Arc::<AtomicBool>::default();
    transaction.received.stays = Some(Arc::clone(&stays));
    let claims = Arc::clone(&transaction.received.connection.gateway.claims);
    let (client, mut left) = oneshot::channel::<()>();
    let task = claims.exchanges().spawn(async move {
        let response = {
            let mut answered = std::pin::pin!(answer(&mut transaction, &mut head, &mut body));
            let first = tokio::select! {
                response = &mut answered => Some(response),
                _ = &mut left => None,
            };
            match first {
                None if stays.load(Ordering::Acquire) => Some(answered.await),
                first => first,
            }
        };
        response.map(|response| Body::attach(response, transaction))
    });
    let answered = task.await;
    drop(client);
    match answered {
        Ok(Some(response)) => response,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The process ends, and nobody waits for an answer.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// `head` and `body` are lent, so that nobody else has room for them; whoever sends the request on
/// takes what it needs.
async fn answer(
    transaction: &mut Transaction,
    head: &mut Parts,
    body: &mut Inbound,
) -> Response<Content> {
    let Transaction { received, resolved, grant, cache, record, slot } = transaction;
    let has_body = !http_body::Body::is_end_stream(&*body);
    let (request, asked) = match sought(received, resolved, head, has_body) {
        Ok(Sought::Route(request, asked)) => (request, asked),
        Ok(Sought::Answer(response)) => return response,
        Err(rejection) => return deliver::refusal(&rejection, received, resolved, record),
    };
    let is_handshake = asked.is_some();

    // Admit: who calls, and may the request pass? One question to the store, whatever the route
    // asks for.
    let checked = if is_passed(&request) {
        open(request, head)
    } else {
        check(request, head, grant, record, slot).await
    };
    let Checked { request, admitted, turn, found, degraded } = checked;
    let Admitted { receipt, quota, added } = admitted;

    // Serve: what is stored answers it, or its upstream does.
    let outcome = match found {
        Err(rejection) => oidc::led(&request, head, rejection),
        Ok(Some(Found::OnlyIfCached)) => Err(Rejection::OnlyIfCached),
        Ok(Some(Found::Hit(served, stale))) => {
            refresh(&request, head, added, stale);
            Ok(Answer::stored(take_notes(served, cache)))
        }
        Ok(Some(Found::Miss(miss))) => {
            dispatch::note_upgrade(&request, head);
            let outbound = ForCache::new(&request, head, added);
            // Large: boxed, it takes no room in the request of a route without a cache.
            let fetched = boxed::pin(|| fetch(&request, outbound, miss, cache, record));
            budget::scope_from(request.waited, fetched).await.map(Answer::fetched)
        }
        Ok(passed) => {
            let write = note_pass(passed, cache);
            let told = write.as_ref().map(|write| write.told());
            let message = Message { head, body, added };
            let sent = match way(&request, turn, asked) {
                Way::Aside(aside) => {
                    boxed::rare(|| answer_aside(&request, aside, message, record)).await
                }
                Way::Forward(first) => {
                    let (outbound, first) = outbound(&request, message, first);
                    let write = (write, degraded.cache_is_away);
                    // The one place that calls it: a second one costs 400 instructions a request.
                    let sent = dispatch::forward(&request, outbound, write, record).await;
                    match (first, login::issues(&request)) {
                        (None, None) => sent.map(Answer::fetched),
                        (Some(first), _) => once::keep(first, sent).await,
                        (None, Some(issue)) => {
                            boxed::rare(|| login::issue(&request, issue, sent)).await
                        }
                    }
                }
            };
            if let Some(notes) = told.as_ref().and_then(|told| told.get()) {
                *cache = Some(notes.clone());
            }
            sent
        }
    };

    // Deliver: the response, or why there is none.
    let told = (cache.as_ref(), &quota);
    delivered(&request, (outcome, receipt), told, (degraded, is_handshake), record)
}

/// What its client gets of it, and what it is charged in the end.
fn delivered(
    request: &Request<'_>,
    (outcome, receipt): (Result<Answer, Rejection>, Option<Receipt>),
    (cache, quota): (Option<&CacheNotes>, &Quota),
    (degraded, is_handshake): (Degraded, bool),
    record: &mut Record,
) -> Response<Content> {
    let is_replayed = matches!(&outcome, Ok(answer) if answer.is_replayed);
    if is_replayed {
        record.note_idempotency("replayed");
    }
    // What is given once more costs nothing, which its refund has seen to.
    settle(request, receipt.filter(|_| !is_replayed), &ended(&outcome));
    let mut response = match outcome {
        Ok(answer) => deliver::answer(request, answer, cache, quota),
        Err(rejection) => refused(request, &rejection, is_handshake, record),
    };
    deliver::stamp_degraded(response.headers_mut(), degraded, request.received);
    if !is_handshake {
        return response;
    }
    upgrade::end_unless_switched(response, request.received.version)
}

/// Takes what is told of a request in which the cache has no part but to store its answer.
fn note_pass(passed: Option<Found>, cache: &mut Option<CacheNotes>) -> Option<Box<Write>> {
    match passed? {
        Found::Pass(notes) => {
            *cache = Some(notes);
            None
        }
        Found::Write(write) => {
            *cache = Some(write.notes().clone());
            Some(write)
        }
        Found::Hit(..) | Found::Miss(_) | Found::OnlyIfCached => None,
    }
}

/// What is left of a request that was admitted.
struct Message<'h> {
    head: &'h mut Parts,
    body: &'h mut Inbound,
    /// What the upstream is told beside that.
    added: Fields,
}

/// Who answers a request that the cache does not.
enum Way {
    /// Its upstream. The first one with its idempotency key has its answer kept.
    Forward(Option<Box<First>>),
    /// Few requests go another way.
    Aside(Aside),
}

/// Ways that few requests take.
enum Aside {
    /// The gateway itself answers on this route.
    Own,
    /// It asks for another protocol.
    Upgrade(Box<Handshake>),
    /// It was answered before.
    Replay(Box<Before>),
}

fn way(request: &Request<'_>, turn: Turn, asked: Option<Box<Handshake>>) -> Way {
    if request.route.edge.as_deref().is_some_and(RouteEdge::answers) {
        return Way::Aside(Aside::Own);
    }
    match (turn, asked) {
        (Turn::Any, None) => Way::Forward(None),
        (Turn::First(first), _) => Way::Forward(Some(first)),
        (Turn::Any, Some(handshake)) => Way::Aside(Aside::Upgrade(handshake)),
        (Turn::Again(before), _) => Way::Aside(Aside::Replay(before)),
    }
}

/// What is sent on, and a copy of it where its route wants one.
fn outbound<'a>(
    request: &Request<'a>,
    message: Message<'_>,
    mut first: Option<Box<First>>,
) -> (Outbound<'a>, Option<once::Kept>) {
    let Message { head, body, added } = message;
    if let Some(first) = &mut first {
        *body = first.send(request, body.take());
    }
    mirror::copy(request, head, body, &added);
    let outbound = Outbound::new(request, head, body.take(), added);
    let first = first.map(|first| (first, outbound.progress()));
    (outbound, first)
}

/// Answers a request in one of the ways that few take.
///
/// # Errors
/// It is refused there.
async fn answer_aside(
    request: &Request<'_>,
    aside: Aside,
    message: Message<'_>,
    record: &mut Record,
) -> Result<Answer, Rejection> {
    let Message { head, body, added } = message;
    match aside {
        Aside::Own => {
            let edge = request.route.edge.as_deref().ok_or(Refused::NotFound)?;
            answered(request, edge, (head, body), added, record).await.map(Answer::fetched)
        }
        Aside::Upgrade(handshake) => {
            upgrade::open(request, head, added, *handshake, record).await.map(Answer::fetched)
        }
        Aside::Replay(before) => once::replay(request, head, body.take(), before).await,
    }
}

/// What the gateway itself answers to a request that was admitted: that it is delivered later or
/// stored, what became of one that was to be delivered, or that an event is taken.
///
/// # Errors
/// It is not accepted, or there is nothing to tell.
async fn answered(
    request: &Request<'_>,
    edge: &RouteEdge,
    (head, body): (&mut Parts, &mut Inbound),
    added: Fields,
    record: &mut Record,
) -> Result<Response<Content>, Rejection> {
    if let Some(deferred) = &edge.deferred {
        let message = (head, body.take());
        return accept::accept(request, deferred, message, added, record).await;
    }
    if let Some(streamed) = &edge.streamed {
        let message = (head, body.take());
        return Box::pin(streamed::store(request, streamed, message, added, record)).await;
    }
    if let Some(names) = &edge.brings {
        return webhook::take(request, names, (head, body.take())).await;
    }
    if let Some(route) = &edge.oidc {
        return Box::pin(oidc::answer(request, route, (head, body.take()))).await;
    }
    if let Some(answers) = edge.login.as_ref().and_then(|login| login.answers.as_ref()) {
        return Box::pin(login::answer(request, answers, head)).await;
    }
    if let Some(signed) = &edge.signed {
        return Box::pin(signed::answer(request, signed, (head, body.take()))).await;
    }
    let prefix = edge.tells_at.as_deref().ok_or(Refused::NotFound)?;
    deliveries::answer(request, prefix, record).await
}

/// The answer to a request that was refused on its route.
fn refused(
    request: &Request<'_>,
    rejection: &Rejection,
    is_handshake: bool,
    record: &mut Record,
) -> Response<Content> {
    let Request { received, resolved, .. } = request;
    let mut refused = deliver::refusal(rejection, received, resolved, record);
    // A tunnel must not begin with another answer.
    if !is_handshake {
        deliver::stand_in(request, rejection, &mut refused);
    }
    refused
}

/// What came of the checks.
struct Checked<'a> {
    /// The request, with what let it in.
    request: Request<'a>,
    admitted: Admitted<'a>,
    /// Whether another one with its idempotency key came before.
    turn: Turn,
    /// What the cache has for it, or why it may not pass.
    found: Result<Option<Found>, Rejection>,
    degraded: Degraded,
}

/// Whether a request passes without a question to anybody. No future is made for it then.
fn is_passed(request: &Request<'_>) -> bool {
    let edge = request.route.edge.as_ref();
    let is_looked_at = edge.is_some_and(|edge| edge.faults.is_some() || edge.login.is_some());
    request.route.is_open() && !is_looked_at
}

/// Of a request on a route that is open.
fn open<'a>(request: Request<'a>, head: &Parts) -> Checked<'a> {
    arm::choose(&request, &head.headers);
    pools::choose(&request, &head.headers, None, false);
    let (admitted, degraded) = (Admitted::default(), Degraded::default());
    Checked { request, admitted, turn: Turn::Any, found: Ok(None), degraded }
}

/// Asks whether the request may pass, and whether what is stored answers it. A function of its own,
/// so that nobody keeps room for the checks while the upstream is asked.
async fn check<'a>(
    request: Request<'a>,
    head: &Parts,
    grant: &'a mut Grant,
    record: &mut Record,
    slot: &mut Option<SlotGuard>,
) -> Checked<'a> {
    let faults = request.route.edge.as_ref().and_then(|edge| edge.faults.as_ref());
    if let Some(faults) = faults {
        // Before anything is asked: what the store said would be old afterwards. Rare: boxed, it
        // takes no room in the other requests.
        Box::pin(faults::delay(&request, faults)).await;
    }
    let abort = |request: &Request<'_>| {
        login::may_log_in(request, head)?;
        faults.map_or(Ok(()), |it| faults::abort(request, it))
    };
    if request.route.is_open() {
        return Checked { found: abort(&request).map(|()| None), ..open(request, head) };
    }
    let Grant { caller, session } = grant;
    let mut checks = Checks::new(request, head, Mode::Charge);
    let mut turn = Turn::Any;
    let (admitted, found) = match admit(&mut checks, caller, record, slot).await {
        Ok(mut admitted) => match allowed(&checks.request, &mut admitted, abort).await {
            Ok(()) => match checks.turn(record).await {
                Ok(its) => {
                    turn = its;
                    (admitted, Ok(checks.look().await))
                }
                Err(rejection) => (admitted, Err(rejection)),
            },
            Err(rejection) => (admitted, Err(rejection)),
        },
        Err(rejection) => (Admitted::default(), Err(rejection)),
    };
    *session = checks.take_attached_session().map(Arc::new);
    let degraded = checks.degraded();
    let waited = checks.waited();
    let request = Request { session: session.as_ref(), waited, ..checks.request };
    Checked { request, admitted, turn, found, degraded }
}

/// What an admitted request may still fail of: faults on purpose, and a provider that has ended
/// what its session rests on.
async fn allowed<'a>(
    request: &Request<'a>,
    admitted: &mut Admitted<'a>,
    abort: impl Fn(&Request<'_>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    abort(request)?;
    if provider_tokens::concerns(request) {
        // Rare: boxed, it takes no room in the other requests.
        return boxed::rare(|| provider_tokens::add(request, admitted)).await;
    }
    Ok(())
}

/// What a request is about.
enum Sought<'a> {
    /// Something on a route, and whether it asks for a WebSocket.
    Route(Request<'a>, Option<Box<Handshake>>),
    /// Something that the gateway answers itself.
    Answer(Response<Content>),
}

/// Finds what a request is about, a handshake among others.
///
/// # Errors
/// It is not well formed, or no route takes it.
fn sought<'a>(
    received: &'a Received,
    resolved: &'a mut Resolved,
    head: &Parts,
    has_body: bool,
) -> Result<Sought<'a>, Rejection> {
    Ok(match resolve(received, resolved, head, has_body)? {
        Resolution::Route(request) => {
            let asked = upgrade::asked(&request, head)?;
            Sought::Route(request, asked)
        }
        Resolution::Answer(response, _) => Sought::Answer(response),
    })
}

/// Says who calls, asks the store what all rooms want to know, and judges the answers.
///
/// # Errors
/// The request may not pass.
pub(super) async fn admit<'a>(
    checks: &mut Checks<'a, '_>,
    caller: &'a mut Caller,
    record: &mut Record,
    slot: &mut Option<SlotGuard>,
) -> Result<Admitted<'a>, Rejection> {
    checks.flood()?;
    // A bad token is refused only after its address was charged: guessing must cost something. Only
    // a token whose key is new here waits, for one fetch from its issuer, and an API key whose
    // record is, for the store.
    let Request { route, asked, .. } = checks.request;
    let (gateway, running) = (checks.request.gateway(), checks.request.running());
    let certificate = checks.request.received.connection.certificate();
    let places = Places { headers: checks.fields(), query: asked.query(), certificate };
    let (known, waited, outage) = match checks.decided_by_session(places) {
        // Large: boxed, it takes no room in the other requests.
        Some(shown) => {
            let known = boxed::rare(|| checks.identify_by_session(shown, By::Memory)).await;
            (known.caller, known.waited, known.outage)
        }
        None => {
            let identified = gateway.identify(running, route, places).await;
            checks.count(identified.judged);
            let known = identified.caller.and_then(|caller| checks.prove(caller));
            let known = known.and_then(|caller| clauses::judge(&checks.request, caller));
            (known.map_err(|it| Box::new(it.into())), identified.waited, identified.outage)
        }
    };
    let known = known.and_then(|caller| checks.refuse_other_sites(caller));
    let mut denied = match known {
        Ok(known) => {
            *caller = known;
            None
        }
        Err(denied) => Some(denied),
    };
    if let Some(Rejection::Denied(denied)) = denied.as_deref() {
        record.note_denied(denied);
    }
    record.note_identified(waited, checks.request.received);
    checks.note_caller(caller, denied.is_none(), waited);
    arm::choose(&checks.request, checks.fields());
    checks.collect()?;
    checks.ask(outage, record).await;
    if let Some(changed) = checks.changed_session() {
        denied = boxed::rare(|| checks.identify_again(changed, record)).await;
    }
    checks.choose_pool();
    checks.judge(denied, slot, record)
}

/// Fetches a response by the rules of the cache.
///
/// # Errors
/// The upstream failed, and nothing stored may stand in for it.
async fn fetch(
    request: &Request<'_>,
    outbound: ForCache,
    miss: Box<Miss>,
    cache: &mut Option<CacheNotes>,
    record: &mut Record,
) -> Result<Response<Content>, Rejection> {
    let dispatch = Dispatch::new(request);
    record.note_forwarded();
    record.note_attempts(dispatch.attempts());
    let transport = CacheTransport::new(request, dispatch, record.upstream_time());
    match caching::fetch(miss, outbound.head, outbound.fields, transport).await {
        Ok(served) => Ok(take_notes(served, cache)),
        Err(NotFetched::Upstream(failure)) => Err(failure.into()),
        Err(NotFetched::BodyLost { verdict }) => {
            *cache = Some(CacheNotes { verdict, ..CacheNotes::default() });
            Err(Rejection::CacheLost)
        }
    }
}

/// Fetches a stored response anew, behind the client's back, if that is to be.
fn refresh(request: &Request<'_>, head: &mut Parts, added: Fields, refresh: Option<Box<Refresh>>) {
    let Some(refresh) = refresh else { return };
    let ForCache { head, fields } = ForCache::new(request, head, added);
    let transport = CacheTransport::in_background(request);
    tokio::spawn(caching::refresh(refresh, head, fields, transport));
}

/// A request as the cache sends it on.
struct ForCache {
    /// The head that the upstream would get without a cache.
    head: http::Request<()>,
    /// The client's own fields: what `Vary` selects from.
    fields: Arc<HeaderMap>,
}

impl ForCache {
    fn new(request: &Request<'_>, head: &mut Parts, added: Fields) -> Self {
        let fields = Arc::new(std::mem::take(&mut head.headers));
        let head = Outline::new(request, Cow::Borrowed(&*fields), added).head();
        Self { head, fields }
    }
}

/// What the cache answers, and what is told of it.
fn take_notes(served: Served, cache: &mut Option<CacheNotes>) -> Response<Content> {
    let Served { response, notes } = served;
    *cache = Some(notes);
    response.map(Content::from)
}
