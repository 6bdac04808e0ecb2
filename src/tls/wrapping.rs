//! Secret keys as they lie in the store: AES-256-GCM under a digest of `server.tls.secret`, bound
//! to the key of the store under which they lie, so that none can be taken for another's.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::units::Secret;

/// See the module. Without a secret, keys are only encoded: for the embedded store.
#[derive(Debug, Clone)]
pub struct Wrapping(Option<Secret>);

/// Why a key is not wrapped or unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// It was wrapped with another secret, or for another place.
    #[error(
        "the secret key in {0} cannot be read with server.tls.secret, which must be the same on \
         all gateways"
    )]
    Unreadable(String),
    /// Cryptography failed.
    #[error("wrapping a secret key failed")]
    Crypto,
}

impl Wrapping {
    /// With this secret.
    pub fn new(secret: Option<&Secret>) -> Self {
        Self(secret.cloned())
    }

    /// A key as it lies under `place`.
    ///
    /// # Errors
    /// Cryptography failed.
    pub fn wrap(&self, place: &str, key: &[u8]) -> Result<String, WrapError> {
        let Some(cipher) = self.cipher()? else {
            return Ok(format!("plain:{}", STANDARD.encode(key)));
        };
        let mut sealed = key.to_vec();
        let nonce = cipher
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut sealed)
            .map_err(|_| WrapError::Crypto)?;
        let whole = [&nonce.as_ref()[..], &sealed].concat();
        Ok(format!("aes-256-gcm:{}", STANDARD.encode(whole)))
    }

    /// The key that lies wrapped under `place`.
    ///
    /// # Errors
    /// It was wrapped with another secret, or for another place.
    pub fn unwrap(&self, place: &str, wrapped: &str) -> Result<Vec<u8>, WrapError> {
        let unreadable = || WrapError::Unreadable(place.to_owned());
        let (form, text) = wrapped.split_once(':').ok_or_else(unreadable)?;
        let mut whole = STANDARD.decode(text).map_err(|_| unreadable())?;
        match (form, self.cipher()?) {
            ("plain", None) => Ok(whole),
            ("aes-256-gcm", Some(cipher)) => {
                let (nonce, sealed) =
                    whole.split_at_mut_checked(NONCE_LEN).ok_or_else(unreadable)?;
                let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unreadable())?;
                let place = Aad::from(place.as_bytes());
                let opened = cipher.open_in_place(nonce, place, sealed);
                Ok(opened.map_err(|_| unreadable())?.to_vec())
            }
            _ => Err(unreadable()),
        }
    }

    fn cipher(&self) -> Result<Option<RandomizedNonceKey>, WrapError> {
        let Some(secret) = &self.0 else { return Ok(None) };
        let key = digest(&SHA256, secret.expose());
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, key.as_ref());
        cipher.map(Some).map_err(|_| WrapError::Crypto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapping(secret: Option<&str>) -> Wrapping {
        Wrapping::new(secret.map(Secret::new).as_ref())
    }

    #[test]
    fn a_wrapped_key_opens_with_its_secret_in_its_place() {
        let own = wrapping(Some("0123456789abcdef0123456789abcdef"));
        let wrapped = own.wrap("app:{tls}:cert:a.test", b"the key").unwrap();
        assert!(!wrapped.contains(&STANDARD.encode(b"the key")));
        assert_ne!(wrapped, own.wrap("app:{tls}:cert:a.test", b"the key").unwrap());
        assert_eq!(own.unwrap("app:{tls}:cert:a.test", &wrapped).unwrap(), b"the key");
        let foreign = wrapping(Some("another secret of 32 bytes or so"));
        for (wrapping, place, text) in [
            (&own, "app:{tls}:cert:b.test", wrapped.as_str()),
            (&foreign, "app:{tls}:cert:a.test", &wrapped),
            (&wrapping(None), "app:{tls}:cert:a.test", &wrapped),
            (&own, "app:{tls}:cert:a.test", "plain:dGhlIGtleQ=="),
            (&own, "app:{tls}:cert:a.test", "aes-256-gcm:AAAA"),
            (&own, "app:{tls}:cert:a.test", "aes-256-gcm:?"),
            (&own, "app:{tls}:cert:a.test", ""),
        ] {
            let unreadable = WrapError::Unreadable(place.to_owned());
            assert_eq!(wrapping.unwrap(place, text), Err(unreadable), "{text}");
        }
    }

    #[test]
    fn without_a_secret_a_key_is_only_encoded() {
        let wrapping = wrapping(None);
        let wrapped = wrapping.wrap("p", b"the key").unwrap();
        assert_eq!(wrapping.unwrap("q", &wrapped).unwrap(), b"the key");
    }
}
