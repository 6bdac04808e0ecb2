//! What looks after upstreams while no request waits: it judges what requests met, asks servers how
//! they are, and closes what nobody uses. All of it outside the serving threads.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Gateway;
use crate::upstream;

/// How often unused upstream connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Asks all servers how they are, where that is wanted, and waits for what they say: it counts
/// before the first request.
pub(super) async fn first_checks(gateway: &Gateway) {
    let upstreams = gateway.running().upstreams.clone();
    let one = |upstream: Arc<upstream::Upstream>| async move { upstream.first_checks().await };
    let mut checks: JoinSet<()> = upstreams.into_iter().map(one).collect();
    while checks.join_next().await.is_some() {}
}

/// Judges, until the gateway is gone.
pub(super) async fn tick(gateway: Weak<Gateway>) {
    let mut ticks = tokio::time::interval(upstream::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        for upstream in &gateway.running().upstreams {
            upstream.tick();
        }
    }
}

/// Closes what nobody uses, until the gateway is gone.
pub(super) async fn sweep(gateway: Weak<Gateway>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        for upstream in &gateway.running().upstreams {
            upstream.sweep();
        }
    }
}
