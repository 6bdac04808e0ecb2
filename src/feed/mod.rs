//! Events that are read: what applications write into a stream, or tell on a channel, is heard by
//! one node of the fleet and carried out. Webhooks come as requests, and are no business of this.

mod channel;
mod reader;
mod stream;

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::EventSource;
use crate::runtime::Gateway;

/// How often it is looked whether each source has its task, and what is to be purged again.
const TICK: Duration = Duration::from_millis(250);

/// Has all sources read, until the gateway is gone.
pub async fn keep(gateway: Weak<Gateway>) {
    let mut readers: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    let mut ticks = tokio::time::interval_at(Instant::now(), TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        gateway.purge_again();
        readers.retain(|_, reader| !reader.is_finished());
        if gateway.is_draining() {
            continue;
        }
        for (name, rule) in &gateway.running().plan.events {
            // Its series are there from the start.
            gateway.events.of(name);
            if rule.from != EventSource::Webhook && !readers.contains_key(name) {
                let reader = reader::Reader::new(&gateway, name, &rule.from);
                readers.insert(name.clone(), tokio::spawn(reader.read()));
            }
        }
    }
}
