//! The configuration as operators are shown it: what is written, what holds where nothing is, and
//! no secret. Which keys there are, what their defaults are and which of them are secrets, the
//! reader says; so none is forgotten.

use std::fmt;

use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::field::ELSEWHERE;
use super::load::{of_environment, root};
use super::problem::{NAMED_TABLES, bears_credentials, bears_secret, join};
use super::source::Source;
use super::variables::Taken;
use super::walk::{Note, Reader};
use crate::base::http::fields;

/// Stands for a value that is not shown.
const HIDDEN: &str = "[secret]";
/// Stands for what an unknown key says.
const UNREAD: &str = "[unknown key: not shown]";
/// How paths of tables of header fields end. Of these only such values are shown as are known to
/// open nothing; what stands there and is no table has no name to go by.
const OF_FIELDS: [&str; 6] = [
    ".request_headers.set",
    ".request_headers.add",
    ".response_headers.set",
    ".response_headers.add",
    "telemetry.traces.headers",
    ".cache.warm.vary",
];
/// Keys of URLs whose query may open something.
const OF_URLS: [&str; 3] = ["jwks_url", "endpoint", "directory"];
/// A URL whose path may be all that it takes to be heard there.
const OF_CALLBACK: &str = ".callback.url";
/// Deepest table that is shown; no key that the reader knows is deeper than five.
const DEPTH_MAX: usize = 16;

/// A file as it is shown.
pub struct Shown {
    /// With all defaults, without secrets.
    whole: Value,
    /// Only what is written, without secrets.
    written: Value,
    /// With all defaults and with secrets, for comparing: never shown.
    raw: Value,
    taken: Vec<FromEnvironment>,
}

/// It holds secrets.
impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

/// One value that has something from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromEnvironment {
    /// Its key.
    pub key: String,
    /// What it is, without secrets.
    pub value: Value,
    /// The variables that it has something of.
    pub variables: Vec<String>,
    /// Those that are not set, or empty, so that the default of the file holds.
    pub unset: Vec<String>,
}

impl FromEnvironment {
    fn of(key: &str, value: Value, taken: &Taken) -> Self {
        let names = |is_default: bool| {
            let variables = taken.variables.iter().filter(|it| it.is_default == is_default);
            variables.map(|it| it.name.clone()).collect()
        };
        Self { key: key.to_owned(), value, variables: names(false), unset: names(true) }
    }
}

/// One key that says something else in another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key, or the whole table where one of the files has none.
    pub key: String,
    /// What it says here; null where it says nothing.
    pub old: Value,
    /// What it says there.
    pub new: Value,
}

impl Shown {
    /// What files say. What they say wrongly stands as it is written, and what no reader knows is
    /// not shown: it may be a secret under a misspelt key.
    pub fn of(source: &Source) -> Self {
        let document = Document::of(source, &of_environment);
        let table = &document.table;
        let notes = Reader::of(&document, &of_environment).notes(table, root);
        let mut raw = raw_table(table, 0);
        let mut whole = masked_table("", table, false, 0);
        for (path, note) in &notes {
            if let Note::Means(value) = note {
                have_mean(&mut whole, &mut raw, path, value);
            }
        }
        let secrets = notes.iter().filter(|(_, note)| *note == Note::Secret);
        secrets.for_each(|(path, _)| hide(&mut whole, path, HIDDEN));
        let unread = notes.iter().filter(|(_, note)| *note == Note::Unread);
        unread.for_each(|(path, _)| hide(&mut whole, path, UNREAD));
        // What a variable says is no place, whatever it begins with: it may be the secret itself.
        let is_made = |it: &Taken| ELSEWHERE.iter().any(|at| it.makes(&it.value, at).is_some());
        for (path, _) in document.taken.iter().filter(|(_, taken)| is_made(taken)) {
            if let Some(value) = value_at_mut(&mut whole, path).filter(|it| it.is_object()) {
                *value = HIDDEN.into();
            }
        }
        let taken = document.taken.iter().map(|(key, taken)| {
            let value = value_at(&whole, key).cloned().unwrap_or_else(|| HIDDEN.into());
            FromEnvironment::of(key, value, taken)
        });
        let taken = taken.collect();
        let written = whole.clone();
        for (path, note) in &notes {
            if let Note::Default(value) = note {
                stand_in(&mut whole, path, value);
                stand_in(&mut raw, path, value);
            }
        }
        Self { whole, written, raw, taken }
    }

