//! What an event says: names and values, of an entry of a stream or of a JSON text.

use std::collections::BTreeMap;

use serde_json::Value;

/// Names and values. A member of a JSON object in another one is named `outer.inner`.
pub type Fields = BTreeMap<String, String>;

/// Most fields of one event; the rest are left out.
pub const FIELDS_MAX: usize = 256;
/// Deepest member of a JSON text that is a field.
const DEPTH_MAX: usize = 4;
/// The field of an entry that may hold a JSON text.
const DATA: &str = "data";

/// What an entry says: its fields, and the members of the JSON text in its field `data`. Its own
/// fields come first. What is not UTF-8 is left out.
pub fn of_entry(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in pairs.into_iter().take(FIELDS_MAX) {
        if let (Ok(name), Ok(value)) = (String::from_utf8(name), String::from_utf8(value)) {
            fields.insert(name, value);
        }
    }
    if let Some(inner) = fields.get(DATA).and_then(|data| of_body(data.as_bytes())) {
        for (name, value) in inner {
            fields.entry(name).or_insert(value);
        }
    }
    fields
}

/// What a JSON text says; nothing where it is no object.
pub fn of_body(body: &[u8]) -> Option<Fields> {
    let value: Value = serde_json::from_slice(body).ok()?;
    value.is_object().then_some(())?;
    let mut fields = Fields::new();
    collect(&value, "", DEPTH_MAX, &mut fields);
    Some(fields)
}

/// Adds what is a text, a number or a truth value; lists are no fields.
fn collect(value: &Value, name: &str, depth: usize, fields: &mut Fields) {
    if fields.len() >= FIELDS_MAX {
        return;
    }
    match value {
        Value::String(text) => drop(fields.insert(name.to_owned(), text.clone())),
        Value::Number(number) => drop(fields.insert(name.to_owned(), number.to_string())),
        Value::Bool(is_true) => drop(fields.insert(name.to_owned(), is_true.to_string())),
        Value::Object(members) if depth > 0 => {
            for (member, value) in members {
                let name =
                    if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                collect(value, &name, depth - 1, fields);
            }
        }
        Value::Object(_) | Value::Array(_) | Value::Null => {}
    }
}
