//! Requests in flight: who holds a place, and until when if nothing more is heard of the holder.
//! Twin of `scripts/lease.lua`.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Mode;

/// How many requests of one key may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// Most at a time.
    pub most: u32,
    /// How long a place is kept for a holder of whom nothing is heard.
    pub lease: Duration,
    /// What happens when there is no place. `Force` takes one all the same, which is how a lease is
    /// renewed.
    pub mode: Mode,
}

/// A place in each of several crowds; `keys[i]` belongs to `crowds[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Leases<'a> {
    /// The bounds.
    pub crowds: &'a [Crowd],
    /// Their keys, distinct.
    pub keys: &'a [String],
    /// Who asks: a name that no other request has.
    pub holder: &'a str,
}

/// The verdict on a set of leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReply {
    /// Whether no crowd stood in the way; only then was any place taken.
    pub allowed: bool,
    /// How many held a place before, by key.
    pub held: Vec<u32>,
}

impl Crowd {
    /// Whether a crowd of `held` stands in the way.
    pub fn refuses(&self, held: u32) -> bool {
        held >= self.most && matches!(self.mode, Mode::Enforce | Mode::Peek)
    }

    /// Whether a holder that was allowed gets a place.
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
pub(super) struct Holders(HashMap<String, HashMap<String, Instant>>);

impl Holders {
    pub(super) fn take(&mut self, asked: Leases<'_>) -> LeaseReply {
        let now = Instant::now();
        let held: Vec<u32> = asked.keys.iter().map(|key| self.live(key, now)).collect();
        let all = || asked.crowds.iter().zip(&held);
        let allowed = !all().any(|(crowd, held)| crowd.refuses(*held));
        if allowed {
            for (key, (crowd, held)) in asked.keys.iter().zip(all()) {
                if crowd.admits(*held) {
                    let holders = self.0.entry(key.clone()).or_default();
                    holders.insert(asked.holder.to_owned(), now + crowd.lease);
                }
            }
        }
        LeaseReply { allowed, held }
    }

    pub(super) fn release(&mut self, keys: &[String], holder: &str) {
        for key in keys {
            if let Some(holders) = self.0.get_mut(key) {
                holders.remove(holder);
                if holders.is_empty() {
                    self.0.remove(key);
                }
            }
        }
    }

    /// Forgets the dead, and counts the living.
    fn live(&mut self, key: &str, now: Instant) -> u32 {
        let Some(holders) = self.0.get_mut(key) else { return 0 };
        holders.retain(|_, end| *end > now);
        let live = u32::try_from(holders.len()).unwrap_or(u32::MAX);
        if live == 0 {
            self.0.remove(key);
        }
        live
    }
}
