//! Families of refresh tokens in the store: all that descends from one log-in. One key holds a
//! family, so that an exchange is one step wherever it is asked for. It must not know tokens: what
//! it is told of them are digests.

use std::time::Duration;

use bytes::Bytes;

use super::keys::FamilyKeys;
use super::separate::One;
use super::{Store, StoreError};
use crate::config::StoreUse;

/// Most families of one user that are listed.
pub(super) const FAMILIES_LISTED_MAX: usize = 100;

/// Names of the fields of a family. `cur` is the digest of the token that may be used, `n` its
/// number, `prev` the digest of the one before, which was used `at` (Unix ms) and whose successor
/// is `sealed`; `iat` is that of the newest access token, `until` when all of it ends (Unix ms).
pub(super) mod field {
    pub(in crate::store) const CURRENT: &str = "cur";
    pub(in crate::store) const NUMBER: &str = "n";
    pub(in crate::store) const PREVIOUS: &str = "prev";
    pub(in crate::store) const AT: &str = "at";
    pub(in crate::store) const SEALED: &str = "sealed";
    pub(in crate::store) const ISSUED: &str = "iat";
    pub(in crate::store) const UNTIL: &str = "until";
    pub(in crate::store) const ENDED: &str = "ended";
    pub(in crate::store) const SUBJECT: &str = "sub";
    pub(in crate::store) const CREATED: &str = "created";
    pub(in crate::store) const CLAIMS: &str = "claims";
    pub(in crate::store) const KEY: &str = "key";
    pub(in crate::store) const SIGNER: &str = "signer";
}

/// What of a family stays the same.
pub(super) const KEPT: [&str; 7] = [
    field::SUBJECT,
    field::CREATED,
    field::UNTIL,
    field::CLAIMS,
    field::KEY,
    field::SIGNER,
    field::ENDED,
];

/// A family of refresh tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Family {
    /// Whose it is.
    pub subject: String,
    /// Its begin, Unix seconds.
    pub created_s: u64,
    /// Its end at the latest, Unix milliseconds.
    pub until_ms: u64,
    /// The claims that its access tokens have besides, as JSON.
    pub claims: String,
    /// The key by which its tokens are known, in hex. Who has it can end the family, and no more.
    pub key: String,
    /// The name of its signer.
    pub signer: String,
    /// Whether one of its tokens was used twice.
    pub has_ended: bool,
}

/// A family to write.
#[derive(Debug, Clone)]
pub struct FamilyWrite {
    /// Where.
    pub keys: FamilyKeys,
    /// What stands around the name in the keys of families.
    pub around: [String; 2],
    /// What it is.
    pub family: Family,
    /// The digest of its first token.
    pub digest: String,
    /// How long that one lives.
    pub ttl: Duration,
}

impl FamilyWrite {
    /// The fields of its hash.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let family = &self.family;
        vec![
            (field::CURRENT, self.digest.clone()),
            (field::NUMBER, "1".to_owned()),
            (field::SUBJECT, family.subject.clone()),
            (field::CREATED, family.created_s.to_string()),
            (field::UNTIL, family.until_ms.to_string()),
            (field::CLAIMS, family.claims.clone()),
            (field::KEY, family.key.clone()),
            (field::SIGNER, family.signer.clone()),
        ]
    }
}

impl Family {
    /// Of the values of [`KEPT`]; nothing where there is no such family.
    pub(super) fn of(values: [Option<Bytes>; KEPT.len()]) -> Option<Self> {
        let [subject, created, until, claims, key, signer, ended] = values;
        let text = |value: Option<Bytes>| String::from_utf8(value?.to_vec()).ok();
        Some(Self {
            subject: text(subject)?,
            created_s: text(created)?.parse().ok()?,
            until_ms: text(until)?.parse().ok()?,
            claims: text(claims)?,
            key: text(key)?,
            signer: text(signer)?,
            has_ended: ended.is_some(),
        })
    }
}

/// An exchange that is asked for.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The digest of the token that is shown, and its number.
    pub digest: String,
    /// See `digest`.
    pub number: u32,
    /// The digest of what could follow it.
    pub successor: String,
    /// That successor, sealed, in hex.
    pub sealed: String,
    /// When the access token that comes with it is issued, Unix seconds.
    pub issued_s: u64,
    /// How long ago it may have been exchanged before.
    pub grace: Duration,
    /// How long the successor lives.
    pub ttl: Duration,
}

/// What came of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// It is exchanged, now or within the grace (`again`): for this.
    For {
        /// The successor, sealed, in hex.
        sealed: String,
        /// When the access token that comes with it was issued, Unix seconds.
        issued_s: u64,
        /// Whether it was exchanged before.
        again: bool,
    },
    /// It was used before, and the family has ended by this.
    Reused,
    /// The family had ended.
    Ended,
    /// It is none of the family's, or there is no such family.
    Unknown,
}

/// The families of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FamilyList {
    /// The newest of them, newest first, by their names.
    pub families: Vec<(String, Family)>,
    /// How many the index holds now, those that were not looked at included.
    pub count: usize,
}

impl Store {
    /// Writes a new family, and its place in its user's index.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn write_family(&self, write: &FamilyWrite) -> Result<(), StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.write_family(write).await,
            One::Memory(store) => store.write_family(write),
        }
    }

    /// A family, by its key.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn find_family(&self, key: &str) -> Result<Option<Family>, StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.find_family(key).await,
            One::Memory(store) => store.find_family(key),
        }
    }

    /// Exchanges a token of a family for its successor.
    ///
    /// # Errors
    /// The store did not answer, or refused. It may be exchanged then, and is answered the same
    /// within the grace.
    pub async fn rotate_family(
        &self,
        key: &str,
        rotation: &Rotation,
    ) -> Result<Rotated, StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.rotate_family(key, rotation).await,
            One::Memory(store) => store.rotate_family(key, rotation),
        }
    }

    /// Deletes a family. True when there was one.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn end_family(&self, keys: &FamilyKeys) -> Result<bool, StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.end_family(keys).await,
            One::Memory(store) => store.end_family(keys),
        }
    }

    /// The families in a user's index. What is gone is taken out of it.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn list_families(
        &self,
        index: &str,
        around: &[String; 2],
    ) -> Result<FamilyList, StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.list_families(index, around).await,
            One::Memory(store) => store.list_families(index, around),
        }
    }
}
