//! Whether a server is avoided: it took no connection, or new connections to it end without an
//! answer.
//!
//! An avoided server gets one request per `fail_timeout`, and all of its share again once it has
//! answered. Outlier detection and probes belong here, too: what they need to know is what
//! [`Health::note`] is told. None of it refuses a request, as a single server is used whatever is
//! known of it: that is a breaker's part, which `AdmissionControl` asks.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What an attempt says of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// It lives, whatever it answered.
    Answered,
    /// It took no connection, or nothing on one.
    Refused,
    /// A new connection ended without an answer. One may be the fault of what was asked.
    Lost,
    /// Nothing: somebody else may be the cause.
    Nothing,
}

/// The health of one server, as its requests see it.
#[derive(Debug)]
pub(super) struct Health {
    fail_timeout_ms: u64,
    began: Instant,
    /// Until when others are preferred, in milliseconds since `began` plus one; 0 for not at all.
    avoided_until: AtomicU64,
    /// New connections in a row that ended without an answer.
    losses: AtomicU32,
}

impl Health {
    /// Of a server of which nothing is known yet.
    pub(super) fn new(fail_timeout: Duration) -> Self {
        Self {
            fail_timeout_ms: millis(fail_timeout),
            began: Instant::now(),
            avoided_until: AtomicU64::new(0),
            losses: AtomicU32::new(0),
        }
    }

    /// Whether others are preferred: until it has answered again.
    pub(super) fn is_avoided(&self) -> bool {
        self.avoided_until.load(Ordering::Relaxed) != 0
    }

    /// Whether it was avoided for `fail_timeout`, and the one who asks is to try it. The next one
    /// is told so after as long again.
    pub(super) fn is_due(&self) -> bool {
        let until = self.avoided_until.load(Ordering::Relaxed);
        if until == 0 || self.now() < until {
            return false;
        }
        let order = Ordering::Relaxed;
        self.avoided_until.compare_exchange(until, self.later(), order, order).is_ok()
    }

    /// Learns from an attempt.
    pub(super) fn note(&self, report: Report) {
        match report {
            Report::Answered => {
                // Written only where something changes: all cores read it.
                if self.losses.load(Ordering::Relaxed) != 0 {
                    self.losses.store(0, Ordering::Relaxed);
                }
                if self.avoided_until.load(Ordering::Relaxed) != 0 {
                    self.avoided_until.store(0, Ordering::Relaxed);
                }
            }
            Report::Refused => self.avoid(),
            Report::Lost => {
                if self.losses.fetch_add(1, Ordering::Relaxed) > 0 {
                    self.avoid();
                }
            }
            Report::Nothing => {}
        }
    }

    fn avoid(&self) {
        self.avoided_until.store(self.later(), Ordering::Relaxed);
    }

    fn later(&self) -> u64 {
        self.now().saturating_add(self.fail_timeout_ms)
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed()).saturating_add(1)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAIL_TIMEOUT: Duration = Duration::from_secs(5);

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_refuses_is_avoided_until_he_answers() {
        let health = Health::new(FAIL_TIMEOUT);
        assert!(!health.is_avoided() && !health.is_due());
        health.note(Report::Refused);
        assert!(health.is_avoided());
        // Time alone makes it due, and changes nothing else.
        pass(FAIL_TIMEOUT * 3).await;
        assert!(health.is_avoided());
        health.note(Report::Answered);
        assert!(!health.is_avoided() && !health.is_due());
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_per_fail_timeout_tries_it() {
        let health = Health::new(FAIL_TIMEOUT);
        health.note(Report::Refused);
        pass(FAIL_TIMEOUT - Duration::from_millis(1)).await;
        assert!(!health.is_due());
        pass(Duration::from_millis(1)).await;
        assert!(health.is_due());
        assert!(!health.is_due(), "the one before tries it");
        pass(FAIL_TIMEOUT).await;
        assert!(health.is_due());
        // It refuses again: as long again from now on.
        pass(FAIL_TIMEOUT / 2).await;
        health.note(Report::Refused);
        pass(FAIL_TIMEOUT / 2).await;
        assert!(!health.is_due());
        pass(FAIL_TIMEOUT / 2).await;
        assert!(health.is_due());
    }

    #[tokio::test(start_paused = true)]
    async fn one_lost_connection_is_nothing_and_two_in_a_row_are() {
        let health = Health::new(FAIL_TIMEOUT);
        health.note(Report::Lost);
        assert!(!health.is_avoided());
        health.note(Report::Answered);
        health.note(Report::Lost);
        health.note(Report::Nothing);
        assert!(!health.is_avoided());
        health.note(Report::Lost);
        assert!(health.is_avoided());
        health.note(Report::Answered);
        health.note(Report::Lost);
        assert!(!health.is_avoided());
    }
}
