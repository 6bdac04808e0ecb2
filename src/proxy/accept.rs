//! A request that is accepted now and delivered later: it stands in place of cache and upstream,
//! and its answer says where its caller learns what became of it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde::Serialize;
use tokio::time::Instant;

use super::content::Content;
use super::dispatch::{Fields, Outline};
use super::invalidation;
use super::record::Record;
use super::rejection::Rejection;
use super::request::Request;
use crate::base::body::{Inbound, Upload, UploadFault, UploadLimits};
use crate::cache;
use crate::config::{OrderBy, StoreUse};
use crate::deliver::{self, Head, Kept, Recheck, Refused, due_in, kept_fields, line_of, owner_of};
use crate::forwarding::fields::is_owned;
use crate::idempotency::{Fingerprint, Fingerprinter, Key, Owner, scoped};
use crate::plan::{Deferred, durability, queue_bounds};
use crate::runtime::{Loose, Packed, Parcels, QueueState, Room};
use crate::store::StoreError;
use crate::store::keys::{QueueKeys, shard_of};
use crate::store::queue::{
    Accept, Accepted, DeliveryId, Durability, Item, ItemState, NoteKey, Noted, QueueSafety,
};

/// Says that a request was accepted before, under the same key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// What of `Prefer` was heeded (RFC 7240 §3).
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// How often a delivery is looked at for which a client waits: another gateway may deliver it.
const LOOK: Duration = Duration::from_millis(200);
/// How soon a store that is connected has been looked at.
const LOOKED_AT: Duration = Duration::from_secs(3);
/// How long it takes at most to put a request into its shard once its key is noted.
const PUT_WITHIN: Duration = Duration::from_secs(60);
/// The shard that knows what the idempotency keys of clients stand for.
const OF_KEYS: u8 = 0;

/// Accepts a request.
///
/// # Errors
/// It is not accepted, and its caller is told why.
pub(super) async fn accept(
    request: &Request<'_>,
    deferred: &Deferred,
    (head, body): (&mut Parts, Inbound),
    added: Fields,
    record: &mut Record,
) -> Result<Response<Content>, Rejection> {
    let state = request.gateway().deliveries.queue(&deferred.written.queue);
    let trusted = trusted(request, durability(&deferred.queue)).await;
    let asked = match trusted.and_then(|()| Asked::of(request, deferred, head)) {
        Ok(asked) => asked,
        Err(refused) => return Err(count(&state, refused.into())),
    };
    let most = deferred.queue.max_body;
    let held =
        read(request, (&*head, body), most, || Refused::Full { retry_after: state.retry_after() });
    let held = held.await;
    let held = held.map_err(|rejection| count(&state, rejection))?;
    let accepting = Accepting { request, deferred, state: &state };
    match accepting.accept(asked, head, held, added).await {
        Ok((id, response)) => {
            record.note_delivery(id.as_str());
            Ok(response)
        }
        Err(rejection) => Err(count(&state, rejection)),
    }
}

/// Whether the store may be trusted with work. It is looked at soon after it is reached: for that
/// whoever comes first waits, and nobody once that was in vain.
async fn trusted(request: &Request<'_>, durability: Durability) -> Result<(), Refused> {
    let (store, deliveries) = (&request.gateway().store, &request.gateway().deliveries);
    let bell = store.queue_looked().unwrap_or_default();
    loop {
        let rung = bell.notified();
        tokio::pin!(rung);
        // From here on no ring is missed, whatever is seen below.
        rung.as_mut().enable();
        let is_away = match store.queue_safety() {
            QueueSafety::Safe { fsyncs, .. } => {
                deliveries.looked();
                // What is queued would be in doubt each time, and delivered all the same.
                let is_in_vain = durability == Durability::Fsync && fsyncs == Some(false);
                return if is_in_vain { Err(Refused::NoDisk) } else { Ok(()) };
            }
            QueueSafety::Evicting { policy } => {
                deliveries.looked();
                return Err(Refused::Unsafe(policy));
            }
            QueueSafety::Unknown => !store.is_connected(StoreUse::Queue),
        };
        let unknown = || Refused::Away("it has not been looked at".into());
        if is_away {
            deliveries.looked();
            return Err(unknown());
        }
        let until = deliveries.look_until(LOOKED_AT);
        if Instant::now() >= until {
            return Err(unknown());
        }
        // Its end is seen above.
        let _ = tokio::time::timeout_at(until, rung).await;
    }
}

