//! What gateways that share a store tell each other of upstreams and canaries, once a second, while
//! no request waits. It is advice: without the store each one decides alone.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::Gateway;
use crate::base::instance;
use crate::config::{Config, StoreUse};
use crate::plan::Plan;
use crate::store::{Store, StoreError, Telling};
use crate::traffic::Canary;
use crate::upstream::Upstream;

/// How often they tell each other.
const PERIOD: Duration = Duration::from_secs(1);
/// How long what was told holds.
const KEPT: Duration = Duration::from_secs(5);

impl Gateway {
    /// Has this gateway take part, until it is gone.
    pub(super) fn take_part_in_fleet(self: &Arc<Self>) {
        // A store of its own tells it nothing.
        if self.store.is_shared(StoreUse::Main) {
            tokio::spawn(take_part(Arc::downgrade(self)));
        }
    }
}

/// What is known of the exchange itself.
#[derive(Default)]
struct Exchange {
    /// When others were heard last, by upstream.
    heard: HashMap<String, Instant>,
    /// Whether it was said that Redis does not let them.
    has_warned: bool,
}

async fn take_part(gateway: Weak<Gateway>) {
    let mut exchange = Exchange::default();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        if gateway.is_handed_over() {
            // The process that has taken over is the one to have a say.
            return;
        }
        let running = gateway.running();
        let upstreams = running.plan.upstreams.iter().zip(&running.upstreams);
        for ((name, _), upstream) in upstreams {
            let Some(value) = upstream.say() else { continue };
            let key = running.plan.keys.fleet(name);
            let from = instance::unique();
            let telling = Telling { key: &key, from, value: &value, kept: KEPT };
            match gateway.store.tell(telling).await {
                Ok(said) => {
                    upstream.hear(&said);
                    exchange.has_heard(name);
                }
                Err(error) => exchange.has_not_heard((name, upstream), &error),
            }
        }
    }
}

/// Tells what the arms of a route have answered here, and hears what they have elsewhere. While
/// nobody is heard, the canary is judged by what is known here.
pub(super) async fn exchange_answers(store: &Store, plan: &Plan, (route, canary): (&str, &Canary)) {
    let (key, from) = (plan.keys.canary_answers(route), instance::unique());
    let value = canary.say().filter(|_| is_of_fleet(&plan.config, route)).unwrap_or_default();
    if value.is_empty() {
        return canary.hear(from, &[]);
    }
    let telling = Telling { key: &key, from, value: &value, kept: KEPT };
    let heard = store.tell(telling).await;
    if let Err(error) = &heard {
        tracing::debug!(route, %error, "the canary's answers elsewhere");
    }
    canary.hear(from, &heard.unwrap_or_default());
}

/// Whether gateways tell each other of all upstreams of a split route.
fn is_of_fleet(config: &Config, route: &str) -> bool {
    let split = config.routes.get(route).and_then(|route| route.split.as_ref());
    let mut upstreams = split.iter().flat_map(|split| &split.arms).map(|arm| &arm.upstream);
    upstreams.all(|name| config.upstreams.get(name).is_some_and(|upstream| upstream.fleet))
}

impl Exchange {
    fn has_heard(&mut self, name: &str) {
        self.has_warned = false;
        match self.heard.get_mut(name) {
            Some(at) => *at = Instant::now(),
            None => drop(self.heard.insert(name.to_owned(), Instant::now())),
        }
    }

    /// That the store is away is said elsewhere.
    fn has_not_heard(&mut self, (name, upstream): (&str, &Upstream), error: &StoreError) {
        if self.heard.get(name).is_some_and(|at| at.elapsed() >= KEPT) {
            self.heard.remove(name);
            upstream.hear(&[]);
        }
        if let StoreError::Refused(why) = error
            && !self.has_warned
        {
            self.has_warned = true;
            tracing::warn!(
                "Redis does not let gateways tell each other of upstreams, so each one decides \
                 alone: {why}\n    help: give its user the rights that `portcullis acl` prints"
            );
        }
    }
}
