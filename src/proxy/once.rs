//! Requests that take effect once: the first one with an `Idempotency-Key` is sent and its answer
//! kept, and those that repeat it get that answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;

use super::content::{Content, Fault};
use super::deliver::Answer;
use super::rejection::Rejection;
use super::request::{Received, Request};
use crate::base::body::{Inbound, Progress, Upload};
use crate::base::boxed;
use crate::base::digested::Digested;
use crate::base::facts::is_event_stream;
use crate::capture::{BodyReader, Capture, Captured, Keep, NotKept, SharedBody};
use crate::config::Idempotency;
use crate::forwarding::fields;
use crate::idempotency::{
    Ended, Fate, Fingerprinter, IDEMPOTENCY_KEY, Key, Lock, NotOnce, Owner, Seen, after_answer,
    after_failure, covers, kept_fields, scoped,
};
use crate::limit::Correction;
use crate::observe::KeyOutcome;
use crate::runtime::{Claim, ClaimTerms, Claims};

/// What tells a client that it gets an answer once more, as Stripe says it.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// How long others wait for a request beyond what its upstream may take, if nothing is heard of it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Whether a request goes on when its client leaves, should it have taken a key by then.
pub(super) fn may_outlive(received: &Received, head: &Parts) -> bool {
    received.plan().has_idempotency && head.headers.contains_key(IDEMPOTENCY_KEY)
}

/// The key of a request; nothing where its route looks at none, or it has none and needs none.
///
/// # Errors
/// There is none, and the route needs one; or it is no key.
pub(super) fn key_of(request: &Request<'_>, headers: &HeaderMap) -> Result<Option<Key>, NotOnce> {
    let Request { received, route, .. } = request;
    let Some(policy) = &route.written.idempotency else { return Ok(None) };
    if !covers(policy, &received.method) {
        return Ok(None);
    }
    match Key::of(headers)? {
        None if policy.required => Err(NotOnce::Missing),
        key => Ok(key),
    }
}

/// The claim of a request to its key.
pub(super) fn claim(request: &Request<'_>, key: &Key) -> Option<Claim> {
    let policy = request.route.written.idempotency.as_ref()?;
    let owner = Owner::of(request.caller, request.client().address);
    let key = request.plan().keys.idempotency(&scoped(owner, &request.route.name, key));
    let (_, upstream) = request.plan().upstreams.get(request.upstream())?;
    let patience = upstream.response_timeout.saturating_add(PATIENCE);
    let terms = ClaimTerms { keep: policy.keep, patience };
    Some(request.gateway().claims.claim(key, terms))
}

/// Whose turn it is.
pub(super) enum Turn {
    /// The request has no key that anybody looks at.
    Any,
    /// The request is the first one with its key.
    First(Box<First>),
    /// It has been answered before.
    Again(Box<Before>),
}

/// The answer that a request was given before.
pub(super) struct Before {
    pub(super) ended: Ended,
    /// What gives back what was charged for asking again, but not by address.
    pub(super) refund: Option<Correction>,
}

/// The first request with a key.
pub(super) struct First {
    claim: Claim,
    keep_bytes: u64,
    prints: Prints,
    lock: Lock,
}

/// The fingerprint of a request that is being sent.
struct Prints {
    head: Fingerprinter,
    /// Nothing where it has no body.
    whole: Option<Digested>,
}

impl Prints {
    /// As much as is known now.
    fn seen(&mut self) -> Seen {
        let head = || self.head.clone().finish();
        match &mut self.whole {
            None => Seen::Whole(head()),
            Some(whole) => match whole.try_recv() {
                Ok(digest) => Seen::Whole(Fingerprinter::from_digest(digest).finish()),
                Err(_) => Seen::Head(head()),
            },
        }
    }
}

/// The first request with its key, and how far its body is.
pub(super) type Kept = (Box<First>, Arc<Progress>);

