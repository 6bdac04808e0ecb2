//! Accepting connections, and turning away those that there is no place for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::connection::ServerState;
use super::places::Places;
use super::workers::{Admitted, Workers};
use crate::base::facts::ClientAddr;

/// Pause after a failed accept (no file descriptors, say), so that the loop neither spins nor ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes connections and hands them to the serving threads.
pub(super) struct Acceptor {
    server: Arc<ServerState>,
    workers: Workers,
    places: Arc<Places>,
}

impl Acceptor {
    pub(super) fn new(server: &Arc<ServerState>, workers: Workers) -> Self {
        Self { server: Arc::clone(server), workers, places: Arc::default() }
    }

    /// Accepts until the drain begins.
    pub(super) async fn run(self: Arc<Self>, listener: Arc<TcpListener>, speaks_tls: bool) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.server.drain.left().cancelled() => return,
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address, speaks_tls),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    self.server.gateway.observer.metrics.connection_refused("accept_failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Starts a connection's task, or turns the client away.
    fn admit(&self, stream: TcpStream, address: SocketAddr, speaks_tls: bool) {
        let client = ClientAddr::new(address.ip());
        let running = self.server.gateway.running();
        let config = &running.plan.config.server;
        // A balancer is not one client; whom it speaks for is known, and counted, later.
        let exempt = running.plan.client.trusts(client.ip()) || config.is_proxied(client.ip());
        match self.places.take(client, &config.limits, exempt) {
            Ok(place) => {
                // Without this, a small response waits for the client's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                let token = self.server.drain.token();
                if let Ok(stream) = stream.into_std() {
                    let place = place.at(speaks_tls);
                    self.workers.take(Admitted { stream, place, token });
                }
            }
            Err(full) => {
                if let Some(telling) = self.server.turn_away(stream, client, full, speaks_tls) {
                    let token = self.server.drain.token();
                    tokio::spawn(async move {
                        telling.await;
                        drop(token);
                    });
                }
            }
        }
    }
}
