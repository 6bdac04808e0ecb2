//! Entity tags and modification dates: what tells two versions of one resource apart (RFC 9110
//! §8.8), and what a client's conditions make of them (§13).

use http::HeaderMap;
use http::header::{DATE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED};

use super::date;
use super::text::only;

/// An entity tag: what its quotes hold, and whether it is a weak one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    opaque: &'a [u8],
    weak: bool,
}

impl<'a> Tag<'a> {
    /// The tag of a response; none if there is not exactly one that can be read.
    pub(super) fn of(headers: &'a HeaderMap) -> Option<Self> {
        Self::parse(only(headers, ETAG)?)
    }

    fn parse(text: &'a [u8]) -> Option<Self> {
        Self::split(text).and_then(|(tag, rest)| rest.is_empty().then_some(tag))
    }

    /// Splits off one tag. It may hold commas, and knows no escapes (RFC 9110 §8.8.3).
    fn split(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, text) = match text.strip_prefix(b"W/") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let quoted = text.strip_prefix(b"\"")?;
        let end = quoted.iter().position(|b| *b == b'"')?;
        let (opaque, rest) = quoted.split_at(end);
        let is_etagc = |b: &u8| *b == 0x21 || *b >= 0x23 && *b != 0x7F;
        let tag = Self { opaque, weak };
        opaque.iter().all(is_etagc).then_some((tag, rest.strip_prefix(b"\"")?))
    }

    /// The same representation, byte for byte (RFC 9110 §8.8.3.2).
    pub(super) fn is_strongly(self, other: Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// The same content in meaning (RFC 9110 §8.8.3.2).
    pub(super) fn is_weakly(self, other: Self) -> bool {
        self.opaque == other.opaque
    }

    /// Whether it promises only the same meaning.
    pub(super) fn is_weak(self) -> bool {
        self.weak
    }
}

/// Whether a request's conditions say that the client holds this response (RFC 9110 §13.2.2).
/// If-None-Match decides alone wherever it is present, readable or not. Without Last-Modified, a
/// response is as old as its Date (RFC 9111 §4.3.2).
#[must_use]
pub fn client_has(stored: &HeaderMap, request: &HeaderMap, now_s: u64) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let tag = Tag::of(stored);
        return request.get_all(IF_NONE_MATCH).iter().any(|line| names(line.as_bytes(), tag));
    }
    let Some(since) = date::of(request, IF_MODIFIED_SINCE, now_s) else {
        return false;
    };
    let field = if stored.contains_key(LAST_MODIFIED) { LAST_MODIFIED } else { DATE };
    date::of(stored, field, now_s).is_some_and(|modified| modified <= since)
}

/// Whether a line of If-None-Match is `*` or lists the tag, by weak comparison. What cannot be
/// read matches nothing: the client gets the whole answer.
fn names(line: &[u8], tag: Option<Tag<'_>>) -> bool {
    let mut rest = line.trim_ascii();
    if rest == b"*" {
        return true;
    }
    let Some(tag) = tag else {
        return false;
    };
    loop {
        // Empty members of a list are passed over, RFC 9110 §5.6.1.2.
        while let Some(after) = rest.strip_prefix(b",") {
            rest = after.trim_ascii_start();
        }
        let Some((candidate, after)) = Tag::split(rest) else {
            return false;
        };
        let after = after.trim_ascii_start();
        let is_whole = after.is_empty() || after.starts_with(b",");
        if is_whole && candidate.is_weakly(tag) {
            return true;
        }
        if !is_whole {
            return false;
        }
        rest = after;
    }
}

/// Whether a range may be cut from this response: If-Range is absent, or names exactly it
/// (RFC 9110 §13.1.5). Only strong validators will do, since parts are put together byte by byte.
pub(super) fn range_applies(stored: &HeaderMap, request: &HeaderMap, now_s: u64) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    let Some(condition) = only(request, IF_RANGE) else {
        return false;
    };
    if let Some(wanted) = Tag::parse(condition) {
        return Tag::of(stored).is_some_and(|tag| tag.is_strongly(wanted));
    }
    let (Some(wanted), Some(modified)) =
        (date::parse(condition, now_s), date::of(stored, LAST_MODIFIED, now_s))
    else {
        return false;
    };
    // A date is strong when nothing else could have been made in that second (RFC 9110 §8.8.2.2).
    let is_strong = date::of(stored, DATE, now_s).is_some_and(|made| made > modified);
    wanted == modified && is_strong
}

/// Whether there is a validator that a later request can carry (RFC 9111 §4.3.1).
pub(super) fn can_validate(headers: &HeaderMap, now_s: u64) -> bool {
    Tag::of(headers).is_some() || date::of(headers, LAST_MODIFIED, now_s).is_some()
}
