//! What is kept in the store for later, sealed: AES-256-GCM under a key of whoever keeps it, bound
//! to his name, the id and the part that it is, so that none can be taken for another's.
//!
//! Layout: four bytes of magic and version, the id of the key, a random nonce of 96 bits, and what
//! is sealed with its tag.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use bytes::Bytes;

use crate::config::{SealKey, SealKeyId};

/// Version 1 of the layout.
const MAGIC: [u8; 4] = *b"dls\x01";
const ID_BYTES: usize = size_of::<SealKeyId>();

/// Sealed by no key: for whatever could not be sealed, and must not lie in clear.
pub const NEVER_OPENS: [u8; 4] = MAGIC;

/// Cryptography failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealing failed")]
pub struct NotSealed;

/// No key opens it: it is of another key or another place, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key opens it")]
pub struct Unsealable;

/// What is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// The head of a request.
    Head = 1,
    /// Its body.
    Body = 2,
    /// The head of the answer to it.
    AnswerHead = 3,
    /// The content of that.
    AnswerBody = 4,
    /// How a request with an idempotency key ended: all that lies under that.
    Ended = 5,
    /// A session.
    Session = 6,
}

/// Where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The name of the queue, or of the route.
    pub of: &'a str,
    /// The id of the delivery, or the store key.
    pub id: &'a str,
    /// Which part of it.
    pub part: Part,
}

impl Place<'_> {
    /// Of no two places the same.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(self.part as u8);
        bytes.extend_from_slice(&(self.of.len() as u64).to_le_bytes());
        bytes.extend_from_slice(self.of.as_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        bytes
    }
}

/// Whether this was sealed, by any key.
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Seals what lies at this place.
///
/// # Errors
/// Cryptography failed.
pub fn seal(key: &SealKey, place: Place<'_>, bytes: &[u8]) -> Result<Vec<u8>, NotSealed> {
    let cipher = cipher(key).ok_or(NotSealed)?;
    let mut sealed = Vec::with_capacity(bytes.len() + AES_256_GCM.tag_len());
    sealed.extend_from_slice(bytes);
    let aad = Aad::from(place.bytes());
    let nonce = cipher.seal_in_place_append_tag(aad, &mut sealed).map_err(|_| NotSealed)?;
    Ok([&MAGIC[..], &key.id(), nonce.as_ref(), &sealed].concat())
}

/// What was sealed at this place by one of these keys.
///
/// # Errors
/// By none of them, elsewhere, or it was changed since.
pub fn open(keys: &[SealKey], place: Place<'_>, sealed: &Bytes) -> Result<Bytes, Unsealable> {
    opened(keys, place, sealed).ok_or(Unsealable)
}

fn opened(keys: &[SealKey], place: Place<'_>, sealed: &Bytes) -> Option<Bytes> {
    let rest = sealed.strip_prefix(&MAGIC)?;
    let (id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
    let key = keys.iter().find(|key| key.id() == *id)?;
    let mut whole = rest.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let aad = Aad::from(place.bytes());
    let length = cipher(key)?.open_in_place(nonce, aad, &mut whole).ok()?.len();
    whole.truncate(length);
    Some(whole.into())
}

fn cipher(key: &SealKey) -> Option<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, key.expose()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealKey {
        SealKey::parse(format!("{byte:02x}").repeat(32).as_bytes()).expect("a key")
    }

    const PLACE: Place<'_> = Place { of: "mail", id: "the-id", part: Part::Body };

    #[test]
    fn what_is_sealed_opens_with_its_key_in_its_place_alone() {
        let keys = [key(1), key(2)];
        let sealed = Bytes::from(seal(&keys[0], PLACE, b"a letter").expect("sealed"));
        assert!(is_sealed(&sealed) && !is_sealed(b"a letter"));
        assert!(!sealed.windows(8).any(|it| it == b"a letter"));
        assert_ne!(sealed, seal(&keys[0], PLACE, b"a letter").expect("sealed"));
        // Whoever seals by another key by now has the old one behind it.
        for known in [&keys[..], &[key(2), key(1)], &keys[..1]] {
            assert_eq!(open(known, PLACE, &sealed).as_deref(), Ok(&b"a letter"[..]));
        }
        for (known, place) in [
            (&keys[1..], PLACE),
            (&[][..], PLACE),
            (&keys[..], Place { of: "post", ..PLACE }),
            (&keys[..], Place { id: "other", ..PLACE }),
            (&keys[..], Place { part: Part::AnswerBody, ..PLACE }),
            (&keys[..], Place { part: Part::Ended, ..PLACE }),
            (&keys[..], Place { of: "mailt", id: "he-id", ..PLACE }),
        ] {
            assert_eq!(open(known, place, &sealed), Err(Unsealable), "{place:?}");
        }
    }

    #[test]
    fn what_nobody_has_sealed_is_opened_by_nobody() {
        assert!(is_sealed(&NEVER_OPENS));
        assert_eq!(open(&[key(1)], PLACE, &NEVER_OPENS.to_vec().into()), Err(Unsealable));
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let keys = [key(1)];
        let sealed = seal(&keys[0], PLACE, b"").expect("sealed");
        assert_eq!(open(&keys, PLACE, &sealed.clone().into()), Ok(Bytes::new()));
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert_eq!(open(&keys, PLACE, &bent.into()), Err(Unsealable), "{at}");
            assert_eq!(open(&keys, PLACE, &sealed[..at].to_vec().into()), Err(Unsealable), "{at}");
        }
    }
}
