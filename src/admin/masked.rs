//! Answers for those who may look and not know who the gateway's callers are. A subject stands as a
//! name that is the same in all answers of this process; only who guesses a subject learns its
//! name. What opens something, such as a session's id, stands as the first half of its SHA-256.

use std::sync::OnceLock;

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use serde_json::{Map, Value};

use crate::base::http::credentials::REDACTED;
use crate::base::http::hex;
use crate::store::keys::hex_digest;

/// What a digest that stands for something begins with, and its hexadecimal digits.
const DIGEST: (&str, usize) = ("sha256:", 32);
/// Bytes of a name.
const NAME_BYTES: usize = 8;
/// Members that name a caller.
const SUBJECTS: [&str; 4] = ["subject", "sub", "user", "owner"];
/// Members whose value is a principal of limits: `claim:sub=42|address=192.0.2.1`.
const PRINCIPALS: [&str; 2] = ["key", "limit_key"];
/// Members that name sessions and families of tokens, in any text.
const SESSION: &str = "sid";
/// Members that list sessions, each with its `id`.
const SESSIONS: &str = "sessions";
/// Members that may say anything of a caller.
const CONTENTS: [&str; 1] = ["claims"];
/// Members whose own members are names of the configuration, whatever they are called.
const NAMED: [&str; 2] = ["routes", "upstreams"];
/// Members that say nothing of callers.
const PLAIN: [&str; 2] = ["config", "changes"];
/// Members that hold what clients have sent, by the names of fields.
const FIELDS: [&str; 1] = ["vary"];
/// Fields that say what somebody can read, and not who it is.
const SHOWN_FIELDS: [&str; 4] = ["accept", "accept-encoding", "accept-language", "origin"];
/// Kinds of a principal's parts that name no caller.
const SHOWN_KINDS: [&str; 2] = ["address", "route"];

/// Masks every caller in an answer, however deep it stands.
pub(super) fn mask(answer: &mut Value) {
    match answer {
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(members) => {
            for (name, value) in members {
                let name = name.as_str();
                match value {
                    Value::Null => {}
                    _ if PLAIN.contains(&name) => {}
                    Value::Object(named) if NAMED.contains(&name) => {
                        named.values_mut().for_each(mask);
                    }
                    Value::Object(fields) if FIELDS.contains(&name) => mask_fields(fields),
                    Value::String(text) if SUBJECTS.contains(&name) => *text = pseudonym(text),
                    Value::String(text) if PRINCIPALS.contains(&name) => *text = principal(text),
                    Value::String(text) if name == SESSION => *text = redigested(text),
                    Value::Array(sessions) if name == SESSIONS => {
                        sessions.iter_mut().for_each(mask_id);
                        sessions.iter_mut().for_each(mask);
                    }
                    _ if SUBJECTS.contains(&name) || CONTENTS.contains(&name) => {
                        *value = REDACTED.into();
                    }
                    _ => mask(value),
                }
            }
        }
        _ => {}
    }
}

fn mask_fields(fields: &mut Map<String, Value>) {
    for (name, value) in fields {
        if let Value::String(text) = value
            && !SHOWN_FIELDS.contains(&name.as_str())
            // What nobody is shown has no name, either.
            && text != REDACTED
        {
            *text = pseudonym(text);
        }
    }
}

/// What opens something, by its digest: whoever knows it finds it again, and nobody else uses it.
pub(super) fn digest(secret: &str) -> String {
    let (before, digits) = DIGEST;
    let digest = hex_digest(secret.as_bytes());
    format!("{before}{}", digest.get(..digits).unwrap_or_default())
}

/// The same of what may stand as its digest already.
fn redigested(text: &str) -> String {
    let digits = text.strip_prefix(DIGEST.0).unwrap_or_default();
    let is_digest = digits.len() >= DIGEST.1 && digits.bytes().all(|it| it.is_ascii_hexdigit());
    if is_digest { text.to_owned() } else { digest(text) }
}

fn mask_id(of: &mut Value) {
    if let Some(Value::String(id)) = of.get_mut("id") {
        *id = redigested(id);
    }
}

