//! Accepting connections, and turning away those that there is no place for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::connection::{REFUSAL_TIME, ServerState};
use super::places::{Full, Places};
use super::socket;
use super::workers::{Admitted, Workers};
use crate::base::facts::{ClientAddr, Peer};
use crate::proxy::{self, Unparsed};

/// Connections that the kernel keeps while we are busy.
const BACKLOG: u32 = 4096;
/// Pause after a failed accept (no file descriptors, say), so that the loop neither spins nor ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refused clients that are served a 503 at a time; the others are just closed.
const REFUSALS_MAX: usize = 128;

/// Binds an address.
pub(super) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes connections and hands them to the serving threads.
pub(super) struct Acceptor {
    server: Arc<ServerState>,
    workers: Workers,
    places: Arc<Places>,
    refusals: Arc<Semaphore>,
}

impl Acceptor {
    pub(super) fn new(server: &Arc<ServerState>, workers: Workers) -> Self {
        Self {
            server: Arc::clone(server),
            workers,
            places: Arc::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        }
    }

    /// Accepts until the drain begins.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener, speaks_tls: bool) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.server.drain.stop().cancelled() => return,
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
        let limits = &running.plan.config.server.limits;
        let exempt = running.plan.client.trusts(client.ip());
        match self.places.take(client, limits, exempt) {
            Ok(place) => {
                // Without this, a small response waits for the client's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                let token = self.server.drain.token();
                if let Ok(stream) = stream.into_std() {
                    let place = place.at(speaks_tls);
                    self.workers.take(Admitted { stream, place, token });
                }
            }
            Err(full) => self.refuse(stream, client, full, speaks_tls),
        }
    }

    fn refuse(&self, stream: TcpStream, client: ClientAddr, full: Full, speaks_tls: bool) {
        let Ok(local) = stream.local_addr() else { return };
        let unparsed = match full {
            Full::Total => Unparsed::ConnectionsFull,
            Full::Address => Unparsed::AddressFull,
        };
        let ServerState { gateway, drain, .. } = &*self.server;
        gateway.observer.metrics.connection_refused(unparsed.code());
        if speaks_tls {
            // An answer in clear would be noise to it, and a handshake costs what there is no room
            // for.
            return;
        }
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            // The others get no answer, and are counted alone.
            proxy::log_turned_away(gateway, &Peer::new(client, local, None), unparsed);
            let token = drain.token();
            tokio::spawn(async move {
                let _ = tokio::time::timeout(REFUSAL_TIME, socket::refuse(stream)).await;
                drop((permit, token));
            });
        }
    }
}
