//! Records in the store, and private keys in them: AES-256-GCM under a digest of
//! `server.tls.secret`, bound to the key of the store under which they lie, so that none can be
//! taken for another's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::base::file;
use crate::base::units::Secret;
use crate::store::keys::Keys;
use crate::store::{FencedWrite, HeldLock, Store};

/// Largest record, in bytes.
const RECORD_BYTES_MAX: usize = 256 * 1024;

/// What is written under one key, and for how long.
pub(super) type Write = (String, Vec<u8>, Duration);

/// See the module.
#[derive(Debug)]
pub(super) struct Vault {
    pub(super) store: Arc<Store>,
    pub(super) keys: Keys,
    secret: Option<Secret>,
    /// Where records are kept that the embedded store would forget with the process.
    folder: Option<PathBuf>,
}

impl Vault {
    /// Records of one store.
    pub(super) fn new(
        store: &Arc<Store>,
        keys: &Keys,
        secret: Option<&Secret>,
        folder: Option<&PathBuf>,
    ) -> Self {
        let folder = folder.filter(|_| !store.is_shared()).cloned();
        Self { store: Arc::clone(store), keys: keys.clone(), secret: secret.cloned(), folder }
    }

    /// A record; nothing where there is none, or one that says something else.
    ///
    /// # Errors
    /// The store did not answer.
    pub(super) async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Failure> {
        let found = self.store.read(key, RECORD_BYTES_MAX).await?;
        let found = found.map(|bytes| bytes.to_vec()).or_else(|| self.filed(key));
        Ok(found.and_then(|bytes| {
            let read = serde_json::from_slice(&bytes);
            read.map_err(|error| tracing::warn!(key, %error, "a record of ACME cannot be read"))
                .ok()
        }))
    }

    /// Writes a record without a fence.
    ///
    /// # Errors
    /// The store did not take it.
    pub(super) async fn put<T: Serialize>(
        &self,
        key: &str,
        record: &T,
        ttl: Duration,
    ) -> Result<(), Failure> {
        Ok(self.store.put(key, &bytes(record), ttl).await?)
    }

    /// Deletes a record that `is_it`, as far as that can be done: one that was written meanwhile
    /// stays.
    pub(super) async fn delete_if<T: DeserializeOwned>(
        &self,
        key: &str,
        is_it: impl Fn(&T) -> bool,
    ) {
        let is_text = |text: &str| serde_json::from_str(text).is_ok_and(|record| is_it(&record));
        let found = self.store.read(key, RECORD_BYTES_MAX).await.ok().flatten();
        let found = found.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        if let Some(text) = found.filter(|text| is_text(text)) {
            // What deletes a lock if it is its holder's, deletes a value if it is still the same.
            let _ = self.store.unlock(&HeldLock { key: key.to_owned(), token: text }).await;
        }
        let filed = self.filed(key).and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(place) = self.place(key)
            && filed.is_some_and(|text| is_text(&text))
        {
            let _ = std::fs::remove_file(place);
        }
    }

    /// Writes what only the holder of this lease may write.
    ///
    /// # Errors
    /// The lease is somebody else's now, or the store did not answer.
    pub(super) async fn put_fenced(
        &self,
        lease: &HeldLock,
        writes: &[Write],
    ) -> Result<(), Failure> {
        if !self.store.write_fenced(&FencedWrite { lease, values: writes }).await? {
            return Err(Failure::LeaseLost);
        }
        writes.iter().for_each(|(key, bytes, _)| self.file(key, bytes));
        Ok(())
    }

