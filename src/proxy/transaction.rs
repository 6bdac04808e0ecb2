//! One request from its head to the last byte of its response: what is known of it, what it holds,
//! and its record, which is written when all of that ends.

use std::sync::Arc;

use http::request::Parts;

use super::connection::Connection;
use super::record::{Ended, Record};
use super::request::{Received, Resolved};
use crate::caching::CacheNotes;
use crate::limit::SlotGuard;
use crate::runtime::Grant;

/// What one request owns. Dropping it writes its record, also when the client has left before there
/// was a response.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) received: Received,
    pub(super) resolved: Resolved,
    /// What let it in, as far as that is known.
    pub(super) grant: Grant,
    /// What the cache did, where it had a part in the request.
    pub(super) cache: Option<CacheNotes>,
    pub(super) record: Record,
    /// The request's slots among those in flight, given back with the last byte.
    pub(super) slot: Option<SlotGuard>,
}

impl Transaction {
    /// A request has come. Boxed, because it moves along with the response.
    pub(super) fn open(connection: &Arc<Connection>, head: &mut Parts) -> Box<Self> {
        connection.gateway.observer.metrics.request_began();
        // Its place first: what is made for a place that is known is not moved there.
        Box::write(
            Box::new_uninit(),
            Self {
                received: Received::new(connection, head),
                resolved: Resolved::new(connection),
                grant: Grant::default(),
                cache: None,
                record: Record::new(),
                slot: None,
            },
        )
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Self { received, resolved, grant, cache, record, .. } = self;
        let caller = &grant.caller;
        let cache = cache.as_ref().and_then(|notes| notes.verdict);
        record.close(Ended { received, resolved, caller, cache });
        received.connection.gateway.observer.metrics.request_ended();
    }
}