/// Counts what is not accepted.
fn count(state: &QueueState, rejection: Rejection) -> Rejection {
    state.meter.refused(rejection.code());
    rejection
}

/// What a request asks for beside what is delivered.
struct Asked {
    key: Option<Key>,
    delay: Duration,
    wait: Option<Duration>,
    fingerprinter: Fingerprinter,
    order: Option<String>,
}

impl Asked {
    /// # Errors
    /// It cannot be accepted, whatever its body is.
    fn of(request: &Request<'_>, deferred: &Deferred, head: &Parts) -> Result<Self, Refused> {
        let written = &deferred.written;
        let fields = &head.headers;
        let key = Key::of(fields).map_err(|error| Refused::KeyInvalid(error.to_string()))?;
        if key.is_none() && written.is_key_required {
            return Err(Refused::KeyMissing);
        }
        let field = written.delay_from.as_ref();
        let delay = due_in(field, fields, written.max_delay, SystemTime::now())?;
        let wait = deliver::wait_of(fields, written.max_wait);
        let fingerprinter = Fingerprinter::new(&head.method, request.target, fields);
        Ok(Self { key, delay, wait, fingerprinter, order: order(request, deferred, fields) })
    }
}

/// The digest of what its order goes by, where it has that.
fn order(request: &Request<'_>, deferred: &Deferred, fields: &HeaderMap) -> Option<String> {
    match deferred.queue.order_by.as_ref()? {
        OrderBy::Claim(name) => {
            let caller = request.caller.as_deref()?;
            let claim = caller.find(name)?.text();
            Some(line_of(&caller.verifier, claim.as_bytes()))
        }
        OrderBy::Header(name) => Some(line_of("header", fields.get(name)?.as_bytes())),
    }
}

/// A body, and the room that it takes up.
pub(super) struct Held {
    pub(super) body: Bytes,
    /// Nobody looks at it: it is given back with the body.
    _room: Room,
}

/// Reads the whole body, of at most `most` bytes and within the bound of all bodies that are being
/// read. `full` says that there is no room.
///
/// # Errors
/// It is too long, does not come, or there is no room for it in time.
pub(super) async fn read<R: Into<Rejection>>(
    request: &Request<'_>,
    (head, body): (&Parts, Inbound),
    most: u64,
    full: impl Fn() -> R,
) -> Result<Held, Rejection> {
    let of_route = request.route.edge.as_ref().and_then(|edge| edge.body_bytes);
    let most = of_route.unwrap_or(request.plan().upload.bytes_max).min(most);
    let announced = head.headers.get(http::header::CONTENT_LENGTH);
    let announced = announced.and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > most) {
        return Err(UploadFault::TooLarge.into());
    }
    let limits = UploadLimits { bytes_max: most, ..request.plan().upload };
    let (mut upload, _) = Upload::new(body, limits, false);
    let mut room = request.gateway().deliveries.room(request.plan().config.store.timeout);
    let mut whole = BytesMut::new();
    while let Some(frame) = upload.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        // Only for what is here: a client that sends slowly must not hold up others.
        if !room.grow((whole.len() + data.len()) as u64).await {
            return Err(full().into());
        }
        whole.extend_from_slice(&data);
    }
    Ok(Held { body: whole.freeze(), _room: room })
}

/// A request as it is put into its queue.
struct Parcel {
    head: Head,
    body: Bytes,
    /// The digest of its idempotency key.
    key: Option<String>,
    fingerprint: String,
    /// The digest of its order key.
    order: Option<String>,
    delay: Duration,
}

/// A request whose body is here.
struct Accepting<'a, 'r> {
    request: &'a Request<'r>,
    deferred: &'a Deferred,
    state: &'a QueueState,
}

impl Accepting<'_, '_> {
    async fn accept(
        &self,
        asked: Asked,
        head: &mut Parts,
        held: Held,
        added: Fields,
    ) -> Result<(DeliveryId, Response<Content>), Rejection> {
        let Self { request, deferred, .. } = self;
        let wait = asked.wait;
        // Whoever waits holds no body meanwhile.
        let told = self.queue(asked, head, held, added).await?;
        let id = told.id;
        if let Some(wait) = wait {
            let keys = request.plan().keys.queue(&deferred.written.queue, id.shard());
            if let Some(answer) = self.wait(&keys, id, wait).await {
                return Ok((id, answer));
            }
        }
        Ok((id, told.response(deferred.told_at.as_deref())))
    }

