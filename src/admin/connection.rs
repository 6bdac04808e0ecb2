//! One connection of the admin listener, as far as a stream on it must know it.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::logins::lock;

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    /// Its client.
    pub(super) peer: SocketAddr,
    /// One of the listener's places, which are also those of health checks.
    place: Mutex<Option<OwnedSemaphorePermit>>,
    end: CancellationToken,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, place: OwnedSemaphorePermit) -> Self {
        Self { peer, place: Mutex::new(Some(place)), end: CancellationToken::new() }
    }

    /// A stream begins, which has a place of its own.
    pub(super) fn give_place_back(&self) {
        drop(lock(&self.place).take());
    }

    /// Ends the connection at once, whatever is still to be written.
    pub(super) fn end(&self) {
        self.end.cancel();
    }

    /// Until [`Self::end`].
    pub(super) async fn ended(&self) {
        self.end.cancelled().await;
    }
}
