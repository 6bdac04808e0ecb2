//! Paths that are made of a request's own: what the pieces of its path are, and where they go. All
//! pieces are taken from the one canonical path, escapes and all: nothing is decoded here, so that
//! what was matched and authorised is what is sent.

use super::pattern::{PathPattern, placeholders};
use crate::base::http::path::Reading;

/// A path with pieces of another one in it: `/v2/{id}/{rest}`.
#[derive(Debug, Clone)]
pub struct Template {
    parts: Vec<Part>,
    pattern: PathPattern,
    reading: Reading,
}

#[derive(Debug, Clone)]
enum Part {
    /// A segment as it is written.
    Literal(String),
    /// What stands for the placeholder at this place of the pattern.
    Segment(usize),
    /// What follows so many segments of the pattern.
    Behind(usize),
}

impl Template {
    /// Parses a template for the paths that `pattern`, written as `route`, matches: `{name}` is a
    /// segment of it, `{rest}` what its `*` covers, `{path}` all of the path. The error says what
    /// is accepted.
    pub fn parse(
        text: &str,
        (route, pattern): (&str, &PathPattern),
        reading: Reading,
    ) -> Result<Self, &'static str> {
        let names: Vec<Option<&str>> = placeholders(route).collect();
        let path = text.strip_prefix('/').ok_or("a path begins with /")?;
        let mut parts = Vec::new();
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            let name = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
            let is_last = segments.peek().is_none();
            let known = name.and_then(|name| names.iter().position(|known| *known == Some(name)));
            parts.push(match (name, known) {
                (Some(_), Some(index)) => Part::Segment(index),
                (Some("rest"), None) if pattern.is_open() && is_last => Part::Behind(names.len()),
                (Some("path"), None) if is_last => Part::Behind(0),
                (Some(_), None) => {
                    return Err(
                        "a {placeholder} is one of the route's path, or the last segment: \
                                {rest} for what its * covers, {path} for all of its path",
                    );
                }
                (None, _) if segment.contains(['{', '}', '*', '?', '#', ' ']) => {
                    return Err("a {placeholder} is a whole segment: /v2/{id}/{rest}");
                }
                (None, _) => Part::Literal(segment.to_owned()),
            });
        }
        let plain: Vec<&str> = parts.iter().map(Part::text).collect();
        if !is_canonical(&format!("/{}", plain.join("/"))) {
            return Err("the path is written canonically: no //, no . or .., upper-case escapes");
        }
        Ok(Self { parts, pattern: pattern.clone(), reading })
    }

    /// The paths without this prefix, which all of them have.
    pub fn without(
        prefix: &str,
        pattern: &PathPattern,
        reading: Reading,
    ) -> Result<Self, &'static str> {
        let segments: Vec<&str> = prefix.split('/').skip(1).collect();
        let is_begin = prefix.starts_with('/')
            && segments.iter().all(|segment| !segment.is_empty())
            && pattern.begins_with(&segments);
        if !is_begin {
            return Err("it must be what the route's path begins with, in whole segments without \
                        placeholders: \"/api\" of \"/api/*\"");
        }
        let parts = vec![Part::Behind(segments.len())];
        Ok(Self { parts, pattern: pattern.clone(), reading })
    }

    /// The path that is made of a canonical one which the pattern matches. An empty rest may leave
    /// two slashes in it.
    pub fn fill(&self, path: &str) -> String {
        let pieces = self.pattern.split(self.reading, path);
        let mut made = String::with_capacity(path.len() + 16);
        for part in &self.parts {
            made.push('/');
            made.push_str(match part {
                Part::Literal(text) => text,
                Part::Segment(index) => pieces.get(*index).map_or("", |(segment, _)| segment),
                Part::Behind(0) => path.strip_prefix('/').unwrap_or(path),
                Part::Behind(count) => pieces.get(*count - 1).map_or("", |(_, rest)| rest),
            });
        }
        made
    }
}

impl Part {
    /// As it is for whoever looks at the form alone.
    fn text(&self) -> &str {
        match self {
            Self::Literal(text) => text,
            Self::Segment(_) | Self::Behind(_) => "x",
        }
    }
}

/// Whether a path is its own canonical spelling.
fn is_canonical(path: &str) -> bool {
    let Ok(given) = http::uri::PathAndQuery::try_from(path) else { return false };
    crate::base::http::path::canonical(&given, true).is_ok_and(|canonical| canonical == given)
}
