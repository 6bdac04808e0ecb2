//! Reads Range (RFC 9110 §14): which bytes of a representation a request asks for.
//!
//! Pure arithmetic over a length. It must not know the bytes, nor how a response is made of them.

use http::HeaderMap;
use http::header::RANGE;

use super::text::only;

/// Most ranges of one request; a request for more gets the whole (RFC 9110 §14.2 names such
/// requests as an attack).
const RANGES_MAX: usize = 16;

/// What a request's Range means for a representation of some length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// No range, one that cannot be read, or one that would cost more than all of it.
    Whole,
    /// None of the ranges exists.
    Nothing,
    /// These, in the order asked for: where each starts and how many bytes it has, at least one.
    Parts(Vec<(u64, u64)>),
}

/// Reads the Range of a request for a representation of `length` bytes.
pub(super) fn wanted(headers: &HeaderMap, length: u64) -> Wanted {
    let Some(specs) = only(headers, RANGE).and_then(specs) else {
        return Wanted::Whole;
    };
    // Nothing can be cut out of nothing, whatever suffix is asked for.
    if length == 0 && specs.iter().any(|spec| matches!(spec, Spec::Suffix(1..))) {
        return Wanted::Whole;
    }
    let parts: Vec<_> = specs.iter().filter_map(|spec| spec.within(length)).collect();
    let total: u128 = parts.iter().map(|(_, bytes)| u128::from(*bytes)).sum();
    match parts.len() {
        0 => Wanted::Nothing,
        // Ranges that overlap are more than the whole soon, and never needed.
        2.. if total > u128::from(length) => Wanted::Whole,
        _ => Wanted::Parts(parts),
    }
}

enum Spec {
    /// First and last position.
    Between(u64, u64),
    /// So many bytes at the end.
    Suffix(u64),
}

impl Spec {
    /// Where it starts and how many bytes it has in `length` bytes; none if it has none.
    fn within(&self, length: u64) -> Option<(u64, u64)> {
        match *self {
            Self::Between(first, _) if first >= length => None,
            Self::Between(first, last) => Some((first, last.min(length - 1) - first + 1)),
            Self::Suffix(0) => None,
            Self::Suffix(bytes) => {
                let bytes = bytes.min(length);
                Some((length - bytes, bytes))
            }
        }
    }
}

/// The members of `bytes=…`; none if any of them is wrong, which makes the field none
/// (RFC 9110 §14.1.1, §14.2), or if there are too many.
fn specs(text: &[u8]) -> Option<Vec<Spec>> {
    let (unit, set) = text.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let members = set.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|m| !m.is_empty());
    let mut specs = Vec::new();
    for member in members {
        if specs.len() == RANGES_MAX {
            return None;
        }
        specs.push(spec(member)?);
    }
    Some(specs).filter(|specs| !specs.is_empty())
}

fn spec(text: &[u8]) -> Option<Spec> {
    let dash = text.iter().position(|b| *b == b'-')?;
    let (first, last) = (text.get(..dash)?, text.get(dash + 1..)?);
    if first.is_empty() {
        return Some(Spec::Suffix(position(last)?));
    }
    let first = position(first)?;
    let last = if last.is_empty() { u64::MAX } else { position(last)? };
    (first <= last).then_some(Spec::Between(first, last))
}

/// Digits, saturating: no body is that long.
fn position(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let grow =
        |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(text.iter().fold(0, grow))
}
