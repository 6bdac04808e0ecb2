//! What the client gets of a stored response, or of one that is being stored.

use std::sync::Arc;

use http::response::Parts as Head;
use http::{HeaderMap, Method, Response, StatusCode};

use super::super::body::Content;
use super::super::parts::{Chunks, Parts};
use super::CacheNotes;
use super::fetch::{Fetched, How};
use crate::cache::{self, CacheStatus, Forward, Passing, Piece, Reader, Reply, Stored, StoredBody};
use crate::runtime::Gateway;

/// The request, as far as an answer depends on it.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Wish<'a> {
    pub(in crate::proxy) method: &'a Method,
    pub(in crate::proxy) fields: &'a HeaderMap,
}

/// Answers from a stored response. None if its body is not in the store any more.
pub(in crate::proxy) async fn stored(
    gateway: &Arc<Gateway>,
    stored: &Arc<Stored>,
    wish: Wish<'_>,
    age: u64,
    notes: &mut CacheNotes,
) -> Option<Response<Content>> {
    let response = from_store(gateway, stored, wish, age).await?;
    let ttl = stored.ttl_s(gateway.now_ms());
    notes.note_verdict(if ttl > 0 { "hit" } else { "stale" });
    notes.note_status(CacheStatus::hit(ttl));
    Some(response)
}

/// Whether the body of a stored response is where it should be.
pub(super) async fn is_there(gateway: &Arc<Gateway>, stored: &Stored) -> bool {
    match &stored.body {
        StoredBody::Inline(_) => true,
        StoredBody::Chunked(body) => {
            Chunks::open(gateway, &stored.key, *body, 0..body.len).await.is_some()
        }
    }
}

async fn from_store(
    gateway: &Arc<Gateway>,
    stored: &Arc<Stored>,
    wish: Wish<'_>,
    age: u64,
) -> Option<Response<Content>> {
    let reply = cache::reply(stored, wish.method, wish.fields, age);
    let content = match &stored.body {
        StoredBody::Inline(body) => Content::Bytes(reply.gather(body)?),
        StoredBody::Chunked(body) => {
            let mut parts = Parts::new();
            for piece in &reply.body {
                match *piece {
                    Piece::Bytes(ref bytes) => parts.bytes(bytes.clone()),
                    Piece::Slice { start, len } => {
                        let range = start..start.saturating_add(len);
                        parts.chunks(Chunks::open(gateway, &stored.key, *body, range).await?);
                    }
                }
            }
            Content::Parts(Box::new(parts))
        }
    };
    Some(respond(reply.status, reply.headers, content))
}

/// Answers with what was fetched.
pub(in crate::proxy) async fn fetched(
    gateway: &Arc<Gateway>,
    fetched: Fetched,
    wish: Wish<'_>,
    (why, collapsed): (Forward, Option<bool>),
    notes: &mut CacheNotes,
) -> Option<Response<Content>> {
    let mut status = CacheStatus { collapsed, ..CacheStatus::forwarded(why, false) };
    // Whoever waited for a new one was not served the stale one.
    notes.note_verdict(if why == Forward::Stale { "miss" } else { why.verdict() });
    let response = match fetched {
        Fetched::Stored(stored, how) => {
            let now_ms = gateway.now_ms();
            status.ttl = Some(stored.ttl_s(now_ms));
            match how {
                How::Confirmed(is_kept) => {
                    notes.note_verdict("revalidated");
                    status.forward_status = Some(304);
                    status.stored = is_kept;
                }
                How::Collapsed => notes.note_verdict("collapsed"),
                How::Instead(failed) => {
                    notes.note_verdict("stale");
                    status.forward_status = failed.map(|status| status.as_u16());
                }
            }
            from_store(gateway, &stored, wish, stored.age_ms(now_ms) / 1000).await?
        }
        Fetched::Followed { stored, passing } => {
            notes.note_verdict("collapsed");
            let age = stored.age_ms(gateway.now_ms()) / 1000;
            let reply = cache::reply(&stored, wish.method, wish.fields, age);
            of_passing(reply, &passing)
        }
        Fetched::Passing { head, stored, reader, passing, measured, kept } => {
            status.stored = kept;
            let age = stored.age_ms(gateway.now_ms()) / 1000;
            let reply = cache::is_partial(wish.fields)
                .then(|| cache::reply(&stored, wish.method, wish.fields, age))
                // News can be told of a body whose length nobody knows yet; a part cannot.
                .filter(|reply| measured || reply.status == StatusCode::NOT_MODIFIED);
            let Head { status, headers, .. } = *head;
            match (reply, &stored.body) {
                (Some(reply), _) => of_passing(reply, &passing),
                (None, StoredBody::Inline(body)) => {
                    respond(status, headers, Content::Bytes(body.clone()))
                }
                (None, StoredBody::Chunked(_)) => whole(status, headers, reader),
            }
        }
        Fetched::Through(response, why_not) => {
            if let Some(why_not) = why_not {
                notes.note_detail(why_not.code());
            }
            response.map(|download| Content::Download(Box::new(download)))
        }
    };
    notes.note_status(status);
    Some(response)
}

/// A whole body that is still passing.
fn whole(status: StatusCode, headers: HeaderMap, reader: Reader) -> Response<Content> {
    let mut parts = Parts::new();
    parts.passing(reader);
    respond(status, headers, Content::Parts(Box::new(parts)))
}

/// What of a body that is still passing a reply wants.
fn of_passing(reply: Reply, passing: &Arc<Passing>) -> Response<Content> {
    let mut parts = Parts::new();
    for piece in reply.body {
        match piece {
            Piece::Bytes(bytes) => parts.bytes(bytes),
            Piece::Slice { start, len } => {
                parts.passing(passing.read(start..start.saturating_add(len)));
            }
        }
    }
    respond(reply.status, reply.headers, Content::Parts(Box::new(parts)))
}

fn respond(status: StatusCode, headers: HeaderMap, content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
