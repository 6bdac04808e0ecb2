//! How many connections are open, in all and by address.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
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
    /// Here these two cost nothing: the task of an idle connection keeps every byte.
    speaks_tls: bool,
    /// The port that the client connected to, where a balancer said so.
    told_port: Option<NonZeroU16>,
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

    /// The address that the client connected to, as far as it matters: our end of the socket, with
    /// the port that a balancer said.
    pub(super) fn local(&self, mut socket: SocketAddr) -> SocketAddr {
        if let Some(port) = self.told_port {
            socket.set_port(port.get());
        }
        socket
    }

    /// Hands the place over to the client that a balancer speaks for, which had connected to `port`
    /// (0: not known), unless that one has all of its places. `exempt` clients count only in all.
    pub(super) fn hand_over(
        &mut self,
        client: ClientAddr,
        port: u16,
        limits: &ClientLimits,
        exempt: bool,
    ) -> Result<(), Full> {
        let places = Arc::clone(&self.places);
        let mut counts = places.lock();
        counts.leave(self.client);
        if counts.enter(client) > limits.connections_per_address && !exempt {
            counts.leave(client);
            counts.enter(self.client);
            return Err(Full::Address);
        }
        (self.client, self.told_port) = (client, NonZeroU16::new(port));
        Ok(())
    }
}

impl Counts {
    /// One more of this address; returns how many these are now.
    fn enter(&mut self, client: ClientAddr) -> usize {
        let mine = self.by_address.entry(client.principal()).or_default();
        *mine += 1;
        *mine
    }

    /// One less.
    fn leave(&mut self, client: ClientAddr) {
        let address = client.principal();
        if let Some(mine) = self.by_address.get_mut(&address) {
            *mine -= 1;
            if *mine == 0 {
                self.by_address.remove(&address);
            }
        }
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
        if counts.enter(client) > limits.connections_per_address && !exempt {
            counts.leave(client);
            return Err(Full::Address);
        }
        counts.total += 1;
        Ok(Place { places: Arc::clone(self), client, speaks_tls: false, told_port: None })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        counts.total -= 1;
        counts.leave(self.client);
    }
}
