//! Makes the answer to one request from a stored one: in full, its head, a part of it, or that the
//! client has it already (RFC 9110 §13.2.2, §14, §15.3.7, §15.4.5, §15.5.17).
//!
//! It must not know where the body is: an answer names the parts of it that follow the head.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE,
    CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderName, HeaderValue, LAST_MODIFIED, VARY,
};
use http::{HeaderMap, Method, StatusCode};

use super::entry::Stored;
use super::range::{self, Wanted};
use super::validator::{client_has, range_applies};
use crate::base::http::hex;

/// The fields of a 304, RFC 9110 §15.4.5. Age joins them, and Last-Modified where no tag is there.
const NOT_MODIFIED: [HeaderName; 7] = [
    CACHE_CONTROL,
    CONTENT_LOCATION,
    DATE,
    ETAG,
    EXPIRES,
    VARY,
    HeaderName::from_static("cdn-cache-control"),
];

/// Fields that join those of an entry before they are sent: its age and length, what the cache and
/// the limits tell, the id of the request. With room for them the table is not built twice, which
/// costs a hit 900 instructions.
const ADDED_FIELDS: usize = 9;

/// An answer made from a stored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// What follows the head, in order.
    pub body: Vec<Piece>,
}

/// A piece of an answer's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes(Bytes),
    /// This part of the stored body; never empty, and never beyond its end.
    Slice { start: u64, len: u64 },
}

/// Makes the answer to a GET or HEAD from an entry that may be used for it, with the Age that the
/// verdict carries (RFC 9111 §4, §5.1).
#[must_use]
pub fn reply(stored: &Stored, method: &Method, request: &HeaderMap, age: u64) -> Reply {
    let now_s = stored.answered_ms / 1000;
    let mut reply = if stored.status.is_success() && client_has(&stored.headers, request, now_s) {
        not_modified(stored)
    } else if stored.status == StatusCode::OK
        && method == Method::GET
        && range_applies(&stored.headers, request, now_s)
    {
        match range::wanted(request, stored.body.len()) {
            Wanted::Whole => whole(stored),
            Wanted::Nothing => unsatisfiable(stored),
            Wanted::Parts(parts) => partial(stored, &parts),
        }
    } else {
        whole(stored)
    };
    if method == Method::HEAD {
        reply.body.clear();
    }
    reply.headers.insert(AGE, HeaderValue::from(age));
    reply
}

fn whole(stored: &Stored) -> Reply {
    let mut headers = copied(&stored.headers);
    // A 204 must not announce a length, RFC 9110 §8.6.
    if stored.status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(stored.body.len()));
    }
    let body = slice(0, stored.body.len()).into_iter().collect();
    Reply { status: stored.status, headers, body }
}

/// The fields of an entry, with room for those that join them.
fn copied(stored: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(stored.len() + ADDED_FIELDS);
    for (name, value) in stored {
        headers.append(name, value.clone());
    }
    headers
}

fn not_modified(stored: &Stored) -> Reply {
    let without_tag = !stored.headers.contains_key(ETAG);
    let is_kept =
        |name: &HeaderName| NOT_MODIFIED.contains(name) || without_tag && *name == LAST_MODIFIED;
    Reply {
        status: StatusCode::NOT_MODIFIED,
        headers: filtered(&stored.headers, is_kept),
        body: Vec::new(),
    }
}

fn unsatisfiable(stored: &Stored) -> Reply {
    let mut headers = filtered(&stored.headers, |name| matches!(*name, DATE | VARY));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    insert(&mut headers, CONTENT_RANGE, format!("bytes */{}", stored.body.len()));
    Reply { status: StatusCode::RANGE_NOT_SATISFIABLE, headers, body: Vec::new() }
}

/// One part is sent as it is; several are wrapped, each with a head of its own.
fn partial(stored: &Stored, parts: &[(u64, u64)]) -> Reply {
    let mut headers = stored.headers.clone();
    let total = stored.body.len();
    let body = if let [(start, len)] = *parts {
        insert(&mut headers, CONTENT_RANGE, content_range(start, len, total));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
        slice(start, len).into_iter().collect()
    } else {
        let boundary = boundary(stored);
        // Each part has its own (RFC 9110 §15.3.7.2).
        headers.remove(CONTENT_RANGE);
        let kind = format!("multipart/byteranges; boundary={boundary}");
        insert(&mut headers, CONTENT_TYPE, kind);
        let body = wrapped(stored, parts, &boundary);
        let length = body.iter().fold(0, |sum: u64, piece| sum.saturating_add(piece.len()));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        body
    };
    Reply { status: StatusCode::PARTIAL_CONTENT, headers, body }
}

/// The body of a multipart/byteranges, RFC 9110 §14.6.
fn wrapped(stored: &Stored, parts: &[(u64, u64)], boundary: &str) -> Vec<Piece> {
    let mut body = Vec::with_capacity(parts.len() * 2 + 1);
    let mut lead = format!("--{boundary}");
    for (start, len) in parts {
        let mut head = lead.into_bytes();
        for kind in stored.headers.get_all(CONTENT_TYPE) {
            head.extend_from_slice(b"\r\nContent-Type: ");
            head.extend_from_slice(kind.as_bytes());
        }
        let range = content_range(*start, *len, stored.body.len());
        head.extend_from_slice(format!("\r\nContent-Range: {range}\r\n\r\n").as_bytes());
        body.push(Piece::Bytes(head.into()));
        body.extend(slice(*start, *len));
        lead = format!("\r\n--{boundary}");
    }
    body.push(Piece::Bytes(format!("{lead}--\r\n").into()));
    body
}

/// A line that the body does not contain: it follows from nonces that whoever wrote the body could
/// not know.
fn boundary(stored: &Stored) -> String {
    let mut sum = Context::new(&SHA256);
    for part in [stored.key.as_bytes(), &stored.epochs.hard, &stored.epochs.soft] {
        sum.update(&(part.len() as u64).to_le_bytes());
        sum.update(part);
    }
    sum.update(&stored.answered_ms.to_le_bytes());
    sum.update(&stored.born_ms.to_le_bytes());
    hex::encode(sum.finish().as_ref().get(..16).unwrap_or_default())
}

fn content_range(start: u64, len: u64, total: u64) -> String {
    format!("bytes {start}-{}/{total}", start.saturating_add(len).saturating_sub(1))
}

fn slice(start: u64, len: u64) -> Option<Piece> {
    (len > 0).then_some(Piece::Slice { start, len })
}

fn filtered(headers: &HeaderMap, is_kept: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| is_kept(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Text made of digits and tokens, which is always a field value.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(text) {
        headers.insert(name, value);
    }
}

impl Piece {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Slice { len, .. } => *len,
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes, from a body that is in memory; none where the body is shorter than that.
    #[must_use]
    pub fn of(&self, body: &Bytes) -> Option<Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes.clone()),
            Self::Slice { start, len } => {
                let start = usize::try_from(*start).ok()?;
                let end = start.checked_add(usize::try_from(*len).ok()?)?;
                (end <= body.len()).then(|| body.slice(start..end))
            }
        }
    }
}

impl Reply {
    /// The body in one piece, from a stored one that is in memory. The usual case, one slice, is
    /// not copied.
    #[must_use]
    pub fn gather(&self, body: &Bytes) -> Option<Bytes> {
        if let [piece] = self.body.as_slice() {
            return piece.of(body);
        }
        let mut whole = Vec::new();
        for piece in &self.body {
            whole.extend_from_slice(&piece.of(body)?);
        }
        Some(whole.into())
    }
}
