//! Whether what goes on behind a response may go on: what let its caller in can end before it does.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, Sleep};

use super::request::Received;
use crate::base::facts::Identity;
use crate::plan::Plan;
use crate::runtime::{OpenTunnel, Terms};
use crate::tunnel::End;

/// See the module. Others can end it for as long as this lives.
#[derive(Debug)]
pub(super) struct Standing {
    open: OpenTunnel,
    /// Runs until the caller's token expires.
    expiry: Option<Pin<Box<Sleep>>>,
}

impl Standing {
    /// Of what goes on from here on.
    pub(super) fn new(received: &Received, terms: Terms) -> Self {
        let caller = terms.grant.caller.as_deref();
        let expires_at = caller.and_then(|identity| expires_at(received.plan(), identity));
        let expiry = expires_at.map(|at| Box::pin(tokio::time::sleep_until(at)));
        Self { open: received.connection.gateway.tunnels.open(terms), expiry }
    }

    /// Ready when it must end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let expiry = self.expiry.as_mut();
        let expired = expiry.is_some_and(|expiry| expiry.as_mut().poll(cx).is_ready());
        let end = self.open.control.poll(cx).or(expired.then_some(End::Expired));
        end.map_or(Poll::Pending, Poll::Ready)
    }
}

/// When a caller's token expires, with the leeway that it was admitted with; nothing for one that
/// does not.
pub(super) fn expires_at(plan: &Plan, identity: &Identity) -> Option<Instant> {
    let seconds = u64::try_from(identity.expires_at).ok().filter(|at| *at < i64::MAX as u64)?;
    let leeway = plan.config.auth.get(&*identity.verifier).map(|verifier| verifier.leeway);
    let at = Duration::from_secs(seconds) + leeway.unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::now().checked_add(at.saturating_sub(now))
}
