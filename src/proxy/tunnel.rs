//! What is left of a request once its connection has changed to WebSocket. The bytes are moved by
//! `crate::tunnel`, in the task of the client's connection.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use super::standing::expires_at;
use super::transaction::Transaction;
use crate::config;
use crate::plan::Route;
use crate::runtime::{Kind, Terms};
use crate::tunnel::{Begun, Carrier, End, Pump, Report, Rules};
use crate::upstream::{Held, Switched};

/// A tunnel that its upstream has agreed to.
#[derive(Debug)]
pub(super) struct Opened {
    /// The upstream's end.
    pub(super) upstream: Switched,
    pub(super) route: Arc<Route>,
    /// What the client's own key is answered with; nothing over HTTP/2.
    pub(super) accept: Option<HeaderValue>,
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
        let Opened { upstream: Switched { socket, early, held }, route, .. } = *opened;
        // Until its end it is a request in progress for its upstream.
        let _held: Held = held;
        let gateway = Arc::clone(&transaction.received.connection.gateway);
        let Transaction { resolved, grant, .. } = &*transaction;
        let terms = Terms {
            kind: Kind::WebSocket,
            route: Arc::clone(&route),
            client: resolved.client.address,
            grant: grant.clone(),
        };
        let open = gateway.tunnels.open(terms);
        let meter = gateway.observer.metrics.tunnels();
        let plan = transaction.received.plan();
        let default = config::Tunnel::default();
        let tunnel = route.written.tunnel.as_ref().unwrap_or(&default);
        let caller = transaction.grant.caller.as_deref().filter(|_| tunnel.end_on.expiry);
        let rules = Rules {
            tunnel,
            progress_timeout: plan.upload.progress_timeout,
            expires_at: caller.and_then(|identity| expires_at(plan, identity)),
            control: &open.control,
            meter,
        };
        let mut pump = Pump::new(client, Begun { carrier: socket, early }, &rules);
        tokio::select! {
            biased;
            () = pump.run() => {}
            () = cut.cancelled() => pump.cut(),
        }
        let report = pump.report();
        // The sockets first: whoever reads the line finds them closed.
        drop(pump);
        drop(open);
        meter.ended(report.end.word());
        transaction.record.note_tunnel(report, opened_after);
    }
}
