//! Reads the header fields that govern caching: Cache-Control, Pragma, Age, Expires, Date, Vary.
//!
//! Pure parsing of untrusted bytes. It must not know what is done with the answer, and where a
//! field can be read in two ways it takes the reading that permits less: a list that cannot be
//! read to its end counts as `no-store`, because the part that was lost may have been just that.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL, EXPIRES, HeaderName, PRAGMA, VARY};
use std::time::UNIX_EPOCH;

/// The largest number of seconds that is told apart, RFC 9111 §1.2.2.
pub(super) const DELTA_MAX: u32 = 1 << 31;

/// More fields than this in `Vary` are treated like `*`: such an answer would never be reused.
const VARY_MAX: usize = 16;

/// The directives of Cache-Control that this cache obeys, RFC 9111 §5.2.
///
/// `no-cache` and `private` are true in their qualified forms (`private="a"`) too. `max-stale` is
/// absent on purpose: an answer that is no longer fresh is never used, so it has nothing to say.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheControl {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<u32>,
    pub(super) s_maxage: Option<u32>,
    pub(super) min_fresh: Option<u32>,
}

/// The list breaks the grammar of RFC 9111 §5.2, so what it meant to forbid is unknown.
struct Malformed;

impl CacheControl {
    /// Reads a request. `Pragma: no-cache` counts where there is no Cache-Control (RFC 9111 §5.4).
    pub(super) fn of_request(headers: &HeaderMap) -> Self {
        let mut control = Self::parse(headers);
        if !headers.contains_key(CACHE_CONTROL) {
            control.no_cache = headers.get_all(PRAGMA).iter().any(|line| {
                line.as_bytes().split(|b| *b == b',').any(|m| is(m.trim_ascii(), "no-cache"))
            });
        }
        control
    }

    /// Reads a response. Pragma has no meaning in one, RFC 9111 §5.4.
    pub(super) fn of_response(headers: &HeaderMap) -> Self {
        Self::parse(headers)
    }

    fn parse(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            if control.read_line(line.as_bytes()).is_err() {
                control.no_store = true;
                control.no_cache = true;
            }
        }
        control
    }

    fn read_line(&mut self, mut rest: &[u8]) -> Result<(), Malformed> {
        loop {
            rest = skip(rest, |b| matches!(b, b' ' | b'\t' | b','));
            if rest.is_empty() {
                return Ok(());
            }
            let (name, after) = split_token(rest);
            if name.is_empty() {
                return Err(Malformed);
            }
            let (value, after) = match after.strip_prefix(b"=") {
                Some(after) => {
                    let (value, after) = split_argument(after)?;
                    (Some(value), after)
                }
                None => (None, after),
            };
            self.apply(name, value)?;
            rest = skip(after, |b| matches!(b, b' ' | b'\t'));
            if !matches!(rest.first(), None | Some(b',')) {
                return Err(Malformed);
            }
        }
    }

    fn apply(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<(), Malformed> {
        if is(name, "no-store") {
            self.no_store = true;
        } else if is(name, "no-cache") {
            self.no_cache = true;
        } else if is(name, "private") {
            self.private = true;
        } else if is(name, "only-if-cached") {
            self.only_if_cached = true;
        } else if is(name, "public") {
            // These two open a door, so only their exact form does: an argument was not meant.
            self.public = value.is_none();
            return value.map_or(Ok(()), |_| Err(Malformed));
        } else if is(name, "must-revalidate") {
            self.must_revalidate = value.is_none();
            return value.map_or(Ok(()), |_| Err(Malformed));
        } else if is(name, "max-age") {
            merge(&mut self.max_age, value, 0);
        } else if is(name, "s-maxage") {
            merge(&mut self.s_maxage, value, 0);
        } else if is(name, "min-fresh") {
            merge(&mut self.min_fresh, value, DELTA_MAX);
        }
        Ok(())
    }
}

/// Keeps one number per directive. An unreadable value, and two values that contradict each
/// other, become `strictest` (RFC 9111 §4.2.1 lets such a response count as stale).
fn merge(slot: &mut Option<u32>, value: Option<&[u8]>, strictest: u32) {
    let new = value.and_then(delta_seconds).unwrap_or(strictest);
    *slot = match *slot {
        Some(old) if old != new => Some(strictest),
        _ => Some(new),
    };
}

/// Reads delta-seconds: digits and nothing else, saturating at 2^31 (RFC 9111 §1.2.2).
fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let grow = |sum: u32, digit: &u8| {
        sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')).min(DELTA_MAX)
    };
    Some(text.iter().fold(0, grow))
}

/// The Age of a response: the first member of the first line; zero if unreadable (RFC 9111 §5.1).
pub(super) fn age(headers: &HeaderMap) -> u32 {
    headers
        .get(AGE)
        .and_then(|line| line.as_bytes().split(|b| *b == b',').next())
        .and_then(|member| delta_seconds(member.trim_ascii()))
        .unwrap_or(0)
}

/// When a response expires, in Unix seconds; none if it does not say (RFC 9111 §5.3).
///
/// An unreadable date and a second line mean that it already has, which is the instant zero.
pub(super) fn expires(headers: &HeaderMap) -> Option<u64> {
    headers.contains_key(EXPIRES).then(|| date(headers, &EXPIRES).unwrap_or(0))
}

/// The HTTP date in a field, in Unix seconds, if there is exactly one line and it can be read
/// (RFC 9110 §5.6.7).
pub(super) fn date(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let text = only(headers, name)?;
    let at = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    at.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// The value of a field that must not be repeated; none if it is absent or is repeated.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then(|| first.as_bytes().trim_ascii())
}

/// The request fields that a response depends on; none if no other request can match it, which
/// is what `*` anywhere in the list means (RFC 9110 §12.5.5, RFC 9111 §4.1).
pub(super) fn vary(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for line in headers.get_all(VARY) {
        for member in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if member.is_empty() {
                continue;
            }
            // `*` is a token, hence a well-formed field name, and must be looked for first.
            if member == b"*" || names.len() == VARY_MAX {
                return None;
            }
            let name = HeaderName::from_bytes(member).ok()?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Some(names)
}

/// All lines of a field as one value, RFC 9110 §5.3; none if the field is absent.
pub(super) fn combined(headers: &HeaderMap, name: &HeaderName) -> Option<Bytes> {
    let mut lines = headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii());
    let mut value = BytesMut::from(lines.next()?);
    for line in lines {
        value.put_slice(b", ");
        value.put_slice(line);
    }
    Some(value.freeze())
}

fn is(name: &[u8], directive: &str) -> bool {
    name.eq_ignore_ascii_case(directive.as_bytes())
}

fn skip(text: &[u8], unwanted: impl Fn(u8) -> bool) -> &[u8] {
    let end = text.iter().position(|b| !unwanted(*b)).unwrap_or(text.len());
    &text[end..]
}

/// Splits off a token, which may turn out empty (RFC 9110 §5.6.2).
fn split_token(text: &[u8]) -> (&[u8], &[u8]) {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    text.split_at(text.len() - skip(text, is_tchar).len())
}

/// Splits off a token or the inside of a quoted string (RFC 9110 §5.6.4). Escapes stay as they
/// are: no number needs one, so a number that has one counts as unreadable.
fn split_argument(text: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let Some(inside) = text.strip_prefix(b"\"") else {
        return Ok(split_token(text));
    };
    let mut escaped = false;
    for (at, byte) in inside.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok((&inside[..at], &inside[at + 1..])),
            _ => {}
        }
    }
    Err(Malformed)
}
