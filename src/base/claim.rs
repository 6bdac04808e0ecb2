//! A claim as what it is: one JSON value, of which no two that differ are taken for the same.
//!
//! `serde_json` keeps a number as an integer of 64 bits or a double. What such a number cannot
//! tell apart stands beside it in the spelling of its document (RFC 8259 §6 has no bounds).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

/// The text of a value whose numbers `Value` does not keep as they were written, and of what is
/// within it, by name or index. Most documents have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exact {
    /// The value as JSON: members by name, no white space, numbers as they were written.
    pub text: Box<str>,
    /// What of it needs a text of its own.
    pub within: BTreeMap<String, Exact>,
}

/// A value that was found among claims.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The value; its numbers may be rounded.
    pub value: &'a Value,
    exact: Option<&'a Exact>,
}

/// A value as a part of a key: a string is never the same as another type of value, whatever its
/// characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spelling<'a> {
    /// The characters of a string.
    Text(&'a str),
    /// The JSON text of anything else, null included.
    Json(Cow<'a, str>),
}

impl<'a> Found<'a> {
    /// A value, with what is kept of its numbers.
    pub fn new(value: &'a Value, exact: Option<&'a Exact>) -> Self {
        Self { value, exact }
    }

    /// A member of an object.
    pub fn member(self, name: &str) -> Option<Self> {
        let exact = self.exact.and_then(|exact| exact.within.get(name));
        Some(Self { value: self.value.get(name)?, exact })
    }

    /// The items of an array; nothing for another value.
    pub fn items(self) -> Option<impl Iterator<Item = Self>> {
        let items = self.value.as_array()?.iter().enumerate();
        Some(items.map(move |(at, value)| {
            let exact = self.exact.and_then(|exact| exact.within.get(&at.to_string()));
            Self { value, exact }
        }))
    }

    /// Strings as they are, numbers and booleans in JSON's spelling; nothing for other types.
    pub fn scalar(self) -> Option<Cow<'a, str>> {
        match self.value {
            Value::Null | Value::Array(_) | Value::Object(_) => None,
            Value::String(_) | Value::Number(_) | Value::Bool(_) => Some(self.text()),
        }
    }

    /// The value as a part of a key.
    pub fn spelling(self) -> Spelling<'a> {
        match self.value {
            Value::String(text) => Spelling::Text(text),
            _ => Spelling::Json(self.text()),
        }
    }

    /// A string's characters, or the JSON text of anything else: `"42"` and `42` have the same.
    pub fn text(self) -> Cow<'a, str> {
        match (self.value, self.exact) {
            (Value::String(text), _) => text.as_str().into(),
            (_, Some(exact)) => (&*exact.text).into(),
            (Value::Bool(true), None) => "true".into(),
            (Value::Bool(false), None) => "false".into(),
            (value, None) => value.to_string().into(),
        }
    }
}
