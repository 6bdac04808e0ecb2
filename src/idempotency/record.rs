//! What lies under an idempotency key: that its request runs, or how it ended.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, SET_COOKIE};
use http::{HeaderMap, StatusCode};

use super::fingerprint::Fingerprint;
use crate::base::packed::{Magic, Packer, Unpacker};
use crate::sealing::is_sealed;

/// What a running request's value begins with.
const PENDING: &str = "p ";
/// What the value of one that has ended begins with, and its version.
const ENDED: Magic = *b"end\x01";

/// A request that runs, or of which nobody knows how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending<'a> {
    /// Who runs it: a name that no other request has, without a blank.
    pub owner: &'a str,
    /// When it is not to be waited for any more unless it says so again, in Unix milliseconds of
    /// the store's clock.
    pub until_ms: u64,
}

impl Pending<'_> {
    /// The value.
    pub fn value(&self) -> String {
        format!("{}{}", Self::begins(self.owner), self.until_ms)
    }

    /// What every value of this owner begins with, as long as its request runs.
    pub fn begins(owner: &str) -> String {
        format!("{PENDING}{owner} ")
    }

    /// The value once nobody knows how the request ended. It begins otherwise than those of before:
    /// a renewal that comes late does not overwrite it.
    pub fn unknown(owner: &str) -> String {
        format!("{PENDING}{owner}? 0")
    }
}

/// Which part of a request its fingerprint is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Of all of it.
    Whole(Fingerprint),
    /// Of its head: it was answered before its body had come.
    Head(Fingerprint),
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What it was.
    pub seen: Seen,
    /// The status of its answer.
    pub status: StatusCode,
    /// The rest of its answer; nothing where that was not kept.
    pub kept: Option<(HeaderMap, Bytes)>,
}

/// The fields of an answer that are kept. A cookie is for whoever was answered then: who comes
/// later may have a newer one, or be somebody else behind the same address.
pub fn kept_fields(mut fields: HeaderMap) -> HeaderMap {
    fields.remove(SET_COOKIE);
    fields.remove(CONTENT_LENGTH);
    fields
}

impl Ended {
    /// The value.
    pub fn value(&self) -> Vec<u8> {
        let (kind, fingerprint) = match &self.seen {
            Seen::Whole(fingerprint) => (0, fingerprint),
            Seen::Head(fingerprint) => (1, fingerprint),
        };
        let body = self.kept.as_ref().map_or(0, |(_, body)| body.len());
        let mut out = Packer::begin(ENDED, 512 + body);
        out.put(&[kind, u8::from(self.kept.is_some())]);
        out.put(fingerprint.as_bytes());
        out.put(&self.status.as_u16().to_le_bytes());
        if let Some((headers, body)) = &self.kept {
            out.headers(headers);
            out.put(body);
        }
        out.seal()
    }

    pub(super) fn read(value: &Bytes) -> Option<Self> {
        let mut read = Unpacker::open(ENDED, value)?;
        let [kind, is_kept] = read.array()?;
        let fingerprint = Fingerprint::from_bytes(read.array()?);
        let seen = if kind == 0 { Seen::Whole(fingerprint) } else { Seen::Head(fingerprint) };
        let status = StatusCode::from_u16(u16::from_le_bytes(read.array()?)).ok()?;
        let kept = if is_kept == 0 { None } else { Some((read.headers()?, read.rest())) };
        Some(Self { seen, status, kept })
    }
}

/// What stands in the way of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: the key is its own.
    Own,
    /// Another one runs.
    Running,
    /// Another one ran, and nobody knows how it ended. What lies there.
    Unknown(Bytes),
    /// Another one has ended.
    Ended(Box<Ended>),
    /// Another one has ended, and how is sealed. What lies there.
    Sealed(Bytes),
}

/// Judges what lay under a request's key when it asked for it; `own` is what it wrote itself.
/// `now_ms`: on the store's clock.
pub fn standing(found: Option<Bytes>, own: &[u8], now_ms: u64) -> Standing {
    let Some(found) = found.filter(|found| *found != own) else { return Standing::Own };
    if is_sealed(&found) {
        // Whoever opens it or not: a request that runs seals nothing.
        return Standing::Sealed(found);
    }
    if let Some(ended) = Ended::read(&found) {
        return Standing::Ended(Box::new(ended));
    }
    let text = std::str::from_utf8(&found).unwrap_or_default();
    let until = text.strip_prefix(PENDING).and_then(|rest| rest.split_once(' '));
    // What nobody can read says nothing of how a request ended.
    let until_ms = until.and_then(|(_, until)| until.parse().ok()).unwrap_or(0);
    if until_ms > now_ms { Standing::Running } else { Standing::Unknown(found) }
}
