//! A request that was accepted before, on its way to its upstream: the same way that requests of
//! clients take, with nobody who waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::dispatch::{Dispatch, outcome};
use super::rejection::Rejection;
use crate::base::body::{Inbound, Upload, UploadLimits};
use crate::base::facts::ClientAddr;
use crate::base::trace::Trace;
use crate::cache;
use crate::deliver::Head;
use crate::plan::Plan;
use crate::runtime::Running;
use crate::upstream::{Download, Failure};

/// A request that was accepted before.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// The rules of now.
    pub running: &'a Arc<Running>,
    /// What was kept of its head.
    pub head: &'a Head,
    /// Its id.
    pub id: &'a str,
    /// How often it was sent, this time included.
    pub attempt: u64,
    /// Its body.
    pub body: Bytes,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Attempted {
    /// The answer, or why there is none.
    pub answer: Result<Response<Box<Download>>, NoAnswer>,
    /// Whether it has changed something, or may have.
    pub has_changed: bool,
    /// How long it took until then.
    pub took: Duration,
    /// The trace that it was part of.
    pub trace: Trace,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct NoAnswer {
    /// Its code, as of a refusal.
    pub code: &'static str,
    /// Whether the upstream may have acted.
    pub may_have_acted: bool,
    /// Whether it was the places that this gateway has at the upstream: that says nothing of it.
    pub is_busy: bool,
    /// In more words, for the log.
    pub error: String,
    /// How long to wait, where that is likely to help.
    pub retry_after: Option<Duration>,
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        let (may_have_acted, retry_after) = (failure.may_have_acted(), failure.retry_after());
        let is_busy = matches!(failure, Failure::Busy);
        let rejection = Rejection::from(failure);
        let error = rejection.internal().unwrap_or_default();
        Self { code: rejection.code(), may_have_acted, is_busy, error, retry_after }
    }
}

impl Delivery<'_> {
    /// The index of the upstream that takes it: that of its route, or the one that it had when the
    /// request was accepted.
    pub fn upstream(&self) -> Option<usize> {
        let Self { running, head, .. } = self;
        let plan: &Plan = &running.plan;
        let is_route = |name: &&String| ***name == *head.route;
        let route = plan.route_names().position(|name| is_route(&name));
        let of_route = route.and_then(|index| plan.route(index)).map(|route| route.upstream);
        let is_known = |index: &usize| plan.upstreams.get(*index).is_some();
        let by_name = || plan.upstreams.iter().position(|(name, _)| *name == head.upstream);
        of_route.filter(is_known).or_else(by_name)
    }

    /// Sends it to the upstream of this index.
    pub async fn send(&self, upstream: usize) -> Attempted {
        let Self { running, head, id, attempt, body } = self;
        let trace = Trace::parse(head.trace.as_bytes()).unwrap_or_else(Trace::begin).child();
        let client = ClientAddr::new(head.client);
        let dispatch = Dispatch::of_delivery(running, upstream, (client, trace));
        // It was within its bounds when it was accepted, which may be others now.
        let limits = UploadLimits { bytes_max: u64::MAX, ..running.plan.upload };
        let (upload, _) = Upload::new(Inbound::Bytes(body.clone()), limits, false);
        let mut took = None;
        let sent = dispatch.send(|| head.request(id, *attempt), upload, &mut took).await;
        let took = took.map(|took| took.time).unwrap_or_default();
        let has_changed = match &sent {
            Ok(response) => {
                // Some route may store answers to writes of the same path.
                let status = outcome(response, true).map(|(status, _)| status.as_u16());
                cache::invalidates(&head.method, status)
            }
            Err(failure) => failure.may_have_acted(),
        };
        Attempted { answer: sent.map_err(NoAnswer::from), has_changed, took, trace }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn own_places_that_are_taken_are_told_from_an_upstream_that_is_away() {
        let of = |failure| {
            let told = NoAnswer::from(failure);
            (told.is_busy, told.may_have_acted)
        };
        assert_eq!(of(Failure::Busy), (true, false));
        assert_eq!(of(Failure::ConnectTimeout), (false, false));
        assert_eq!(of(Failure::Open(Duration::ZERO)), (false, false));
        assert_eq!(of(Failure::Timeout), (false, true));
    }
}
