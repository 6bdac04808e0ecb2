//! What the store knows of the history of its data, and counts by itself.

use super::lineage::{LineageChanges, LineageSource};
use super::{Epoch, Store};
use crate::observe::StoreTotals;

impl Store {
    /// Mixes epochs with the lineages that they would be read under now, or takes those out again.
    /// Good enough to guess by, and no more.
    pub fn mix_for_now(&self, keys: &[String], epochs: &mut [Epoch]) {
        match self {
            Self::Redis(store) => store.mix_for_now(keys, epochs),
            Self::Memory(_) => {}
        }
    }

    /// Whether all replicas have what was written about these revocations, which is waited for:
    /// nothing where there are none.
    pub async fn confirm_revocations(&self, keys: &[String]) -> Option<bool> {
        match self {
            Self::Redis(store) => store.confirm_revocations(keys).await,
            Self::Memory(_) => None,
        }
    }

    /// The same of other keys.
    pub async fn confirm(&self, keys: &[String]) -> Option<bool> {
        match self {
            Self::Redis(store) => store.confirm(keys).await,
            Self::Memory(_) => None,
        }
    }

    /// The same of all keys.
    pub async fn confirm_all(&self) -> Option<bool> {
        match self {
            Self::Redis(store) => store.confirm_all().await,
            Self::Memory(_) => None,
        }
    }

    /// Whether a key lies on that server of several, of which a [`LineageChange`] tells.
    ///
    /// [`LineageChange`]: super::LineageChange
    pub fn lies_on(&self, key: &str, server: &str) -> bool {
        match self {
            Self::Redis(store) => store.lies_on(key, server),
            Self::Memory(_) => true,
        }
    }

    /// What it counts by itself.
    pub fn totals(&self) -> StoreTotals {
        match self {
            Self::Redis(store) => store.totals(),
            Self::Memory(_) => StoreTotals::default(),
        }
    }

    /// By what they are told; nothing where there is one history, or no server was asked yet.
    pub fn lineage_source(&self) -> Option<LineageSource> {
        match self {
            Self::Redis(store) => store.lineage_source(),
            Self::Memory(_) => None,
        }
    }

    /// Tells of changes from now on; nothing where there are none.
    pub fn lineage_changes(&self) -> Option<LineageChanges> {
        match self {
            Self::Redis(store) => Some(store.lineage_changes()),
            Self::Memory(_) => None,
        }
    }
}
