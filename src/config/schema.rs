//! The JSON schema of gateway.toml (draft 2020-12), for editors. Nothing in it is written twice:
//! every key is tried with a value of each type, and what the reader says is wrong with that value
//! says what it wants. What a key is for, the reference configuration says.

mod comments;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use toml::de::DeTable;

use self::comments::Comments;
use super::load::{known_keys, root};
use super::problem::join;
use super::value::Flaw;
use super::walk::Reader;

/// What stands for the names of a named table, in paths of keys.
const NAME: &str = "NAME";
/// A name, and a key of a table whose keys are not known.
const ANY_NAME: &str = "x-any";
/// What a name may be: see `check_name` of the reader.
const NAMES: &str = "^[A-Za-z0-9_-]{1,64}$";
/// A value of each type, none of which is a good one.
const TYPES: [&str; 5] = ["true", "-1", "\"?\"", "[]", "{}"];
/// A reference to an environment variable, as a value and as a form.
const VARIABLE: &str = "\"env:PORTCULLIS_SCHEMA\"";
const VARIABLE_FORM: &str = "^env:.+$";
/// A text that takes something from the environment, whatever else is wanted in its place.
const TAKES_VARIABLES: &str = "[$][{][A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?[}]";

/// The schema.
pub fn schema() -> Value {
    let mut keys = Node::default();
    for path in known_keys() {
        path.split('.')
            .fold(&mut keys, |node, key| node.children.entry(key.to_owned()).or_default());
    }
    let mut all = Place::default().table(&keys, &Comments::of_reference());
    all.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    all.insert("title".to_owned(), "The configuration of Portcullis".into());
    Value::Object(all)
}

/// What the keys of a table are.
#[derive(Default)]
struct Node {
    children: BTreeMap<String, Node>,
}

/// Where a value is tried: what stands before and behind it in a file that has nothing else.
#[derive(Default)]
struct Place {
    before: String,
    after: String,
    /// As problems name it.
    path: String,
    /// The same without positions, and with `NAME` for names: as [`known_keys`] has it.
    key: String,
}

impl Place {
    /// The place of a key of this table.
    fn child(&self, name: &str) -> Self {
        let written = if name == NAME { ANY_NAME } else { name };
        let (before, after) = match self.path.as_str() {
            "" => (format!("{written} = "), String::new()),
            _ => (format!("{}{{ {written} = ", self.before), format!(" }}{}", self.after)),
        };
        Self { before, after, path: join(&self.path, written), key: join(&self.key, name) }
    }

    /// The place of the first element of this list.
    fn element(&self) -> Self {
        Self {
            before: format!("{}[ ", self.before),
            after: format!(" ]{}", self.after),
            path: format!("{}[0]", self.path),
            key: self.key.clone(),
        }
    }

    /// What the reader finds amiss when this value stands here, and whether it looked for an
    /// environment variable.
    fn flaws(&self, value: &str) -> (Vec<(String, Flaw)>, bool) {
        let text = format!("{}{value}{}", self.before, self.after);
        let is_asked = Cell::new(false);
        let env = |_: &str| {
            is_asked.set(true);
            None
        };
        let read = |table: &DeTable<'_>| Reader::new(Path::new(""), &env).flaws(table, root);
        let flaws = DeTable::parse(&text).map(|table| read(table.get_ref())).unwrap_or_default();
        (flaws, is_asked.get())
    }

    /// The same of the value itself.
    fn own_flaws(&self, value: &str) -> Vec<Flaw> {
        let (flaws, _) = self.flaws(value);
        flaws.into_iter().filter(|(path, _)| *path == self.path).map(|(_, flaw)| flaw).collect()
    }