/// What a session holds is shown to nobody who only looks, and its id opens it.
pub(super) fn mask_session(answer: &mut Value) {
    mask_id(answer);
    if let Some(session) = answer.get_mut("session") {
        *session = REDACTED.into();
    }
}

fn principal(text: &str) -> String {
    let parts = text.split('|').map(|part| match part.split_once('=') {
        Some((kind, _)) if SHOWN_KINDS.contains(&kind) => part.to_owned(),
        Some((kind, value)) => format!("{kind}={}", pseudonym(value)),
        None => pseudonym(part),
    });
    parts.collect::<Vec<_>>().join("|")
}

/// A name for something whose text may name a caller: the same for the same text, as long as this
/// process lives.
pub(super) fn name_of(text: &str) -> String {
    pseudonym(text)
}

/// The key is random, so that no list of subjects leads back.
fn pseudonym(subject: &str) -> String {
    static KEY: OnceLock<Option<Key>> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        Some(Key::new(HMAC_SHA256, &bytes))
    });
    let Some(key) = key else { return REDACTED.to_owned() };
    let tag = sign(key, subject.as_bytes());
    format!("#{}", hex::encode(tag.as_ref().get(..NAME_BYTES).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_caller_is_left_and_all_else_is() {
        let mut answer = json!({
            "user": "ursula", "sessions": [{ "id": "s-1", "seen_at": 7 }],
            "families": [{ "sid": "f-1", "created": 7 }], "object": { "sid": digest("s-2") },
            "caller": { "subject": "ursula", "issued_at": 1 }, "owner": 42, "sub": null,
            "refused": [{ "key": "claim:sub=ursula|address=192.0.2.1", "refusals": 3 }],
            "claims": { "mail": "ursula" }, "limits": [{ "limit_key": "header:x|y=ursula" }],
        });
        mask(&mut answer);
        assert!(!answer.to_string().contains("ursula"), "{answer}");
        let name = answer["user"].as_str().unwrap().to_owned();
        assert_eq!((name.len(), &name[..1]), (17, "#"));
        assert_eq!(answer["caller"], json!({ "subject": name, "issued_at": 1 }));
        assert_eq!(answer["sessions"], json!([{ "id": digest("s-1"), "seen_at": 7 }]));
        assert_eq!(answer["families"], json!([{ "sid": digest("f-1"), "created": 7 }]));
        assert_eq!(answer["object"]["sid"], digest("s-2"), "a digest stays as it is");
        assert_eq!(digest("s-1").len(), "sha256:".len() + 32);
        let key = format!("claim:sub={name}|address=192.0.2.1");
        assert_eq!(answer["refused"], json!([{ "key": key, "refusals": 3 }]));
        assert_eq!((&answer["owner"], &answer["claims"]), (&json!(REDACTED), &json!(REDACTED)));
        assert_eq!(answer["sub"], Value::Null);
    }

    #[test]
    fn names_of_the_configuration_are_no_callers_and_fields_are_what_clients_sent() {
        let kept = json!({
            "upstreams": { "user": { "servers": [] }, "claims": { "servers": [] } },
            "routes": { "sub": { "stored": 1 } },
            "changes": [{ "key": "limits.user.allow" }],
            "vary": { "accept-language": "de", "x-user": null },
        });
        let mut answer = kept.clone();
        mask(&mut answer);
        assert_eq!(answer, kept);
        let fields = json!({ "x-user": "ursula", "x-api-key": REDACTED });
        let mut answer = json!({ "variants": [{ "vary": fields }] });
        mask(&mut answer);
        assert_eq!(answer["variants"][0]["vary"]["x-api-key"], REDACTED);
        assert_eq!(answer["variants"][0]["vary"]["x-user"], pseudonym("ursula"));
        let mut answer = json!({ "routes": { "a": { "sub": "ursula" } } });
        mask(&mut answer);
        assert_eq!(answer["routes"]["a"]["sub"], pseudonym("ursula"));
    }
}
