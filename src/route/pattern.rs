//! Host and path patterns, and which of two is more specific.

use std::cmp::Ordering;

use crate::base::http::authority::canonical_host;
use crate::base::http::path::Reading;

/// Which hosts a route answers for. Greater is more specific.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// All.
    Any,
    /// `*.example.com`: one or more labels before the suffix, which is kept with its dot.
    Wildcard(Suffix),
    /// One host.
    Exact(String),
}

/// `.example.com`; longer is more specific.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suffix(String);

impl PartialOrd for Suffix {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Suffix {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl HostPattern {
    /// Parses `host`, `*.suffix`; the error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const HELP: &str =
            "a host is written without scheme, port or path: shop.example.com or *.example.com";
        let (is_wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        // In the spelling that a request's host has when it is matched.
        let name = canonical_host(name).ok_or(HELP)?;
        if is_wildcard && name.starts_with('[') {
            return Err(HELP);
        }
        Ok(if is_wildcard {
            Self::Wildcard(Suffix(format!(".{name}")))
        } else {
            Self::Exact(name.into_owned())
        })
    }

    /// `host` is canonical: lower case, no port.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Wildcard(Suffix(suffix)) => host.len() > suffix.len() && host.ends_with(suffix),
        }
    }
}

/// Which paths a route answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
    /// Whether it also covers everything below.
    open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// `{name}`
    Any,
}

/// Whether a segment, or a part of one, has nothing in it that means more than itself.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(['*', '{', '}', '?', '#', ' '])
}

/// The first segment of a path that begins with one. A search by a string's own means is dearer for
/// text this short.
pub(super) fn first(path: &str) -> &str {
    let end = path.bytes().position(|byte| byte == b'/').unwrap_or(path.len());
    &path[..end]
}

