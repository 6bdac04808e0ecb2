//! What is asked once more of a caller when his request is delivered: whether his token or API key
//! was revoked since. It has the names under which revocations lie, and never the token.

use crate::base::facts::Identity;
use crate::base::packed::{Packer, Unpacker};
use crate::store::{RevocationKeys, RevocationStatus};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recheck {
    /// Store keys whose existence revokes it.
    pub blacklist: Vec<String>,
    /// Store key of the subject's not-before time.
    pub not_before: Option<String>,
    /// Store key of the record of an API key, which must exist.
    pub record: Option<String>,
    /// `iat`, Unix seconds.
    pub issued_at: Option<i64>,
}

impl Recheck {
    /// Of a caller; nothing where no revocation can be of him.
    pub fn of(identity: &Identity) -> Option<Self> {
        identity.is_revocable().then(|| Self {
            blacklist: identity.blacklist_keys.clone(),
            not_before: identity.not_before_key.clone(),
            record: identity.record_key().map(str::to_owned),
            issued_at: identity.issued_at,
        })
    }

    /// The question.
    pub fn keys(&self) -> RevocationKeys<'_> {
        RevocationKeys {
            blacklist: &self.blacklist,
            not_before: self.not_before.as_deref(),
            record: self.record.as_deref(),
            proof: None,
        }
    }

    /// What the answer to it means.
    pub fn is_revoked(&self, status: RevocationStatus) -> bool {
        status.revokes(self.issued_at)
    }

    pub(super) fn put(&self, packer: &mut Packer) {
        packer.count(self.blacklist.len());
        self.blacklist.iter().for_each(|key| packer.part(key.as_bytes()));
        for key in [&self.not_before, &self.record] {
            packer.part(key.as_deref().unwrap_or_default().as_bytes());
        }
        packer.put(&[u8::from(self.issued_at.is_some())]);
        packer.put(&self.issued_at.unwrap_or_default().to_le_bytes());
    }

    pub(super) fn read(from: &mut Unpacker) -> Option<Self> {
        let blacklist = from.list(Unpacker::text)?;
        let not_before = Some(from.text()?).filter(|key| !key.is_empty());
        let record = Some(from.text()?).filter(|key| !key.is_empty());
        let [is_dated] = from.array()?;
        let issued_at = i64::from_le_bytes(from.array()?);
        Some(Self {
            blacklist,
            not_before,
            record,
            issued_at: (is_dated == 1).then_some(issued_at),
        })
    }
}
