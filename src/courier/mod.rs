//! Deliveries: requests that were accepted before are taken from their queues and sent to their
//! upstreams, by one task for each queue on each node.

mod asks;
mod attempt;
mod back;
mod ends;
mod look;
mod rate;
mod recheck;
mod signed;
mod turn;
mod worker;

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use self::look::Beyond;
use self::worker::Worker;
use crate::runtime::Gateway;

/// How often the queues are looked at, and whether each has its task.
const TICK: Duration = Duration::from_secs(1);

/// Has every queue delivered, until the gateway is gone or drains.
pub async fn keep(gateway: Weak<Gateway>) {
    let mut workers: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    let mut beyond: BTreeMap<String, Beyond> = BTreeMap::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        if gateway.is_draining() {
            return;
        }
        workers.retain(|_, worker| !worker.is_finished());
        let running = gateway.running();
        for (name, queue) in &running.plan.config.queues {
            if queue.concurrency > 0 && !workers.contains_key(name) {
                let worker = Worker::new(&gateway, name);
                let handle = gateway.deliveries.workers().spawn(worker.work());
                workers.insert(name.clone(), handle);
            }
        }
        let queues = &running.plan.config.queues;
        beyond.retain(|name, _| queues.contains_key(name));
        for name in queues.keys() {
            beyond.entry(name.clone()).or_default();
        }
        // Where a server is silent, all queues wait for it once.
        let looks = beyond.iter_mut().filter_map(|(name, beyond)| {
            let queue = queues.get(name)?;
            Some(look::look(&gateway, &running, (name, queue), beyond))
        });
        join_all(looks).await;
    }
}
