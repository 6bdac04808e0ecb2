//! When a request that a server may have read is sent once more.

use http::StatusCode;

use crate::config;

/// How often a request that got no answer on an old connection is sent on a new one.
const REPEATS_MAX: usize = 1;

/// When a request that a server may have read is sent once more, and how often. It must be
/// repeatable for that (`Outgoing::is_repeatable`). What nobody has read is sent again whatever
/// this says.
#[derive(Debug)]
pub(super) struct RetryPolicy {
    repeats_max: usize,
    /// The statuses after which another server is asked.
    statuses: Vec<StatusCode>,
}

impl RetryPolicy {
    /// The policy of an upstream. There are no keys for it: no answer is a reason to ask again.
    pub(super) fn of(_: &config::Upstream) -> Self {
        Self::default()
    }

    /// How often one request is sent again.
    pub(super) fn repeats_max(&self) -> usize {
        self.repeats_max
    }

    /// Whether another server is asked after an answer of this status.
    pub(super) fn retries(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status)
    }

    /// One with so many repeats, after these statuses.
    #[cfg(test)]
    pub(super) fn after(statuses: &[StatusCode], repeats_max: usize) -> Self {
        Self { repeats_max, statuses: statuses.to_vec() }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { repeats_max: REPEATS_MAX, statuses: Vec::new() }
    }
}
