//! The rung of one server, and what requests read of it: how many questions may be in flight on one
//! connection. That is one load; the ladder itself is behind a lock, which only changes and counts
//! take.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::rung::{Cause, Change, Counts, Ladder, Rung};

/// See the module.
#[derive(Debug)]
pub(super) struct Breaker {
    started: Instant,
    ladder: Mutex<Ladder>,
    /// Most questions in flight on one connection now.
    most: AtomicU64,
    /// The same while all is well, `store.max_in_flight`.
    max_in_flight: u64,
}

impl Breaker {
    /// Of a server that was not reached yet.
    pub(super) fn new(max_in_flight: usize) -> Self {
        Self {
            started: Instant::now(),
            ladder: Mutex::default(),
            most: AtomicU64::new(0),
            max_in_flight: u64::try_from(max_in_flight).unwrap_or(u64::MAX),
        }
    }

    /// Most questions in flight on one connection; 0 where nothing is asked.
    pub(super) fn most(&self) -> u64 {
        self.most.load(Relaxed)
    }

    /// Whether nothing is asked.
    pub(super) fn is_open(&self) -> bool {
        self.most() == 0
    }

    /// Whether the server was open and must show by probes that it serves.
    pub(super) fn wants_probes(&self) -> bool {
        self.lock().wants_probes()
    }

    /// The server is not to be asked any more, if `is_so` still holds when nobody else changes
    /// anything. What is to be said of it, as that of all that follow.
    pub(super) fn fail(&self, cause: Cause, is_so: impl FnOnce() -> bool) -> Option<Change> {
        let mut ladder = self.lock();
        if is_so() {
            ladder.fail(self.now(), cause);
        }
        self.settle(&ladder);
        ladder.news(self.now())
    }

    /// A probe was good. Where the server is asked then, `publish` is done before anybody can say
    /// that it is not.
    pub(super) fn probe(&self, publish: impl FnOnce()) -> (bool, Option<Change>) {
        let mut ladder = self.lock();
        ladder.probe(self.now());
        let is_asked = ladder.rung() != Rung::Open;
        if is_asked {
            publish();
        }
        self.settle(&ladder);
        (is_asked, ladder.news(self.now()))
    }

    /// A probe was not good.
    pub(super) fn fail_probe(&self) {
        self.lock().fail_probe();
    }

    /// Takes what was counted since the last time. Whether the server is open because of it.
    pub(super) fn count(&self, counts: Counts) -> (bool, Option<Change>) {
        let mut ladder = self.lock();
        let change = ladder.count(self.now(), counts);
        self.settle(&ladder);
        let has_opened = change.is_some_and(|change| change.to == Rung::Open);
        (has_opened, ladder.news(self.now()))
    }

    /// The rung, for how long, and why.
    pub(super) fn standing(&self) -> (Rung, Duration, Cause) {
        let ladder = self.lock();
        let (since, cause) = ladder.reached();
        (ladder.rung(), self.now().saturating_sub(since), cause)
    }

    fn settle(&self, ladder: &Ladder) {
        let most = match ladder.rung() {
            Rung::Healthy | Rung::Recovering => self.max_in_flight,
            Rung::Slow => (self.max_in_flight / 2).max(1),
            Rung::Open => 0,
        };
        // A store only when it changes: the line stays shared between cores.
        if self.most() != most {
            self.most.store(most, Relaxed);
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Ladder> {
        self.ladder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn the_bound_follows_the_rung() {
        let breaker = Breaker::new(5);
        assert!(breaker.is_open() && !breaker.wants_probes(), "it was not reached yet");
        let mut is_put = false;
        assert!(breaker.probe(|| is_put = true).0 && is_put);
        assert_eq!(breaker.most(), 5);
        breaker.count(Counts { asked: 100, missed: 1, late: 0 });
        assert_eq!((breaker.most(), breaker.standing().0), (2, Rung::Slow));
        breaker.fail(Cause::Lost, || false);
        assert_eq!(breaker.most(), 2, "another one stands");
        assert!(!breaker.wants_probes() && breaker.fail(Cause::Lost, || true).is_some());
        assert!(breaker.wants_probes());
        for is_asked in [false, false, true] {
            advance(Duration::from_millis(50)).await;
            let mut is_put = false;
            assert_eq!((breaker.probe(|| is_put = true).0, breaker.is_open()), (is_asked, !is_put));
            assert_eq!(is_put, is_asked);
        }
        assert_eq!(breaker.standing(), (Rung::Recovering, Duration::ZERO, Cause::Probed(3)));
    }

    #[test]
    fn a_slow_server_is_asked_at_least_one_question() {
        let breaker = Breaker::new(1);
        breaker.probe(|| {});
        breaker.count(Counts { asked: 100, missed: 1, late: 0 });
        assert_eq!((breaker.standing().0, breaker.most()), (Rung::Slow, 1));
    }
}
