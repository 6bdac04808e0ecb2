//! A response that is stored while it arrives, for all who wait for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;

use super::admission::{Admission, Admitted};
use super::coalesce::Leader;
use crate::cache::{Stored, StoredBody};
use crate::capture::{Keep, NotKept};
use crate::store::budget;

/// What becomes of one response when its body is here.
#[derive(Debug)]
pub(super) struct Filling {
    /// Those who wait for the response, until it is decided.
    pub(super) leader: Option<Leader>,
    /// What is stored, without its body.
    pub(super) entry: Arc<Stored>,
    /// The fields of the request.
    pub(super) fields: Arc<HeaderMap>,
    pub(super) admission: Admission,
    /// What its request had waited for the store before: its client waits for the end of this, too,
    /// which may come in another task.
    pub(super) spent: Duration,
}

impl Keep for Filling {
    type Kept = Admitted;

    /// Among all bodies that are being read.
    fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        self.admission.cache.fill_room(bytes)
    }

    fn is_awaited(&self) -> bool {
        self.leader.as_ref().is_some_and(Leader::is_awaited)
    }

    /// Stores the response: what its readers have seen whole, the next request finds.
    async fn complete(self, body: Bytes) -> Admitted {
        let Self { leader, mut entry, fields, admission, spent } = self;
        Arc::make_mut(&mut entry).body = StoredBody::Inline(body);
        let admitted = budget::scope_from(spent, admission.admit(entry, &fields)).await;
        if let Some(leader) = leader {
            if admitted.is_stored {
                leader.succeeded();
            }
            leader.done(Arc::clone(&admitted.response));
        }
        admitted
    }

    fn is_not_kept(&mut self, why: NotKept) {
        self.admission.key.origin.not_stored(why.code());
        if why.is_passed_on() {
            if let Some(leader) = self.leader.take() {
                leader.hit_for_pass();
            }
            // Others may fetch what is not stored here.
            drop(self.admission.lease.take());
        }
    }
}