/// The answer to the first request with its key, which is kept; `progress` is its body's.
///
/// # Errors
/// There is none.
pub(super) fn keep<'f>(
    (first, progress): Kept,
    sent: Result<Response<Content>, Rejection>,
) -> Pin<Box<dyn Future<Output = Result<Answer, Rejection>> + Send + 'f>> {
    boxed::rare(|| async move { first.end(sent, &progress).await.map(Answer::fetched) })
}

fn fingerprinter(request: &Request<'_>, headers: &HeaderMap) -> Fingerprinter {
    Fingerprinter::new(&request.received.method, request.target, headers)
}

impl First {
    /// Of a request with these fields, whose key is its own.
    pub(super) fn new(
        request: &Request<'_>,
        headers: &HeaderMap,
        policy: &Idempotency,
        claim: Claim,
    ) -> Box<Self> {
        let prints = Prints { head: fingerprinter(request, headers), whole: None };
        let lock = Lock::of(policy, &request.route.name, claim.key());
        Box::new(Self { claim, keep_bytes: policy.keep_bytes, prints, lock })
    }

    /// The request is about to be sent with this body. From here on it goes on without its client.
    pub(super) fn send(&mut self, request: &Request<'_>, body: Inbound) -> Inbound {
        self.claim.send(request.received.stays.as_ref());
        if body.is_end_stream() {
            return body;
        }
        let (body, digested) = body.digested(self.prints.head.clone().into_digest());
        self.prints.whole = Some(digested);
        body
    }

    /// The request has been answered, or has failed; `progress` is its body's. What is kept of the
    /// answer is, before its last byte leaves.
    pub(super) async fn end(
        self: Box<Self>,
        sent: Result<Response<Content>, Rejection>,
        progress: &Progress,
    ) -> Result<Response<Content>, Rejection> {
        let fate = match &sent {
            Ok(response) => after_answer(response.status(), is_in_doubt(response.body())),
            Err(rejection) => after_failure(may_have_acted(rejection, progress)),
        };
        match (fate, sent) {
            (Fate::Answered, Ok(response)) => Ok(self.keep(response).await),
            (Fate::Free, sent) => {
                self.claim.free().await;
                sent
            }
            (Fate::Answered | Fate::Unknown, sent) => {
                self.claim.unknown().await;
                sent
            }
        }
    }

    /// Keeps an answer while it passes.
    async fn keep(self: Box<Self>, response: Response<Content>) -> Response<Content> {
        let Self { claim, keep_bytes, mut prints, lock } = *self;
        let (head, content) = response.into_parts();
        let status = head.status;
        let announced = content.size_hint().exact();
        let room = claim.claims().room(announced.unwrap_or(0));
        let fits = announced.is_none_or(|bytes| bytes <= keep_bytes);
        let source = match (content, room) {
            (content, Some(room))
                if fits && content.is_plain() && !is_event_stream(&head.headers) =>
            {
                (Plain(content), room)
            }
            (content, _) => {
                let value = lock.shut(&Ended { seen: prints.seen(), status, kept: None });
                claim.answered(value.clone(), value).await;
                return Response::from_parts(head, content);
            }
        };
        let mut fields = head.headers.clone();
        fields::returning(&mut fields);
        let fields = kept_fields(fields);
        let keeper = Keeper { claim: Some(claim), prints, status, fields, lock };
        let reader = begin(keeper, source, (announced, keep_bytes)).await;
        Response::from_parts(head, Content::Shared(Box::new(reader)))
    }
}

/// Reads a body for its client and for whoever keeps it.
async fn begin(
    keeper: Keeper,
    (source, room): (Plain, OwnedSemaphorePermit),
    (announced, bytes_max): (Option<u64>, u64),
) -> BodyReader {
    let (shared, writer) = SharedBody::begin();
    let reader = shared.read(BodyReader::ALL);
    writer.keep_room(Some(room));
    let claims = keeper.claim.as_ref().map(|claim| Arc::clone(claim.claims()));
    let capture = Capture { keeper, source, writer, announced, bytes_max };
    if let (Captured::Pending(rest), Some(claims)) = (capture.begin().await, claims) {
        claims.exchanges().spawn(rest);
    }
    reader
}

