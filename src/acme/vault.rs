//! Records in the store; private keys in them are wrapped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::base::file;
use crate::base::units::Secret;
use crate::config::StoreUse;
use crate::store::keys::Keys;
use crate::store::{FencedWrite, HeldLock, Store};
use crate::tls::Wrapping;

/// Largest record, in bytes.
const RECORD_BYTES_MAX: usize = 256 * 1024;

/// What is written under one key, and for how long.
pub(super) type Write = (String, Vec<u8>, Duration);

/// See the module.
#[derive(Debug)]
pub(super) struct Vault {
    pub(super) store: Arc<Store>,
    pub(super) keys: Keys,
    pub(super) wrapping: Wrapping,
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
        let folder = folder.filter(|_| !store.is_shared(StoreUse::Main)).cloned();
        let (store, keys) = (Arc::clone(store), keys.clone());
        Self { store, keys, wrapping: Wrapping::new(secret), folder }
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
