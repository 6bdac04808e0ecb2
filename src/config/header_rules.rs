//! `request_headers` and `response_headers`, of `[server]` and of routes: fields that messages are
//! given or lose on their way.

use http::{HeaderName, HeaderValue};
use toml::de::DeValue;

use super::field::Field;
use super::reader::Section;
use super::value::{Mistake, Read, header_name, string};

/// `{ set = { … }, add = { … }, remove = [ … ] }`, in the order in which it is done: removed, set,
/// added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Fields that go.
    pub remove: Vec<HeaderName>,
    /// Fields that have this value alone.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Lines that come on top of what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderRules {
    /// Whether nothing is done.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// The names of all fields that are touched, each with the key that it stands under.
    pub fn names(&self) -> impl Iterator<Item = (&'static str, &HeaderName)> {
        let removed = self.remove.iter().map(|name| ("remove", name));
        let set = self.set.iter().map(|(name, _)| ("set", name));
        removed.chain(set).chain(self.add.iter().map(|(name, _)| ("add", name)))
    }
}

/// Reads `{ set, add, remove }`.
pub(super) fn read(rules: &mut Section<'_>) -> HeaderRules {
    let read = HeaderRules {
        remove: rules.list_or_empty("remove", |value| {
            header_name(string(value, "the name of a header in quotes")?)
        }),
        set: lines(rules, "set"),
        add: lines(rules, "add"),
    };
    if let Some(name) = read.remove.iter().find(|name| read.set.iter().any(|(set, _)| set == *name))
    {
        let what = format!("{:?} is set as well, which replaces what was there", name.as_str());
        rules.problem("remove", what, "keep one of them");
    }
    read
}

fn lines(rules: &mut Section<'_>, key: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    let name = |text: &str| header_name(text).map(|name| name.as_str().to_owned());
    let read = rules.map(key, name, |field: &Field<'_>| field.read_env(header_value));
    let line =
        |(name, value): (String, HeaderValue)| Some((HeaderName::try_from(name).ok()?, value));
    read.into_iter().filter_map(line).collect()
}

/// The value of a header field: visible ASCII, spaces and tabs.
pub(super) fn header_value(value: &DeValue<'_>) -> Read<HeaderValue> {
    let text = string(value, "the value in quotes")?;
    let value = HeaderValue::from_str(text.trim()).ok().filter(|_| text.is_ascii());
    value.ok_or_else(|| {
        // It may be a secret, so it is not told.
        Mistake::new("cannot be the value of a header", "write it in ASCII, on one line")
    })
}