/// Content that is nothing but its bytes.
struct Plain(Content);

impl Body for Plain {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.0.poll_plain(cx)
    }
}

/// Keeps the answer under its key.
struct Keeper {
    /// Nothing once the key has its answer.
    claim: Option<Claim>,
    prints: Prints,
    status: StatusCode,
    fields: HeaderMap,
    lock: Lock,
}

impl Keeper {
    fn ended(&mut self, kept: Option<(HeaderMap, Bytes)>) -> Vec<u8> {
        self.lock.shut(&Ended { seen: self.prints.seen(), status: self.status, kept })
    }
}

impl Keep for Keeper {
    type Kept = ();

    fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let claims: Option<&Arc<Claims>> = self.claim.as_ref().map(Claim::claims);
        claims?.room(bytes)
    }

    fn is_awaited(&self) -> bool {
        // Whoever repeats the request wants to know how it ended.
        true
    }

    async fn complete(mut self, body: Bytes) {
        let Some(claim) = self.claim.take() else { return };
        let (seen, status) = (self.prints.seen(), self.status);
        let less = self.lock.shut(&Ended { seen, status, kept: None });
        let kept = Some((std::mem::take(&mut self.fields), body));
        let whole = self.lock.shut(&Ended { seen, status, kept });
        claim.answered(whole, less).await;
    }

    fn is_not_kept(&mut self, _: NotKept) {
        let value = self.ended(None);
        if let Some(claim) = self.claim.take() {
            claim.answered_later(value);
        }
    }
}

fn is_in_doubt(content: &Content) -> bool {
    matches!(content, Content::Download(download) if download.is_in_doubt())
}

/// Whether the upstream may have acted on a request that ended so. It may act on what it has of one
/// whose body its client did not send to its end, but not before any of that has come.
fn may_have_acted(rejection: &Rejection, progress: &Progress) -> bool {
    match rejection {
        Rejection::Upstream(failure) => failure.may_have_acted(),
        Rejection::Upload(_) => progress.is_begun(),
        _ => true,
    }
}

/// Answers a request as it was answered before, if it is the same.
///
/// # Errors
/// It is another one, its body could not be read, or the answer was not kept.
pub(super) async fn replay(
    request: &Request<'_>,
    head: &Parts,
    body: Inbound,
    before: Box<Before>,
) -> Result<Answer, Rejection> {
    let Before { ended, refund } = *before;
    let mut prints = fingerprinter(request, &head.headers);
    let is_same = match ended.seen {
        Seen::Head(known) => prints.finish() == known,
        Seen::Whole(known) => {
            read(request, body, &mut prints).await?;
            prints.finish() == known
        }
    };
    if !is_same {
        return Err(NotOnce::Reused.into());
    }
    let Some((fields, body)) = ended.kept else {
        return Err(NotOnce::NotKept(ended.status).into());
    };
    let gateway = request.gateway();
    gateway.limits.correct(refund);
    gateway.observer.metrics.idempotency(KeyOutcome::Replayed);
    let mut response = Response::new(Content::Bytes(body));
    *response.status_mut() = ended.status;
    *response.headers_mut() = fields;
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    Ok(Answer::replayed(response))
}

/// Reads a body to its end, of which nothing is kept.
///
/// # Errors
/// It is too long or too slow, or breaks off.
async fn read(
    request: &Request<'_>,
    body: Inbound,
    prints: &mut Fingerprinter,
) -> Result<(), Rejection> {
    let mut limits = request.plan().upload;
    if let Some(most) = request.route.edge.as_ref().and_then(|edge| edge.body_bytes) {
        limits.bytes_max = most;
    }
    let (upload, _) = Upload::new(body, limits, false);
    let mut upload = std::pin::pin!(upload);
    while let Some(frame) = std::future::poll_fn(|cx| upload.as_mut().poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            prints.add(&data);
        }
    }
    Ok(())
}
