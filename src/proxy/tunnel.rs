//! What is left of a request once its connection has changed to WebSocket. The bytes are moved by
//! `crate::tunnel`, in the task of the client's connection.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use super::transaction::Transaction;
use crate::config;
use crate::tunnel::{Begun, Carrier, End, Pump, Report};
use crate::upstream::{Held, Switched};

/// A tunnel that its upstream has agreed to.
#[derive(Debug)]
pub(super) struct Opened {
    /// The upstream's end.
    pub(super) upstream: Switched,
    pub(super) rules: Arc<config::Tunnel>,
    /// What the client's own key is answered with.
    pub(super) accept: HeaderValue,
}

/// A request whose connection has changed to WebSocket: its record, and its place among those in
/// flight, last as long as the tunnel.
#[derive(Debug)]
pub struct Tunnel {
    opened: Box<Opened>,
    transaction: Box<Transaction>,
    /// How long it took to open it.
    opened_after: Duration,
}

impl Tunnel {
    /// A tunnel that nothing has passed yet.
    pub(super) fn new(opened: Box<Opened>, transaction: Box<Transaction>) -> Self {
        let opened_after = transaction.received.started.elapsed();
        Self { opened, transaction, opened_after }
    }

    /// The connection has ended before the client could know of it.
    pub fn abandon(mut self) {
        self.transaction.record.note_tunnel(Report::unused(End::Client), self.opened_after);
    }

    /// Moves bytes until the tunnel has ended, or `cut` is cancelled; then its record is written.
    pub async fn run<C: Carrier>(self, client: Begun<C>, cut: &CancellationToken) {
        let Self { opened, mut transaction, opened_after } = self;
        let Opened { upstream: Switched { socket, early, held }, rules, .. } = *opened;
        // Until its end it is a request in progress for its upstream.
        let _held: Held = held;
        let progress_timeout = transaction.received.plan().upload.progress_timeout;
        let upstream = Begun { carrier: socket, early };
        let mut pump = Pump::new(client, upstream, &rules, progress_timeout);
        tokio::select! {
            biased;
            () = pump.run() => {}
            () = cut.cancelled() => pump.cut(),
        }
        let report = pump.report();
        // The sockets first: whoever reads the line finds them closed.
        drop(pump);
        transaction.record.note_tunnel(report, opened_after);
    }
}