impl PathPattern {
    /// Parses `/a/{id}`, `/a/*`; the error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(path) = text.strip_prefix('/') else {
            return Err("a path begins with /");
        };
        let (path, open) = match path {
            "*" => ("", true),
            _ => match path.strip_suffix("/*") {
                Some(path) => (path, true),
                None => (path, false),
            },
        };
        let mut segments = Vec::new();
        for segment in path.split('/').filter(|_| !path.is_empty()) {
            if is_foreign_placeholder(segment) {
                return Err("a placeholder is written in braces: /api/{id} in place of /api/:id");
            }
            let inner = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
            segments.push(match inner {
                Some(name) if is_name(name) => Segment::Any,
                Some(_) => {
                    return Err("a placeholder is a name of letters, digits, - and _ in braces: \
                                {id}; it stands for one segment, whatever is in it");
                }
                None if segment.strip_suffix('*').is_some_and(is_plain) => {
                    return Err(
                        "a * is a segment of its own: /api/* in place of /api* has what is below \
                         /api, and /api itself",
                    );
                }
                None if !segment.is_empty() && !is_plain(segment) => {
                    return Err(
                        "a * may only be the last segment, and a {placeholder} must be a whole one",
                    );
                }
                None => Segment::Literal(segment.to_owned()),
            });
        }
        let canonical =
            http::uri::PathAndQuery::try_from(text.replace(['{', '}'], "x").replace('*', "x"))
                .ok()
                .is_some_and(|path| {
                    crate::base::http::path::canonical(&path, true)
                        .is_ok_and(|canonical| canonical == path)
                });
        if !canonical {
            return Err(
                "the path must be written canonically: no //, no . or .., upper-case escapes",
            );
        }
        Ok(Self { segments, open })
    }

    /// Whether the canonical `path` matches.
    pub fn matches(&self, path: &str) -> bool {
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        let mut more = !rest.is_empty() || !self.segments.is_empty();
        for segment in &self.segments {
            if !more {
                return false;
            }
            let end = match segment {
                Segment::Literal(text) if rest.starts_with(&**text) => text.len(),
                Segment::Literal(_) => return false,
                Segment::Any => first(rest).len(),
            };
            let is_empty = end == 0 && *segment == Segment::Any;
            let tail = rest[end..].strip_prefix('/');
            if is_empty || tail.is_none() && end < rest.len() {
                return false;
            }
            more = tail.is_some();
            rest = tail.unwrap_or_default();
        }
        self.open || !more
    }

    /// Whether the pattern matches what an upstream reads in the canonical `path`, or in the
    /// pattern.
    pub fn matches_as(&self, reading: Reading, path: &str) -> bool {
        let mut given = reading.segments(path);
        let mut ends_in_slash = self.segments.is_empty();
        for segment in &self.segments {
            let Segment::Literal(text) = segment else {
                if given.next().is_none() {
                    return false;
                }
                ends_in_slash = false;
                continue;
            };
            let Some(literal) = reading.segments(text).next() else {
                // The end of `/a/`, or a segment that is all parameters.
                ends_in_slash = true;
                continue;
            };
            if !given.next().is_some_and(|given| reading.is_same(given, literal)) {
                return false;
            }
            ends_in_slash = false;
        }
        self.open
            || given.next().is_none()
                && (reading.trailing_slash || ends_in_slash == reading.ends_in_slash(path))
    }

    /// Whether an upstream takes what two patterns match for the same paths.
    pub(super) fn has_same_shape_as(&self, other: &Self, reading: Reading) -> bool {
        let name = |pattern: &Self| {
            let mut text = String::new();
            for segment in &pattern.segments {
                text.push('/');
                text.push_str(match segment {
                    Segment::Literal(text) => text,
                    // No path holds braces.
                    Segment::Any => "{}",
                });
            }
            // `/a/*` covers `/a/` anyway.
            let reading =
                Reading { trailing_slash: reading.trailing_slash || pattern.open, ..reading };
            reading.name(&text).into_owned()
        };
        self.open == other.open && name(self) == name(other)
    }

    /// How specific the pattern is to an upstream that reads it so: closed before open, then
    /// longer, then more literal. Greater is more specific.
    pub(super) fn specificity(&self, reading: Reading) -> (bool, usize, Vec<bool>) {
        let literal: Vec<bool> = self.read(reading).collect();
        (!self.open, literal.len(), literal)
    }

    /// Whether nothing but the literal texts says which of two patterns is more specific.
    pub(super) fn is_as_specific_as(&self, reading: Reading, other: &Self, its: Reading) -> bool {
        self.open == other.open && self.read(reading).eq(other.read(its))
    }

    /// The literal texts, which make an order of patterns that are equally specific.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::Any => "",
        })
    }

    /// Of each segment that an upstream reads, whether it is a literal one. A slash that it takes
    /// for nothing makes no pattern longer, or `/a/{x}/` would come before `/a/me`.
    fn read(&self, reading: Reading) -> impl Iterator<Item = bool> {
        let last = self.segments.len().saturating_sub(1);
        let is_read = move |(at, segment): &(usize, &Segment)| match segment {
            Segment::Any => true,
            Segment::Literal(text) => {
                reading.segments(text).next().is_some() || (*at == last && !reading.trailing_slash)
            }
        };
        self.segments
            .iter()
            .enumerate()
            .filter(is_read)
            .map(|(_, segment)| matches!(segment, Segment::Literal(_)))
    }

    /// A path that the pattern matches, with `below` as what an open one covers, and in place of
    /// each placeholder.
    pub fn example(&self, below: &str) -> String {
        let mut text = String::new();
        for segment in &self.segments {
            text.push('/');
            text.push_str(match segment {
                Segment::Literal(text) => text,
                Segment::Any => "1",
            });
        }
        if self.open && !below.is_empty() {
            text.extend(["/", below]);
        }
        if text.is_empty() {
            text.push('/');
        }
        text
    }

    /// Whether it also covers everything below.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether it begins with these literal segments.
    pub(super) fn begins_with(&self, literals: &[&str]) -> bool {
        let literal = |segment: &Segment| match segment {
            Segment::Literal(text) => Some(text.clone()),
            Segment::Any => None,
        };
        let is_same =
            |(segment, text): (&Segment, &&str)| literal(segment).as_deref() == Some(*text);
        literals.len() <= self.segments.len() && self.segments.iter().zip(literals).all(is_same)
    }

    /// What stands in a path that it matches for each of its segments, and all that follows that
    /// one, as they are written there.
    pub(super) fn split<'p>(&self, reading: Reading, path: &'p str) -> Vec<(&'p str, &'p str)> {
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        let is_read = |segment: &str| reading.segments(segment).next().is_some();
        let mut pieces = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            if !reading.is_exact() && matches!(segment, Segment::Literal(text) if !is_read(text)) {
                // The end of `/a/`, or a segment that is all parameters: see `matches_as`.
                pieces.push(("", rest));
                continue;
            }
            let piece = loop {
                let (piece, behind) = rest.split_once('/').unwrap_or((rest, ""));
                rest = behind;
                if reading.is_exact() || is_read(piece) || behind.is_empty() {
                    break piece;
                }
            };
            pieces.push((piece, rest));
        }
        pieces
    }

    /// The literal prefix of a pattern without placeholders (`/products` of `/products/*`), and
    /// whether it is open.
    pub fn literal(&self) -> Option<(String, bool)> {
        let mut text = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => {
                    text.push('/');
                    text.push_str(literal);
                }
                Segment::Any => return None,
            }
        }
        if text.is_empty() {
            text.push('/');
        }
        Some((text, self.open))
    }

    pub(super) fn first_literal(&self) -> Option<&str> {
        match self.segments.first() {
            Some(Segment::Literal(text)) => Some(text),
            // `/` alone has an empty first segment; `/*` matches any.
            None if !self.open => Some(""),
            Some(Segment::Any) | None => None,
        }
    }
}

/// The names of the placeholders of a pattern as it is written, one for each segment; none for a
/// literal one.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = Option<&str>> {
    let path = text.strip_prefix('/').unwrap_or(text);
    let path = if path == "*" { "" } else { path.strip_suffix("/*").unwrap_or(path) };
    let segments = path.split('/').filter(move |_| !path.is_empty());
    segments.map(|segment| segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')))
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    !text.is_empty() && text.bytes().all(plain)
}

/// How other routers write `{id}`: `:id`, `<id>`, `[id]`, `*id`. Taken to the letter, a route would
/// match that very text and nothing else.
fn is_foreign_placeholder(segment: &str) -> bool {
    let inner = segment
        .strip_prefix([':', '*'])
        .or_else(|| segment.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')))
        .or_else(|| segment.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')));
    inner.is_some_and(|inner| is_name(inner.rsplit(':').next().unwrap_or_default()))
}
