//! Counters are summed once a second while somebody looks, and each ten seconds for the history. It
//! is done beside the serving threads, never on one of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Gateway;
use super::looking::time_of;
use crate::observe::{Distribution, Metrics, Rates, RouteMeter, RouteTotals, Step};

const FINE: Duration = Duration::from_secs(1);
const COARSE: Duration = Duration::from_secs(10);
/// No beat is quite a second after the one before.
const EARLY: Duration = Duration::from_millis(500);

/// What all counters are at a moment.
#[derive(Debug)]
struct Sums {
    at: Instant,
    at_ms: i64,
    routes: Vec<(Arc<RouteMeter>, RouteTotals)>,
    store: Distribution,
}

/// What they come to between two moments.
#[derive(Debug)]
struct Period {
    all: Rates,
    /// One for each route of the later moment.
    routes: Vec<Rates>,
    store_p99_s: f32,
}

impl Sums {
    fn take(metrics: &Metrics) -> Self {
        let routes = metrics.route_meters().into_iter().map(|meter| {
            let totals = meter.totals();
            (meter, totals)
        });
        Self {
            at: Instant::now(),
            at_ms: jiff::Timestamp::now().as_millisecond(),
            routes: routes.collect(),
            store: metrics.store_duration.distribution(),
        }
    }

    /// Has each route remember what it has counted.
    fn note(&self) {
        for (meter, totals) in &self.routes {
            meter.note(self.at, totals.requests);
        }
    }

    fn since(&self, before: &Self) -> Period {
        let over = self.at.saturating_duration_since(before.at);
        let none = RouteTotals::default();
        let mut all = RouteTotals::default();
        let routes = self.routes.iter().enumerate().map(|(index, (meter, totals))| {
            let is_same = |known: &&(Arc<RouteMeter>, RouteTotals)| Arc::ptr_eq(&known.0, meter);
            // Only a reload changes their order.
            let known = before.routes.get(index).filter(is_same);
            let known = known.or_else(|| before.routes.iter().find(is_same));
            let counted = totals.since(known.map_or(&none, |(_, totals)| totals));
            all.add(&counted);
            counted.rates(over)
        });
        let routes = routes.collect();
        let store_p99_s = self.store.since(&before.store).quantile(0.99);
        Period { all: all.rates(over), routes, store_p99_s }
    }

    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.routes.iter().map(|(meter, _)| meter.name())
    }
}

/// The event `tick`.
#[derive(Debug, Serialize)]
struct Tick<'a> {
    t: String,
    all: Rates,
    routes: BTreeMap<&'a str, Rates>,
    in_flight: u64,
    connections: (i64, usize),
    backlog_bytes: (usize, u64),
    store_p99_s: f32,
    store_timeout_s: f64,
}

impl Gateway {
    /// Sums up from now on.
    pub(super) fn sum_up(self: &Arc<Self>) {
        tokio::spawn(follow(Arc::downgrade(self)));
    }

    fn tick(&self, sums: &Sums, period: &Period) -> Arc<str> {
        let running = self.running();
        let (config, cache) = (&running.plan.config, self.cache.state());
        let tick = Tick {
            t: time_of(sums.at_ms),
            all: period.all,
            routes: sums.names().zip(period.routes.iter().copied()).collect(),
            in_flight: self.observer.metrics.requests_in_flight(),
            connections: (
                self.observer.metrics.connections.get(),
                config.server.limits.connections,
            ),
            backlog_bytes: (cache.backlog_bytes, cache.backlog_bytes_max),
            store_p99_s: period.store_p99_s,
            store_timeout_s: config.store.timeout.as_secs_f64(),
        };
        serde_json::to_string(&tick).unwrap_or_default().into()
    }
}

/// Sums up until the gateway is gone.
async fn follow(gateway: Weak<Gateway>) {
    let mut beats = interval(FINE);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut second, mut ten): (Option<Arc<Sums>>, Option<Arc<Sums>>) = (None, None);
    loop {
        beats.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        let looking = &gateway.looking;
        let is_watched = looking.is_watched();
        let is_due = ten.as_ref().is_none_or(|sums| sums.at.elapsed() + EARLY >= COARSE);
        if !is_watched && second.take().is_some() {
            looking.history().forget_fine();
        }
        if !is_watched && !is_due {
            continue;
        }
        let sums = Arc::new(Sums::take(&gateway.observer.metrics));
        looking.history().keep_routes(sums.names());
        if is_watched {
            // Whoever looks first is told of the time since the history's last point.
            if let Some(before) = second.as_ref().or(ten.as_ref()) {
                let period = sums.since(before);
                looking.note_store(period.store_p99_s);
                looking.ticks.send_replace(gateway.tick(&sums, &period));
                if second.is_some() {
                    looking.history().push(Step::Fine, sums.at_ms, period.all, &period.routes);
                }
            }
            second = Some(Arc::clone(&sums));
        }
        if is_due {
            gateway.running().upstreams.iter().for_each(|it| it.meter().sum_up());
            sums.note();
            if let Some(before) = &ten {
                let period = sums.since(before);
                if !is_watched {
                    looking.note_store(period.store_p99_s);
                }
                looking.history().push(Step::Coarse, sums.at_ms, period.all, &period.routes);
            }
            ten = Some(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_knows_routes_by_their_meters_and_not_by_their_order() {
        let metrics = Metrics::default();
        let meters = metrics.routes([("a", false), ("b", false)].into_iter());
        meters[0].rejection("limit_exceeded");
        let before = Sums::take(&metrics);
        meters[1].rejection("limit_exceeded");
        metrics.routes([("new", false), ("a", false), ("b", false)].into_iter());
        let mut after = Sums::take(&metrics);
        after.at = before.at + FINE;
        let period = after.since(&before);
        let refused: Vec<(&str, f32)> =
            after.names().zip(period.routes.iter().map(|rates| rates.refused_ps)).collect();
        assert!(refused.contains(&("b", 1.0)) && refused.contains(&("a", 0.0)), "{refused:?}");
        assert_eq!(period.all.refused_ps, 1.0);
        assert!(period.store_p99_s.is_nan());
    }
}
