//! How many connections are open, in all and by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::facts::ClientAddr;
use crate::config::ClientLimits;

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Places {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Which bound was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Total,
    Address,
}

/// One open connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: ClientAddr,
    /// Here it costs nothing: the task of an idle connection keeps every byte.
    speaks_tls: bool,
}

impl Place {
    /// The same at a listener that speaks TLS, or at one in clear.
    pub(super) fn at(self, speaks_tls: bool) -> Self {
        let mut place = self;
        place.speaks_tls = speaks_tls;
        place
    }

    /// Whether the connection begins with a handshake.
    pub(super) fn speaks_tls(&self) -> bool {
        self.speaks_tls
    }

    /// Who has it.
    pub(super) fn client(&self) -> ClientAddr {
        self.client
    }
}

impl Places {
    /// Takes a place, unless the bounds are met. `exempt` addresses count only in all.
    pub(super) fn take(
        self: &Arc<Self>,
        client: ClientAddr,
        limits: &ClientLimits,
        exempt: bool,
    ) -> Result<Place, Full> {
        let mut counts = self.lock();
        if counts.total >= limits.connections {
            return Err(Full::Total);
        }
        let mine = counts.by_address.entry(client.principal()).or_default();
        if !exempt && *mine >= limits.connections_per_address {
            return Err(Full::Address);
        }
        *mine += 1;
        counts.total += 1;
        Ok(Place { places: Arc::clone(self), client, speaks_tls: false })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let address = self.client.principal();
        let mut counts = self.places.lock();
        counts.total -= 1;
        if let Some(mine) = counts.by_address.get_mut(&address) {
            *mine -= 1;
            if *mine == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}
