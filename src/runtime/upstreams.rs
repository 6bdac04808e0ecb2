//! What looks after upstreams while no request waits: it judges what requests met, asks servers how
//! they are, and closes what nobody uses. All of it outside the serving threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::config;
use crate::plan::Plan;
use crate::upstream::{Ahead, Upstream};

/// How often unused upstream connections are looked at.
pub(super) const SWEEP: Duration = Duration::from_secs(1);

/// Asks all servers how they are, where that is wanted, and waits for what they say: it counts
/// before the first request.
pub(super) async fn first_checks(upstreams: &[Arc<Upstream>]) {
    let one = |upstream: Arc<Upstream>| async move { upstream.first_checks().await };
    let mut checks: JoinSet<()> = upstreams.iter().cloned().map(one).collect();
    while checks.join_next().await.is_some() {}
}

/// What the names in a plan lead to that is not in force yet, by upstream: its requests need
/// servers at once. `current` is the upstream of a name that is in force.
pub(super) async fn look_ahead(
    plan: &Plan,
    current: impl Fn(&str) -> Option<Arc<Upstream>>,
) -> HashMap<String, Ahead> {
    let one = |((name, settings), tls): (&(String, _), &Option<_>)| {
        let (name, settings) = (name.clone(), config::Upstream::clone(settings));
        let (tls, former) = (Option::clone(tls), current(&name));
        async move {
            let (tls, former) = (tls.as_ref(), former.as_deref());
            let ahead = Upstream::look_ahead(&name, &settings, tls, former).await;
            (name, ahead)
        }
    };
    let described = plan.upstreams.iter().zip(&plan.upstream_tls);
    let lookups: JoinSet<(String, Ahead)> = described.map(one).collect();
    lookups.join_all().await.into_iter().collect()
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
