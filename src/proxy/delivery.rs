//! A request that was accepted before, on its way to its upstream: the same way that requests of
//! clients take, with nobody who waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::dispatch::Dispatch;
use super::rejection::Rejection;
use crate::base::body::{Inbound, Upload};
use crate::base::facts::ClientAddr;
use crate::base::trace::Trace;
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
    /// In more words, for the log.
    pub error: String,
    /// How long to wait, where that is likely to help.
    pub retry_after: Option<Duration>,
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        let (may_have_acted, retry_after) = (failure.may_have_acted(), failure.retry_after());
        let rejection = Rejection::from(failure);
        let error = rejection.internal().unwrap_or_default();
        Self { code: rejection.code(), may_have_acted, error, retry_after }
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
        let (upload, _) = Upload::new(Inbound::Bytes(body.clone()), running.plan.upload, false);
        let mut took = None;
        let sent = dispatch.send(|| head.request(id, *attempt), upload, &mut took).await;
        let took = took.map(|took| took.time).unwrap_or_default();
        Attempted { answer: sent.map_err(NoAnswer::from), took, trace }
    }
}
