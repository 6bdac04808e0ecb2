//! What the requests of one server met, counted on each thread's own cache lines, and what the
//! ticker has made of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::window::{Counts, Window};
use crate::base::shard::Counters;

/// How a request at a server failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There was no connection, or nothing was taken on one.
    Refused,
    /// A connection ended without an answer.
    Lost,
    /// No answer came in time.
    Silent,
    /// What came cannot be passed on.
    Unusable,
    /// The answer had a status from 500 on.
    Status,
    /// A gRPC call ended with status 2, 4, 13 or 14.
    Grpc,
    /// The answer broke off.
    CutOff,
}

impl Kind {
    /// All, with the words for them, by their index.
    pub(super) const WORDS: [&'static str; 7] =
        ["refused", "lost", "silent", "unusable", "status", "grpc", "cut_off"];

    /// Its word.
    pub(super) fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

/// What a request at a server came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered.
    Good,
    /// It was answered by 429: too much for the server, which is well otherwise.
    Throttled,
    /// It failed, and the server is to blame.
    Failed(Kind),
    /// Nobody can say: the client left, or broke its body, or the gateway had no room.
    Nothing,
}

/// How far back the share of good answers is looked at.
const RATIO_WINDOW: Duration = Duration::from_secs(10);

const ALL: usize = 0;
const THROTTLED: usize = 1;
const KINDS: usize = 2;
const COUNTERS: usize = KINDS + Kind::WORDS.len();

/// See the module.
#[derive(Debug)]
pub(super) struct Tally {
    counts: Counters<COUNTERS>,
    judged: Mutex<Judged>,
}

/// What was seen of some counts so far.
#[derive(Debug)]
pub(super) struct Judged {
    seen: Counts,
    window: Window,
}

impl Judged {
    /// Nothing yet, of a window of this length.
    pub(super) fn new(length: Duration) -> Self {
        Self { seen: Counts::default(), window: Window::new(length) }
    }

    /// What is in the window at `now`, of `total` counts until then.
    pub(super) fn look(&mut self, now: u64, total: Counts) -> Counts {
        self.window.add(now, total.since(self.seen));
        self.seen = total;
        self.window.sum(now)
    }

    /// Forgets what came until now.
    pub(super) fn forget(&mut self, total: Counts) {
        self.seen = total;
        self.window.clear();
    }
}

impl Tally {
    /// Of a server without requests yet.
    pub(super) fn new() -> Self {
        Self { counts: Counters::default(), judged: Mutex::new(Judged::new(RATIO_WINDOW)) }
    }

    /// Counts one request.
    pub(super) fn count(&self, outcome: Outcome) {
        if outcome == Outcome::Nothing {
            return;
        }
        // First: what is bad must never be more than all.
        self.counts.add(ALL, 1);
        match outcome {
            Outcome::Nothing | Outcome::Good => {}
            Outcome::Throttled => self.counts.add(THROTTLED, 1),
            Outcome::Failed(kind) => self.counts.add(KINDS + kind as usize, 1),
        }
    }

    /// The failures so far, by kind.
    pub(super) fn failures(&self) -> [u64; Kind::WORDS.len()] {
        std::array::from_fn(|kind| self.counts.sum(KINDS + kind))
    }

    /// What came in the last ten seconds. `now` is in milliseconds of whatever clock.
    pub(super) fn look(&self, now: u64) -> Counts {
        let total = self.total();
        self.judged().look(now, total)
    }

    /// Forgets what came until now.
    pub(super) fn forget(&self) {
        let total = self.total();
        self.judged().forget(total);
    }

    fn total(&self) -> Counts {
        let bad = self.failures().iter().sum::<u64>() + self.counts.sum(THROTTLED);
        Counts { all: self.counts.sum(ALL), bad }
    }

    fn judged(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_429_lowers_the_share_and_what_nobody_can_say_counts_nothing() {
        let tally = Tally::new();
        for outcome in [
            Outcome::Good,
            Outcome::Throttled,
            Outcome::Nothing,
            Outcome::Failed(Kind::Status),
            Outcome::Failed(Kind::CutOff),
        ] {
            tally.count(outcome);
        }
        assert_eq!(tally.failures(), [0, 0, 0, 0, 1, 0, 1]);
        assert_eq!(tally.look(100), Counts { all: 4, bad: 3 });
        // Seen once is counted once.
        assert_eq!(tally.look(200), Counts { all: 4, bad: 3 });
        tally.count(Outcome::Good);
        tally.forget();
        assert_eq!(tally.look(300), Counts::default());
        tally.count(Outcome::Failed(Kind::Lost));
        assert_eq!(tally.look(400), Counts { all: 1, bad: 1 });
    }
}
