//! What the store knows of the history of its data, and counts by itself.

use super::lineage::{LineageChanges, LineageSource};
use super::separate::One;
use super::{Epoch, Store};
use crate::config::StoreUse;
use crate::observe::StoreTotals;

impl Store {
    /// Mixes epochs with the lineages that they would be read under now, or takes those out again.
    /// Good enough to guess by, and no more.
    pub fn mix_for_now(&self, keys: &[String], epochs: &mut [Epoch]) {
        if let One::Redis(store) = self.cache() {
            store.mix_for_now(keys, epochs);
        }
    }

    /// Whether all replicas have what was written about these revocations, which is waited for:
    /// nothing where there are none.
    pub async fn confirm_revocations(&self, keys: &[String]) -> Option<bool> {
        match self.main() {
            One::Redis(store) => store.confirm_revocations(keys).await,
            One::Memory(_) => None,
        }
    }

    /// The same of other keys of one use.
    pub async fn confirm(&self, keys: &[String]) -> Option<bool> {
        match self.home(keys.first()?) {
            One::Redis(store) => store.confirm(keys).await,
            One::Memory(_) => None,
        }
    }

    /// The same of all keys of revocations and sessions.
    pub async fn confirm_all(&self) -> Option<bool> {
        match self.main() {
            One::Redis(store) => store.confirm_all().await,
            One::Memory(_) => None,
        }
    }

    /// Whether a counter lies on that server of several, of which a [`LineageChange`] tells.
    ///
    /// [`LineageChange`]: super::LineageChange
    pub fn lies_on(&self, key: &str, server: &str) -> bool {
        match self.limits() {
            One::Redis(store) => store.lies_on(key, server),
            One::Memory(_) => true,
        }
    }

    /// What it counts by itself.
    pub fn totals(&self) -> StoreTotals {
        let totals = self.uses().filter_map(|usage| match self.used_for(usage) {
            One::Redis(store) => Some(store.totals()),
            One::Memory(_) => None,
        });
        totals.fold(StoreTotals::default(), StoreTotals::and)
    }

    /// By what they are told; nothing where there is one history, or no server was asked yet.
    pub fn lineage_source(&self, usage: StoreUse) -> Option<LineageSource> {
        match self.used_for(usage) {
            One::Redis(store) => store.lineage_source(),
            One::Memory(_) => None,
        }
    }

    /// Tells of changes of where limits are counted, from now on; nothing where there are none.
    pub fn lineage_changes(&self) -> Option<LineageChanges> {
        match self.limits() {
            One::Redis(store) => Some(store.lineage_changes()),
            One::Memory(_) => None,
        }
    }
}
