//! Purges by writes whose answers may be stored: they tell what was there before.

use super::separate::One;
use super::{EpochChange, Store, StoreError};

impl Store {
    /// Changes epochs as [`Store::purge`] does, all of them hard, and tells what each was before,
    /// in one step with its change.
    ///
    /// # Errors
    /// The store did not answer, or refused; some may have changed then.
    pub async fn exchange_epochs(&self, keys: &[String]) -> Result<Vec<EpochChange>, StoreError> {
        match self.cache() {
            One::Redis(store) => store.exchange_epochs(keys).await,
            One::Memory(store) => store.exchange_epochs(keys),
        }
    }
}
