//! A request's places among those in flight, given back when the request has ended, however it did.

use std::sync::Arc;

use super::Gateway;
use crate::limit::Ticket;

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
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gateway.leave(std::mem::take(&mut self.ticket));
    }
}
