//! The counters of one limit and one principal, for operators: what is left, and their reset.

use std::time::Duration;

use serde_json::{Value, json};

use super::forecast::describe;
use crate::base::units::Rate;
use crate::config;
use crate::store::keys::Keys;
use crate::store::{Charges, ConcurrencyLimit, Leases, Mode, Store, StoreError, Window, WindowSet};

/// The counters of one limit and one principal, as the store names them.
#[derive(Debug)]
pub struct Counters {
    /// The windows without a tier, then those of each tier.
    windows: Vec<TierWindow>,
    /// Most requests in flight, in place of windows; the only key is theirs.
    concurrent: Option<u32>,
    /// One for each window; tiers have those of windows of the same length in common.
    keys: Vec<String>,
}

#[derive(Debug)]
struct TierWindow {
    tier: Option<String>,
    window: Window,
}

/// What counters have left.
#[derive(Debug)]
pub enum Usage {
    /// Of a limit on requests in flight.
    InFlight {
        /// Most at a time.
        most: u32,
        /// How many there are.
        held: Option<u32>,
    },
    /// Of a limit on rates: each window, with its tier.
    Windows(Vec<Value>),
}

impl Counters {
    /// Those of the limit `name` for `principal`, as `POST /v1/explain` shows it.
    pub fn of(name: &str, limit: &config::Limit, keys: &Keys, principal: &str) -> Self {
        let (windows, mut keys_of): (Vec<_>, Vec<_>) = rates(limit)
            .map(|(tier, rate)| {
                let mut key = String::new();
                keys.limit_into(&mut key, name, &rate.label(), principal);
                let window = Window { mode: Mode::Peek, ..Window::new(rate.limit, rate.window) };
                (TierWindow { tier: tier.cloned(), window }, key)
            })
            .unzip();
        if limit.concurrent.is_some() {
            keys_of.push(keys.in_flight(name, principal));
        }
        Self { windows, concurrent: limit.concurrent, keys: keys_of }
    }

    /// What they have left.
    ///
    /// # Errors
    /// The store's own.
    pub(super) async fn usage(&self, store: &Store) -> Result<Usage, StoreError> {
        if let Some(most) = self.concurrent {
            let limits = [ConcurrencyLimit { most, lease: Duration::ZERO, mode: Mode::Peek }];
            let leases = Leases { limits: &limits, keys: &self.keys, holder: "" };
            let held = store.lease(leases).await?.held;
            return Ok(Usage::InFlight { most, held: held.first().copied() });
        }
        let mut shown = Vec::with_capacity(self.windows.len());
        let mut keys = self.keys.as_slice();
        // The keys of one question are distinct, so each tier is one of its own.
        for group in self.windows.chunk_by(|one, other| one.tier == other.tier) {
            let (keys_of_tier, rest) = keys.split_at(group.len());
            keys = rest;
            let set = WindowSet::new(group.iter().map(|it| it.window).collect());
            let reply = store.take(Charges { set: &set, keys: keys_of_tier }).await?;
            for (TierWindow { tier, window }, state) in group.iter().zip(&reply.windows) {
                let mut described = describe(window, state);
                if let Some(tier) = tier {
                    described["tier"] = json!(tier);
                }
                shown.push(described);
            }
        }
        Ok(Usage::Windows(shown))
    }

    /// Their keys, each once.
    pub(super) fn distinct_keys(&self) -> Vec<String> {
        let mut keys = self.keys.clone();
        keys.sort();
        keys.dedup();
        keys
    }
}

/// All rates of a limit and then of its tiers, of which those of one length share their counter.
fn rates(limit: &config::Limit) -> impl Iterator<Item = (Option<&String>, &Rate)> {
    let tiers = limit.tiers.iter().flat_map(|tiers| &tiers.allow);
    let of_tiers = tiers.flat_map(|(tier, rates)| rates.iter().map(move |rate| (Some(tier), rate)));
    limit.allow.iter().map(|rate| (None, rate)).chain(of_tiers)
}
