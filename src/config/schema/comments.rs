//! What the reference configuration says of a key: its comment, and the values that it shows.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::super::problem::join;

/// The annotated configuration.
const REFERENCE: &str = include_str!("../../../gateway.toml");
/// The tables in which every value that is not commented out is the default; a test compares them.
const WITH_DEFAULTS: [&str; 4] = ["server", "log", "admin", "store"];
/// The tables below which there are names.
const WITH_NAMES: [&str; 8] =
    ["auth", "providers", "signers", "limits", "queues", "events", "upstreams", "routes"];

/// What is said of one key.
#[derive(Default)]
struct Comment {
    text: String,
    default: Option<Value>,
    examples: Vec<Value>,
}

/// What is said of all keys, by path, with `NAME` for names.
pub(super) struct Comments(BTreeMap<String, Comment>);

/// A line of the file.
enum Line<'a> {
    Table(&'a str),
    Key(&'a str, &'a str),
    Words(&'a str),
    Empty,
}

impl Comments {
    /// Reads the reference configuration.
    pub(super) fn of_reference() -> Self {
        let mut all = Self(BTreeMap::new());
        let mut table = String::new();
        // The comment so far, and whether a key has followed it: the next words begin another one.
        let (mut words, mut is_used) = (String::new(), false);
        for written in REFERENCE.lines() {
            match Line::read(written) {
                Line::Empty => (words, is_used) = (String::new(), false),
                Line::Words(more) => {
                    if std::mem::take(&mut is_used) {
                        words.clear();
                    }
                    words += if words.is_empty() { "" } else { " " };
                    words += more;
                }
                Line::Table(header) => {
                    table = path_of(header);
                    all.say(&table, &words);
                    (words, is_used) = (String::new(), false);
                }
                Line::Key(key, value) => {
                    let path = join(&table, key);
                    all.say(&path, &words);
                    all.show(&path, value, !written.starts_with('#'));
                    is_used = true;
                }
            }
        }
        all
    }

    fn say(&mut self, path: &str, words: &str) {
        let comment = self.0.entry(path.to_owned()).or_default();
        if comment.text.is_empty() {
            words.clone_into(&mut comment.text);
        }
    }

    fn show(&mut self, path: &str, value: &str, is_in_force: bool) {
        let Some(value) = parse(value) else { return };
        let comment = self.0.entry(path.to_owned()).or_default();
        let table = path.split('.').next().unwrap_or_default();
        if is_in_force && WITH_DEFAULTS.contains(&table) {
            comment.default = Some(value);
        } else if !comment.examples.contains(&value) && !is_secret(path, &value) {
            comment.examples.push(value);
        }
    }

    /// Adds to a schema what is known of its key. A key without words of its own is explained with
    /// its table.
    pub(super) fn describe(&self, path: &str, schema: &mut Map<String, Value>) {
        let around = std::iter::successors(Some(path), |path| Some(path.rsplit_once('.')?.0));
        let said = around.filter_map(|path| self.0.get(path)).map(|comment| &comment.text);
        if let Some(text) = said.into_iter().find(|text| !text.is_empty()) {
            schema.insert("description".to_owned(), text.as_str().into());
        }
        let Some(comment) = self.0.get(path) else { return };
        if let Some(default) = &comment.default {
            schema.insert("default".to_owned(), default.clone());
        }
        if !comment.examples.is_empty() {
            schema.insert("examples".to_owned(), comment.examples.clone().into());
        }
    }
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        let text =
            line.strip_prefix('#').map_or(line, |rest| rest.strip_prefix(' ').unwrap_or(rest));
        if text.trim().is_empty() {
            return Self::Empty;
        }
        if text.starts_with('[') && text.ends_with(']') {
            return Self::Table(text.trim_matches(['[', ']']));
        }
        let is_key = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        match text.split_once(" = ") {
            Some((key, value)) if is_key(key) => Self::Key(key, value),
            _ => Self::Words(text),
        }
    }
}

/// The path of a table, as the reader names it.
fn path_of(header: &str) -> String {
    let mut parts: Vec<&str> = header.split('.').collect();
    if let [table, name, ..] = parts.as_mut_slice()
        && WITH_NAMES.contains(table)
    {
        *name = "NAME";
    }
    parts.join(".")
}

/// A secret of the file is no example: whoever took it would share it with everybody.
fn is_secret(path: &str, value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    path.ends_with(".secret") && !text.starts_with("env:") && !text.starts_with("file:")
}

/// A value of TOML as one of JSON.
fn parse(text: &str) -> Option<Value> {
    let line = format!("value = {text}");
    let table = DeTable::parse(&line).ok()?;
    table.get_ref().get("value").map(|value| json(value.get_ref()))
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let pairs =
                table.iter().map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())));
            Value::Object(pairs.collect())
        }
        DeValue::Float(_) | DeValue::Datetime(_) => Value::Null,
    }
}
