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
