//! What this node alone knows of limits.

use super::denied::DenyCache;
use super::fleet::Fleet;
use super::local::LocalLimits;
use super::pressed::Pressed;
use super::sessions::KnownSessions;
use super::slots::Slots;
use super::stand_in::StandIn;

/// What this node knows of limits: its own counters, what the store refused a moment ago, and the
/// counters that stand in while the store is away.
#[derive(Debug)]
pub struct State {
    pub(super) local: LocalLimits,
    pub(super) denied: DenyCache,
    pub(super) stand_in: StandIn,
    /// Whether what the store grants is counted here, too: one that cannot be away needs nobody in
    /// its place.
    pub(super) counts_grants: bool,
    /// How many gateways share the limits.
    pub fleet: Fleet,
    /// Whom the limits refuse most, and who comes near.
    pub pressed: Pressed,
    /// Which slots the requests of this node hold.
    pub(super) slots: Slots,
    /// Which sessions the store has.
    pub sessions: KnownSessions,
}

impl State {
    /// Nothing counted yet; at most `keys_max` keys while the store is away, which `counts_grants`
    /// says may happen.
    pub fn new(keys_max: usize, counts_grants: bool) -> Self {
        Self {
            local: LocalLimits::default(),
            denied: DenyCache::default(),
            stand_in: StandIn::new(keys_max),
            counts_grants,
            fleet: Fleet::default(),
            pressed: Pressed::default(),
            slots: Slots::default(),
            sessions: KnownSessions::default(),
        }
    }

    /// How many counters gave way to others, of those that count while the store is away.
    pub fn evicted(&self) -> u64 {
        self.stand_in.evicted()
    }

    /// These keys were reset: nothing was counted, also in the store's place.
    pub(super) fn reset(&self, keys: &[String]) {
        for key in keys {
            self.stand_in.forget(key);
            self.pressed.forget(key);
        }
        self.forget_denied(keys);
    }

    /// Some units of these keys were given back.
    pub(super) fn forget_denied(&self, keys: &[String]) {
        for key in keys {
            self.denied.forget(key);
        }
    }
}