    /// Puts it into its queue.
    async fn queue(
        &self,
        asked: Asked,
        head: &mut Parts,
        Held { body, _room }: Held,
        added: Fields,
    ) -> Result<Told, Rejection> {
        let Self { request, deferred, .. } = self;
        let Asked { key, delay, mut fingerprinter, order, .. } = asked;
        fingerprinter.add(&body);
        let fingerprint = digits(&fingerprinter.finish());
        let owner = Owner::of(request.caller, request.client().address);
        let scoped = key.as_ref().map(|key| scoped(owner, &deferred.written.queue, key));
        let now_ms = unix_ms(SystemTime::now());
        let head = self.head(head, added, (key, now_ms, delay));
        let parcel = Parcel { head, body, key: scoped, fingerprint, order, delay };
        let own = DeliveryId::new(self.shard(&parcel), now_ms)
            .ok_or_else(|| Refused::Away("the system has no random bytes".into()))?;
        let mut id = self.noted(own, &parcel).await?;
        let mut accepted = self.put(id, id == own, &parcel).await?;
        // A key of this shard may stand for an item of another one.
        if let Accepted::Again { id: other, now: None } = accepted
            && other.shard() != id.shard()
        {
            id = other;
            accepted = self.put(id, false, &parcel).await?;
        }
        if let Accepted::Reused { id: other } = accepted
            && self.forgot(other, &parcel).await?
        {
            accepted = self.put(id, id == own, &parcel).await?;
        }
        if matches!(accepted, Accepted::Full { .. }) {
            // Its key is free for the next one, whatever that sends. A note that stays is of no
            // harm to whoever repeats the same.
            let _ = self.forget(id, &parcel).await;
        }
        self.told(id, &accepted)
    }

    /// The shard that it goes to: whatever has one order key goes to the same one.
    fn shard(&self, parcel: &Parcel) -> u8 {
        let shards = self.deferred.queue.shards;
        match parcel.order.as_ref().or(parcel.key.as_ref()) {
            Some(digest) => shard_of(digest, shards),
            None => fastrand::u8(0..shards.max(1)),
        }
    }

    /// The id that it is accepted by: that of whoever came before with its idempotency key. Where
    /// its own shard is the one that knows such keys, accepting it finds that out.
    async fn noted(&self, own: DeliveryId, parcel: &Parcel) -> Result<DeliveryId, Rejection> {
        let Self { request, deferred, .. } = self;
        let Some(key) = parcel.key.as_deref().filter(|_| own.shard() != OF_KEYS) else {
            return Ok(own);
        };
        let keys = request.plan().keys.queue(&deferred.written.queue, OF_KEYS);
        let fingerprint = &parcel.fingerprint;
        let note = NoteKey { key, id: own, fingerprint, ttl: self.key_ttl(parcel) };
        let store = &request.gateway().store;
        let mut noted = store.queue_note_key(&keys, note).await.map_err(away)?;
        if let Noted::Reused(id) = noted
            && self.forgot(id, parcel).await?
        {
            noted = store.queue_note_key(&keys, note).await.map_err(away)?;
        }
        match noted {
            Noted::Own => Ok(own),
            Noted::Same(id) => Ok(id),
            Noted::Reused(_) => Err(Refused::KeyReused.into()),
        }
    }

    /// Forgets what its idempotency key stands for, where that was never put into its shard and
    /// nobody is about to do so. Whether it was so.
    async fn forgot(&self, id: DeliveryId, parcel: &Parcel) -> Result<bool, Rejection> {
        let Self { request, deferred, .. } = self;
        let age_ms = unix_ms(SystemTime::now()).saturating_sub(id.unix_ms());
        if id.shard() == OF_KEYS || age_ms < millis(PUT_WITHIN) {
            return Ok(false);
        }
        let keys = request.plan().keys.queue(&deferred.written.queue, id.shard());
        let of = (&id, parcel.key.as_deref());
        let store = &request.gateway().store;
        if store.queue_again(&keys, of, Durability::Memory).await.map_err(away)?.is_some() {
            return Ok(false);
        }
        self.forget(id, parcel).await.map_err(away)?;
        Ok(true)
    }

    /// Has its idempotency key stand for nothing, if it stands for this item of another shard than
    /// the one that knows keys.
    async fn forget(&self, id: DeliveryId, parcel: &Parcel) -> Result<(), StoreError> {
        let Self { request, deferred, .. } = self;
        let Some(key) = parcel.key.as_deref().filter(|_| id.shard() != OF_KEYS) else {
            return Ok(());
        };
        let keys = request.plan().keys.queue(&deferred.written.queue, OF_KEYS);
        request.gateway().store.queue_forget_key(&keys, (key, &id)).await
    }

