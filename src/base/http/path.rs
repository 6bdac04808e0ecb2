//! The canonical path: one spelling for matching, authorisation, limits, cache and upstream (RFC
//! 3986 §6.2.2).
//!
//! Unreserved characters are decoded, other escapes get upper-case digits, dot segments are
//! resolved, slashes merged. An escape that some upstream would read as a separator or an end (`%2F
//! %5C %00 %0A %0D`) is refused, like a raw backslash or control character, and like a dot segment
//! with a parameter (`..;x`): servlet containers take the parameter away first, and then climb.
//! Where `%2F` is kept, a dot segment beside one is refused for the like reason. The query is kept
//! byte for byte. What is canonical is its own canonical spelling.

use std::borrow::Cow;

use http::uri::PathAndQuery;

use super::percent::{escape, is_unreserved, push_escape};

/// The canonical spelling, or what was wrong. `encoded_slash` keeps `%2F`.
pub fn canonical(given: &PathAndQuery, encoded_slash: bool) -> Result<PathAndQuery, &'static str> {
    if is_canonical(given.path().as_bytes()) {
        return Ok(given.clone());
    }
    let decoded = decode(given.path().as_bytes(), encoded_slash)?;
    decoded.split('/').try_for_each(check_dots)?;
    let mut text = resolve(&decoded);
    if let Some(query) = given.query() {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::try_from(text).map_err(|_| "a character that no path may hold")
}

/// How loosely an upstream reads paths: which of those that RFC 3986 tells apart are one to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// `/ME` is `/me`, and `/%C3%89` is `/%C3%A9`: some decode first.
    pub any_case: bool,
    /// `/me/` is `/me`.
    pub trailing_slash: bool,
    /// `/me;x` is `/me`, and `/a;v=1/b` is `/a/b` (RFC 3986 §3.3 leaves parameters to whoever reads
    /// them). An escaped semicolon begins one too: some decode first.
    pub parameters: bool,
}

impl Reading {
    /// Whether all paths are different ones.
    pub fn is_exact(self) -> bool {
        self == Self::default()
    }

    /// A segment as far as the upstream reads it.
    fn segment(self, segment: &str) -> &str {
        if !self.parameters {
            return segment;
        }
        let end = segment.find(';').unwrap_or(segment.len());
        let end = segment.find("%3B").map_or(end, |escaped| end.min(escaped));
        segment.get(..end).unwrap_or(segment)
    }

    /// The segments of a canonical path that the upstream reads: without the empty ones, which it
    /// merges.
    pub fn segments(self, path: &str) -> impl Iterator<Item = &str> {
        path.split('/').map(move |segment| self.segment(segment)).filter(|text| !text.is_empty())
    }

    /// Whether the upstream reads two segments as one.
    pub fn is_same(self, one: &str, other: &str) -> bool {
        one == other
            || (self.any_case
                && (one.eq_ignore_ascii_case(other)
                    || ((one.contains('%') || other.contains('%'))
                        && folded(one) == folded(other))))
    }

    /// Whether the upstream reads a slash at the end of a path.
    pub fn ends_in_slash(self, path: &str) -> bool {
        let last = path.rsplit('/').next().unwrap_or_default();
        self.segment(last).is_empty()
    }

    /// One name for all paths that the upstream reads as this one; not a path to forward.
    pub fn name(self, path: &str) -> Cow<'_, str> {
        if self.is_exact() {
            return path.into();
        }
        let mut name = String::with_capacity(path.len());
        for segment in self.segments(path) {
            name.push('/');
            if self.any_case {
                name.push_str(&folded(segment));
            } else {
                name.push_str(segment);
            }
        }
        if name.is_empty() || (self.ends_in_slash(path) && !self.trailing_slash) {
            name.push('/');
        }
        name.into()
    }
}

/// One spelling for whatever differs in case alone, also beyond ASCII, where an escape stands for a
/// letter. The mappings are the simple ones, of one letter to one, as Java and .NET compare: `K`
/// (U+212A) is a `k` to them.
fn folded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        // What is escaped in ASCII is no letter.
        let (byte, after) = match escape(rest).filter(|byte| !byte.is_ascii()) {
            Some(byte) => (byte, after.get(2..).unwrap_or_default()),
            None => (byte.to_ascii_lowercase(), after),
        };
        bytes.push(byte);
        rest = after;
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend(chunk.valid().chars().map(fold));
        chunk.invalid().iter().for_each(|byte| push_escape(&mut out, *byte));
    }
    out
}

fn fold(letter: char) -> char {
    let mut upper = letter.to_uppercase();
    let upper = upper.next().filter(|_| upper.next().is_none()).unwrap_or(letter);
    upper.to_lowercase().next().unwrap_or(upper)
}