    /// What may stand here.
    fn shape(&self, node: &Node, comments: &Comments) -> Map<String, Value> {
        let [flag, number, text, list, table] =
            TYPES.map(|value| !self.own_flaws(value).contains(&Flaw::Type));
        if flag && number && text && list && table {
            // The reader does not look here by itself, so nothing is known.
            return Map::new();
        }
        let mut forms = Vec::new();
        forms.extend(flag.then(|| object(json!({ "type": "boolean" }))));
        forms.extend(number.then(|| self.number()));
        forms.extend(text.then(|| self.texts()).into_iter().flatten());
        forms.extend(list.then(|| self.list(node, comments)));
        let any_text = object(json!({ "type": "string" }));
        if !forms.is_empty() && !forms.contains(&any_text) {
            forms.push(object(json!({ "type": "string", "pattern": TAKES_VARIABLES })));
        }
        forms.extend(table.then(|| self.table(node, comments)));
        match forms.len() {
            1 => forms.remove(0),
            _ => object(json!({ "anyOf": forms })),
        }
    }

    fn number(&self) -> Map<String, Value> {
        let mut shape = object(json!({ "type": "integer" }));
        for flaw in self.own_flaws("-1") {
            if let Flaw::Range(low, high) = flaw {
                shape.insert("minimum".to_owned(), low.into());
                shape.insert("maximum".to_owned(), high.into());
            }
        }
        shape
    }

    /// The words or the form that a text has; a second one where it may name a variable.
    fn texts(&self) -> Vec<Map<String, Value>> {
        let wanted = self.own_flaws("\"?\"").into_iter().find_map(|flaw| match flaw {
            Flaw::Choice(words) => Some(json!({ "enum": words })),
            Flaw::Form(form) => Some(json!({ "type": "string", "pattern": form })),
            _ => None,
        });
        let (_, takes_variables) = self.flaws(VARIABLE);
        match wanted {
            None => vec![object(json!({ "type": "string" }))],
            Some(shape) if takes_variables => {
                let variable = json!({ "type": "string", "pattern": VARIABLE_FORM });
                vec![object(shape), object(variable)]
            }
            Some(shape) => vec![object(shape)],
        }
    }

    fn list(&self, node: &Node, comments: &Comments) -> Map<String, Value> {
        let items = self.element().shape(node, comments);
        let mut shape = object(json!({ "type": "array", "items": items }));
        if self.own_flaws("[]").contains(&Flaw::Empty) {
            shape.insert("minItems".to_owned(), 1.into());
        }
        shape
    }

    fn table(&self, node: &Node, comments: &Comments) -> Map<String, Value> {
        let mut shape = object(json!({ "type": "object" }));
        let mut add = |key: &str, value: Value| shape.insert(key.to_owned(), value);
        if node.children.is_empty() {
            let values = self.child(ANY_NAME).shape(node, comments);
            add("additionalProperties", values.into());
        } else if let Some(named) = node.children.get(NAME) {
            add("propertyNames", json!({ "pattern": NAMES }));
            add("additionalProperties", self.child(NAME).shape(named, comments).into());
        } else {
            let mut properties = Map::new();
            for (name, child) in &node.children {
                let place = self.child(name);
                let mut shape = place.shape(child, comments);
                comments.describe(&place.key, &mut shape);
                properties.insert(name.clone(), shape.into());
            }
            add("properties", properties.into());
            add("additionalProperties", false.into());
            let needed = self.needed(node);
            if !needed.is_empty() {
                add("required", needed.into());
            }
        }
        shape
    }

    /// The keys that are needed whatever else is written.
    fn needed(&self, node: &Node) -> Vec<String> {
        if self.path.is_empty() {
            return Vec::new();
        }
        let names: Vec<&String> = node.children.keys().collect();
        let is_missing = |name: &str, table: &str| {
            let path = join(&self.path, name);
            self.flaws(table).0.iter().any(|(at, flaw)| *at == path && *flaw == Flaw::Missing)
        };
        let is_needed = |name: &&String| {
            let beside = names.iter().filter(|other| *other != name);
            let tables =
                beside.flat_map(|other| TYPES.map(|value| format!("{{ {other} = {value} }}")));
            is_missing(name, "{}") && tables.into_iter().all(|table| is_missing(name, &table))
        };
        names.iter().copied().filter(is_needed).cloned().collect()
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
