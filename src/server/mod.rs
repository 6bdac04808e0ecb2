//! The public listeners: accepting, bounding and draining connections. Knows no policy: requests go
//! to `pipeline`.

mod clock;
mod connection;
mod io;
mod piece;
mod places;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::places::{Full, Places};
use self::workers::{Admitted, Workers};
use crate::base::facts::{ClientAddr, Peer};
use crate::proxy::{self, Unparsed};
use crate::runtime::Gateway;

/// Connections that the kernel keeps while we are busy.
const BACKLOG: u32 = 4096;
/// Pause after a failed accept (no file descriptors, say), so that the loop neither spins nor ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a refused client may take to read its 503.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Refused clients that are served a 503 at a time; the others are just closed.
const REFUSALS_MAX: usize = 128;

/// Bound listeners and their threads, not accepting yet.
pub struct Server {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    listeners: Vec<TcpListener>,
    /// Ends the threads.
    done: CancellationToken,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {0}: {1}; is another process using it? change server.listen")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The serving threads cannot be started.
    #[error("cannot start the serving threads: {0}; is the number of threads limited?")]
    Threads(#[source] std::io::Error),
}

impl Server {
    /// Binds every address of `server.listen` and starts the serving threads.
    pub async fn bind(gateway: &Arc<Gateway>) -> Result<Self, StartError> {
        let running = gateway.running();
        let config = &running.plan.config.server;
        let mut listeners = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            let listener = listen(*address);
            listeners.push(listener.map_err(|error| StartError::Listen(*address, error))?);
        }
        let shared = Arc::new(Shared {
            gateway: Arc::clone(gateway),
            places: Arc::new(Places::default()),
            refusals: Arc::new(tokio::sync::Semaphore::new(REFUSALS_MAX)),
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        });
        let done = CancellationToken::new();
        let workers = Workers::start(&shared, &done).await.map_err(StartError::Threads)?;
        Ok(Self { shared, workers: Arc::new(workers), listeners, done })
    }

    /// The addresses that were bound, with the ports that the system chose for port 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `stop`, then lets requests in flight finish within `server.drain`.
    pub async fn serve(self, stop: CancellationToken) {
        let Self { shared, workers, listeners, done } = self;
        let loops = TaskTracker::new();
        for listener in listeners {
            loops.spawn(accept(Arc::clone(&shared), Arc::clone(&workers), listener));
        }
        stop.cancelled().await;
        shared.stop.cancel();
        loops.close();
        loops.wait().await;
        let drain = shared.gateway.running().plan.config.server.drain;
        let connections = &shared.connections;
        connections.close();
        tracing::info!(open = connections.len(), ?drain, "draining");
        if tokio::time::timeout(drain, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "cutting what is open after server.drain");
            shared.cut.cancel();
            connections.wait().await;
        }
        done.cancel();
    }
}

/// What every connection task needs.
struct Shared {
    gateway: Arc<Gateway>,
    places: Arc<Places>,
    refusals: Arc<tokio::sync::Semaphore>,
    connections: TaskTracker,
    /// No new requests.
    stop: CancellationToken,
    /// No requests at all.
    cut: CancellationToken,
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(server: Arc<Shared>, workers: Arc<Workers>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => admit(&server, &workers, stream, address),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                server.gateway.observer.metrics.connection_refused("accept_failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Starts a connection's task, or turns the client away.
fn admit(server: &Arc<Shared>, workers: &Workers, stream: TcpStream, address: SocketAddr) {
    let Ok(local) = stream.local_addr() else { return };
    let peer = Peer::new(ClientAddr::new(address.ip()), local);
    let running = server.gateway.running();
    let limits = &running.plan.config.server.limits;
    let exempt = running.plan.client.trusts(peer.address.ip());
    match server.places.take(peer.address, limits, exempt) {
        Ok(place) => {
            // Without this, a small response waits for the client's delayed acknowledgement.
            let _ = stream.set_nodelay(true);
            let token = server.connections.token();
            if let Ok(stream) = stream.into_std() {
                workers.take(Admitted { stream, peer, place, token });
            }
        }
        Err(full) => {
            let unparsed = match full {
                Full::Total => Unparsed::ConnectionsFull,
                Full::Address => Unparsed::AddressFull,
            };
            let gateway = &server.gateway;
            gateway.observer.metrics.connection_refused(unparsed.code());
            if let Ok(permit) = Arc::clone(&server.refusals).try_acquire_owned() {
                // The others get no answer, and are counted alone.
                proxy::log_turned_away(gateway, &peer, unparsed);
                server.connections.spawn(async move {
                    let _ = tokio::time::timeout(REFUSAL_TIME, io::refuse(stream)).await;
                    drop(permit);
                });
            }
        }
    }
}