    /// A private key as it lies under `place`.
    ///
    /// # Errors
    /// Cryptography failed.
    pub(super) fn wrap(&self, place: &str, key: &[u8]) -> Result<String, Failure> {
        let Some(cipher) = self.cipher()? else {
            return Ok(format!("plain:{}", STANDARD.encode(key)));
        };
        let mut sealed = key.to_vec();
        let nonce = cipher
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut sealed)
            .map_err(|_| Failure::Crypto("wrapping a private key"))?;
        let whole = [&nonce.as_ref()[..], &sealed].concat();
        Ok(format!("aes-256-gcm:{}", STANDARD.encode(whole)))
    }

    /// The private key that lies wrapped under `place`.
    ///
    /// # Errors
    /// It was wrapped with another secret, or for another place.
    pub(super) fn unwrap(&self, place: &str, wrapped: &str) -> Result<Vec<u8>, Failure> {
        let unreadable =
            || Failure::Unreadable(format!("the private key in {place} cannot be read"));
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

    fn cipher(&self) -> Result<Option<RandomizedNonceKey>, Failure> {
        let Some(secret) = &self.secret else { return Ok(None) };
        let key = digest(&SHA256, secret.expose());
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, key.as_ref());
        cipher.map(Some).map_err(|_| Failure::Crypto("making a key"))
    }

    /// Where a record is kept beside the embedded store; only of certificates and the account.
    fn place(&self, key: &str) -> Option<PathBuf> {
        let (_, name) = key.split_once("{tls}:")?;
        let is_kept = name == "account" || name.starts_with("cert:");
        let folder = self.folder.as_ref().filter(|_| is_kept)?;
        Some(folder.join(format!("{}.json", name.replace(':', "-"))))
    }

    fn filed(&self, key: &str) -> Option<Vec<u8>> {
        file::read(&self.place(key)?, RECORD_BYTES_MAX as u64).ok()
    }

    /// Keeps a record beside the embedded store.
    fn file(&self, key: &str, record: &[u8]) {
        let Some(place) = self.place(key) else { return };
        if let Err(error) = write_private(&place, record) {
            let place = place.display();
            tracing::warn!(
                "cannot write {place}: {error}; after a restart the certificate is ordered \
                 anew\n    help: let the gateway write to server.tls.acme.folder"
            );
        }
    }
}

/// Writes a file that only its owner may read, all or nothing of it.
fn write_private(place: &std::path::Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(folder) = place.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let beside = place.with_extension("new");
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(beside, place)
}

/// A record as it is stored.
pub(super) fn bytes<T: Serialize>(record: &T) -> Vec<u8> {
    // Records are made of texts and numbers: nothing in them fails to be written.
    serde_json::to_vec(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn vault(secret: Option<&str>) -> Vault {
        let store = Arc::new(Store::Memory(Box::new(MemoryStore::new(100))));
        let secret = secret.map(Secret::new);
        Vault::new(&store, &Keys::new("app"), secret.as_ref(), None)
    }

    #[test]
    fn a_wrapped_key_opens_with_its_secret_in_its_place() {
        let own = vault(Some("0123456789abcdef0123456789abcdef"));
        let wrapped = own.wrap("app:{tls}:cert:a.test", b"the key").unwrap();
        assert!(!wrapped.contains(&STANDARD.encode(b"the key")));
        assert_ne!(wrapped, own.wrap("app:{tls}:cert:a.test", b"the key").unwrap());
        assert_eq!(own.unwrap("app:{tls}:cert:a.test", &wrapped).unwrap(), b"the key");
        let foreign = vault(Some("another secret of 32 bytes or so"));
        for (vault, place, text) in [
            (&own, "app:{tls}:cert:b.test", wrapped.as_str()),
            (&foreign, "app:{tls}:cert:a.test", &wrapped),
            (&vault(None), "app:{tls}:cert:a.test", &wrapped),
            (&own, "app:{tls}:cert:a.test", "plain:dGhlIGtleQ=="),
            (&own, "app:{tls}:cert:a.test", "aes-256-gcm:AAAA"),
            (&own, "app:{tls}:cert:a.test", "aes-256-gcm:?"),
            (&own, "app:{tls}:cert:a.test", ""),
        ] {
            assert!(matches!(vault.unwrap(place, text), Err(Failure::Unreadable(_))), "{text}");
        }
    }

    #[test]
    fn without_a_secret_a_key_is_only_encoded() {
        let vault = vault(None);
        let wrapped = vault.wrap("p", b"the key").unwrap();
        assert_eq!(vault.unwrap("q", &wrapped).unwrap(), b"the key");
    }
}
