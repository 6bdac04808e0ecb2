//! A document of lists and named things with the line of each, whatever language it is written in,
//! and ways to look at it that never fail. It remembers what was looked at, so that nothing is left
//! out without a word.

use std::sync::atomic::{AtomicU8, Ordering};

/// Most things in a document, each time counted that an alias stands for one.
pub(super) const NODES_MAX: usize = 100_000;
/// How deep things may lie in each other.
pub(super) const DEPTH_MAX: usize = 64;

/// Something in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// What it is.
    pub(super) value: Value,
    seen: Seen,
}

/// Whether somebody has looked at a thing, and then whether that was all of it. It is no part of
/// what the thing is.
#[derive(Debug, Default)]
pub(super) struct Seen(AtomicU8);

impl Seen {
    const NOT: u8 = 0;
    const SOME: u8 = 1;
    const ALL: u8 = 2;

    const fn new() -> Self {
        Self(AtomicU8::new(Self::NOT))
    }

    /// Somebody looks at it.
    pub(super) fn see(&self) {
        self.0.fetch_max(Self::SOME, Ordering::Relaxed);
    }

    /// Whether somebody did.
    pub(super) fn is_some(&self) -> bool {
        self.0.load(Ordering::Relaxed) != Self::NOT
    }
}

impl Clone for Seen {
    fn clone(&self) -> Self {
        Self(AtomicU8::new(self.0.load(Ordering::Relaxed)))
    }
}

impl PartialEq for Seen {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Seen {}

/// A thing that nobody has looked at.
pub(super) struct Unseen<'d> {
    /// The names that lead there, with those of listed things.
    pub(super) shown: String,
    /// The same without these.
    pub(super) keys: String,
    pub(super) node: &'d Node,
}

/// What it is. Numbers and booleans are their text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing.
    Null,
    /// A text, number or boolean.
    Text(String),
    /// Several.
    List(Vec<Node>),
    /// Several with names, in the order of the source.
    Map(Vec<(String, Node)>),
}

/// What stands for what is not there.
static NOTHING: Node = Node::new(0, Value::Null);
/// What a listed thing may be called by.
const NAMES: [&str; 5] = ["name", "username", "custom_id", "id", "target"];

impl Node {
    /// A thing of this line.
    pub(super) const fn new(line: usize, value: Value) -> Self {
        Self { line, value, seen: Seen::new() }
    }

    /// The one of this name, which is looked at.
    pub(super) fn get(&self, name: &str) -> &Self {
        self.named(|known| known == name)
    }

    /// The same whatever the case of letters: Traefik's labels and files differ in it.
    pub(super) fn find(&self, name: &str) -> &Self {
        self.named(|known| known.eq_ignore_ascii_case(name))
    }

    fn named(&self, is: impl Fn(&str) -> bool) -> &Self {
        let found = self.entries().iter().rev().find(|(known, _)| is(known));
        found.map_or(&NOTHING, |(_, node)| node.looked_at())
    }

    /// The same thing, which is looked at.
    pub(super) fn looked_at(&self) -> &Self {
        self.seen.see();
        self
    }

    /// All of it is carried over or on the list.
    pub(super) fn settle(&self) {
        self.seen.0.store(Seen::ALL, Ordering::Relaxed);
    }

