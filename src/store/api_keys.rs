//! API keys in the store: a record under the digest of the key, the digest under the key's id, and
//! the ids of each owner. It must not know what a record says.

use std::time::Duration;

use bytes::Bytes;

use super::keys::Keys;

/// Most keys of one owner that are listed.
pub const API_KEYS_LISTED_MAX: usize = 100;

/// Most bytes of one value that are of use, as of a record. Of a longer one, one byte more is read,
/// which shows that it is too long.
pub(super) const GET_BYTES_MAX: usize = 8 * 1024;

/// Where one API key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyKeys {
    /// Its record.
    pub record: String,
    /// Its digest, by its id.
    pub id: String,
    /// The ids of its owner.
    pub index: String,
    /// Its id as it stands in keys.
    pub part: String,
}

/// An API key to write.
#[derive(Debug, Clone)]
pub struct ApiKeyWrite {
    /// Where.
    pub keys: ApiKeyKeys,
    /// What stands before the id, and before the digest, in keys.
    pub families: [String; 2],
    /// The SHA-256 of the key in hex.
    pub digest: String,
    /// What it says.
    pub record: Bytes,
    /// Unix seconds.
    pub created_s: u64,
    /// Its life; nothing when it does not end.
    pub ttl: Option<Duration>,
}

/// The API keys of an owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiKeyList {
    /// The records of the newest [`API_KEYS_LISTED_MAX`], newest first.
    pub records: Vec<Bytes>,
    /// How many ids the index holds now, those that were not looked at included.
    pub count: usize,
}

impl Keys {
    /// Where an API key stands.
    pub fn api_key_keys(&self, digest: &str, id: &str, owner: &str) -> ApiKeyKeys {
        ApiKeyKeys {
            record: self.api_key(digest),
            id: self.api_key_id(id),
            index: self.api_keys_of(owner),
            part: Self::session_part(id),
        }
    }

    /// What stands before the id, and before the digest, in the keys of API keys.
    pub fn api_key_families(&self) -> [String; 2] {
        let before = |key: String| key.trim_end_matches('-').to_owned();
        [before(self.api_key_id("-")), before(self.api_key("-"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_part_in_an_index_and_by_its_digest() {
        let keys = Keys::new("app");
        let [ids, records] = keys.api_key_families();
        for id in ["0123456789abcdef", "two words", ""] {
            let at = keys.api_key_keys("ab", id, "acme");
            assert_eq!((format!("{ids}{}", at.part), format!("{records}ab")), (at.id, at.record));
        }
    }
}
