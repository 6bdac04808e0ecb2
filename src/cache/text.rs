//! The lexical rules that several fields share: tokens, quoted strings, lists, numbers.
//!
//! Pure parsing of untrusted bytes; it must not know what any field means.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{AsHeaderName, HeaderName};

/// The largest number of seconds that is told apart, RFC 9111 §1.2.2.
pub(super) const DELTA_MAX: u32 = 1 << 31;

/// A list breaks the grammar, so what it meant is unknown.
#[derive(Debug)]
pub(super) struct Malformed;

/// Reads delta-seconds: digits and nothing else, saturating at 2^31 (RFC 9111 §1.2.2).
pub(super) fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let grow = |sum: u32, digit: &u8| {
        sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')).min(DELTA_MAX)
    };
    Some(text.iter().fold(0, grow))
}

/// The value of a field that must not be repeated; none if it is absent or is repeated.
pub(super) fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then(|| first.as_bytes().trim_ascii())
}

/// All lines of a field as one value, RFC 9110 §5.3; none if the field is absent.
pub(super) fn combined(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Bytes> {
    let mut lines = headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii());
    let mut value = BytesMut::from(lines.next()?);
    for line in lines {
        value.put_slice(b", ");
        value.put_slice(line);
    }
    Some(value.freeze())
}

/// The field names of a comma-separated list; none if it holds anything else, or no name.
pub(super) fn field_names(text: &[u8]) -> Option<Vec<HeaderName>> {
    let members = text.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|m| !m.is_empty());
    let names: Option<Vec<_>> = members.map(|m| HeaderName::from_bytes(m).ok()).collect();
    names.filter(|names| !names.is_empty())
}

/// The members of a list, split at the commas outside quoted strings, without the space around
/// them; empty ones are left out (RFC 9110 §5.6.1). A quoted string without an end reaches to the
/// end of the text.
pub(super) fn members(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    parts(text, b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// What stands between these separators, as far as they stand outside quoted strings.
pub(super) fn parts(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = move |byte: &u8| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if *byte == separator => return !quoted,
            _ => {}
        }
        false
    };
    text.split(parts)
}

/// Calls `take` with the name and argument of each directive in a line (RFC 9111 §5.2).
///
/// # Errors
/// The line breaks the grammar, or `take` says so; what stood before that was taken.
pub(super) fn directives<'a>(
    mut rest: &'a [u8],
    mut take: impl FnMut(&'a [u8], Option<&'a [u8]>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
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
        take(name, value)?;
        rest = skip(after, |b| matches!(b, b' ' | b'\t'));
        if !matches!(rest.first(), None | Some(b',')) {
            return Err(Malformed);
        }
    }
}

/// Whether a name is this directive, whatever its case.
pub(super) fn is(name: &[u8], directive: &str) -> bool {
    name.eq_ignore_ascii_case(directive.as_bytes())
}

/// The text from the first byte that is not unwanted.
pub(super) fn skip(text: &[u8], unwanted: impl Fn(u8) -> bool) -> &[u8] {
    let end = text.iter().position(|b| !unwanted(*b)).unwrap_or(text.len());
    text.get(end..).unwrap_or_default()
}

/// Splits off a token, which may turn out empty (RFC 9110 §5.6.2).
fn split_token(text: &[u8]) -> (&[u8], &[u8]) {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    text.split_at(text.len() - skip(text, is_tchar).len())
}

/// Splits off a token or the inside of a quoted string (RFC 9110 §5.6.4). Escapes stay as they
/// are: no number and no field name needs one, so what has one counts as unreadable.
fn split_argument(text: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let Some(inside) = text.strip_prefix(b"\"") else {
        return Ok(split_token(text));
    };
    let mut escaped = false;
    for (at, byte) in inside.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                let (value, quote) = inside.split_at(at);
                return Ok((value, quote.strip_prefix(b"\"").unwrap_or_default()));
            }
            _ => {}
        }
    }
    Err(Malformed)
}
