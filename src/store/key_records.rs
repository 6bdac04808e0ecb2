//! Records of API keys, in whichever store has them: written, found, listed and ended. What one
//! request asks of them is part of its question.

use bytes::Bytes;

use super::api_keys::{ApiKeyKeys, ApiKeyList, ApiKeyWrite};
use super::revoked::Revocation;
use super::separate::One;
use super::{Store, StoreError};
use crate::config::StoreUse;

impl Store {
    /// Writes the record of an API key, its id and its place in its owner's index.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn write_api_key(&self, write: &ApiKeyWrite) -> Result<(), StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.write_api_key(write).await,
            One::Memory(store) => store.write_api_key(write),
        }
    }

    /// Digest and record of the API key with an id, whose key `id_key` is.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn find_api_key(
        &self,
        id_key: &str,
        families: &[String; 2],
    ) -> Result<Option<(String, Bytes)>, StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.find_api_key(id_key, families).await,
            One::Memory(store) => store.find_api_key(id_key, families),
        }
    }

    /// The API keys in an owner's index. What is gone is taken out of it.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn list_api_keys(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<ApiKeyList, StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.list_api_keys(index, families).await,
            One::Memory(store) => store.list_api_keys(index, families),
        }
    }

    /// Revokes an API key's id, deletes it and tells every gateway. True when there was a record.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn end_api_key(
        &self,
        keys: &ApiKeyKeys,
        revocation: Revocation<'_>,
    ) -> Result<bool, StoreError> {
        match self.used_for(StoreUse::Main) {
            One::Redis(store) => store.end_api_key(keys, revocation).await,
            One::Memory(store) => store.end_api_key(keys, revocation),
        }
    }
}
