//! Requests in flight: who holds a slot, and until when if nothing more is heard of the holder.
//! Twin of `scripts/lease.lua` and `scripts/release.lua`.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Mode;

/// How many requests of one key may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConcurrencyLimit {
    /// Most at a time.
    pub most: u32,
    /// How long a slot is kept for a holder of whom nothing is heard.
    pub lease: Duration,
    /// What happens when there is no slot. `Force` takes one all the same, which is how a lease is
    /// renewed.
    pub mode: Mode,
}

/// A slot of each of several limits; `keys[i]` belongs to `limits[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Leases<'a> {
    /// The bounds.
    pub limits: &'a [ConcurrencyLimit],
    /// Their keys, distinct.
    pub keys: &'a [String],
    /// Who asks: a name that no other request has.
    pub holder: &'a str,
}

/// Slots to be given back.
#[derive(Debug, Clone)]
pub struct Release {
    /// Their keys, distinct.
    pub keys: Vec<String>,
    /// Their bounds, of which only the leases matter.
    pub limits: Vec<ConcurrencyLimit>,
    /// Who has them, or may have them.
    pub holder: String,
    /// Whether the store may not have seen yet that they were taken or renewed: then the holder is
    /// kept out of them for one lease.
    pub in_doubt: bool,
}

impl Release {
    /// The longest of the leases.
    pub fn longest(&self) -> Duration {
        self.limits.iter().map(|limit| limit.lease).max().unwrap_or_default()
    }
}

/// The verdict on a set of leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReply {
    /// Whether no limit stood in the way; only then was any slot taken.
    pub allowed: bool,
    /// How many held a slot before, by key.
    pub held: Vec<u32>,
}

impl ConcurrencyLimit {
    /// Whether `held` requests stand in the way.
    pub fn refuses(&self, held: u32) -> bool {
        held >= self.most && matches!(self.mode, Mode::Enforce | Mode::Peek)
    }

    /// Whether a holder that was allowed gets a slot.
    pub fn admits(&self, held: u32) -> bool {
        match self.mode {
            Mode::Enforce | Mode::Observe => held < self.most,
            Mode::Force => true,
            Mode::Peek => false,
        }
    }

    /// The lease in whole milliseconds, at least one.
    pub fn lease_ms(&self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// The holders of all keys, in memory.
#[derive(Debug, Default)]
pub(super) struct Holders {
    slots: HashMap<String, HashMap<String, Slot>>,
    /// How many keys there may be before the dead among them are looked for.
    sweep_at: usize,
}

/// Fewest keys for which it is worth looking whether somebody died.
const SWEEP_KEYS_MIN: usize = 1024;

/// Until when a holder has a slot, or is kept out.
#[derive(Debug, Clone, Copy)]
struct Slot {
    end: Instant,
    is_kept_out: bool,
}

impl Holders {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn take(&mut self, asked: Leases<'_>) -> LeaseReply {
        let now = Instant::now();
        let held: Vec<u32> = asked.keys.iter().map(|key| self.live(key, now)).collect();
        let all = || asked.limits.iter().zip(&held);
        let allowed = !all().any(|(limit, held)| limit.refuses(*held));
        if allowed {
            for (key, (limit, held)) in asked.keys.iter().zip(all()) {
                if limit.admits(*held) {
                    self.sweep(now);
                    let holders = self.slots.entry(key.clone()).or_default();
                    let slot = Slot { end: now + limit.lease, is_kept_out: false };
                    let kept = holders.entry(asked.holder.to_owned()).or_insert(slot);
                    if !kept.is_kept_out {
                        *kept = slot;
                    }
                }
            }
        }
        LeaseReply { allowed, held }
    }

    pub(super) fn release(&mut self, Release { keys, limits, holder, in_doubt }: &Release) {
        for (key, limit) in keys.iter().zip(limits) {
            if *in_doubt {
                let end = Instant::now() + limit.lease;
                let holders = self.slots.entry(key.clone()).or_default();
                holders.insert(holder.clone(), Slot { end, is_kept_out: true });
            } else if let Some(holders) = self.slots.get_mut(key) {
                holders.remove(holder);
                if holders.is_empty() {
                    self.slots.remove(key);
                }
            }
        }
    }

    /// Forgets keys for which nobody asks any more and whose holders are dead. It waits until there
    /// are twice as many as the last time left, so each new key pays for a bounded part of it.
    fn sweep(&mut self, now: Instant) {
        if self.slots.len() < self.sweep_at.max(SWEEP_KEYS_MIN) {
            return;
        }
        self.slots.retain(|_, holders| holders.values().any(|slot| slot.end > now));
        self.sweep_at = 2 * self.slots.len();
    }

    /// Forgets the dead, and counts the living.
    fn live(&mut self, key: &str, now: Instant) -> u32 {
        let Some(holders) = self.slots.get_mut(key) else { return 0 };
        holders.retain(|_, slot| slot.end > now);
        let live = holders.values().filter(|slot| !slot.is_kept_out).count();
        if holders.is_empty() {
            self.slots.remove(key);
        }
        u32::try_from(live).unwrap_or(u32::MAX)
    }
}
