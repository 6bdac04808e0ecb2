//! Answers to writes that are what a read would be answered with: they are stored as that, unless
//! somebody else wrote meanwhile.
//!
//! Whoever is answered changes the path's epoch, and learns what it was before. Of two writes that
//! overlap, the one that is answered second finds the first one's epoch, and stores nothing; a
//! write that begins later reads the new one. The same holds for all other epochs that a write
//! changes. What is stored is valid under the epochs from before the write, but for those that it
//! changed itself: whatever else was purged meanwhile withdraws it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::admission::Admission;
use super::answer::{self, CacheNotes, RequestView};
use super::body::CacheBody;
use super::entry_key::KeyWithEpochs;
use super::http_cache::HttpCache;
use super::leases::LeaseOutcome;
use super::miss::Miss;
use super::receive::{Answered, Received, Times};
use super::route::Origin;
use crate::cache::{self, CacheKey, Intent, Own};
use crate::store::{CachedReply, Epoch, EpochChange};
use crate::upstream::Download;

/// A write whose answer may be stored, and what was true of its path before.
#[derive(Debug)]
pub struct Write {
    cache: Arc<HttpCache>,
    key: Arc<CacheKey>,
    origin: Arc<Origin>,
    reply: CachedReply,
    intent: Intent,
    /// The request's fields: what `Vary` selects from.
    fields: Arc<HeaderMap>,
    authenticated: bool,
    per_user: bool,
    sent_ms: u64,
    notes: CacheNotes,
    told: Arc<OnceLock<CacheNotes>>,
}

/// Whose write it is, as its lookup knows.
pub(super) struct Writer {
    pub(super) key: Arc<CacheKey>,
    pub(super) origin: Arc<Origin>,
    pub(super) intent: Intent,
    pub(super) authenticated: bool,
    pub(super) per_user: bool,
    pub(super) notes: CacheNotes,
}

impl Write {
    /// Of a write with these fields, before it is sent; `reply` has the epochs.
    pub(super) fn new(
        cache: &Arc<HttpCache>,
        writer: Writer,
        reply: CachedReply,
        fields: &HeaderMap,
    ) -> Box<Self> {
        let Writer { key, origin, intent, authenticated, per_user, notes } = writer;
        Box::new(Self {
            cache: Arc::clone(cache),
            key,
            origin,
            reply,
            intent,
            fields: Arc::new(fields.clone()),
            authenticated,
            per_user,
            sent_ms: cache.now_ms(),
            notes,
            told: Arc::default(),
        })
    }

    /// What is told of it, as far as that is known yet.
    pub fn notes(&self) -> &CacheNotes {
        &self.notes
    }

    /// Where it is told what became of its answer.
    pub fn told(&self) -> Arc<OnceLock<CacheNotes>> {
        Arc::clone(&self.told)
    }

    /// Whether the answer is what a GET of its target would be answered with.
    pub fn is_read_by(
        &self,
        own: &Own<'_>,
        response: &Response<Box<Download>>,
        method: &Method,
    ) -> bool {
        let mode = self.origin.route.policy.write_through;
        let answer = (response.status(), response.headers());
        !response.body().is_in_doubt()
            && cache::represents(mode, method, answer, own)
            && (cache::states_lifetime(response.headers(), self.cache.now_ms())
                || !cache::needs_lifetime(mode, method))
    }

    /// Stores the answer, if nobody else has changed the path's epoch since the write began.
    pub async fn store(
        self: Box<Self>,
        changes: &[EpochChange],
        mut response: Response<Box<Download>>,
        method: &Method,
    ) -> Response<CacheBody> {
        let Some((epochs, path_epoch)) = self.epochs_after(changes) else {
            self.origin.not_stored("overtaken");
            return response.map(CacheBody::Download);
        };
        let Self { cache, key, origin, fields, told, mut notes, .. } = *self;
        let key = KeyWithEpochs { key, epochs, path_epoch, origin };
        let miss = Miss {
            cache: Arc::clone(&cache),
            key: key.clone(),
            intent: self.intent,
            stale: None,
            purged: false,
            variant: String::new(),
            epochs_unknown: None,
            lease: LeaseOutcome::Unknown,
            authenticated: self.authenticated,
            per_user: self.per_user,
            notes: CacheNotes::default(),
        };
        let times = Times { sent_ms: self.sent_ms, answered_ms: cache.now_ms() };
        let (request, unless) = (Request::new(()), None);
        let answered = Answered { miss: &miss, request: &request, fields: &fields, times, unless };
        let admission =
            Admission { cache: Arc::clone(&cache), key, replaces: None, unless: None, lease: None };
        // A read of what was created is answered with 200.
        let status = std::mem::replace(response.status_mut(), StatusCode::OK);
        // Without a range in its request it wants all of it.
        let fetched = match answered.receive(response, admission, None).await {
            Received::Fetched(fetched) => fetched,
            Received::WantsPart => return Response::new(CacheBody::Bytes(Bytes::new())),
        };
        // What the write's own conditions say is no condition of a read.
        let view = RequestView { method, fields: &HeaderMap::new() };
        let verdict = notes.verdict;
        let response = answer::from_fetch(&cache, fetched, view, &mut notes).await;
        notes.verdict = verdict;
        notes.detail("write-through");
        let _ = told.set(notes);
        // What was not stored before has its body at hand.
        let mut response =
            response.unwrap_or_else(|| Response::new(CacheBody::Bytes(Bytes::new())));
        *response.status_mut() = status;
        response
    }

    /// The epochs under which the answer is valid, and the path's own as the store has it; nothing
    /// where somebody else has changed one of those that the write changes.
    fn epochs_after(&self, changes: &[EpochChange]) -> Option<(Arc<[Epoch]>, Bytes)> {
        let clock = self.origin.route.keys().cache_tags_clock();
        let mut own = None;
        let mut epochs = Vec::with_capacity(self.key.epochs.len());
        for (name, known) in self.key.epochs.iter().zip(self.reply.each()) {
            // The clock stays: of tags, all that was purged since the write began counts.
            let change = changes.iter().find(|it| it.key == *name && *name != clock);
            let Some(change) = change else {
                epochs.push(known.epoch);
                continue;
            };
            if known.lineage.mix(change.before) != known.epoch {
                return None;
            }
            epochs.push(known.lineage.mix(change.now));
            own = (name == self.key.path_epoch()).then_some(change.now).or(own);
        }
        let own = Bytes::copy_from_slice(&own?.to_bytes());
        (epochs.len() == self.key.epochs.len()).then(|| (epochs.into(), own))
    }
}