    /// Whether all of it is carried over or on the list.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.seen.0.load(Ordering::Relaxed) == Seen::ALL
    }

    /// What has names in it, all of which is looked at.
    pub(super) fn each(&self) -> &[(String, Self)] {
        for (_, node) in self.entries() {
            node.seen.see();
        }
        self.entries()
    }

    /// What nobody has looked at in it, but for what is empty.
    pub(super) fn unseen(&self) -> Vec<Unseen<'_>> {
        let mut found = Vec::new();
        self.gather(("", ""), &mut found);
        found
    }

    fn gather<'d>(&'d self, (shown, keys): (&str, &str), found: &mut Vec<Unseen<'d>>) {
        let below = |path: &str, name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        for item in self.items() {
            if item.seen.0.load(Ordering::Relaxed) == Seen::ALL {
                continue;
            }
            let is_listed = !std::ptr::eq(item, self);
            let shown = match item.label().filter(|_| is_listed) {
                Some(label) => below(shown, label),
                None => shown.to_owned(),
            };
            if is_listed && item.is_unknown() {
                found.push(Unseen { shown, keys: keys.to_owned(), node: item });
                continue;
            }
            for (name, node) in item.entries() {
                let (shown, keys) = (below(&shown, name), below(keys, name));
                match item.state(name) {
                    Seen::ALL => {}
                    Seen::NOT if node.is_empty() => {}
                    Seen::NOT => found.push(Unseen { shown, keys, node }),
                    _ => node.gather((shown.as_str(), keys.as_str()), found),
                }
            }
            if let (Value::List(_), true) = (&item.value, is_listed) {
                item.gather((shown.as_str(), keys), found);
            }
        }
    }

    /// The most that was looked at of those of a name: the last one counts, and others may have
    /// come in by a merge.
    fn state(&self, name: &str) -> u8 {
        let same = self.entries().iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        same.map(|(_, node)| node.seen.0.load(Ordering::Relaxed)).max().unwrap_or(Seen::NOT)
    }

    /// Whether nobody looked at it, or at more of it than its name.
    fn is_unknown(&self) -> bool {
        if self.seen.is_some() {
            return false;
        }
        let rest: Vec<_> =
            self.entries().iter().filter(|(name, _)| !NAMES.contains(&name.as_str())).collect();
        let is_seen = |node: &Self| node.seen.is_some() || node.is_empty();
        rest.iter().any(|(_, node)| !is_seen(node))
            && !rest.iter().any(|(_, node)| node.seen.is_some())
    }

    fn label(&self) -> Option<&str> {
        let named = |name: &&str| self.entries().iter().find(|(known, _)| known == name);
        NAMES.iter().find_map(named).and_then(|(_, node)| node.text())
    }

    /// Whether it says nothing.
    fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Text(text) => text.is_empty(),
            Value::List(items) => items.iter().all(Self::is_empty),
            // One with nothing in it may switch something on.
            Value::Map(entries) => {
                !entries.is_empty() && entries.iter().all(|(_, node)| node.is_empty())
            }
        }
    }

    /// Whether it is there.
    pub(super) fn is_some(&self) -> bool {
        self.value != Value::Null
    }

    /// What has names in it.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// What is listed in it; one thing alone is a list of it.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Null => &[],
            Value::Text(_) | Value::Map(_) => std::slice::from_ref(self),
        }
    }

    /// Its text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The texts that are listed in it.
    pub(super) fn texts(&self) -> Vec<&str> {
        self.items().iter().filter_map(Self::text).collect()
    }

    /// Its number.
    pub(super) fn number(&self) -> Option<u64> {
        let text = self.text()?;
        text.parse().ok().or_else(|| {
            // Some write whole numbers with a point.
            text.strip_suffix(".0").and_then(|text| text.parse().ok())
        })
    }

    /// Whether it says yes.
    pub(super) fn is_true(&self) -> bool {
        self.text().is_some_and(|text| matches!(text, "true" | "True" | "TRUE" | "yes" | "on"))
    }

    /// How many things it is.
    pub(super) fn count(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Text(_) => 0,
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|(_, node)| node.count()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::new(1, Value::Text(text.to_owned()))
    }

    fn map(entries: &[(&str, Node)]) -> Node {
        let entries = entries.iter().map(|(name, node)| ((*name).to_owned(), node.clone()));
        Node::new(1, Value::Map(entries.collect()))
    }

    #[test]
    fn what_nobody_looked_at_is_known() {
        let inner = map(&[("a", text("1")), ("b", text("2")), ("empty", map(&[("c", text(""))]))]);
        let item = |name: &str| map(&[("name", text(name)), ("x", text("3")), ("y", text("4"))]);
        let list = Node::new(1, Value::List(vec![item("one"), item("two"), item("three")]));
        let root = map(&[("inner", inner), ("list", list), ("gone", text("5"))]);
        root.get("inner").get("a");
        for item in root.get("list").items() {
            match item.get("name").text() {
                Some("one") => assert!(item.find("X").is_some()),
                Some("two") => item.settle(),
                _ => {}
            }
        }
        let shown: Vec<String> = root.unseen().into_iter().map(|it| it.shown).collect();
        assert_eq!(shown, ["inner.b", "list.one.y", "list.three", "gone"]);
        root.each();
        assert_eq!(root.unseen().len(), 3);
    }
}
