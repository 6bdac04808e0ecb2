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

/// Longest name of a gateway, version and SHA-256 that are believed, in bytes.
const NAME_BYTES_MAX: usize = 128;
const VERSION_BYTES_MAX: usize = 32;
const SHA256_DIGITS: usize = 64;

impl Node {
    /// Whether a gateway could have said it: whoever may write in Redis may have, too.
    pub(super) fn is_plausible(&self) -> bool {
        let is_of = |text: &str, most: usize, others: &[u8]| {
            (1..=most).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
        };
        let is_sha256 =
            |it: &String| it.len() == SHA256_DIGITS && it.bytes().all(|b| b.is_ascii_hexdigit());
        is_of(&self.node, NAME_BYTES_MAX, b"-._")
            && is_of(&self.version, VERSION_BYTES_MAX, b"-.+")
            && self.config.as_ref().is_none_or(is_sha256)
            && self.rps.is_none_or(f32::is_finite)
    }
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

    #[test]
    fn what_no_gateway_says_is_not_believed() {
        let node = |node: &str, version: &str, config: &str| Node {
            node: node.to_owned(),
            version: version.to_owned(),
            config: Some(config.to_owned()),
            config_since_ms: 1,
            seen_ms: 2,
            rps: None,
        };
        let (sha256, long) = ("a0".repeat(32), "n".repeat(129));
        assert!(node(&long[1..], "1.0.0-rc.1+b", &sha256).is_plausible());
        let own = |name: &str| node(name, "1", &sha256).is_plausible();
        assert!(own(crate::base::instance::name()));
        for name in ["", "a b", "a\u{202e}", "<b>", "\u{1b}[2J", "é", &long] {
            assert!(!own(name), "{name:?}");
        }
        for version in ["", "1\n", &long[..33]] {
            assert!(!node("a", version, &sha256).is_plausible(), "{version:?}");
        }
        for config in ["", "a0", &"g".repeat(64), &"a".repeat(65)] {
            assert!(!node("a", "1", config).is_plausible(), "{config:?}");
        }
        assert!(!Node { rps: Some(f32::INFINITY), ..node("a", "1", &sha256) }.is_plausible());
    }

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
