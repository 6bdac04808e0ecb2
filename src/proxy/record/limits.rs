//! What limits did to a request, for the log line.

use super::Record;

impl Record {
    /// What limits did: the word for the log.
    pub(in crate::proxy) fn note_limits(&mut self, limits: &'static str) {
        self.limits = limits;
    }

    /// The limits that the request is over all the same, and what they do about it.
    pub(in crate::proxy) fn note_over(&mut self, over: &[(&str, &'static str)]) {
        if let Some((_, action)) = over.last() {
            self.limits = action;
        }
    }

    /// A limit refuses the request.
    pub(super) fn note_exceeded(&mut self) {
        // Where nothing was asked of the store, this node knew.
        let was_asked = self.store_time.is_some();
        self.limits = if was_asked { "refused" } else { "denied-locally" };
    }
}
