//! Which gateways share the store, and what they run: each says so every few seconds, and hears the
//! others. It is for operators alone; nothing is decided by it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Gateway;
use super::node::Node;
use crate::base::{build, instance};
use crate::config::StoreUse;
use crate::store::{Heard, Telling};

/// How often they tell each other.
const PERIOD: Duration = Duration::from_secs(5);
/// How long what was told holds.
const KEPT: Duration = Duration::from_secs(15);
/// Longest thing that one of them says, in bytes.
const SAID_BYTES_MAX: usize = 512;
/// How far back the newest rates may be, in milliseconds: the history has one each ten seconds.
const RATES_MS: i64 = 25_000;

impl Gateway {
    /// Has this gateway tell of itself, until it is gone.
    pub(super) fn tell_of_itself(self: &Arc<Self>) {
        // A store of its own tells it nothing.
        if self.store.is_shared(StoreUse::Main) {
            tokio::spawn(follow(Arc::downgrade(self)));
        }
    }

    /// What this gateway says of itself.
    pub fn own_node(&self) -> Node {
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let series = self.looking.series(now_ms.saturating_sub(RATES_MS), None);
        let rates = series.and_then(|it| it.points.into_iter().rev().flatten().next());
        Node {
            node: instance::name().to_owned(),
            version: build::VERSION.to_owned(),
            config: self.config_file().map(|(_, sha256)| sha256),
            config_since_ms: (self.observer.metrics.config_since() * 1e3) as i64,
            seen_ms: now_ms,
            rps: rates.map(|it| it.rps).filter(|rps| rps.is_finite()),
        }
    }

    /// The other gateways that were heard of lately, by name.
    pub fn other_nodes(&self) -> Vec<Node> {
        self.nodes.heard_within(KEPT)
    }

    async fn exchange_nodes(&self) {
        let key = self.running().plan.keys.nodes();
        let Ok(value) = serde_json::to_vec(&self.own_node()) else { return };
        let (from, bytes_max) = (instance::unique(), SAID_BYTES_MAX);
        let telling = Telling { key: &key, from, value: &value, bytes_max, kept: KEPT };
        let Some(Ok(heard)) = self.store.tell(&[telling]).await.pop() else { return };
        self.nodes.hear(others(&heard));
    }
}

async fn follow(gateway: Weak<Gateway>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        if gateway.is_handed_over() {
            return;
        }
        gateway.exchange_nodes().await;
    }
}

/// All but this one, by name. Another version may say something else, and whoever may write in
/// Redis anything.
fn others(heard: &Heard) -> Vec<Node> {
    let of_others = heard.iter().filter(|(from, _)| from != instance::unique().as_bytes());
    let mut nodes: Vec<Node> = of_others
        .filter_map(|(_, said)| serde_json::from_slice(said).ok())
        .filter(Node::is_plausible)
        .collect();
    nodes.sort_by(|one, other| one.node.cmp(&other.node));
    nodes
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_others_are_heard_by_name_whatever_else_is_said() {
        let node = |name: &str| {
            serde_json::json!({
                "node": name, "version": "0.1.0", "config": null, "config_since_ms": 1,
                "seen_ms": 2, "rps": 1.5, "more": true,
            })
        };
        let said = |from: &str, text: String| (Bytes::from(from.to_owned()), Bytes::from(text));
        let heard = vec![
            said("b", node("edge-2").to_string()),
            said(instance::unique(), node("this").to_string()),
            said("c", "nonsense".to_owned()),
            said("d", node("edge\u{202e}3").to_string()),
            said("e", node(&"n".repeat(129)).to_string()),
            said("a", node("edge-1").to_string()),
        ];
        let names: Vec<String> = others(&heard).into_iter().map(|it| it.node).collect();
        assert_eq!(names, ["edge-1", "edge-2"]);
    }
}
