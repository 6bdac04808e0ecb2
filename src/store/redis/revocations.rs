//! The revocations in force, for people, where their stream is not followed: it is read for them,
//! on a connection that no request uses. What was read is kept for a while: who looks at the list
//! looks again, and then asks for what is new alone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::connect_error::ConnectError;
use super::dial::Purpose;
use super::follow::now_s;
use super::reply::server_error;
use super::stream::{End, Look, Place};
use super::topology::Topology;
use crate::store::StoreError;
use crate::store::keys::Keys;
use crate::store::revoked::{RevocationList, Revoked};

/// Longest time that one list takes, the wait for its turn included: who waits for it is a person.
const READING_MAX: Duration = Duration::from_secs(5);
/// How long it is kept after the last look.
const KEPT: Duration = Duration::from_secs(60);

/// What was read of the stream; one reads at a time, as each would hold as many as there are.
#[derive(Debug, Default)]
pub(super) struct Reading(Arc<Mutex<Option<Read>>>);

/// See [`Reading`].
#[derive(Debug)]
struct Read {
    revoked: Revoked,
    place: Place,
    looked: Instant,
}

impl Reading {
    /// See [`crate::store::Store::revocations`].
    pub(super) async fn list(
        &self,
        topology: &Topology,
        lifetime: Duration,
    ) -> Result<RevocationList, StoreError> {
        // Who waits for another one to read waits as long with it, and no longer.
        let read = timeout(READING_MAX, self.in_turn(topology, lifetime)).await;
        read.unwrap_or(Err(StoreError::Timeout))
    }

    async fn in_turn(
        &self,
        topology: &Topology,
        lifetime: Duration,
    ) -> Result<RevocationList, StoreError> {
        let mut held = self.0.lock().await;
        if held.is_none() {
            tokio::spawn(forget(Arc::downgrade(&self.0)));
        }
        let read = held.get_or_insert_with(|| Read::new(topology));
        read.looked = Instant::now();
        read.go_on(topology, lifetime).await
    }
}

impl Read {
    fn new(topology: &Topology) -> Self {
        let revoked = Revoked::new(topology.settings.revocations);
        Self { revoked, place: Place::default(), looked: Instant::now() }
    }

    /// Reads to the end of the stream. Given up in between, it goes on there the next time.
    async fn go_on(
        &mut self,
        topology: &Topology,
        lifetime: Duration,
    ) -> Result<RevocationList, StoreError> {
        let keys = Keys::new(&topology.settings.prefix);
        let stream = keys.revocations();
        let dialled = topology.dial(&stream, Purpose::Revocations, |_| {}).await;
        let connection = dialled.map_err(|error| away(&error))?;
        loop {
            let asked_at = Instant::now();
            let replies = connection.send(&self.place.look(&stream)).await;
            let replies = replies.map_err(|error| away(&error.into()))?;
            if topology.has_moved(&stream, &replies) {
                return Err(StoreError::Unavailable);
            }
            if let Some(error) = replies.iter().find_map(server_error) {
                return Err(error);
            }
            let look = Look::read(replies).map_err(StoreError::Refused)?;
            let end = self.take(&look, &keys, lifetime);
            if matches!(end, End::Reached | End::Missed { .. }) {
                self.revoked.heard(asked_at);
                let list = self.revoked.list(now_s(), true);
                return Ok(RevocationList { is_from_stream: true, ..list });
            }
        }
    }

    fn take(&mut self, look: &Look, keys: &Keys, lifetime: Duration) -> End {
        let now = now_s();
        for entry in &look.entries {
            if let Some(notice) = entry.notice(keys, now, lifetime) {
                self.revoked.apply(notice, now);
            }
        }
        self.revoked.sweep(now);
        let end = self.place.advance(look);
        if self.place == Place::default() {
            // It is gone, or another one. This node refuses nobody by what was in it.
            self.revoked = self.revoked.emptied();
        }
        if let End::Missed { older_than } = end {
            self.revoked.lacks_until(older_than.saturating_add(lifetime.as_secs()));
        }
        end
    }
}

/// Forgets what was read once nobody has looked for a while.
async fn forget(reading: Weak<Mutex<Option<Read>>>) {
    let mut at = Instant::now() + KEPT;
    loop {
        sleep_until(at).await;
        let Some(shared) = reading.upgrade() else { return };
        let mut held = shared.lock().await;
        let Some(read) = held.as_ref() else { return };
        at = read.looked + KEPT;
        if at <= Instant::now() {
            *held = None;
            return;
        }
    }
}

fn away(error: &ConnectError) -> StoreError {
    tracing::debug!(%error, "the stream of revocations cannot be read");
    StoreError::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, StoreUrl};

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_for_who_reads() {
        // Nobody listens there.
        let url = StoreUrl::Redis { host: "127.0.0.1".to_owned(), port: 1, db: 0 };
        let topology = Topology::open(&config::Store { url, ..config::Store::default() });
        let reading = Reading::default();
        let reader = reading.0.lock().await;
        let began = Instant::now();
        let answer = reading.list(&topology, Duration::from_secs(60)).await;
        assert!(matches!(answer, Err(StoreError::Timeout)), "{answer:?}");
        assert_eq!(began.elapsed(), READING_MAX);
        assert!(reader.is_none(), "nothing was read meanwhile");
    }
}
