//! What the client gets of a stored response, or of one that is being stored, and what is to be
//! told of it.

use std::sync::Arc;

use http::response::Parts as Head;
use http::{HeaderMap, Method, Response, StatusCode};

use super::body::{CacheBody, Parts, StoredRange};
use super::http_cache::HttpCache;
use crate::cache::{self, CacheStatus, Forward, Piece, Reply, Stored, StoredBody, WhyNot};
use crate::capture::{BodyReader, SharedBody};
use crate::store::budget;
use crate::upstream::Download;

/// The request, as far as an answer from the cache depends on it.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its fields as the client sent them: what `Vary` selects from.
    pub fields: &'a HeaderMap,
}

/// An answer.
#[derive(Debug)]
pub struct Served {
    /// The response, with all fields of the upstream's, and without a member of this gateway in
    /// `Cache-Status`.
    pub response: Response<CacheBody>,
    /// What is to be told of it.
    pub notes: CacheNotes,
}

/// What the log, the metrics and `Cache-Status` (RFC 9211) tell of what the cache did. The caller
/// writes it down; nothing is decided from it.
#[derive(Debug, Clone, Default)]
pub struct CacheNotes {
    /// The word for the log and the metrics, where the cache had a part in the answer.
    pub verdict: Option<&'static str>,
    /// Why the request went on to the upstream; none for a hit.
    pub forward: Option<Forward>,
    /// The status that the upstream gave, where the client gets another one.
    pub forward_status: Option<u16>,
    /// Seconds of freshness left; below zero once it is stale.
    pub ttl: Option<i64>,
    /// Whether the upstream's response is stored.
    pub stored: bool,
    /// Whether waiting for another request's fetch helped; none where it was not tried.
    pub collapsed: Option<bool>,
    /// The key and more, for a client that may know.
    pub debug: Option<Box<CacheDebug>>,
}

/// What only those are told who are trusted: it tells a stranger what is worth attacking.
#[derive(Debug, Clone, Default)]
pub struct CacheDebug {
    /// The key of the entry.
    pub key: String,
    /// What else there is to know.
    pub detail: Option<&'static str>,
}

impl CacheNotes {
    /// Of a request that goes to the upstream.
    pub(super) fn forwarded(why: Forward) -> Self {
        Self { forward: Some(why), ..Self::default() }
    }

    /// Of a hit, with so many seconds of freshness left.
    pub(super) fn hit(self, ttl: i64) -> Self {
        let verdict = Some(if ttl > 0 { "hit" } else { "stale" });
        Self { verdict, ttl: Some(ttl), debug: self.debug, ..Self::default() }
    }

    /// Tells those who may know.
    pub(super) fn detail(&mut self, detail: &'static str) {
        if let Some(debug) = &mut self.debug {
            debug.detail = Some(detail);
        }
    }

    /// Appends this gateway's member to `Cache-Status`.
    pub fn append_to(&self, headers: &mut HeaderMap) {
        let debug = self.debug.as_ref();
        let status = CacheStatus {
            forward: self.forward,
            forward_status: self.forward_status,
            ttl: self.ttl,
            stored: self.stored,
            collapsed: self.collapsed,
            key: debug.map(|debug| debug.key.as_str()),
            detail: debug.and_then(|debug| debug.detail),
        };
        cache::append_status(headers, &status);
    }
}

/// What came of a fetch.
pub(super) enum Fetched {
    /// A stored response answers.
    Stored(Arc<Stored>, How),
    /// The response is stored while it arrives.
    Streaming(Streaming),
    /// The same, of somebody else's request.
    Followed(Arc<Stored>, Arc<SharedBody>),
    /// The response is the client's alone; with why it was not stored, where that was decided.
    Through(Response<Box<Download>>, Option<WhyNot>),
}

/// A response that is stored while it arrives.
pub(super) struct Streaming {
    /// The head as the upstream sent it.
    pub(super) head: Head,
    /// The entry; its body is there when it came along with the head.
    pub(super) response: Arc<Stored>,
    pub(super) body: Arc<SharedBody>,
    pub(super) reader: BodyReader,
    /// Whether its length is known.
    pub(super) has_length: bool,
    /// Whether it is stored; where only its end tells, whether nothing speaks against it.
    pub(super) is_stored: bool,
}

/// How a stored response came to answer after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The origin confirmed it; with whether that is stored.
    Confirmed(bool),
    /// Another request fetched it.
    Collapsed,
    /// The origin failed, with this status or without an answer, and it is still good enough.
    Instead(Option<StatusCode>),
}

