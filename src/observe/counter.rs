//! Counters of the request path, spread over the threads.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use prometheus_client::metrics::counter::{Atomic, Counter};

use crate::base::shard::Counters;

/// A counter of the request path.
pub type Tally = Counter<u64, Spread>;

/// The atomic under a counter of the request path.
#[derive(Debug, Default)]
pub struct Spread(Counters<1>);

impl Atomic<u64> for Spread {
    // Nobody on the request path reads the value before, so it is not worth summing up.
    fn inc(&self) -> u64 {
        self.inc_by(1)
    }

    fn inc_by(&self, amount: u64) -> u64 {
        self.0.add(0, amount);
        0
    }

    fn get(&self) -> u64 {
        self.0.sum(0)
    }
}

/// Counters by a word that this program chose.
#[derive(Debug, Default)]
pub(super) struct Words(RwLock<BTreeMap<&'static str, Tally>>);

impl Words {
    /// Counts one.
    pub(super) fn count(&self, word: &'static str) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(word).cloned();
        let counter = known.unwrap_or_else(|| {
            let mut words = self.0.write().unwrap_or_else(PoisonError::into_inner);
            words.entry(word).or_default().clone()
        });
        counter.inc();
    }

    /// A word that was not counted yet.
    pub(super) fn make(&self, word: &'static str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(word).or_default();
    }

    /// How often a word was counted.
    pub(super) fn get(&self, word: &'static str) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(word).map_or(0, Tally::get)
    }

    /// How often any word was counted.
    pub(super) fn sum(&self) -> u64 {
        let words = self.0.read().unwrap_or_else(PoisonError::into_inner);
        words.values().map(Tally::get).sum()
    }

    /// All words, in order.
    pub(super) fn all(&self) -> Vec<(&'static str, Tally)> {
        let words = self.0.read().unwrap_or_else(PoisonError::into_inner);
        words.iter().map(|(word, counter)| (*word, counter.clone())).collect()
    }
}
