//! Marks of those who have written lately: what they read must be as new as what they wrote.
//!
//! A mark is a key with a short life. What it holds is one byte, or how far the log of an upstream
//! was when the write was answered. Nobody but the upstream knows what its positions mean, so they
//! are compared only where that is safe, and of two that cannot be compared neither counts.

use bytes::Bytes;

/// Longest position that is kept, in bytes.
pub const POSITION_BYTES_MAX: usize = 128;
/// What a mark holds where no position is known.
const PLAIN: &[u8] = b"-";

/// The marks that one request asks about.
#[derive(Debug, Clone, Copy)]
pub struct MarkKeys<'a> {
    /// Of its caller, by all names that he has.
    pub caller: &'a [String],
    /// Of all callers together, where that is of use.
    pub anybody: Option<&'a str>,
}

/// What the store says of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarksReply {
    /// Of the caller.
    pub caller: Mark,
    /// Whether anybody has written.
    pub anybody: bool,
}

/// Whether somebody has written lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mark {
    /// He has not.
    #[default]
    None,
    /// He has.
    Wrote,
    /// He has, and whoever is as far as this has all of it.
    At(Bytes),
}

impl Mark {
    /// The mark of a write whose answer had this position.
    pub fn of_write(position: Option<&[u8]>) -> Self {
        match position {
            Some(position) if is_position(position) => Self::At(Bytes::copy_from_slice(position)),
            _ => Self::Wrote,
        }
    }

    /// Reads what a key holds.
    pub(super) fn read(text: &[u8]) -> Self {
        if text.is_empty() { Self::None } else { Self::of_write(Some(text)) }
    }

    /// What a key is to hold.
    pub(super) fn text(&self) -> &[u8] {
        match self {
            Self::At(position) => position,
            Self::None | Self::Wrote => PLAIN,
        }
    }

    /// The mark of who has made both. `scripts/mark.lua` does the same.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, mark) | (mark, Self::None) => mark,
            (Self::At(one), Self::At(other)) => later(one, other).map_or(Self::Wrote, Self::At),
            (Self::Wrote, _) | (_, Self::Wrote) => Self::Wrote,
        }
    }
}

/// What can be told from a mark without one, and passed on in a field.
fn is_position(text: &[u8]) -> bool {
    (1..=POSITION_BYTES_MAX).contains(&text.len())
        && text != PLAIN
        && text.iter().all(u8::is_ascii_graphic)
}

/// The later of two positions: of the same length the one that sorts later, of two numbers the
/// longer one. Nothing where they cannot be compared.
fn later(one: Bytes, other: Bytes) -> Option<Bytes> {
    let is_number = |text: &Bytes| text[0] != b'0' && text.iter().all(u8::is_ascii_digit);
    let is_comparable = one.len() == other.len() || is_number(&one) && is_number(&other);
    let is_later = (one.len(), &one) > (other.len(), &other);
    is_comparable.then_some(if is_later { one } else { other })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_positions_counts_and_none_where_nobody_can_tell() {
        let at = |text: &str| Mark::read(text.as_bytes());
        for (one, other, both) in [
            ("7", "9", "9"),
            ("9", "10", "10"),
            ("09", "10", "10"),
            ("09", "9", "-"),
            ("0/16B3748", "0/16B3750", "0/16B3750"),
            ("1/FFFFFFF", "10/FFFFFF", "10/FFFFFF"),
            ("0/FFFFFFF", "0/10000000", "-"),
            ("7", "-", "-"),
            ("-", "-", "-"),
            ("7", "", "7"),
            ("", "", ""),
        ] {
            assert_eq!(at(one).and(at(other)), at(both), "{one} and {other}");
            assert_eq!(at(other).and(at(one)), at(both), "{other} and {one}");
        }
    }

    #[test]
    fn what_is_no_position_is_a_mark_without_one() {
        for text in ["-", "a b", "é", &"1".repeat(POSITION_BYTES_MAX + 1)] {
            assert_eq!(Mark::of_write(Some(text.as_bytes())), Mark::Wrote, "{text}");
        }
        assert_eq!(Mark::of_write(Some(b"")), Mark::Wrote);
        let longest = "1".repeat(POSITION_BYTES_MAX);
        assert_eq!(Mark::read(longest.as_bytes()), Mark::At(longest.into()));
    }
}
