//! What is made of the upstream's answer to a miss: what was stored is confirmed or doubted, what
//! is new is stored while it arrives, if it may be.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, RANGE};
use http::response::Parts as Head;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as _;

use super::admission::{Admission, Admitted};
use super::answer::{Fetched, How, Streaming};
use super::coalesce::Leader;
use super::fill::Filling;
use super::miss::Miss;
use crate::cache::{
    self, Chunked, Epochs, HeadUpdate, RequestContext, Storable, Stored, StoredBody, WhyNot,
};
use crate::capture::{BodyReader, Capture, Captured, SharedBody};
use crate::store::budget;
use crate::upstream::Download;

/// When a request was sent and its answer began, in Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) sent_ms: u64,
    pub(super) answered_ms: u64,
}

/// A miss that the upstream has answered.
pub(super) struct Answered<'a> {
    pub(super) miss: &'a Miss,
    /// The request as it would have gone to the upstream without a cache.
    pub(super) request: &'a Request<()>,
    /// The client's fields.
    pub(super) fields: &'a Arc<HeaderMap>,
    pub(super) times: Times,
    /// See [`Admission::unless`].
    pub(super) unless: Option<Arc<str>>,
}

/// What came of a response.
pub(super) enum Received {
    /// This answers the client.
    Fetched(Fetched),
    /// The response cannot be stored, and the client wants a part of it only: the upstream is to
    /// be asked for that.
    WantsPart,
}

