//! What limits did to a request, for the log line and the metrics.

use super::Record;
use crate::runtime::Running;

impl Record {
    /// What limits did: the word for the log.
    pub(in crate::proxy) fn note_limits(&mut self, limits: &'static str) {
        self.limits = limits;
    }

    /// The limits that the request is over all the same, and what they do about it.
    pub(in crate::proxy) fn note_over(&mut self, over: &[(&str, &'static str)], running: &Running) {
        for (limit, action) in over {
            count_over(limit, running);
            self.limits = action;
        }
    }

    /// A limit refuses the request.
    pub(super) fn note_exceeded(&mut self, limit: &str, running: &Running) {
        count_over(limit, running);
        // Where nothing was asked of the store, this node knew.
        let was_asked = self.store_time.is_some();
        self.limits = if was_asked { "refused" } else { "denied-locally" };
    }
}

/// Counts a request over a limit, refused or not.
fn count_over(limit: &str, running: &Running) {
    if let Some(meter) = running.over_limit.get(limit) {
        meter.over();
    }
}
