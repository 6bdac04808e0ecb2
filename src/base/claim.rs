//! A claim as what it is: one JSON value, of which no two that differ are taken for the same.
//!
//! `serde_json` keeps a number as an integer of 64 bits or a double. What such a number cannot
//! tell apart stands beside it in the spelling of its document (RFC 8259 §6 has no bounds).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

/// The text of a value whose numbers `Value` does not keep as they were written, and of what is
/// within it, by name or index. Most documents have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exact {
    /// The value as JSON: members by name, no white space, numbers as they were written.
    pub text: Box<str>,
    /// What of it needs a text of its own.
    pub within: BTreeMap<String, Exact>,
}

/// A JSON object, with what is kept of its numbers.
#[derive(Debug, Clone, Default)]
pub struct Object {
    /// Its members; numbers may be rounded.
    pub members: Map<String, Value>,
    /// The exact text of those that are.
    pub exact: Exact,
}

/// Members of an object, each with its JSON text.
pub type Texts = BTreeMap<String, Box<RawValue>>;

impl Object {
    /// A member.
    pub fn get(&self, name: &str) -> Option<Found<'_>> {
        Some(Found { value: self.members.get(name)?, exact: self.exact.within.get(name) })
    }

    /// What stands at a JSON Pointer (RFC 6901), but for the object itself.
    pub fn pointer(&self, pointer: &str) -> Option<Found<'_>> {
        let path = pointer.strip_prefix('/')?;
        let (name, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        let found = self.get(&unescaped(name))?;
        let value = found.value.pointer(rest)?;
        let within = rest.split('/').skip(1);
        let exact = within.fold(found.exact, |exact, name| exact?.within.get(&unescaped(name)));
        Some(Found { value, exact })
    }
}

/// A name of a JSON Pointer (RFC 6901 §4).
fn unescaped(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
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

    /// Its JSON text.
    pub fn json(self) -> Box<RawValue> {
        let text = match self.exact {
            Some(exact) => RawValue::from_string(exact.text.to_string()),
            None => to_raw_value(self.value),
        };
        text.unwrap_or_else(|_| RawValue::NULL.to_owned())
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
