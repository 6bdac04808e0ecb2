//! JSON read strictly: a repeated member is a mistake, at any depth. Two parsers that pick
//! different ones of two members would see different tokens (RFC 7515 §4, RFC 7519 §4). It must
//! not know what the members mean.

use std::fmt;

use std::collections::BTreeMap;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use super::claim::{Exact, Object};

/// Deepest nesting of a document that is read number by number, as `serde_json` has it.
const DEPTH_MAX: usize = 127;
/// Digits of an integer that `serde_json` keeps whatever they are.
const DIGITS_SAFE: usize = 18;

/// Reads one JSON object and nothing after it. Depth is bounded by serde_json's own recursion
/// limit.
///
/// # Errors
/// It is no object, or one that names a member twice.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::from_slice::<Strict>(bytes)?.0 {
        Value::Object(members) => Ok(members),
        _ => Err(de::Error::custom("a JSON object is needed")),
    }
}

/// The same, with the exact text of what [`Value`] would round: also numbers beyond a double, which
/// stand as the largest of them.
///
/// # Errors
/// See [`object`].
pub fn exact_object(bytes: &[u8]) -> Result<(Map<String, Value>, Exact), serde_json::Error> {
    if has_plain_numbers(bytes) {
        return Ok((object(bytes)?, Exact::default()));
    }
    let (value, exact, _) = read(serde_json::from_slice(bytes)?, 0)?;
    match value {
        Value::Object(members) => Ok((members, exact)),
        _ => Err(de::Error::custom("a JSON object is needed")),
    }
}

/// The same as one value; nothing of what is no such object.
pub fn read_object(bytes: &[u8]) -> Option<Object> {
    exact_object(bytes).ok().map(|(members, exact)| Object { members, exact })
}

/// Whether all numbers are integers of few digits, so that no reader changes them.
fn has_plain_numbers(bytes: &[u8]) -> bool {
    let (mut in_string, mut escaped, mut digits) = (false, false, 0);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => (in_string, digits) = (!in_string, 0),
            _ if in_string => {}
            b'0'..=b'9' if digits == DIGITS_SAFE => return false,
            b'0'..=b'9' => digits += 1,
            // A minus may stand before a zero. `true`, `false` and `else` hold an `e` too, which
            // follows no digit.
            b'-' | b'.' => return false,
            b'e' | b'E' if digits > 0 => return false,
            _ => digits = 0,
        }
    }
    true
}

/// A value, its text, and whether the value alone does not tell the text.
fn read(raw: &RawValue, depth: usize) -> Result<(Value, Exact, bool), serde_json::Error> {
    if depth > DEPTH_MAX {
        return Err(de::Error::custom("nested too deeply"));
    }
    let source = raw.get();
    let (value, text, within) = match source.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(source)?;
            let (mut object, mut within) = (Map::new(), BTreeMap::new());
            let mut texts = Vec::with_capacity(members.len());
            for (name, member) in members {
                let (value, exact, differs) = read(member, depth + 1)?;
                texts.push(format!("{}:{}", Value::String(name.clone()), exact.text));
                if differs {
                    within.insert(name.clone(), exact);
                }
                object.insert(name, value);
            }
            (Value::Object(object), format!("{{{}}}", texts.join(",")), within)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(source)?;
            let (mut array, mut within) = (Vec::new(), BTreeMap::new());
            let mut texts = Vec::with_capacity(items.len());
            for (at, item) in items.into_iter().enumerate() {
                let (value, exact, differs) = read(item, depth + 1)?;
                texts.push(exact.text.to_string());
                if differs {
                    within.insert(at.to_string(), exact);
                }
                array.push(value);
            }
            (Value::Array(array), format!("[{}]", texts.join(",")), within)
        }
        Some(b'-' | b'0'..=b'9') => {
            let most = if source.starts_with('-') { f64::MIN } else { f64::MAX };
            let rounded = || Number::from_f64(most).map_or(Value::Null, Value::Number);
            let value = serde_json::from_str(source).unwrap_or_else(|_| rounded());
            let text = value.to_string();
            let differs = text != source;
            let exact = Exact { text: source.into(), within: BTreeMap::new() };
            return Ok((value, exact, differs));
        }
        _ => {
            let value: Value = serde_json::from_str(source)?;
            let text = value.to_string();
            (value, text, BTreeMap::new())
        }
    };
    let differs = !within.is_empty();
    Ok((value, Exact { text: text.into(), within }, differs))
}

/// The members of one object, none of them twice, in the order of their names.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((name, value)) = members.next_entry::<String, &RawValue>()? {
            if all.insert(name, value).is_some() {
                return Err(de::Error::custom("an object has two members of one name"));
            }
        }
        Ok(Members(all))
    }
}

/// A value whose objects repeat no member.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        // Names are compared after their escapes are resolved, so `"\u0061lg"` repeats `"alg"`.
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.contains_key(&name) {
                return Err(de::Error::custom("an object has two members of one name"));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        let document = format!("{{\"x\":{json}}}");
        let (claims, exact) = exact_object(document.as_bytes()).unwrap();
        let found = super::super::claim::Found::new(&claims["x"], exact.within.get("x"));
        found.text().into_owned()
    }

    #[test]
    fn a_number_keeps_its_text_whatever_its_size() {
        for number in [
            "0",
            "-0",
            "1",
            "1.0",
            "1e400",
            "-1e400",
            "9007199254740992",
            "9007199254740993.0",
            "123456789012345678901234567890",
            "123456789012345678901234567891",
            "0.1",
            "0.10000000000000000001",
            "-9223372036854775809",
            "18446744073709551616",
        ] {
            assert_eq!(text(number), number);
            assert_eq!(text(&format!("[ {number} ]")), format!("[{number}]"));
        }
        assert_eq!(text("{\"b\": 1.50, \"a\" : \"\\u0061\"}"), "{\"a\":\"a\",\"b\":1.50}");
        assert_eq!(text("{\"b\": 1, \"a\" : [null]}"), "{\"a\":[null],\"b\":1}");
    }

    #[test]
    fn what_has_two_readings_is_no_document() {
        let deep = format!("{{\"x\":{}1.0{}}}", "[".repeat(200), "]".repeat(200));
        for bad in [
            "{\"a\":1.0,\"a\":1.0}",
            "{\"x\":{\"a\":1.5,\"\\u0061\":2}}",
            "[1.0]",
            "{\"a\":01.0}",
            "{\"a\":1.0} x",
            "{\"a\":-}",
            "{\"a\":1.e5}",
            &deep,
        ] {
            assert!(exact_object(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