    /// How long its idempotency key stands for it.
    fn key_ttl(&self, parcel: &Parcel) -> Duration {
        let queue = &self.deferred.queue;
        parcel.delay + queue.max_age + queue.keep
    }

    /// Has the store take it by this id, as durably as the queue wants that. One that is not its
    /// own is somebody's who may have died before he put it there.
    async fn put(
        &self,
        id: DeliveryId,
        is_own: bool,
        parcel: &Parcel,
    ) -> Result<Accepted, Rejection> {
        let Self { request, deferred, .. } = self;
        let (store, queue) = (&request.gateway().store, &deferred.queue);
        let keys = request.plan().keys.queue(&deferred.written.queue, id.shard());
        if !is_own {
            let again =
                store.queue_again(&keys, (&id, parcel.key.as_deref()), durability(queue)).await;
            if let Some(again) = again.map_err(away)? {
                return Ok(again);
            }
            // In another shard than its line it would be out of order.
            let of_line = parcel.order.as_ref().map(|order| shard_of(order, queue.shards));
            if of_line.is_some_and(|shard| shard != id.shard()) {
                // As soon as nobody puts it there any more, the key is free for it.
                self.forgot(id, parcel).await?;
                let why = "what its Idempotency-Key was noted for is in no shard yet";
                return Err(Refused::Away(why.into()).into());
            }
        }
        let Packed { head, body } = self.packed(id, &parcel.head, parcel.body.clone()).await?;
        let accept = Accept {
            id,
            key: parcel.key.as_deref(),
            fingerprint: &parcel.fingerprint,
            key_ttl: self.key_ttl(parcel),
            head: &head,
            body: &body,
            owner: &owner_digest(request),
            order: parcel.order.as_deref(),
            delay: parcel.delay,
            max_age: queue.max_age,
            bounds: queue_bounds(queue, id.shard()),
        };
        let accepted = store.queue_accept_durably(&keys, &accept, durability(queue)).await;
        accepted.map_err(away)
    }

    /// What lies in the store of it.
    async fn packed(&self, id: DeliveryId, head: &Head, body: Bytes) -> Result<Packed, Refused> {
        let Self { request, deferred, .. } = self;
        let (name, queue) = (&deferred.written.queue, &deferred.queue);
        let caller = request.caller.as_deref().filter(|_| queue.recheck);
        let loose = Loose {
            head: head.pack(),
            body,
            is_text: cache::is_compressible(&head.fields),
            recheck: caller.and_then(Recheck::of),
        };
        let packed = Parcels::of_request(name, queue, id).pack(loose).await;
        packed.ok_or_else(|| Refused::Away("what is kept could not be sealed".into()))
    }

    /// What its caller is told.
    fn told(&self, id: DeliveryId, accepted: &Accepted) -> Result<Told, Rejection> {
        let state = self.state;
        Ok(match *accepted {
            Accepted::New { accepted_ms, due_ms } => {
                state.meter.accepted("new");
                state.wake.notify_one();
                let state = ItemState::Waiting.word();
                Told { id, state, accepted_ms, due_ms, is_again: false }
            }
            Accepted::Again { id, now } => {
                state.meter.accepted("again");
                let (state, times) = match now {
                    Some(it) => (it.state.word(), (it.accepted_ms, it.due_ms)),
                    // Its record is over; the key still says that it was accepted.
                    None => ("unknown", (0, 0)),
                };
                Told { id, state, accepted_ms: times.0, due_ms: times.1, is_again: true }
            }
            Accepted::Reused { .. } => return Err(Refused::KeyReused.into()),
            Accepted::Full { .. } => {
                let retry_after = state.retry_after();
                return Err(Refused::Full { retry_after }.into());
            }
            Accepted::InDoubt => return Err(Refused::InDoubt.into()),
        })
    }

