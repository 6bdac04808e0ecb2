//! What idempotency keys need of the store beside the question of a request: values that are
//! changed only while they are their owner's.

use std::time::Duration;

use super::separate::One;
use super::{Store, StoreError};

/// A value that is changed if it still begins in this way.
#[derive(Debug, Clone, Copy)]
pub struct Swap<'a> {
    /// Its key.
    pub key: &'a str,
    /// What it begins with.
    pub begins: &'a [u8],
    /// What it becomes; empty: it goes.
    pub value: &'a [u8],
    /// How long it lasts then.
    pub ttl: Duration,
}

impl Store {
    /// Changes a value if it begins as it should; false where it does not, or there is none.
    ///
    /// # Errors
    /// The store did not answer, or refused, or has no room.
    pub async fn swap(&self, swap: Swap<'_>) -> Result<bool, StoreError> {
        match self.main() {
            One::Redis(store) => store.swap(swap).await,
            One::Memory(store) => store.swap(swap),
        }
    }
}
