//! Signals that end nothing, and how an end is announced. It must not know what a reload is.

use std::sync::{Arc, Weak};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::net::supervisor;
use crate::runtime::Gateway;

/// Signals that operators of other servers send by habit: to have logs opened again, and to have
/// the program replaced. The system's default would end the process. SIGWINCH does nothing by
/// default, and SIGPIPE is ignored by every Rust program.
pub struct Habits {
    user1: Signal,
    user2: Option<Signal>,
}

impl Habits {
    /// Receives them from now on.
    ///
    /// # Errors
    /// The system has no room for another handler.
    pub fn receive() -> std::io::Result<Self> {
        Ok(Self {
            user1: signal(SignalKind::user_defined1())?,
            user2: Some(signal(SignalKind::user_defined2())?),
        })
    }

    /// SIGUSR2, for who has a use for it.
    pub fn take_user2(&mut self) -> Option<Signal> {
        self.user2.take()
    }

    /// Opens the access log anew, and says of what changes nothing that it does, for as long as the
    /// gateway lives.
    pub async fn heed(mut self, gateway: Weak<Gateway>) {
        loop {
            tokio::select! {
                _ = self.user1.recv() => {
                    let Some(gateway) = gateway.upgrade() else { return };
                    if gateway.observer.access.reopen() {
                        tracing::info!("SIGUSR1: the access log is opened anew");
                    } else {
                        tracing::info!(
                            "SIGUSR1: nothing to reopen; access lines go to stdout, diagnostics \
                             to stderr"
                        );
                    }
                }
                () = received(&mut self.user2) => tracing::info!(
                    "SIGUSR2: nothing to do; SIGTERM drains"
                ),
            }
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

/// Ends the gateway as the first signal asks: `/readyz` says so at once, requests are served as
/// before for `server.drain_delay`, so that load balancers can learn of it, and then `stop` begins
/// the drain. Returns when a `second` signal comes, whenever that is.
pub async fn end(gateway: &Arc<Gateway>, stop: &CancellationToken, second: impl Future) {
    gateway.begin_drain();
    supervisor::stopping();
    let delay = gateway.running().plan.config.server.drain_delay;
    if !delay.is_zero() {
        tracing::info!(?delay, "not ready any more; the drain begins after server.drain_delay");
    }
    let begin = async {
        tokio::time::sleep(delay).await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = begin => {}
        _ = second => {}
    }
}