impl Answered<'_> {
    /// The origin says that what is stored still holds.
    pub(super) async fn confirmed(
        &self,
        stale: &Stored,
        headers: &HeaderMap,
        admission: Admission,
        leader: Option<Leader>,
    ) -> Fetched {
        let answered_ms = self.times.answered_ms;
        let fresh =
            cache::freshened(stale, headers, self.miss.policy(), &self.context(), answered_ms);
        let route = &self.miss.key.origin.route;
        let may_store = fresh.keep.is_ok() && route.is_comparable(&fresh.stored.vary);
        let Admitted { response, is_stored } = if may_store {
            admission.admit(Arc::new(fresh.stored), self.fields).await
        } else {
            // What it says now holds for what was stored, too.
            self.end(stale).await;
            Admitted { response: Arc::new(fresh.stored), is_stored: false }
        };
        let is_shareable = may_store && response.is_shareable(answered_ms);
        if is_stored && let Some(leader) = &leader {
            leader.succeeded();
        }
        match leader {
            Some(leader) if is_shareable => leader.done(Arc::clone(&response)),
            Some(leader) => leader.hit_for_pass(),
            None => {}
        }
        Fetched::Stored(response, How::Confirmed(is_stored))
    }

    /// What the answer to a HEAD says about the stored answer to a GET (RFC 9111 §4.3.5): an entry
    /// that is confirmed is fresh again, one that is contradicted ends.
    pub(super) async fn learn(&self, stale: &Stored, status: StatusCode, headers: &HeaderMap) {
        let Miss { cache, key, .. } = self.miss;
        let at = (&self.context(), self.times.answered_ms);
        match cache::head_update(stale, status, headers, self.miss.policy(), at) {
            HeadUpdate::Confirmed(fresh) if fresh.keep.is_ok() => {
                let (cache, key) = (Arc::clone(cache), key.clone());
                let unless = self.unless.clone();
                let admission = Admission { cache, key, replaces: None, unless, lease: None };
                // Stored or not: nobody waits for it.
                let _ = admission.admit(Arc::new(fresh.stored), self.fields).await;
            }
            HeadUpdate::Outdated if stale.remaining_ms(self.times.answered_ms) > 0 => {
                // Its variants are answers of the same resource: they are as old. Waited for, since
                // nothing else is read from the cache while an invalidation is under way.
                cache.invalidate(vec![key.key.path_epoch().to_owned()]).await;
            }
            HeadUpdate::Confirmed(_) | HeadUpdate::Outdated | HeadUpdate::None => {}
        }
    }

    /// A whole response: stored while it arrives, if it may be.
    pub(super) async fn receive(
        &self,
        response: Response<Box<Download>>,
        admission: Admission,
        leader: Option<Leader>,
    ) -> Received {
        let (head, download) = response.into_parts();
        let Storable { freshness, headers } = match self.storable(&head) {
            Ok(storable) => storable,
            Err(why) => {
                Box::pin(self.doubt(&head, admission.replaces.as_deref(), why)).await;
                match leader {
                    // The next answer may be another one.
                    Some(leader) if head.status.is_server_error() => leader.give_up(),
                    Some(leader) if !why.is_lasting() => leader.give_up(),
                    Some(leader) => leader.hit_for_pass(),
                    None => {}
                }
                if self.wants_part_of(&head) {
                    return Received::WantsPart;
                }
                let response = Response::from_parts(head, download);
                return Received::Fetched(Fetched::Through(response, Some(why)));
            }
        };
        // Not what the field says: beside Transfer-Encoding it means nothing (RFC 9112 §6.3).
        let announced = download.size_hint().exact();
        let room = announced.map(|length| self.miss.cache.fill_room(length));
        if room.as_ref().is_some_and(Option::is_none) {
            self.miss.key.origin.not_stored("room");
            let response = Response::from_parts(head, download);
            return Received::Fetched(Fetched::Through(response, None));
        }
        let entry = Stored::new(
            self.miss.key.key.entry.clone(),
            Epochs::default(),
            head.status,
            headers,
            freshness,
            StoredBody::Inline(Bytes::new()),
        );
        let (body, writer) = SharedBody::begin();
        writer.keep_room(room.flatten());
        let fields = Arc::clone(self.fields);
        let capture = Capture {
            keeper: Filling {
                leader,
                entry: Arc::new(entry),
                fields,
                admission,
                spent: budget::spent(),
            },
            source: download,
            writer,
            announced,
            bytes_max: self.miss.policy().max_bytes,
        };
        Received::Fetched(self.stream(head, capture, body).await)
    }

    /// Reads what is here of a response that is to be stored, and lets followers read along.
    async fn stream(
        &self,
        head: Head,
        mut capture: Capture<Box<Download>, Filling>,
        body: Arc<SharedBody>,
    ) -> Fetched {
        let answered_ms = self.times.answered_ms;
        let reader = body.read(BodyReader::ALL);
        let (filling, announced) = (&mut capture.keeper, capture.announced);
        let has_length = announced.is_some();
        let promised = Arc::new(promise(&filling.entry, announced));
        filling.leader = match filling.leader.take() {
            Some(leader) if !filling.entry.is_shareable(answered_ms) => {
                leader.hit_for_pass();
                None
            }
            Some(leader) if has_length => {
                leader.streaming(Arc::clone(&promised), Arc::clone(&body));
                Some(leader)
            }
            leader => leader.inspect(Leader::length_unknown),
        };
        let good = filling.admission.replaces.as_deref();
        let may_store = self.miss.epochs_unknown.is_none()
            && cache::may_replace(head.status, good, answered_ms);
        let (response, has_length, is_stored) = match capture.begin().await {
            Captured::Complete(Admitted { response, is_stored }) => (response, true, is_stored),
            Captured::Discarded => (promised, has_length, false),
            Captured::Pending(rest) => {
                tokio::spawn(rest);
                // Of one whose length is known and allowed, only a cut would be in the way.
                (promised, has_length, has_length && may_store)
            }
        };
        Fetched::Streaming(Streaming { head, response, body, reader, has_length, is_stored })
    }

    /// What is stored ends where an answer that is not stored says so. An answer to somebody who is
    /// known ends nothing that is still good: some origins forbid storing to whoever has a cookie.
    async fn doubt(&self, head: &Head, old: Option<&Stored>, why: WhyNot) {
        self.miss.key.origin.not_stored(why.code());
        let now_ms = self.times.answered_ms;
        let is_somebodys = self.miss.authenticated
            || self.fields.contains_key(COOKIE)
            || self.fields.contains_key(AUTHORIZATION);
        if let Some(old) = old
            && cache::outdates(head.status, why, old, now_ms)
            && !(is_somebodys && old.remaining_ms(now_ms) > 0)
        {
            self.end(old).await;
        }
    }

    /// Ends what is stored. What is still good is withdrawn everywhere before the answer is passed
    /// on: another copy of it would be as good as this one.
    async fn end(&self, old: &Stored) {
        let Miss { cache, key, .. } = self.miss;
        if old.remaining_ms(self.times.answered_ms) > 0 {
            cache.invalidate(vec![key.key.path_epoch().to_owned()]).await;
        } else {
            cache.drop_entry(old.key.clone());
        }
    }

    /// Whether the client wants a part of the whole that the upstream was asked for. It may have
    /// sent a part, or a 304, all the same.
    fn wants_part_of(&self, head: &Head) -> bool {
        let is_whole =
            !matches!(head.status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
        is_whole && self.miss.intent.store && self.request.headers().contains_key(RANGE)
    }

    fn storable(&self, head: &Head) -> Result<Storable, WhyNot> {
        let (policy, answered_ms) = (self.miss.policy(), self.times.answered_ms);
        let storable =
            cache::storable(policy, &self.context(), head.status, &head.headers, answered_ms)?;
        let is_comparable = self.miss.key.origin.route.is_comparable(&storable.freshness.vary);
        if is_comparable { Ok(storable) } else { Err(WhyNot::Vary) }
    }

    fn context(&self) -> RequestContext<'_> {
        RequestContext {
            intent: &self.miss.intent,
            headers: self.fields,
            authenticated: self.miss.authenticated,
            per_user: self.miss.per_user,
            ends_identity: self.miss.key.origin.route.ends_identity(),
            sent_ms: self.times.sent_ms,
        }
    }
}

/// An entry whose body is still to come: what can be said of it before.
fn promise(entry: &Stored, announced: Option<u64>) -> Stored {
    let body = Chunked { object: [0; 16], len: announced.unwrap_or(0), chunk_bytes: 1 };
    // Nobody may foretell the boundary that is made of this.
    let hard = Bytes::copy_from_slice(&fastrand::u128(..).to_le_bytes());
    let epochs = Epochs { hard, soft: Bytes::new() };
    Stored { body: StoredBody::Chunked(body), epochs, ..entry.clone() }
}
