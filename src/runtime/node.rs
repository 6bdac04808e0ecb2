//! What a gateway says of itself, and what was heard of the others. `nodes` has them talk.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What a gateway says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub node: String,
    /// The version of the program.
    pub version: String,
    /// The SHA-256 of its configuration file; nothing where it has none.
    pub config: Option<String>,
    /// When that was put in force, in Unix milliseconds.
    pub config_since_ms: i64,
    /// When it said so, in Unix milliseconds.
    pub seen_ms: i64,
    /// Its requests per second, where they are known.
    pub rps: Option<f32>,
}

/// What was heard last, and when.
#[derive(Debug, Default)]
pub(super) struct Nodes(Mutex<Option<(Instant, Vec<Node>)>>);

impl Nodes {
    /// These were heard just now.
    pub(super) fn hear(&self, nodes: Vec<Node>) {
        let heard = Some((Instant::now(), nodes));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }

    /// Those that were heard within this time.
    pub(super) fn heard_within(&self, time: Duration) -> Vec<Node> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = heard.as_ref().filter(|(at, _)| at.elapsed() < time);
        fresh.map(|(_, nodes)| nodes.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_heard_long_ago_is_forgotten() {
        let nodes = Nodes::default();
        let kept = Duration::from_secs(15);
        assert_eq!(nodes.heard_within(kept), []);
        let said = r#"{"node": "a", "version": "1", "config_since_ms": 1, "seen_ms": 2}"#;
        let node: Node = serde_json::from_str(said).unwrap();
        nodes.hear(vec![node.clone()]);
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(nodes.heard_within(kept), [node]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(nodes.heard_within(kept), []);
    }
}
