//! What looks after canaries while no request waits, and what operators do to them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::MissedTickBehavior;

use super::traffic::RouteTraffic;
use super::{Gateway, Running, fleet};
use crate::caching::RouteCache;
use crate::config::StoreUse;
use crate::observe::CanaryNow;
use crate::store::StoreError;
use crate::traffic::Place;

/// How often canaries are looked after.
const PERIOD: Duration = Duration::from_secs(1);

impl Running {
    /// What a route has of traffic that moves.
    pub fn traffic_of(&self, route: usize) -> Option<&RouteTraffic> {
        self.traffic.of_route(route)
    }

    /// The cache of a route, where it has one: that of an arm, if the route is split.
    pub fn cache_of(&self, route: usize, arm: Option<usize>) -> Option<&Arc<RouteCache>> {
        match arm {
            None => self.route_caches.get(route)?.as_ref(),
            Some(arm) => self.traffic_of(route)?.caches.get(arm)?.as_ref(),
        }
    }
}

impl Gateway {
    /// What is known of all canaries.
    pub fn canaries(&self) -> Vec<CanaryNow> {
        let running = self.running();
        running.traffic.canaries_now(&running.plan, self.fleet_ms())
    }

    /// Stops the canary of a route for this reason, or has it begin anew; false where it has none
    /// that could be.
    ///
    /// # Errors
    /// The store did not take it, and nothing has changed.
    pub async fn order_canary(&self, name: &str, stop: Option<String>) -> Result<bool, StoreError> {
        let running = self.running();
        let found = running.traffic.named(&running.plan, name);
        let canary = found.and_then(|it| it.canary.as_ref()).filter(|canary| canary.is_led());
        let Some(canary) = canary else { return Ok(false) };
        let (key, now_ms) = (running.plan.keys.canary(name), self.fleet_ms());
        canary.order(Place { store: &self.store, key: &key, now_ms }, stop).await?;
        Ok(true)
    }

    /// Now, in Unix milliseconds, by the clock that all gateways of the fleet go by.
    pub(super) fn fleet_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or_default();
        now.saturating_add_signed(self.store.clock_offset_ms(StoreUse::Main))
    }

    /// Looks after all canaries, now and then again and again until the gateway is gone. Returns
    /// after the first time: it counts before the first request.
    pub(super) async fn follow_canaries(self: &Arc<Self>) {
        self.look_after_canaries().await;
        let gateway = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(gateway) = gateway.upgrade() else { return };
                gateway.look_after_canaries().await;
            }
        });
    }

    async fn look_after_canaries(&self) {
        let running = self.running();
        let canaries = || running.traffic.canaries(&running.plan);
        if self.store.is_shared(StoreUse::Main) {
            fleet::exchange_answers(&self.store, &running.plan, canaries()).await;
        }
        for (name, canary) in canaries() {
            let (key, now_ms) = (running.plan.keys.canary(name), self.fleet_ms());
            canary.look(Place { store: &self.store, key: &key, now_ms }).await;
        }
    }
}
