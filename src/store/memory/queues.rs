//! All queues of the embedded store, and their clock.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::queue_shard::{Shard, millis};
use crate::store::queue::ShardUse;

/// The shards by the keys of their streams. The clock is that of the machine at the start, and
/// steady since.
#[derive(Debug)]
pub(super) struct Queues {
    shards: HashMap<String, Shard>,
    started: Instant,
    started_ms: u64,
}

impl Default for Queues {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { shards: HashMap::new(), started: Instant::now(), started_ms: millis(now) }
    }
}

impl Queues {
    /// What a shard holds; nothing where there is none.
    pub(super) fn known(&mut self, key: &str) -> Option<ShardUse> {
        let now = self.started_ms.saturating_add(millis(self.started.elapsed()));
        let shard = self.shards.get_mut(key)?;
        shard.expire(now);
        Some(shard.usage())
    }

    /// A shard, a new one where there is none, and Unix ms.
    pub(super) fn shard(&mut self, key: &str) -> (&mut Shard, u64) {
        let now = self.started_ms.saturating_add(millis(self.started.elapsed()));
        (self.shards.entry(key.to_owned()).or_default(), now)
    }
}
