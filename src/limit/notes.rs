//! What others learn of the limits of one request that was not refused.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::headers::Quota;
use super::policy::Limit;
use crate::config::{Over, RatelimitFields};
use crate::observe::{LimitMeter, LimitOutcome};

/// What clients, upstreams and operators learn of the limits of a request that may pass.
#[derive(Debug, Default)]
pub struct LimitNotes<'p> {
    /// For the client.
    pub quota: Quota,
    /// For the upstream.
    pub marks: Vec<(HeaderName, HeaderValue)>,
    /// What the limits of the route count with, as [`super::Policy::items`] lists them.
    meters: &'p [Arc<LimitMeter>],
    /// For the operator: the limits that the request is over all the same, and what they do about
    /// it.
    pub over: Vec<(&'p str, &'static str)>,
}

impl<'p> LimitNotes<'p> {
    /// Nothing yet. `fields` are those that clients see; `meters` count what the limits say.
    pub fn new(fields: RatelimitFields, meters: &'p [Arc<LimitMeter>]) -> Self {
        Self { quota: Quota::new(fields), meters, ..Self::default() }
    }

    /// A limit, or one of its windows, has looked at the request.
    pub(super) fn count(&self, meter: usize, outcome: LimitOutcome) {
        if let Some(meter) = self.meters.get(meter) {
            meter.count(outcome);
        }
    }

    /// The request is over a limit that lets it pass.
    pub(super) fn note_over(&mut self, limit: &'p Limit, item: &'p str) {
        let action = match &limit.over {
            Over::Refuse => return,
            Over::Shadow => "shadow",
            Over::Mark(header) => {
                self.mark(header, &limit.name);
                "mark"
            }
        };
        self.over.push((item, action));
    }

    /// Adds a limit to the list in `header`.
    pub(super) fn mark(&mut self, header: &HeaderName, limit: &str) {
        let known = self.marks.iter().position(|(name, _)| name == header);
        let list = match known
            .and_then(|at| self.marks.swap_remove(at).1.to_str().ok().map(str::to_owned))
        {
            Some(list) if list.split(", ").any(|one| one == limit) => list,
            Some(list) => list + ", " + limit,
            None => limit.to_owned(),
        };
        // Names of the configuration are visible ASCII, which every header value may hold.
        if let Ok(list) = HeaderValue::try_from(list) {
            self.marks.push((header.clone(), list));
        }
    }
}