    /// What has something from the environment by `${NAME}`, by key.
    pub fn from_environment(&self) -> &[FromEnvironment] {
        &self.taken
    }

    /// All keys with what holds.
    pub fn into_value(self) -> Value {
        self.whole
    }

    /// What differs in another file, by key.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut differing = Vec::new();
        differing_keys("", &self.raw, &other.raw, &mut differing);
        let told = differing.into_iter().map(|(key, pointer)| {
            let is_table = |it: &Self| it.raw.pointer(&pointer).is_some_and(Value::is_object);
            let of = |it: &Self| {
                // A table that is not there at all is best known by what is written in it.
                let tree = if is_table(self) != is_table(other) { &it.written } else { &it.whole };
                tree.pointer(&pointer).or_else(|| it.whole.pointer(&pointer)).cloned()
            };
            let (old, new) = (of(self).unwrap_or_default(), of(other).unwrap_or_default());
            Difference { key, old, new }
        });
        told.collect()
    }
}

/// The keys that say something else, each with its JSON pointer (RFC 6901).
fn differing_keys(path: &str, old: &Value, new: &Value, found: &mut Vec<(String, String)>) {
    fn walk(
        (path, pointer): (&str, &str),
        old: &Value,
        new: &Value,
        found: &mut Vec<(String, String)>,
    ) {
        if old == new {
            return;
        }
        let (Value::Object(one), Value::Object(other)) = (old, new) else {
            found.push((path.to_owned(), pointer.to_owned()));
            return;
        };
        let gone = one.keys().filter(|name| !other.contains_key(*name));
        for name in gone.chain(other.keys()) {
            let escaped = name.replace('~', "~0").replace('/', "~1");
            let place = (&*join(path, name), &*format!("{pointer}/{escaped}"));
            let of = |it: &Map<String, Value>| it.get(name).cloned().unwrap_or_default();
            walk(place, &of(one), &of(other), found);
        }
    }
    walk((path, ""), old, new, found);
}

/// A value as it is written.
fn raw(value: &DeValue<'_>, depth: usize) -> Value {
    match value {
        DeValue::Table(table) if depth <= DEPTH_MAX => raw_table(table, depth),
        DeValue::Array(items) if depth <= DEPTH_MAX => {
            items.iter().map(|item| raw(item.get_ref(), depth + 1)).collect()
        }
        DeValue::Table(_) | DeValue::Array(_) => HIDDEN.into(),
        _ => plain(value),
    }
}

fn raw_table(table: &DeTable<'_>, depth: usize) -> Value {
    let members =
        table.iter().map(|(key, it)| (key.get_ref().to_string(), raw(it.get_ref(), depth + 1)));
    Value::Object(members.collect())
}

/// A value that is neither a table nor a list.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
            parsed.map_or_else(|| number.as_str().into(), Value::from)
        }
        DeValue::Float(number) => number.as_str().into(),
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(_) | DeValue::Table(_) => Value::Null,
    }
}

/// A table without what its keys and texts say to be secret; the reader knows of more. `hides` says
/// that a key around it bears a secret.
fn masked_table(path: &str, table: &DeTable<'_>, hides: bool, depth: usize) -> Value {
    let is_of_fields = is_of_fields(path);
    let is_named = NAMED_TABLES.contains(&path);
    let mut members = Map::new();
    for (key, value) in table {
        let (key, value) = (key.get_ref(), value.get_ref());
        let opens = is_of_fields && !fields::opens_nothing(&key.to_ascii_lowercase());
        let hides = hides || opens || (!is_named && bears_secret(key));
        members.insert(key.to_string(), masked(&join(path, key), value, hides, depth + 1));
    }
    Value::Object(members)
}

fn is_of_fields(path: &str) -> bool {
    OF_FIELDS.iter().any(|end| path.ends_with(end))
}

