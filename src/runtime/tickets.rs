//! Has the gateways of a fleet make tickets with the same keys: whoever comes first to a new epoch
//! puts its own key into the store, and all others take it from there. Without the store each
//! gateway goes on with keys of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::units::Secret;
use crate::config::StoreUse;
use crate::observe::LoggedOnce;
use crate::plan::Plan;
use crate::store::keys::Keys;
use crate::store::{Store, StoreError};
use crate::tls::{Live, TicketKey, TicketKeys, WrapError, Wrapping, epoch_at, key_ttl};

/// Largest wrapped key, in bytes.
const WRAPPED_BYTES_MAX: usize = 1024;

/// Why the fleet's key is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotShared {
    #[error("the store does not answer: {0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Wrapped(#[from] WrapError),
}

/// Looks after the keys of tickets, where a fleet shares them.
pub(super) async fn look(live: &Live, plan: &Plan, store: &Store, logged: &LoggedOnce) {
    let Some(own) = live.table().ticket_keys().cloned() else { return };
    let written = plan.config.server.tls.as_ref();
    let secret = written.and_then(|written| written.secret.as_ref());
    let sharing = Sharing::new(store, &plan.keys, secret);
    match sharing.look(&own).await {
        Ok(()) => {}
        // That it is away is said elsewhere.
        Err(NotShared::Store(error)) => tracing::debug!(%error, "tickets are this gateway's own"),
        Err(NotShared::Wrapped(error)) => {
            let why = error.to_string();
            if logged.first("tickets_not_shared", &why) {
                tracing::warn!("tickets are this gateway's own, and not the fleet's: {why}");
            }
        }
    }
}

/// Where the keys of a fleet are shared.
pub(super) struct Sharing<'a> {
    store: &'a Store,
    keys: &'a Keys,
    wrapping: Wrapping,
}

impl<'a> Sharing<'a> {
    pub(super) fn new(store: &'a Store, keys: &'a Keys, secret: Option<&Secret>) -> Self {
        Self { store, keys, wrapping: Wrapping::new(secret) }
    }

    /// Sees to it that tickets are made with the key of now, which is the fleet's where the store
    /// is shared and answers. Doing it again changes nothing.
    pub(super) async fn look(&self, own: &TicketKeys) -> Result<(), NotShared> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or_default();
        // All gateways count epochs by one clock.
        let now = now.saturating_add_signed(self.store.clock_offset_ms(StoreUse::Main));
        own.turn(epoch_at(now));
        if self.store.is_shared(StoreUse::Main) { self.share(own, now).await } else { Ok(()) }
    }

    async fn share(&self, own: &TicketKeys, now_ms: u64) -> Result<(), NotShared> {
        let epoch = epoch_at(now_ms);
        let mut found = self.read(epoch).await?;
        if found.is_none() {
            let place = self.keys.tls_tickets(epoch);
            let wrapped = self.wrapping.wrap(&place, own.present().bytes())?;
            // Another gateway may be faster: what lies there then counts.
            self.store.put_new(&place, wrapped.as_bytes(), key_ttl(now_ms)).await?;
            found = self.read(epoch).await?;
        }
        if let Some(key) = found {
            own.make_with(key);
        }
        if let Some(before) = epoch.checked_sub(1)
            && let Ok(Some(key)) = self.read(before).await
        {
            own.open_with(key);
        }
        Ok(())
    }

    async fn read(&self, epoch: u64) -> Result<Option<TicketKey>, NotShared> {
        let place = self.keys.tls_tickets(epoch);
        let Some(found) = self.store.read(&place, WRAPPED_BYTES_MAX).await? else {
            return Ok(None);
        };
        let bytes = self.wrapping.unwrap(&place, &String::from_utf8_lossy(&found))?;
        let key = TicketKey::read(epoch, &bytes).ok_or(WrapError::Unreadable(place))?;
        Ok(Some(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    const HOUR_MS: u64 = 3_600_000;

    /// The keys of a gateway that began at this moment.
    fn begun(now_ms: u64) -> TicketKeys {
        let own = TicketKeys::new().unwrap();
        own.turn(epoch_at(now_ms));
        own
    }

    fn present(own: &TicketKeys) -> Vec<u8> {
        own.present().bytes().to_vec()
    }

    #[tokio::test]
    async fn a_fleet_turns_together_and_who_comes_later_joins() {
        let (store, keys) = (Store::Memory(Box::new(MemoryStore::new(100))), Keys::new("app"));
        let secret = Secret::new("0123456789abcdef0123456789abcdef");
        let sharing = Sharing::new(&store, &keys, Some(&secret));
        let nodes = [(); 2].map(|()| begun(HOUR_MS));
        assert_ne!(present(&nodes[0]), present(&nodes[1]));
        for hour in [1, 11, 12, 23, 24, 36] {
            let before = present(&nodes[0]);
            for own in &nodes {
                own.turn(epoch_at(hour * HOUR_MS));
                sharing.share(own, hour * HOUR_MS).await.unwrap();
            }
            assert_eq!(present(&nodes[0]), present(&nodes[1]), "hour {hour}");
            let turns = hour % 12 == 0;
            assert_eq!(present(&nodes[0]) != before, turns, "hour {hour}");
            let later = begun(hour * HOUR_MS);
            sharing.share(&later, hour * HOUR_MS).await.unwrap();
            assert_eq!(present(&later), present(&nodes[0]), "hour {hour}");
            assert!(later.opens(&before), "hour {hour}: tickets of before");
        }
        // The store has lost everything, and gets back what all have.
        store.delete(&keys.tls_tickets(3)).await.unwrap();
        let was = present(&nodes[0]);
        let later = begun(36 * HOUR_MS);
        for own in nodes.iter().chain([&later]) {
            sharing.share(own, 36 * HOUR_MS).await.unwrap();
            assert_eq!(present(own), was);
        }
    }

    #[tokio::test]
    async fn a_key_under_another_secret_is_left_alone() {
        let (store, keys) = (Store::Memory(Box::new(MemoryStore::new(100))), Keys::new("app"));
        let secrets = ["an example of 32 bytes and some.", "another secret of 32 bytes or so"];
        let [ours, other] = secrets.map(Secret::new);
        let own = begun(HOUR_MS);
        Sharing::new(&store, &keys, Some(&ours)).share(&own, HOUR_MS).await.unwrap();
        let (stranger, place) = (begun(HOUR_MS), keys.tls_tickets(0));
        let (stored, was) = (store.read(&place, 1024).await.unwrap(), present(&stranger));
        let refused = Sharing::new(&store, &keys, Some(&other)).share(&stranger, HOUR_MS).await;
        let unreadable = WrapError::Unreadable(place.clone());
        assert_eq!(refused, Err(NotShared::Wrapped(unreadable)));
        assert_eq!(present(&stranger), was, "its own");
        assert_eq!(store.read(&place, 1024).await.unwrap(), stored);
    }
}
