//! What the cache did with one request, for `Cache-Status`, the log and the metrics.

use crate::cache::{CacheStatus, Forward};

/// Written by the cache while it works; nothing here is decided from it.
#[derive(Debug, Default)]
pub(in crate::proxy) struct CacheNotes {
    /// Whether the client may know the key and the detail.
    is_debugged: bool,
    verdict: Option<&'static str>,
    /// Why the request was not answered from what is stored.
    forward: Option<Forward>,
    status: Option<CacheStatus<'static>>,
    key: Option<String>,
    detail: Option<&'static str>,
}

impl CacheNotes {
    /// Nothing yet.
    pub(in crate::proxy) fn new(is_debugged: bool) -> Self {
        Self { is_debugged, ..Self::default() }
    }

    /// Whether it is worth finding out what only trusted clients are told.
    pub(super) fn is_debugged(&self) -> bool {
        self.is_debugged
    }

    /// The response is looked up under `key`.
    pub(super) fn note_key(&mut self, key: &str) {
        if self.is_debugged {
            self.key = Some(key.to_owned());
        }
    }

    /// What happened, beyond what everybody is told.
    pub(super) fn note_detail(&mut self, detail: &'static str) {
        self.detail = Some(detail).filter(|_| self.is_debugged);
    }

    /// The request goes on to the upstream.
    pub(super) fn note_forward(&mut self, why: Forward) {
        self.forward = Some(why);
    }

    /// The word for the log.
    pub(super) fn note_verdict(&mut self, verdict: &'static str) {
        self.verdict = Some(verdict);
    }

    /// What the client is told.
    pub(super) fn note_status(&mut self, status: CacheStatus<'static>) {
        self.status = Some(status);
    }

    /// What the log tells.
    pub(in crate::proxy) fn verdict(&self) -> Option<&'static str> {
        self.verdict
    }

    /// This gateway's member of `Cache-Status`; nothing where the route has no cache.
    pub(in crate::proxy) fn status(&self) -> Option<CacheStatus<'_>> {
        let passed = || self.forward.map(|why| CacheStatus::forwarded(why, false));
        let status = self.status.or_else(passed)?;
        Some(CacheStatus { key: self.key.as_deref(), detail: self.detail, ..status })
    }
}