fn masked(path: &str, value: &DeValue<'_>, hides: bool, depth: usize) -> Value {
    match value {
        DeValue::Table(table) if depth <= DEPTH_MAX => masked_table(path, table, hides, depth),
        DeValue::Array(items) if depth <= DEPTH_MAX => {
            items.iter().map(|item| masked(path, item.get_ref(), hides, depth + 1)).collect()
        }
        DeValue::Table(_) | DeValue::Array(_) => HIDDEN.into(),
        DeValue::Boolean(_) => plain(value),
        _ if hides || is_of_fields(path) => hidden(&plain(value)),
        DeValue::String(text) if bears_credentials(text) || text.contains("-----BEGIN") => {
            HIDDEN.into()
        }
        DeValue::String(text) if path.ends_with(OF_CALLBACK) && !text.starts_with("env:") => {
            let (scheme, rest) = text.split_once("://").unwrap_or_default();
            let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let path = if path.is_empty() { "" } else { HIDDEN };
            format!("{scheme}://{host}{path}").into()
        }
        DeValue::String(text) if OF_URLS.iter().any(|key| path.ends_with(key)) => {
            let (shown, query) = text.split_once('?').unwrap_or((text, ""));
            if query.is_empty() { shown.into() } else { format!("{shown}?{HIDDEN}").into() }
        }
        _ => plain(value),
    }
}

/// What is shown of a secret: where it is, or that there is one.
fn hidden(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with("env:") || text.starts_with("file:") => {
            json!({ "secret": text })
        }
        // It is hidden already.
        Value::Object(members) if members.len() == 1 && members.contains_key("secret") => {
            value.clone()
        }
        _ => HIDDEN.into(),
    }
}

/// Hides what stands at a path, or around it where the path cannot be followed.
fn hide(tree: &mut Value, path: &str, by: &str) {
    let mut at = tree;
    for step in steps(path) {
        if step.get(at).is_none() {
            return;
        }
        let Some(next) = step.get_mut(at) else { return };
        at = next;
    }
    *at = match hidden(at) {
        it if it == HIDDEN => by.into(),
        it => it,
    };
}

/// Has a text of the environment stand as what it was read as, where it is shown at all.
fn have_mean(whole: &mut Value, raw: &mut Value, path: &str, value: &Value) {
    let text = value_at(raw, path).cloned();
    for tree in [whole, raw] {
        let known = value_at_mut(tree, path);
        if let Some(known) = known.filter(|it| text.as_ref() == Some(*it)) {
            known.clone_from(value);
        }
    }
}

/// What stands at a path; nothing where it cannot be followed to its end.
fn value_at<'v>(tree: &'v Value, path: &str) -> Option<&'v Value> {
    let is_whole = !path.contains('"');
    is_whole.then(|| steps(path).iter().try_fold(tree, |at, step| step.get(at)))?
}

/// The same, to be changed.
fn value_at_mut<'v>(tree: &'v mut Value, path: &str) -> Option<&'v mut Value> {
    let is_whole = !path.contains('"');
    is_whole.then(|| steps(path).iter().try_fold(tree, |at, step| step.get_mut(at)))?
}

/// Has a default stand where nothing is written.
fn stand_in(tree: &mut Value, path: &str, value: &Value) {
    let mut at = tree;
    for step in steps(path) {
        if at.is_null() {
            *at = json!({});
        }
        if let (Step::Key(key), Value::Object(members)) = (&step, &mut *at) {
            members.entry((*key).to_owned()).or_insert(Value::Null);
        }
        let Some(next) = step.get_mut(at) else { return };
        at = next;
    }
    if at.is_null() {
        *at = value.clone();
    }
}

/// A step from a value into it.
#[derive(Debug, PartialEq, Eq)]
enum Step<'p> {
    Key(&'p str),
    Item(usize),
}

impl Step<'_> {
    fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        match self {
            Self::Key(key) => value.get(key),
            Self::Item(position) => value.get(position),
        }
    }

    fn get_mut<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        match self {
            Self::Key(key) => value.get_mut(key),
            Self::Item(position) => value.get_mut(position),
        }
    }
}

/// The steps of a path as problems have it. One ends before a key that is quoted there, which is
/// nobody's but the user's.
fn steps(path: &str) -> Vec<Step<'_>> {
    let plain = path.split('"').next().unwrap_or_default();
    let parts = plain.split(['.', '[']).filter(|part| !part.is_empty());
    let step = |part| match str::strip_suffix(part, ']') {
        Some(position) => Step::Item(position.parse().unwrap_or(usize::MAX)),
        None => Step::Key(part),
    };
    parts.map(step).collect()
}
