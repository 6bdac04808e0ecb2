//! What has changed in the store, for those who must not wait until they ask the next time.

use tokio::sync::Notify;

/// Wakes whoever waits for news; there is one such task.
#[derive(Debug, Default)]
pub struct News {
    /// This node was told of revocations: it knows them.
    pub revoked: Notify,
    /// This node itself has revoked something or ended a session: the store knows it.
    pub changed: Notify,
}
