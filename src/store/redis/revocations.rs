//! The revocations in force, for people. Where their stream is followed, this node knows them;
//! elsewhere it is read for them, on a connection that no request uses.

use std::time::Duration;

use tokio::time::Instant;

use super::RedisStore;
use super::connect_error::ConnectError;
use super::dial::Purpose;
use super::follow::now_s;
use super::reply::server_error;
use super::stream::{End, Look, Place};
use super::topology::Topology;
use crate::store::StoreError;
use crate::store::keys::Keys;
use crate::store::revoked::{RevocationList, Revoked};

/// Longest time that the stream is read for one list: who waits for it is a person.
const READING_MAX: Duration = Duration::from_secs(5);

impl RedisStore {
    /// See [`crate::store::Store::revocations`].
    pub async fn revocations(&self, lifetime: Duration) -> Result<RevocationList, StoreError> {
        if let Some(follower) = self.follower.get() {
            return Ok(follower.list());
        }
        // One at a time: each holds as many as there are.
        let _turn = self.reading.lock().await;
        let read = tokio::time::timeout(READING_MAX, read(&self.topology, lifetime)).await;
        read.unwrap_or(Err(StoreError::Timeout))
    }
}

/// Reads the stream from its start to its end.
async fn read(topology: &Topology, lifetime: Duration) -> Result<RevocationList, StoreError> {
    let keys = Keys::new(&topology.settings.prefix);
    let stream = keys.revocations();
    let connection = topology.dial(&stream, Purpose::Revocations, |_| {}).await.map_err(away)?;
    let (mut place, mut revoked) = (Place::default(), Revoked::new(topology.settings.revocations));
    loop {
        let asked_at = Instant::now();
        let replies = connection.send(&place.look(&stream)).await.map_err(|it| away(it.into()))?;
        if topology.has_moved(&stream, &replies) {
            return Err(StoreError::Unavailable);
        }
        if let Some(error) = replies.iter().find_map(server_error) {
            return Err(error);
        }
        let look = Look::read(replies).map_err(StoreError::Refused)?;
        let now = now_s();
        for entry in &look.entries {
            if let Some(notice) = entry.notice(&keys, now, lifetime) {
                revoked.apply(notice, now);
            }
        }
        match place.advance(&look) {
            // What was read stays, also of another stream: nothing is forgotten before its end.
            End::More | End::Again => {}
            end => {
                if let End::Missed { older_than } = end {
                    revoked.lacks_until(older_than.saturating_add(lifetime.as_secs()));
                }
                revoked.heard(asked_at);
                return Ok(RevocationList { is_from_stream: true, ..revoked.list(now, true) });
            }
        }
    }
}

fn away(error: ConnectError) -> StoreError {
    tracing::debug!(%error, "the stream of revocations cannot be read");
    StoreError::Unavailable
}
