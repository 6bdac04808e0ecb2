//! A document of lists and named things with the line of each, whatever language it is written in,
//! and ways to look at it that never fail.

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
static NOTHING: Node = Node { line: 0, value: Value::Null };

impl Node {
    /// The one of this name.
    pub(super) fn get(&self, name: &str) -> &Self {
        self.entries().iter().rev().find(|(known, _)| known == name).map_or(&NOTHING, |it| &it.1)
    }

    /// The same whatever the case of letters: Traefik's labels and files differ in it.
    pub(super) fn find(&self, name: &str) -> &Self {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        self.entries().iter().rev().find(|(known, _)| is(known)).map_or(&NOTHING, |it| &it.1)
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
