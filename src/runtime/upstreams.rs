//! What looks after upstreams while no request waits: it judges what requests met, asks servers how
//! they are, and closes what nobody uses. All of it outside the serving threads.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::upstream::Upstream;

/// How often unused upstream connections are looked at.
pub(super) const SWEEP: Duration = Duration::from_secs(1);

/// Asks all servers how they are, where that is wanted, and waits for what they say: it counts
/// before the first request.
pub(super) async fn first_checks(upstreams: &[Arc<Upstream>]) {
    let one = |upstream: Arc<Upstream>| async move { upstream.first_checks().await };
    let mut checks: JoinSet<()> = upstreams.iter().cloned().map(one).collect();
    while checks.join_next().await.is_some() {}
}

/// Does something regularly, until it returns false.
pub(super) async fn every(period: Duration, act: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !act() {
            return;
        }
    }
}
