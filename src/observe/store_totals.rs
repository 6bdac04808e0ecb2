//! What the store counts by itself, shown as it is when somebody asks.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::family::Family;

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreTotals {
    /// Servers that took over with what they had received.
    pub fail_overs: u64,
    /// Servers that came back with other data.
    pub data_lost: u64,
    /// Revocations that the store had lost and were written again.
    pub republished: u64,
    /// Operations of the admin API that not all replicas had in time.
    pub unconfirmed: u64,
    /// Revocations that gateways were told of later than they were in force.
    pub told_later: u64,
}

impl StoreTotals {
    /// Those of two stores.
    pub fn and(self, other: Self) -> Self {
        Self {
            fail_overs: self.fail_overs + other.fail_overs,
            data_lost: self.data_lost + other.data_lost,
            republished: self.republished + other.republished,
            unconfirmed: self.unconfirmed + other.unconfirmed,
            told_later: self.told_later + other.told_later,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct StoreMeter {
    lineage_changes: Family<1, Counter>,
    republished: Counter,
    unconfirmed: Counter,
    told_later: Counter,
}

impl Default for StoreMeter {
    fn default() -> Self {
        Self {
            lineage_changes: Family::new(["kind"]),
            republished: Counter::default(),
            unconfirmed: Counter::default(),
            told_later: Counter::default(),
        }
    }
}

impl StoreMeter {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Servers of the store with another history than before, by kind: failover (the \
                    last writes may be lost) or data_lost";
        registry.register("store_lineage_changes", help, self.lineage_changes.clone());
        let help = "Revocations that the store had lost and this node has written again";
        registry.register("revocations_republished", help, self.republished.clone());
        let help = "Operations of the admin API that not all replicas had in time";
        registry.register("store_unconfirmed", help, self.unconfirmed.clone());
        let help = "Revocations in force that gateways were told of later, in a Redis Cluster";
        registry.register("revocations_told_later", help, self.told_later.clone());
        self.set(StoreTotals::default());
    }

    pub(super) fn set(&self, totals: StoreTotals) {
        let StoreTotals { fail_overs, data_lost, republished, unconfirmed, told_later } = totals;
        for (kind, total) in [("failover", fail_overs), ("data_lost", data_lost)] {
            raise(&self.lineage_changes.of([kind]), total);
        }
        raise(&self.republished, republished);
        raise(&self.unconfirmed, unconfirmed);
        raise(&self.told_later, told_later);
    }
}

/// Two may look at once, and a total never falls.
fn raise(counter: &Counter, total: u64) {
    counter.inner().fetch_max(total, Ordering::Relaxed);
}
