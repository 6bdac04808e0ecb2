//! What is made of the upstream's answer: what was stored is confirmed or doubted, what is new is
//! kept while it passes, if it may be.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, RANGE};
use http::response::Parts as Head;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body::Body as _;

use super::fetch::{Fetch, Fetched, How, Times, Trip};
use super::fill::{self, Filling};
use super::keep::Keeper;
use crate::cache::{self, Chunked, Freshness, Lead, Passing, Reader, Stored, StoredBody, WhyNot};
use crate::forwarding::fields;
use crate::upstream::{Download, Failure};

impl Fetch {
    /// The origin says that what is stored still holds.
    pub(super) async fn confirmed(
        self,
        stale: &Stored,
        headers: &HeaderMap,
        (keeper, lead): (Keeper, Option<Lead>),
        times: Times,
    ) -> Fetched {
        let policy = &self.errand.policy;
        let fresh = cache::freshened(stale, headers, policy, &self.asked(times), times.answered_ms);
        let may_keep = fresh.keep.is_ok() && self.is_comparable(&fresh.stored.vary);
        let kept = if may_keep {
            keeper.keep(fresh.stored, &self.fields).await
        } else {
            // What it says now holds for what was stored, too.
            self.end(stale, times.answered_ms).await;
            Err(Arc::new(fresh.stored))
        };
        let is_kept = kept.is_ok();
        let (Ok(stored) | Err(stored)) = kept;
        let is_shareable = may_keep && stored.is_shareable(times.answered_ms);
        if is_kept && let Some(lead) = &lead {
            lead.succeeded();
        }
        match lead {
            Some(lead) if is_shareable => lead.stored(Arc::clone(&stored)),
            Some(lead) => lead.alone(),
            None => {}
        }
        Fetched::Stored(stored, How::Confirmed(is_kept))
    }

    /// A whole response: kept while it passes, if it may be.
    pub(super) async fn receive(
        self,
        response: Response<Download>,
        (keeper, lead): (Keeper, Option<Lead>),
        times: Times,
        trip: &mut Trip<'_>,
    ) -> Result<Fetched, Failure> {
        let (head, download) = response.into_parts();
        let freshness = match self.storable(&head, times) {
            Ok(freshness) => freshness,
            Err(why) => {
                Box::pin(self.doubt(&head, &keeper, why, times)).await;
                match lead {
                    // The next answer may be another one.
                    Some(lead) if head.status.is_server_error() => lead.alone_once(),
                    Some(lead) if !why.is_lasting() => lead.alone_once(),
                    Some(lead) => lead.alone(),
                    None => {}
                }
                drop(keeper);
                if self.wants_part_of(&head) {
                    // Of what cannot be kept the client gets the part that it wants.
                    drop(download);
                    return Box::pin(self.through(trip)).await;
                }
                return Ok(Fetched::Through(Response::from_parts(head, download), Some(why)));
            }
        };
        // Not what the field says: beside Transfer-Encoding it means nothing (RFC 9112 §6.3).
        let announced = download.size_hint().exact();
        let room = announced.map(|length| self.gateway.fill_room(length));
        if room.as_ref().is_some_and(Option::is_none) {
            self.errand.site.origin.not_kept("room");
            return Ok(Fetched::Through(Response::from_parts(head, download), None));
        }
        let kept = Stored::new(
            self.errand.site.place.entry.clone(),
            cache::Epochs::default(),
            head.status,
            cache::stored_headers(&head.headers),
            freshness,
            StoredBody::Inline(Bytes::new()),
        );
        let (passing, writer) = Passing::begin();
        writer.keep_room(room.flatten());
        let reader = passing.read(Reader::ALL);
        let promised = Arc::new(promise(&kept, announced));
        let lead = match lead {
            Some(lead) if !kept.is_shareable(times.answered_ms) => {
                lead.alone();
                None
            }
            Some(lead) if announced.is_some() => {
                lead.passing(Arc::clone(&promised), Arc::clone(&passing));
                Some(lead)
            }
            lead => lead.inspect(Lead::unmeasured),
        };
        let fields = self.fields;
        let good = keeper.replaces.as_deref();
        let may_keep = self.errand.unkept.is_none()
            && cache::may_replace(head.status, good, times.answered_ms);
        let is_whole = Arc::default();
        let filling =
            Filling { download, writer, announced, head: kept, fields, keeper, lead, is_whole };
        let is_measured = announced.is_some();
        let (stored, measured, kept) = match fill::begin(filling).await {
            Ok(Some(Ok(stored))) => (stored, true, true),
            Ok(Some(Err(stored))) => (stored, true, false),
            Ok(None) => (promised, is_measured, false),
            Err(rest) => {
                tokio::spawn(rest);
                // Of one whose length is known and allowed, only a cut would be in the way.
                (promised, is_measured, is_measured && may_keep)
            }
        };
        Ok(Fetched::Passing { head: Box::new(head), stored, reader, passing, measured, kept })
    }

