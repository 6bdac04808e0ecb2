//! What `/metrics` tells that nobody keeps up to date: it is looked up when it is asked for.

use super::Gateway;
use crate::observe::{Format, Now};

impl Gateway {
    /// All metrics as they are now.
    pub fn render_metrics(&self, format: Format) -> String {
        let running = self.running();
        let (plan, metrics) = (&running.plan, &self.metrics);
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        if let Some(followed) = self.store.followed(plan.on_outage.revocation_max_stale) {
            metrics.revocations_known.set(count(followed.known));
            metrics.revocations_followed.set(followed.connected.into());
            metrics.revocations_complete.set(followed.complete.into());
        }
        metrics.revocations_max.set(count(plan.config.store.revocations));
        metrics.cache_gauges.set(&self.cache.state());
        let evicted = self.store.evicted();
        let limits = evicted.limits.saturating_add(self.limits.evicted());
        let kinds = [("limits", limits), ("cache", evicted.cache), ("epochs", evicted.epochs)];
        metrics.set_evicted(kinds);
        let issuers = running.issuers.states().into_iter().map(|state| (state.url, state.age));
        let upstreams = plan.upstreams.iter().zip(&running.upstreams);
        let upstreams = upstreams.map(|((name, _), it)| (name.clone(), it.occupancy()));
        let now = Now {
            issuers: issuers.collect(),
            upstreams: upstreams.collect(),
            connections_max: plan.config.server.limits.connections,
        };
        metrics.render(format, self.store.is_connected(), now)
    }
}
