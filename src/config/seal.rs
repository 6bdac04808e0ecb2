//! The keys with which a queue, or a route with `idempotency`, seals what it keeps.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use toml::de::DeValue;

use super::reader::Section;
use super::value::{Mistake, Read};
use crate::base::http::hex;
use crate::base::units::Secret;

/// Bytes of a key, and of what tells one from others.
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;

/// What tells a key from others, and nothing more of it.
pub type SealKeyId = [u8; ID_BYTES];

/// One of `seal = [ … ]`: a key of AES-256.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey {
    id: SealKeyId,
    key: Secret,
}

/// The id alone is shown.
impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealKey").field(&hex::encode(&self.id)).finish()
    }
}

impl SealKey {
    /// 32 bytes in hex or base64; nothing of anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim();
        let of_base64 = || STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok();
        let of_hex = hex::decode::<KEY_BYTES>(text.as_bytes()).map(Vec::from);
        let key = of_hex.or_else(of_base64).filter(|key| key.len() == KEY_BYTES)?;
        let whole = digest(&SHA256, &[b"queue seal ", &*key].concat());
        let id = whole.as_ref().first_chunk().copied()?;
        Some(Self { id, key: Secret::new(key) })
    }

    /// See [`SealKeyId`].
    pub fn id(&self) -> SealKeyId {
        self.id
    }

    /// The key itself.
    pub fn expose(&self) -> &[u8] {
        self.key.expose()
    }
}

/// Reads `seal`.
pub(super) fn read(table: &mut Section<'_>) -> Vec<SealKey> {
    let keys = table.secrets_as("seal", seal_key);
    let ids: std::collections::BTreeSet<_> = keys.iter().map(SealKey::id).collect();
    if ids.len() < keys.len() {
        table.problem("seal", "names the same key twice", "remove one of them");
    }
    keys
}

#[expect(clippy::needless_pass_by_value, reason = "it is what a reader of secrets hands over")]
fn seal_key(written: &DeValue<'_>, secret: Secret) -> Read<SealKey> {
    const ELSEWHERE: [&str; 2] = ["env:", "file:"];
    let text = written.as_str().unwrap_or_default();
    if !ELSEWHERE.iter().any(|prefix| text.starts_with(prefix)) {
        // What opens all that is kept is in no file that is shown, compared and copied.
        let remedy = "write \"file:PATH\" or \"env:NAME\", and the key there";
        return Err(Mistake::new("is a key itself", remedy));
    }
    SealKey::parse(secret.expose()).ok_or_else(|| {
        Mistake::new(
            "is not 32 bytes in base64 or hex",
            "write 32 random bytes into a file, such as `openssl rand -base64 32` prints, and name \
             it: seal = [\"file:queue.key\"]",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_in_either_spelling() {
        let bytes: Vec<u8> = (100..132).collect();
        let key = SealKey::parse(hex::encode(&bytes).as_bytes()).expect("hex");
        assert_eq!(key.expose(), bytes);
        for text in [
            hex::encode(&bytes).to_ascii_uppercase(),
            STANDARD.encode(&bytes),
            URL_SAFE_NO_PAD.encode(&bytes),
            format!(" {}\n", STANDARD.encode(&bytes)),
        ] {
            assert_eq!(SealKey::parse(text.as_bytes()), Some(key.clone()), "{text}");
        }
        for text in
            [String::new(), hex::encode(&bytes[1..]), STANDARD.encode(&bytes[1..]), "z".repeat(64)]
        {
            assert_eq!(SealKey::parse(text.as_bytes()), None, "{text}");
        }
        let other = SealKey::parse(hex::encode(&[1; KEY_BYTES]).as_bytes()).expect("hex");
        assert_ne!(other.id(), key.id());
        let shown = format!("{key:?}");
        assert!(shown.contains(&hex::encode(&key.id())) && !shown.contains("6465"), "{shown}");
    }
}
