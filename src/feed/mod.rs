//! Events that are read: what applications write into a stream, or tell on a channel, is heard by
//! one node of the fleet and carried out. Webhooks come as requests, and are no business of this.

mod channel;
mod fault;
mod nats;
mod reader;
mod stream;

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use self::reader::Reader;
use crate::config::EventSource;
use crate::runtime::Gateway;
use crate::store::EventTopic;

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
            if rule.from.is_read() && !readers.contains_key(name) {
                let reader = Reader::new(&gateway, name, rule);
                readers.insert(name.clone(), tokio::spawn(read(reader)));
            }
        }
    }
}

/// Reads one source, while this node is the one that does.
async fn read(reader: Reader) {
    reader.hold(|| work(&reader)).await;
}

/// What is done with the lock: one arm for each kind of source.
async fn work(reader: &Reader) {
    match &reader.from {
        EventSource::Stream(key) => stream::read(reader, key).await,
        EventSource::Channel(name) => {
            channel::hear(reader, &EventTopic::Channel(name.clone())).await;
        }
        EventSource::Keyspace(pattern) => {
            channel::hear(reader, &EventTopic::Keys(pattern.clone())).await;
        }
        EventSource::Nats(subject) => nats::hear(reader, subject).await,
        EventSource::Jetstream { stream, consumer } => {
            nats::pull(reader, (stream, consumer)).await;
        }
        EventSource::Webhook => {}
    }
}