    /// What is kept of the head.
    fn head(
        &self,
        head: &mut Parts,
        added: Fields,
        (key, now_ms, delay): (Option<Key>, u64, Duration),
    ) -> Head {
        let Self { request, deferred, .. } = self;
        let own = std::mem::take(&mut head.headers);
        let outgoing = Outline::new(request, Cow::Owned(own), added).head();
        let (outgoing, ()) = outgoing.into_parts();
        let named = (&*deferred.kept_fields, deferred.written.delay_from.as_ref());
        let owned = &request.plan().headers;
        let fields = kept_fields(outgoing.headers, named, |name| is_owned(owned, name));
        let upstream = request.resolved.upstream_name(request.plan()).to_owned();
        let root = || http::uri::PathAndQuery::from_static("/");
        Head {
            route: request.route.name.clone(),
            upstream,
            method: outgoing.method,
            target: outgoing.uri.path_and_query().cloned().unwrap_or_else(root),
            fields,
            key: key.map(|key| key.as_str().to_owned()),
            client: request.client().address.ip(),
            trace: request.received.ids.trace.to_header(),
            stale: invalidation::later(request),
            accepted_ms: now_ms,
            due_ms: now_ms.saturating_add(millis(delay)),
        }
    }

    /// The real answer, if there is one in time; nothing otherwise.
    async fn wait(
        &self,
        keys: &QueueKeys,
        id: DeliveryId,
        wait: Duration,
    ) -> Option<Response<Content>> {
        let gateway = self.request.gateway();
        let waiting = gateway.deliveries.wait_for(id);
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            waiting.wait(LOOK.min(left)).await;
            let found = gateway.store.queue_find(keys, &id).await;
            let item = found.ok().flatten().filter(|item| item.state.is_settled());
            let Some(item) = item else { continue };
            let of_queue = (&*self.deferred.written.queue, keys);
            let answer = answer_of(self.request, of_queue, &item).await;
            let mut answer = answer.ok().flatten()?;
            let applied = HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()?;
            answer.headers_mut().insert(PREFERENCE_APPLIED, applied);
            return Some(answer.map(Content::Bytes));
        }
    }
}

/// The kept answer to a delivery.
pub(super) async fn answer_of(
    request: &Request<'_>,
    (name, keys): (&str, &QueueKeys),
    item: &Item,
) -> Result<Option<Response<Bytes>>, StoreError> {
    let kept = request.gateway().store.queue_answer(keys, item).await?;
    let queue = request.plan().config.queues.get(name);
    let (Some(kept), Some(queue)) = (kept, queue) else { return Ok(None) };
    let opened = Parcels::of_answer(name, queue, item.id).open(&kept.head, kept.body).await;
    let kept = opened.ok().and_then(|it| Kept::unpack(&it.head, it.body));
    Ok(kept.filter(|kept| kept.body.is_some()).map(Kept::response))
}

/// The digest of who sends a request.
pub(super) fn owner_digest(request: &Request<'_>) -> String {
    let address = request.client().address.principal().to_string();
    match Owner::of(request.caller, request.client().address) {
        Owner::Subject { verifier, subject } => owner_of(Some((verifier, subject)), &address),
        Owner::Address(_) => owner_of(None, &address),
    }
}

/// A store that does not answer.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
pub(super) fn away(error: StoreError) -> Rejection {
    Refused::Away(error.to_string()).into()
}

/// What the caller of an accepted request is told.
struct Told {
    id: DeliveryId,
    state: &'static str,
    accepted_ms: u64,
    due_ms: u64,
    is_again: bool,
}

#[derive(Serialize)]
struct Said<'a> {
    id: &'a str,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
}

impl Told {
    fn response(&self, told_at: Option<&str>) -> Response<Content> {
        let location = told_at.map(|prefix| format!("{prefix}{}", self.id));
        let said = Said {
            id: self.id.as_str(),
            state: self.state,
            accepted_at: time(self.accepted_ms),
            deliver_at: time(self.due_ms),
            status: location.as_deref(),
        };
        let mut response = json(StatusCode::ACCEPTED, &said);
        let fields = response.headers_mut();
        fields.insert(RETRY_AFTER, HeaderValue::from(1));
        if let Some(location) = location.and_then(|it| HeaderValue::try_from(it).ok()) {
            fields.insert(LOCATION, location);
        }
        if self.is_again {
            fields.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// An answer of the gateway's own in JSON, which nobody stores.
pub(super) fn json(status: StatusCode, said: &impl Serialize) -> Response<Content> {
    let body = serde_json::to_vec(said).unwrap_or_default();
    let mut response = Response::new(Content::Bytes(body.into()));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A time of the store in RFC 3339; nothing of none.
pub(super) fn time(unix_ms: u64) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?;
    (unix_ms > 0).then(|| format!("{at:.3}"))
}

fn unix_ms(at: SystemTime) -> u64 {
    millis(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn digits(fingerprint: &Fingerprint) -> String {
    crate::base::http::hex::encode(fingerprint.as_bytes())
}