    /// What is stored ends where an answer that is not kept says so. What is still good ends by the
    /// word of nobody's answer in particular: some origins forbid storing to whoever has a cookie.
    async fn doubt(&self, head: &Head, keeper: &Keeper, why: WhyNot, times: Times) {
        self.errand.site.origin.not_kept(why.code());
        let now_ms = times.answered_ms;
        let is_somebodys = self.authenticated
            || self.fields.contains_key(COOKIE)
            || self.fields.contains_key(AUTHORIZATION);
        if let Some(old) = keeper.replaces.as_deref()
            && cache::outdates(head.status, why, old, now_ms)
            && !(is_somebodys && old.remaining_ms(now_ms) > 0)
        {
            self.end(old, now_ms).await;
        }
    }

    /// Ends what is stored. What is still good is withdrawn everywhere before the answer is passed
    /// on: another copy of it would be as good as this one.
    async fn end(&self, old: &Stored, now_ms: u64) {
        if old.remaining_ms(now_ms) > 0 {
            let path = self.errand.site.place.path_epoch().to_owned();
            self.gateway.invalidate(vec![path]).await;
        } else {
            self.gateway.drop_entry(old.key.clone());
        }
    }

    /// Whether the client wants a part of the whole that the upstream was asked for. It may have
    /// sent a part, or news, all the same.
    fn wants_part_of(&self, head: &Head) -> bool {
        let is_whole =
            !matches!(head.status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
        is_whole && self.errand.intent.store && self.request.headers().contains_key(RANGE)
    }

    fn storable(&self, head: &Head, times: Times) -> Result<Freshness, WhyNot> {
        let policy = &self.errand.policy;
        let asked = self.asked(times);
        let freshness =
            cache::storable(policy, &asked, head.status, &head.headers, times.answered_ms)?;
        if self.is_comparable(&freshness.vary) { Ok(freshness) } else { Err(WhyNot::Vary) }
    }

    /// Whether what selects a response is what clients send, and may be kept: what the gateway
    /// itself sets cannot be compared with that, and credentials are kept nowhere.
    fn is_comparable<V>(&self, vary: &[(HeaderName, V)]) -> bool {
        if vary.is_empty() {
            return true;
        }
        let origin = &self.errand.site.origin;
        let plan = &origin.running.plan;
        let route = plan.routes.policies().find(|route| route.index == origin.route);
        let auth = route.and_then(|route| route.auth.as_ref());
        !vary.iter().any(|(name, _)| {
            fields::is_set_by_gateway(&plan.headers, name)
                || auth.is_some_and(|auth| auth.reads(name))
        })
    }
}

/// An entry whose body is still to come: what can be said of it before.
fn promise(kept: &Stored, announced: Option<u64>) -> Stored {
    let body = Chunked { object: [0; 16], len: announced.unwrap_or(0), chunk_bytes: 1 };
    // Nobody may foretell the boundary that is made of this.
    let hard = Bytes::copy_from_slice(&fastrand::u128(..).to_le_bytes());
    let epochs = cache::Epochs { hard, soft: Bytes::new() };
    Stored { body: StoredBody::Chunked(body), epochs, ..kept.clone() }
}