/// Whether a path is plain enough that there is nothing to do; the common case, without an
/// allocation.
fn is_canonical(path: &[u8]) -> bool {
    let mut previous = 0u8;
    for &byte in path {
        let plain = is_unreserved(byte) || is_plain_delimiter(byte);
        let dot_segment = previous == b'/' && byte == b'.';
        let slash = byte == b'/' && previous != b'/';
        if !(plain && !dot_segment || slash) {
            return false;
        }
        previous = byte;
    }
    path.first() == Some(&b'/')
}

/// Sub-delimiters and the two others that a path segment may hold (RFC 3986 §3.3).
fn is_plain_delimiter(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
    )
}

/// Makes every escape canonical; escapes what must not stand raw.
fn decode(path: &[u8], encoded_slash: bool) -> Result<String, &'static str> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += 1;
        if byte != b'%' {
            match byte {
                b'\\' => return Err("a backslash"),
                0..=0x1F | 0x7F => return Err("a control character"),
                b'/' => out.push('/'),
                _ if is_unreserved(byte) || is_plain_delimiter(byte) => out.push(char::from(byte)),
                _ => push_escape(&mut out, byte),
            }
            continue;
        }
        let decoded = escape(path.get(at - 1..).unwrap_or_default())
            .ok_or("a percent sign without two hexadecimal digits")?;
        at += 2;
        match decoded {
            0 => return Err("%00"),
            b'\n' => return Err("%0A"),
            b'\r' => return Err("%0D"),
            b'\\' => return Err("%5C"),
            b'/' if !encoded_slash => return Err("%2F (server.limits.encoded_slash allows it)"),
            _ if is_unreserved(decoded) => out.push(char::from(decoded)),
            _ => push_escape(&mut out, decoded),
        }
    }
    Ok(out)
}

/// Refuses what is a dot segment to some upstreams and is none to [`resolve`]: one with a
/// parameter, for who takes that away, and one beside an encoded slash, for who decodes that.
fn check_dots(segment: &str) -> Result<(), &'static str> {
    for piece in segment.split("%2F") {
        let rest = piece.strip_prefix("..").or_else(|| piece.strip_prefix('.')).unwrap_or(piece);
        if rest.len() == piece.len() {
            continue;
        }
        if rest.starts_with(';') || rest.starts_with("%3B") {
            return Err("a dot segment with a parameter (`..;`)");
        }
        if rest.is_empty() && piece.len() < segment.len() {
            return Err("a dot segment beside an encoded slash (`..%2F`)");
        }
    }
    Ok(())
}

/// Removes dot segments (RFC 3986 §5.2.4) and merges slashes. A path cannot climb above its root.
fn resolve(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in path.split('/') {
        ends_in_directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len() + 1);
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if ends_in_directory || out.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(any_case: bool, trailing_slash: bool, parameters: bool) -> Reading {
        Reading { any_case, trailing_slash, parameters }
    }

    #[test]
    fn one_name_for_what_is_read_as_one() {
        let all = reading(true, true, true);
        for (reading, path, expected) in [
            (Reading::default(), "/Me/;x", "/Me/;x"),
            (reading(true, false, false), "/ME/", "/me/"),
            (reading(false, true, false), "/Me/", "/Me"),
            (reading(false, true, false), "/", "/"),
            (reading(false, false, true), "/a;v=1/b", "/a/b"),
            (reading(false, false, true), "/a/;x", "/a/"),
            (reading(false, false, true), "/;x/me%3Bx;y", "/me"),
            (reading(false, false, true), "/;x", "/"),
            (all, "/Me;a=b/", "/me"),
            (all, "/;x", "/"),
            (all, "/CAF%C3%89", "/caf\u{e9}"),
            (all, "/%E2%84%AAey/%C5%BFo/%C4%B0%C4%B1", "/key/so/ii"),
            (all, "/%C3%9F/%FFa/%25C3%89/A%20B", "/\u{df}/%FFa/%25c3%89/a%20b"),
        ] {
            assert_eq!(reading.name(path), expected, "{reading:?} {path}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_its_own_name(
            path in "/([aA;/x]|%C3|%89|%a9|%3b|%25){0,12}",
            bits in any::<[bool; 3]>(),
        ) {
            let reading = reading(bits[0], bits[1], bits[2]);
            let Ok(given) = canonical(&PathAndQuery::try_from(path).unwrap(), false) else {
                return Ok(());
            };
            let name = reading.name(given.path()).into_owned();
            prop_assert_eq!(reading.name(&name), &*name);
        }
    }
}
