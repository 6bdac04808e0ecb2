//! The threads that serve connections: each has a runtime of its own, and a connection stays on
//! one.
//!
//! On a work-stealing runtime a request that waits for its upstream continues on whichever core is
//! free, and all that it holds moves there, cache line by cache line. Measured on two cores, that
//! cost more than everything the gateway itself does for a forwarded request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connection::{self, ServerState};
use super::lag;
use super::places::Place;

/// Most bytes that wait in the kernel and have not been sent to their client yet.
const UNSENT_BYTES_MAX: u32 = 64 * 1024;

/// A client that was admitted. Its number is bounded by `server.limits.connections`.
pub(super) struct Admitted {
    pub(super) stream: std::net::TcpStream,
    /// Its place among all, until it ends.
    pub(super) place: Place,
    /// Keeps the drain waiting.
    pub(super) token: TaskTrackerToken,
}

/// All threads.
#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    admitted: UnboundedSender<Admitted>,
    open: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts one thread per core and waits until each has its connection to the store, or has
    /// given that up for now. They end after `done`.
    pub(super) async fn start(
        server: &Arc<ServerState>,
        done: &CancellationToken,
    ) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut workers = Vec::with_capacity(cores);
        let mut ready = Vec::with_capacity(cores);
        for number in 0..cores {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (admitted, arriving) = unbounded_channel();
            let open = Arc::new(AtomicUsize::new(0));
            let (is_ready, wait) = tokio::sync::oneshot::channel();
            let server = Arc::clone(server);
            let (counted, done) = (Arc::clone(&open), done.clone());
            let serve = async move {
                server.gateway.store.join().await;
                tokio::spawn(lag::measure(server.gateway.observer.metrics.worker_lag.clone()));
                // Nobody waits any more when the start was given up.
                let _ = is_ready.send(());
                serve(server, arriving, counted, done).await;
            };
            ready.push(wait);
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || runtime.block_on(serve))?;
            workers.push(Worker { admitted, open });
        }
        for wait in ready {
            // A thread that has ended says so by not answering; its connections end at once.
            let _ = wait.await;
        }
        Ok(Self(workers))
    }

    /// Hands a connection to the thread that has the fewest.
    pub(super) fn take(&self, admitted: Admitted) {
        let busy = |worker: &&Worker| worker.open.load(Ordering::Relaxed);
        if let Some(worker) = self.0.iter().min_by_key(busy) {
            worker.open.fetch_add(1, Ordering::Relaxed);
            // A thread that has ended closes the connection, as the drain would.
            let _ = worker.admitted.send(admitted);
        }
    }
}

async fn serve(
    server: Arc<ServerState>,
    mut arriving: UnboundedReceiver<Admitted>,
    open: Arc<AtomicUsize>,
    done: CancellationToken,
) {
    loop {
        let admitted = tokio::select! {
            admitted = arriving.recv() => admitted,
            () = done.cancelled() => return,
        };
        let Some(admitted) = admitted else { return done.cancelled().await };
        tokio::spawn(serve_one(Counted::new(&server, &open), admitted));
    }
}

/// The task of one connection: no larger than what an idle one must keep.
#[allow(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
fn serve_one(counted: Counted, mut admitted: Admitted) -> impl Future<Output = ()> + Send {
    async move {
        // Without the bound the kernel takes megabytes for a client that reads nothing, all at once
        // and at the cost of the others. A system without the option goes without.
        let _ = socket2::SockRef::from(&admitted.stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        connection::serve(&counted.server, &mut admitted.place, admitted.stream).await;
        drop((counted, admitted.place, admitted.token));
    }
}

/// One connection in the counts; dropping it takes it out, also when its task has panicked.
struct Counted {
    server: Arc<ServerState>,
    open: Arc<AtomicUsize>,
}

impl Counted {
    fn new(server: &Arc<ServerState>, open: &Arc<AtomicUsize>) -> Self {
        server.gateway.observer.metrics.connections.inc();
        Self { server: Arc::clone(server), open: Arc::clone(open) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.server.gateway.observer.metrics.connections.dec();
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: impl Fn(Counted, Admitted) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_connection_is_small() {
        let size = size(serve_one);
        // With what tokio adds, 512 bytes.
        assert!(size <= 408, "{size} bytes: each idle connection keeps them");
    }
}
