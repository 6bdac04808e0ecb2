//! Tunnels over HTTP/2 (RFC 8441): each is a stream of a connection that goes on, so it has a task
//! of its own, which the drain waits for.

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::clock::InProgress;
use crate::proxy::Tunnel;
use crate::tunnel::{Begun, Carrier};

/// What the tunnels of one connection need.
#[derive(Debug)]
pub(super) struct StreamTunnels {
    /// Keeps the drain waiting.
    pub(super) token: TaskTrackerToken,
    /// Cancelled when the drain is over.
    pub(super) cut: CancellationToken,
}

impl StreamTunnels {
    /// Starts a tunnel over the stream that `upgrade` will be. `in_progress` keeps its connection
    /// from being taken for idle.
    pub(super) fn start(&self, upgrade: OnUpgrade, tunnel: Box<Tunnel>, in_progress: InProgress) {
        let (token, cut) = (self.token.clone(), self.cut.clone());
        tokio::spawn(async move {
            match upgrade.await {
                Ok(stream) => {
                    let begun = Begun { carrier: TokioIo::new(stream), early: Default::default() };
                    tunnel.run(begun, &cut).await;
                }
                // The stream has ended before the client could know of it.
                Err(_) => tunnel.abandon(),
            }
            drop((in_progress, token));
        });
    }
}

impl Carrier for TokioIo<Upgraded> {
    /// A stream that is dropped is reset in any case (RFC 9113 §8.1).
    fn reset(&mut self) {}
}
