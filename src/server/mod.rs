//! The public listeners: accepting, bounding, parking and draining connections. Knows no policy:
//! requests go to `proxy`.

mod accept;
mod body;
mod clock;
mod connection;
mod drain;
mod lag;
mod park;
mod places;
mod protocol;
mod proxied;
mod socket;
mod stream_tunnel;
mod tls;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::accept::Acceptor;
use self::connection::ServerState;
use self::workers::Workers;
use crate::runtime::Gateway;

/// The part of `server.drain` over which tunnels are told to end; the rest is for their answers.
const TUNNELS_SHARE: f64 = 0.8;

/// The part of `server.drain` for which connections may wait for a request, where another process
/// accepts new ones.
const WAITING_SHARE: f64 = 0.8;

/// Bound listeners and their threads, not accepting yet.
pub struct Server {
    state: Arc<ServerState>,
    workers: Workers,
    /// With whether TLS is spoken there.
    listeners: Vec<(Arc<TcpListener>, bool)>,
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
    /// Listens on every address of `server.listen` and `server.tls.listen`, by `listen`, which is
    /// told what for: `public` or `tls`. Starts the serving threads.
    pub async fn bind(
        gateway: &Arc<Gateway>,
        mut listen: impl FnMut(&'static str, SocketAddr) -> std::io::Result<Arc<TcpListener>>,
    ) -> Result<Self, StartError> {
        let running = gateway.running();
        let config = &running.plan.config.server;
        let mut listeners = Vec::new();
        for (address, speaks_tls) in config.listeners() {
            let listener = listen(if speaks_tls { "tls" } else { "public" }, address);
            let listener = listener.map_err(|error| StartError::Listen(address, error))?;
            listeners.push((listener, speaks_tls));
        }
        let state = Arc::new(ServerState::new(gateway));
        let done = CancellationToken::new();
        let workers = Workers::start(&state, &done).await.map_err(StartError::Threads)?;
        Ok(Self { state, workers, listeners, done })
    }

    /// The addresses that were bound, with the ports that the system chose for port 0, and whether
    /// TLS is spoken there.
    pub fn addresses(&self) -> Vec<(SocketAddr, bool)> {
        let bound = self.listeners.iter();
        bound.filter_map(|(listener, tls)| Some((listener.local_addr().ok()?, *tls))).collect()
    }

    /// Serves until `stop`, then lets requests in flight finish within `server.drain`. Where
    /// another process has the listeners by then, connections go on until they have had an answer,
    /// for most of that time.
    pub async fn serve(self, stop: CancellationToken) {
        let Self { state, workers, listeners, done } = self;
        let drain = &state.drain;
        let acceptor = Arc::new(Acceptor::new(&state, workers));
        let loops = TaskTracker::new();
        for (listener, speaks_tls) in listeners {
            loops.spawn(Arc::clone(&acceptor).run(listener, speaks_tls));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = state.reclaim.run() => {}
        }
        let is_left = state.gateway.is_handed_over();
        if is_left {
            drain.leave();
        } else {
            drain.begin();
        }
        loops.close();
        loops.wait().await;
        let limit = state.gateway.running().plan.config.server.drain;
        let tunnels = async {
            state.gateway.tunnels.drain(limit.mul_f64(TUNNELS_SHARE)).await;
            std::future::pending::<()>().await;
        };
        let waiting = async {
            if is_left {
                tokio::time::sleep(limit.mul_f64(WAITING_SHARE)).await;
                drain.begin();
            }
            std::future::pending::<()>().await;
        };
        let begun = Instant::now();
        let finished = async {
            drain.finish(limit).await;
            // What goes on without its client has the same time.
            let left = limit.saturating_sub(begun.elapsed());
            state.gateway.claims.finish_exchanges(left).await;
        };
        tokio::select! {
            () = finished => {}
            () = tunnels => {}
            () = waiting => {}
        }
        done.cancel();
    }
}
