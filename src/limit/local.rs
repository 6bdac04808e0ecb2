//! Limits of this node alone: GCRA by the governor crate, over a bounded map.
//!
//! GCRA admits a burst of the limit and then one unit per `window / limit`, so up to twice the
//! limit in one window. That is the price of a flood guard that needs no store and 16 bytes per
//! key; exact limits are the shared ones.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, QuantaClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;

use crate::base::units::Rate;

/// Most keys that are counted; the least used make room, which forgives them.
const KEYS_MAX: usize = 131_072;

type Limiter = RateLimiter<Look, Counter, QuantaClock, StateInformationMiddleware>;

/// Whether a counter is charged, or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Look {
    Charge,
    Peek,
}

/// A counter that can be looked at without being charged.
#[derive(Debug, Default)]
struct Counter(InMemoryState);

impl StateStore for Counter {
    type Key = Look;

    fn measure_and_replace<T, F, E>(&self, look: &Look, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let key = &NotKeyed::NonKey;
        if *look == Look::Charge {
            return self.0.measure_and_replace(key, f);
        }
        // What is refused changes nothing.
        let seen = |at| Err::<(Infallible, Nanos), _>(f(at));
        match self.0.measure_and_replace(key, seen) {
            Err(verdict) => verdict.map(|(result, _)| result),
            Ok(never) => match never {},
        }
    }
}

/// The counters of this node's own limits.
#[derive(Debug)]
pub(super) struct LocalLimits {
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
        let key = &by_burst(key, quota);
        let limiter = match self.limiters.get(key) {
            Some(limiter) => limiter,
            None => self
                .limiters
                .get_or_insert_with::<_, Infallible>(key, || {
                    let counter = Counter::default();
                    Ok(Arc::new(Limiter::new(quota, counter, self.clock.clone())))
                })
                .unwrap_or_else(|never| match never {}),
        };
        self.ask(&limiter, Look::Charge, quota, cost)
    }

    /// What is left of the burst, and the wait when `cost` units would not fit; charges nothing.
    pub(super) fn peek(&self, key: &str, quota: Quota, cost: u32) -> (u32, Option<Duration>) {
        let whole = (quota.burst_size().get(), None);
        let Some(limiter) = self.limiters.get(&by_burst(key, quota)) else { return whole };
        let ask = |cost| self.ask(&limiter, Look::Peek, quota, cost);
        let left = match ask(NonZeroU32::MIN) {
            (after, None) => after + 1,
            (_, Some(_)) => 0,
        };
        (left, NonZeroU32::new(cost).and_then(|cost| ask(cost).1))
    }

    fn ask(
        &self,
        limiter: &Limiter,
        look: Look,
        quota: Quota,
        cost: NonZeroU32,
    ) -> (u32, Option<Duration>) {
        match limiter.check_key_n(&look, cost) {
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

/// The key of a counter. By its burst too: tiers and reloads give one key several.
fn by_burst(key: &str, quota: Quota) -> String {
    format!("{key} {}", quota.burst_size())
}

/// A rate as GCRA: a burst of the limit, one unit back per `window / limit`.
pub(super) fn quota(rate: &Rate) -> Quota {
    let burst = NonZeroU32::new(rate.limit).unwrap_or(NonZeroU32::MIN);
    let period = (rate.window / burst.get()).max(Duration::from_nanos(1));
    Quota::with_period(period).unwrap_or_else(|| Quota::per_second(burst)).allow_burst(burst)
}
