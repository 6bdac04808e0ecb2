//! API keys as such: how one is made, which text cannot be one, and what the store's record of one
//! says. It must not know requests, nor how the store is asked.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::base::claim::Exact;
use crate::base::http::credentials::API_KEY as PREFIX;
use crate::base::http::hex;
use crate::base::json;

/// Random bytes of a key.
const SECRET_BYTES: usize = 32;
/// Bytes of the checksum at its end: of 16 million mistyped keys, one is looked up.
const CHECKSUM_BYTES: usize = 3;
/// Random bytes of an id.
const ID_BYTES: usize = 8;
/// Largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 8 * 1024;
/// Longest id and owner, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// What is said of a record that is no record.
const UNREADABLE: &str = "the record of an API key is not a JSON object of the documented form";
/// Claims that the other members of a record make; `claims` cannot say them.
const OWN_CLAIMS: [&str; 4] = ["sub", "key_id", "tier", "scope"];

/// A key that was just made. It is shown once, and `Debug` does not show it.
pub struct NewKey {
    /// What the client presents.
    pub key: String,
    /// What operators call it.
    pub id: String,
}

/// The store's record of a key. Applications may write it too, so its form is a contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What operators call the key, and what revokes it.
    pub id: String,
    /// Whose it is: the claim `sub`.
    pub owner: String,
    /// The verifier at which it is good; without one, at all that take API keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// The words of the claim `scope`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The claim `tier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Further claims.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// Unix seconds from which on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// What of `claims` cannot be told from them: the exact text of unusual numbers.
    #[serde(skip)]
    pub exact: Exact,
}

/// Makes a key and its id; nothing when the system's random source fails.
pub fn generate() -> Option<NewKey> {
    let mut secret = [0; SECRET_BYTES];
    let mut id = [0; ID_BYTES];
    aws_lc_rs::rand::fill(&mut secret).ok()?;
    aws_lc_rs::rand::fill(&mut id).ok()?;
    let body = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let key = format!("{body}{}", checksum(&body));
    Some(NewKey { key, id: hex::encode(&id) })
}

/// The name of a key in the store: its SHA-256 in hex. It has 256 random bits, so nothing slower is
/// needed.
pub fn key_digest(key: &[u8]) -> String {
    hex::encode(digest(&SHA256, key).as_ref())
}

/// Whether a text looks like a key of the gateway's own making and is none: nobody needs to ask the
/// store. Keys that an application imports do not begin like that.
pub(super) fn is_mistyped(key: &[u8]) -> bool {
    if !key.starts_with(PREFIX.as_bytes()) {
        return false;
    }
    let whole = PREFIX.len() + encoded(SECRET_BYTES) + encoded(CHECKSUM_BYTES);
    let text = std::str::from_utf8(key).ok().filter(|text| text.len() == whole);
    let parts = text.and_then(|text| text.split_at_checked(whole - encoded(CHECKSUM_BYTES)));
    parts.is_none_or(|(body, sum)| checksum(body) != sum)
}

/// Letters of so many bytes in base64url without padding.
const fn encoded(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

fn checksum(body: &str) -> String {
    let digest = digest(&SHA256, body.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..CHECKSUM_BYTES])
}

impl Record {
    /// Reads what the store has.
    ///
    /// # Errors
    /// What is wrong with it; never its content.
    pub fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err("the record of an API key has more than 8 KiB");
        }
        let (members, mut exact) = json::exact_object(bytes).map_err(|_| UNREADABLE)?;
        let mut record: Self =
            serde_json::from_value(Value::Object(members)).map_err(|_| UNREADABLE)?;
        record.exact = exact.within.remove("claims").unwrap_or_default();
        record.check().map(|()| record)
    }

    /// Takes the claims of a JSON object, each number as it is written there.
    ///
    /// # Errors
    /// What is wrong with it; never its content.
    pub fn claim(&mut self, object: &str) -> Result<(), &'static str> {
        let read = json::exact_object(object.as_bytes());
        (self.claims, self.exact) =
            read.map_err(|_| "claims are a JSON object that names each claim once")?;
        Ok(())
    }

    /// The record as it is stored, each number of the claims as it was written.
    ///
    /// # Errors
    /// None that a record can cause.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let rounded = serde_json::to_vec(self)?;
        if self.exact.text.is_empty() {
            return Ok(rounded);
        }
        let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&rounded)?;
        members.insert("claims".to_owned(), RawValue::from_string(self.exact.text.to_string())?);
        serde_json::to_vec(&members)
    }

    /// Whether all its members can be what they are for.
    ///
    /// # Errors
    /// What is wrong, as a sentence for an operator.
    pub fn check(&self) -> Result<(), &'static str> {
        let named = |text: &str| {
            (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
        };
        // A scope-token of RFC 6749 §3.3.
        let scope = |text: &String| {
            let plain = |b: u8| matches!(b, 0x21..=0x7E) && b != b'"' && b != b'\\';
            !text.is_empty() && text.bytes().all(plain)
        };
        if !named(&self.id) || !named(&self.owner) || !self.tier.as_deref().is_none_or(named) {
            return Err("id, owner and tier have 1 to 256 bytes without control characters");
        }
        if !self.scopes.iter().all(scope) {
            return Err("a scope is a word of printable ASCII without quotes and backslashes");
        }
        if OWN_CLAIMS.iter().any(|name| self.claims.contains_key(*name)) {
            return Err("claims cannot say sub, key_id, tier and scope: owner, id, tier and \
                        scopes do");
        }
        Ok(())
    }

    /// The claims of whoever presents the key.
    pub(super) fn into_claims(self) -> Map<String, Value> {
        let mut claims = self.claims;
        claims.insert("sub".to_owned(), self.owner.into());
        claims.insert("key_id".to_owned(), self.id.into());
        if let Some(tier) = self.tier {
            claims.insert("tier".to_owned(), tier.into());
        }
        claims.insert("scope".to_owned(), self.scopes.join(" ").into());
        claims
    }
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewKey({})", self.id)
    }
}