/// Answers from a stored response. None if its body is not in the store any more.
pub(super) async fn from_store(
    cache: &Arc<HttpCache>,
    stored: &Arc<Stored>,
    view: RequestView<'_>,
    age: u64,
) -> Option<Response<CacheBody>> {
    let reply = cache::reply(stored, view.method, view.fields, age);
    let body = match &stored.body {
        StoredBody::Inline(body) => CacheBody::Bytes(reply.gather(body)?),
        StoredBody::Chunked(body) => {
            let mut parts = Parts::new();
            for piece in &reply.body {
                match *piece {
                    Piece::Bytes(ref bytes) => parts.bytes(bytes.clone()),
                    Piece::Slice { start, len } => {
                        let range = start..start.saturating_add(len);
                        let range = StoredRange::open(cache, &stored.key, *body, range);
                        // Large: boxed, it takes no room where the body is at hand.
                        parts.stored(Box::pin(range).await?);
                    }
                }
            }
            CacheBody::Parts(Box::new(parts))
        }
    };
    Some(respond(reply.status, reply.headers, body))
}

/// Answers with what was fetched, and adds to the notes of its miss. None if the body of a stored
/// response is not in the store any more.
pub(super) async fn from_fetch(
    cache: &Arc<HttpCache>,
    fetched: Fetched,
    view: RequestView<'_>,
    notes: &mut CacheNotes,
) -> Option<Response<CacheBody>> {
    // Whoever waited for a new one was not served the stale one.
    notes.verdict = notes.forward.map(|why| match why {
        Forward::Stale => "miss",
        why => why.verdict(),
    });
    Some(match fetched {
        Fetched::Stored(stored, how) => {
            let now_ms = cache.now_ms();
            notes.ttl = Some(stored.ttl_s(now_ms));
            match how {
                How::Confirmed(is_stored) => {
                    notes.verdict = Some("revalidated");
                    notes.forward_status = Some(304);
                    notes.stored = is_stored;
                }
                How::Collapsed => notes.verdict = Some("collapsed"),
                How::Instead(failed) => {
                    notes.verdict = Some("stale");
                    notes.forward_status = failed.map(|status| status.as_u16());
                }
            }
            // Nothing else answers any more.
            budget::keep(cache.timeout());
            from_store(cache, &stored, view, stored.age_ms(now_ms) / 1000).await?
        }
        Fetched::Followed(stored, body) => {
            notes.verdict = Some("collapsed");
            let age = stored.age_ms(cache.now_ms()) / 1000;
            of_shared(cache::reply(&stored, view.method, view.fields, age), &body)
        }
        Fetched::Streaming(streaming) => {
            notes.stored = streaming.is_stored;
            of_streaming(streaming, view, cache.now_ms())
        }
        Fetched::Through(response, why_not) => {
            if let Some(why_not) = why_not {
                notes.detail(why_not.code());
            }
            response.map(CacheBody::Download)
        }
    })
}

fn of_streaming(streaming: Streaming, view: RequestView<'_>, now_ms: u64) -> Response<CacheBody> {
    let Streaming { head, response, body, reader, has_length, .. } = streaming;
    let age = response.age_ms(now_ms) / 1000;
    let reply = cache::is_partial(view.fields)
        .then(|| cache::reply(&response, view.method, view.fields, age))
        // A 304 can be told of a body whose length nobody knows yet; a part cannot.
        .filter(|reply| has_length || reply.status == StatusCode::NOT_MODIFIED);
    let Head { status, headers, .. } = head;
    match (reply, &response.body) {
        (Some(reply), _) => of_shared(reply, &body),
        (None, StoredBody::Inline(bytes)) => {
            respond(status, headers, CacheBody::Bytes(bytes.clone()))
        }
        (None, StoredBody::Chunked(_)) => {
            respond(status, headers, CacheBody::Shared(Box::new(reader)))
        }
    }
}

/// What of a body that still arrives a reply wants.
fn of_shared(reply: Reply, body: &Arc<SharedBody>) -> Response<CacheBody> {
    let mut parts = Parts::new();
    for piece in reply.body {
        match piece {
            Piece::Bytes(bytes) => parts.bytes(bytes),
            Piece::Slice { start, len } => {
                parts.shared(body.read(start..start.saturating_add(len)));
            }
        }
    }
    respond(reply.status, reply.headers, CacheBody::Parts(Box::new(parts)))
}

fn respond(status: StatusCode, headers: HeaderMap, body: CacheBody) -> Response<CacheBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
