//! The end of serving: connections finish what they have begun, and are cut when that takes too
//! long.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Everything that the drain waits for, and the signals that it gives.
#[derive(Debug, Default)]
pub(super) struct Drain {
    connections: TaskTracker,
    left: CancellationToken,
    stop: CancellationToken,
    cut: CancellationToken,
}

/// The signals of the drain to one connection.
#[derive(Debug)]
pub(super) struct Signals {
    /// No new requests.
    pub(super) stop: CancellationToken,
    /// No requests at all.
    pub(super) cut: CancellationToken,
}

impl Drain {
    /// What keeps the drain waiting until it is dropped.
    pub(super) fn token(&self) -> TaskTrackerToken {
        self.connections.token()
    }

    /// Tokens of its own for a connection that is served: each look at a shared one takes a lock
    /// that all connections share.
    pub(super) fn signals(&self) -> Signals {
        Signals { stop: self.stop.child_token(), cut: self.cut.child_token() }
    }

    /// Cancelled when there are no new connections any more; for those that look seldom.
    pub(super) fn left(&self) -> &CancellationToken {
        &self.left
    }

    /// Cancelled when there are no new requests any more; for those that look seldom.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Accepts no more: another process does. Connections finish with their next answer.
    pub(super) fn leave(&self) {
        self.left.cancel();
    }

    /// Accepts no more, and asks all connections to finish.
    pub(super) fn begin(&self) {
        self.left.cancel();
        self.stop.cancel();
    }

    /// Waits until all have finished; after `limit`, cuts those that have not.
    pub(super) async fn finish(&self, limit: Duration) {
        let connections = &self.connections;
        connections.close();
        tracing::info!(open = connections.len(), drain = ?limit, "draining");
        if tokio::time::timeout(limit, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "cutting what is open after server.drain");
            self.cut.cancel();
            connections.wait().await;
        }
    }
}
