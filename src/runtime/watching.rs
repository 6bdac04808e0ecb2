//! What is looked at as long as the gateway lives: tunnels, certificates and the keys of tickets.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::tunnels::Look;
use super::{Gateway, certificates};

/// How often the store is asked about each tunnel.
const TUNNELS_INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between two looks at all tunnels: news come in crowds.
const TUNNELS_PAUSE: Duration = Duration::from_millis(100);

impl Gateway {
    /// Follows certificates and tunnels.
    pub(super) fn watch(self: &Arc<Self>) {
        tokio::spawn(follow_certificates(Arc::downgrade(self)));
        tokio::spawn(watch_tunnels(Arc::downgrade(self)));
    }
}

/// Looks after tunnels until the gateway is gone: at once where there is news, and regularly.
async fn watch_tunnels(gateway: Weak<Gateway>) {
    let Some(news) = gateway.upgrade().map(|gateway| gateway.store.news()) else { return };
    let mut ask_at = Instant::now() + TUNNELS_INTERVAL;
    loop {
        let look = tokio::select! {
            () = news.revoked.notified() => Look::Told,
            () = news.changed.notified() => Look::Ask,
            () = tokio::time::sleep_until(ask_at) => {
                ask_at = Instant::now() + TUNNELS_INTERVAL;
                Look::Ask
            }
        };
        let Some(gateway) = gateway.upgrade() else { return };
        let outage = gateway.running().plan.on_outage;
        gateway.tunnels.look(&gateway.store, outage, look).await;
        drop(gateway);
        tokio::time::sleep(TUNNELS_PAUSE).await;
    }
}

/// Looks at the files of the certificates in force, and at the keys of tickets, until the gateway
/// is gone.
async fn follow_certificates(gateway: Weak<Gateway>) {
    let mut ticks = tokio::time::interval(certificates::PERIOD);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        if let Some(live) = &gateway.running().tls {
            certificates::look(live, &gateway.observer.metrics.tls).await;
        }
        gateway.look_after_tickets().await;
    }
}
