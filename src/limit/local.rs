//! Limits of this node alone: GCRA by the governor crate, over a bounded map.
//!
//! GCRA admits a burst of the limit and then one unit per `window / limit`, so up to twice the
//! limit in one window. That is the price of a flood guard that needs no store and 16 bytes per
//! key; exact limits are the shared ones.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, QuantaClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;

use crate::base::units::Rate;

/// Most keys that are counted; the least used make room, which forgives them.
const KEYS_MAX: usize = 131_072;

type Limiter = RateLimiter<NotKeyed, InMemoryState, QuantaClock, StateInformationMiddleware>;

/// The counters of this node's own limits.
#[derive(Debug)]
pub struct LocalLimits {
    limiters: Cache<String, Arc<Limiter>>,
    clock: QuantaClock,
}

impl Default for LocalLimits {
    fn default() -> Self {
        Self { limiters: Cache::new(KEYS_MAX), clock: QuantaClock::default() }
    }
}

impl LocalLimits {
    /// Charges `cost` units: what is left of the burst, and the wait when they did not fit.
    pub(super) fn charge(&self, key: &str, quota: Quota, cost: u32) -> (u32, Option<Duration>) {
        let Some(cost) = NonZeroU32::new(cost) else { return (quota.burst_size().get(), None) };
        // By its burst too: tiers and reloads give one key several.
        let key = &format!("{key} {}", quota.burst_size());
        let limiter = match self.limiters.get(key) {
            Some(limiter) => limiter,
            None => self
                .limiters
                .get_or_insert_with::<_, std::convert::Infallible>(key, || {
                    let limiter = RateLimiter::direct_with_clock(quota, self.clock.clone());
                    Ok(Arc::new(limiter.with_middleware()))
                })
                .unwrap_or_else(|never| match never {}),
        };
        match limiter.check_n(cost) {
            Ok(Ok(state)) => (state.remaining_burst_capacity(), None),
            // Reported when the file was read: a cost above the limit. The whole window is as long
            // as anybody can be told to wait.
            Err(_) => (0, Some(quota.burst_size_replenished_in())),
            Ok(Err(refused)) => {
                (0, Some(refused.wait_time_from(self.clock.now()).max(Duration::from_millis(1))))
            }
        }
    }
}

/// A rate as GCRA: a burst of the limit, one unit back per `window / limit`.
pub(super) fn quota(rate: &Rate) -> Quota {
    let burst = NonZeroU32::new(rate.limit).unwrap_or(NonZeroU32::MIN);
    let period = (rate.window / burst.get()).max(Duration::from_nanos(1));
    Quota::with_period(period).unwrap_or_else(|| Quota::per_second(burst)).allow_burst(burst)
}
