//! The fleet's one account with the authority. Its key is stored before the authority hears of it:
//! whoever dies in between is followed by one who asks with the same key, and gets the same account
//! (RFC 8555 §7.3.1).

use std::fmt;
use std::time::Duration;

use instant_acme::{Account, AccountBuilder, Key};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::Mutex;

use super::client::Client;
use super::failure::Failure;
use super::lease::Lease;
use super::records;
use super::vault::{Vault, bytes};
use crate::config;

/// How long the account is kept; each certificate begins that time anew.
pub(super) const ACCOUNT_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// See the module.
#[derive(Default)]
pub(super) struct Accounts(Mutex<Option<Account>>);

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounts")
    }
}

impl Accounts {
    /// The account; made where there is none yet.
    ///
    /// # Errors
    /// The authority or the store is away, or refuses.
    pub(super) async fn get(
        &self,
        settings: &config::Acme,
        vault: &Vault,
    ) -> Result<Account, Failure> {
        let mut known = self.0.lock().await;
        if let Some(account) = &*known {
            return Ok(account.clone());
        }
        let account = stored_or_made(settings, vault).await?;
        *known = Some(account.clone());
        Ok(account)
    }

    /// Forgets the account of this name, which the authority does not know any more. Another
    /// gateway, or another order of this one, may have made a new one since: that stays.
    pub(super) async fn forget(&self, vault: &Vault, id: &str) {
        let mut known = self.0.lock().await;
        if known.as_ref().is_some_and(|account| account.id() == id) {
            *known = None;
        }
        let has_id = |record: &records::Account| record.id.as_deref() == Some(id);
        vault.delete_if(&vault.keys.tls_account(), has_id).await;
    }
}

/// What is stored of an account with this authority, and its key in PKCS#8. What cannot be read is
/// as good as none: a new account costs little, and without one nothing is renewed.
async fn stored(
    settings: &config::Acme,
    vault: &Vault,
) -> Result<Option<(records::Account, Vec<u8>)>, Failure> {
    let place = vault.keys.tls_account();
    let record: Option<records::Account> = vault.read(&place).await?;
    let Some(record) = record.filter(|record| record.directory == settings.directory) else {
        return Ok(None);
    };
    match vault.wrapping.unwrap(&place, &record.key) {
        Ok(key) => Ok(Some((record, key))),
        Err(failure) => {
            tracing::warn!(
                key = place,
                "the account is not used, and a new one is made: {failure}"
            );
            Ok(None)
        }
    }
}

async fn stored_or_made(settings: &config::Acme, vault: &Vault) -> Result<Account, Failure> {
    loop {
        if let Some((records::Account { id: Some(id), .. }, key)) = stored(settings, vault).await? {
            let key = PrivatePkcs8KeyDer::from(key);
            let account = builder(settings).from_parts(id, key, settings.directory.clone());
            return Ok(account.await?);
        }
        let key = vault.keys.tls_account_lease();
        if let Some(lease) = Lease::take(&vault.store, key, settings.lease).await? {
            let made = lease.during(make(settings, vault, &lease)).await;
            lease.release().await;
            if let Some(account) = made? {
                return Ok(account);
            }
        }
        // Another gateway makes it: the whole order's time bounds this loop.
        tokio::time::sleep(settings.follow).await;
    }
}

/// Makes the account; nothing where somebody did so before the lease was ours.
async fn make(
    settings: &config::Acme,
    vault: &Vault,
    lease: &Lease,
) -> Result<Option<Account>, Failure> {
    let place = vault.keys.tls_account();
    let begun = stored(settings, vault).await?;
    if begun.as_ref().is_some_and(|(record, _)| record.id.is_some()) {
        return Ok(None);
    }
    let (mut record, der) = match begun {
        Some(begun) => begun,
        None => {
            let (_, key) = Key::generate_pkcs8()?;
            let der = key.secret_pkcs8_der().to_vec();
            let (directory, key) = (settings.directory.clone(), vault.wrapping.wrap(&place, &der)?);
            (records::Account { directory, key, id: None }, der)
        }
    };
    let write = |record: &records::Account| [(place.clone(), bytes(record), ACCOUNT_TTL)];
    vault.put_fenced(&lease.lock, &write(&record)).await?;
    let key = Key::from_pkcs8_der(PrivatePkcs8KeyDer::from(der.as_slice()))?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der));
    let made = builder(settings).create_from_key((key, der), settings.directory.clone());
    let (account, _) = made.await?;
    if let Some(contact) = &settings.contact {
        account.update_contacts(&[contact.as_str()]).await?;
    }
    record.id = Some(account.id().to_owned());
    vault.put_fenced(&lease.lock, &write(&record)).await?;
    tracing::info!(directory = settings.directory, "an account with the authority was made");
    Ok(Some(account))
}

fn builder(settings: &config::Acme) -> AccountBuilder {
    Account::builder_with_http(Box::new(Client::new(settings)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::keys::Keys;
    use crate::store::{MemoryStore, Store};

    fn account(id: &str) -> records::Account {
        let (directory, key) = ("https://ca.test/dir".to_owned(), "plain:".to_owned());
        records::Account { directory, key, id: Some(id.to_owned()) }
    }

    #[tokio::test]
    async fn an_account_is_forgotten_by_its_name_alone() {
        let store = Arc::new(Store::Memory(Box::new(MemoryStore::new(100))));
        let folder = std::env::temp_dir().join(format!("acme-{}", std::process::id()));
        let vault = Vault::new(&store, &Keys::new("app"), None, Some(&folder));
        let place = vault.keys.tls_account();
        let lease = Lease::take(&vault.store, "lease".to_owned(), ACCOUNT_TTL).await.unwrap();
        let written = [(place.clone(), bytes(&account("new")), ACCOUNT_TTL)];
        vault.put_fenced(&lease.unwrap().lock, &written).await.unwrap();
        let accounts = Accounts::default();
        let id = async || vault.read::<records::Account>(&place).await.unwrap()?.id;
        accounts.forget(&vault, "old").await;
        assert_eq!(id().await.as_deref(), Some("new"), "another gateway has made it since");
        // After a restart of the embedded store only the file has it.
        store.delete(&place).await.unwrap();
        accounts.forget(&vault, "old").await;
        assert_eq!(id().await.as_deref(), Some("new"));
        accounts.forget(&vault, "new").await;
        assert_eq!(id().await, None);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
