//! A request's places among those in flight, given back when the request has ended, however it did.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Gateway;
use crate::limit::{LeaseRenewal, Ticket};
use crate::store::{Leases, Release};

/// How often leases are looked at; the shortest lease is five times as long.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// Most renewals that wait for the store at a time.
const RENEWALS_MAX: usize = 64;

/// Places; dropping it gives them back.
#[derive(Debug)]
pub struct Held {
    gateway: Arc<Gateway>,
    ticket: Ticket,
}

impl Held {
    /// Holds `ticket` for a request.
    pub fn new(gateway: &Arc<Gateway>, ticket: Ticket) -> Self {
        Self { gateway: Arc::clone(gateway), ticket }
    }

    /// What is held, to be added to.
    pub fn ticket(&mut self) -> &mut Ticket {
        &mut self.ticket
    }

    /// Gives back and waits until the store took it; in the background if that fails.
    pub async fn give_back(mut self) {
        if let Some(release) = self.ticket.leased()
            && self.gateway.store.release(std::slice::from_ref(release)).await.is_ok()
        {
            self.gateway.limits.in_flight.leave(std::mem::take(&mut self.ticket));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gateway.leave(std::mem::take(&mut self.ticket));
    }
}

/// Renews the leases of requests that take long, until the gateway is gone.
pub(super) async fn keep(gateway: Weak<Gateway>) {
    let mut ticks = tokio::time::interval(RENEWAL_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        let mut renewals = JoinSet::new();
        for (holder, renewal) in gateway.limits.in_flight.due() {
            if renewals.len() >= RENEWALS_MAX {
                renewals.join_next().await;
            }
            renewals.spawn(renew(Arc::clone(&gateway), holder, renewal));
        }
        renewals.join_all().await;
    }
}

async fn renew(gateway: Arc<Gateway>, holder: String, renewal: LeaseRenewal) {
    let (in_flight, LeaseRenewal { keys, crowds, .. }) = (&gateway.limits.in_flight, renewal);
    if !in_flight.lasts(&holder) {
        return;
    }
    let leases = Leases { crowds: &crowds, keys: &keys, holder: &holder };
    let renewed = gateway.store.lease(leases).await;
    if renewed.is_err() {
        // It stays due, so the next look tries again.
        in_flight.doubt(&holder);
        gateway.metrics.store_failed("limits");
    }
    let lasts = if renewed.is_ok() { in_flight.renewed(&holder) } else { in_flight.lasts(&holder) };
    if !lasts {
        gateway.release(Release { keys, crowds, holder, in_doubt: true });
    }
}
