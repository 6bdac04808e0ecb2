//! The slow log of Redis, without what its commands were about: keys hold users and sessions.

use std::time::Duration;

use redis::Value;

use crate::config::StoreUse;
use crate::store::keys::{Kind, usage};

/// How the names of a gateway's connections begin.
pub(super) const OURS: &str = "portcullis:";
/// Longest verb that is passed on, in letters.
const VERB_MAX: usize = 24;

/// One command that took long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    /// When, in Unix seconds.
    pub at_s: i64,
    /// How long Redis took for it.
    pub took: Duration,
    /// Its verb.
    pub command: String,
    /// What kind of key it named first, where that was one of the gateway's.
    pub keys: Option<&'static str>,
    /// The gateway's connection that sent it.
    pub client: Option<String>,
}

/// What SLOWLOG GET answered; nothing of what is not understood.
pub(super) fn read(reply: &Value, prefix: &str) -> Vec<Slow> {
    let Value::Array(entries) = reply else { return Vec::new() };
    entries.iter().filter_map(|entry| one(entry, prefix)).collect()
}

fn one(entry: &Value, prefix: &str) -> Option<Slow> {
    let Value::Array(fields) = entry else { return None };
    let Some([_, Value::Int(at_s), Value::Int(took), Value::Array(words)]) = fields.get(..4) else {
        return None;
    };
    let verb: String = text(words.first()?).chars().take(VERB_MAX).collect();
    let is_own = |key: &String| key.strip_prefix(prefix).is_some_and(|it| it.starts_with(':'));
    let key = words.iter().skip(1).map(text).find(is_own);
    let client = fields.get(5).map(text).filter(|name| name.starts_with(OURS));
    Some(Slow {
        at_s: *at_s,
        took: Duration::from_micros(u64::try_from(*took).unwrap_or_default()),
        command: verb.to_ascii_uppercase(),
        keys: key.as_deref().map(kind),
        client,
    })
}

fn text(value: &Value) -> String {
    let bytes = match value {
        Value::BulkString(bytes) => bytes.as_slice(),
        Value::SimpleString(text) => text.as_bytes(),
        _ => b"",
    };
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn kind(key: &str) -> &'static str {
    match Kind::of(key) {
        _ if usage(key) == StoreUse::Limits => "limits",
        Kind::Session => "sessions",
        Kind::Revocation => "revocations",
        Kind::ApiKey => "api_keys",
        Kind::Epoch => "epochs",
        Kind::Cached => "cache",
        Kind::Tls => "fleet",
        Kind::Mark => "marks",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_was_about_is_not_told() {
        let word = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let entry = |words: &[&str], client: &str| {
            let words = words.iter().map(|it| word(it)).collect();
            let (id, at, took) = (Value::Int(1), Value::Int(77), Value::Int(1500));
            let client = [word("10.0.0.1:5000"), word(client)];
            let fields = [id, at, took, Value::Array(words)].into_iter().chain(client);
            Value::Array(fields.collect())
        };
        let slow = |command: &str, keys, client: Option<&str>| Slow {
            at_s: 77,
            took: Duration::from_micros(1500),
            command: command.to_owned(),
            keys,
            client: client.map(str::to_owned),
        };
        let log = Value::Array(vec![
            entry(&["get", "app:session:secret"], "portcullis:a-1:requests"),
            entry(&["EVALSHA", "0f", "1", "app:ratelimit:{sub=42}:api:1m"], ""),
            entry(&["SET", "app:auth:not-before:42", "app:cache:x"], "shop"),
            entry(&["GET", "apple:1"], "shop"),
            entry(&[], ""),
            Value::Array(vec![Value::Int(1)]),
            Value::Nil,
        ]);
        let expected = [
            slow("GET", Some("sessions"), Some("portcullis:a-1:requests")),
            slow("EVALSHA", Some("limits"), None),
            slow("SET", Some("revocations"), None),
            slow("GET", None, None),
        ];
        assert_eq!(read(&log, "app"), expected);
        assert_eq!(read(&Value::Nil, "app"), []);
    }
}
