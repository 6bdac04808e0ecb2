//! Spans: what traces tell of a piece of work once it has ended, under the names of
//! OpenTelemetry's semantic conventions. Where they go is another room's business (`telemetry`).

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::base::trace::Trace;

/// Longest text in an attribute, in bytes: what a client sends may be longer.
const TEXT_BYTES_MAX: usize = 1024;

/// Who works on whose behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// The gateway, for a client.
    Server,
    /// A server, for the gateway.
    Client,
    /// The gateway, for itself.
    Internal,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
    /// Words of this program.
    Words(Vec<&'static str>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self::Text(text.get(..end).unwrap_or_default().to_owned())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// A piece of work that has ended.
#[derive(Debug, Clone)]
pub struct Span {
    /// The piece itself.
    pub trace: Trace,
    /// The piece that has caused it, and whether that was another program's.
    pub parent: Option<([u8; 8], bool)>,
    /// A trace that led to it, and that it is no part of.
    pub link: Option<Trace>,
    /// What is done, in words of the configuration and of this program.
    pub name: String,
    pub kind: SpanKind,
    pub began: SystemTime,
    pub ended: SystemTime,
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it has failed.
    pub has_failed: bool,
}

impl Span {
    /// A piece of work that began then and ends now.
    pub fn ending(trace: Trace, kind: SpanKind, name: String, began: Instant) -> Self {
        let ended = SystemTime::now();
        Self {
            trace,
            parent: None,
            link: None,
            name,
            kind,
            began: ended.checked_sub(began.elapsed()).unwrap_or(ended),
            ended,
            attributes: Vec::with_capacity(24),
            has_failed: false,
        }
    }

    /// A piece of it, which began and lasted for so many nanoseconds, counted from its own begin.
    pub fn piece(&self, kind: SpanKind, name: &str, began_ns: u64, lasted_ns: u64) -> Self {
        let at = |ns: u64| self.began.checked_add(Duration::from_nanos(ns)).unwrap_or(self.ended);
        Self {
            trace: self.trace.child(),
            parent: Some((self.trace.span, false)),
            link: None,
            name: name.to_owned(),
            kind,
            began: at(began_ns),
            ended: at(began_ns.saturating_add(lasted_ns)),
            attributes: Vec::new(),
            has_failed: false,
        }
    }

    /// Adds an attribute.
    pub fn note(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name, value.into()));
    }

    /// Adds an attribute that there may be.
    pub fn note_some(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.note(name, value);
        }
    }

    /// Adds what names a method: those that HTTP does not know are others, so that no client makes
    /// names. Returns what the span is called by.
    pub fn note_method(&mut self, method: &http::Method) -> &'static str {
        let known = known_method(method);
        self.note("http.request.method", known.unwrap_or("_OTHER"));
        if known.is_none() {
            self.note("http.request.method_original", method.as_str());
        }
        known.unwrap_or("HTTP")
    }
}

/// The methods of RFC 9110 and RFC 5789.
fn known_method(method: &http::Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] =
        ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write_is_cut_between_characters() {
        let text = "x".repeat(TEXT_BYTES_MAX - 1) + "\u{e4}rger";
        assert_eq!(Value::from(&*text), Value::Text("x".repeat(TEXT_BYTES_MAX - 1)));
        assert_eq!(Value::from("\u{e4}"), Value::Text("\u{e4}".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn methods_that_http_does_not_know_are_others() {
        let begun = || {
            let trace = Trace::begin();
            Span::ending(trace, SpanKind::Server, String::new(), Instant::now())
        };
        let mut span = begun();
        assert_eq!(span.note_method(&http::Method::PATCH), "PATCH");
        assert_eq!(span.attributes, [("http.request.method", Value::from("PATCH"))]);
        let mut span = begun();
        assert_eq!(span.note_method(&"get".parse().unwrap()), "HTTP");
        let original = ("http.request.method_original", Value::from("get"));
        assert_eq!(span.attributes, [("http.request.method", Value::from("_OTHER")), original]);
    }
}
