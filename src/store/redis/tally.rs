//! What becomes of questions, counted where they are asked: each connection's place has a tally of
//! its own, on cache lines that one thread writes. What a store counted is the sum of all, also of
//! those whose connections are gone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::rung::Counts;

/// What became of the questions on one connection and those that replaced it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Tally {
    entered: AtomicU64,
    answered: AtomicU64,
    missed: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    shed: AtomicU64,
    /// Those for which there was no connection, or none that is asked.
    open: AtomicU64,
    /// Of those that were answered.
    late: AtomicU64,
    /// Of those that were not in time: on a connection that had been given up before.
    past: AtomicU64,
}

impl Tally {
    /// One more question, where fewer than `most` are in flight; with 0 nothing is asked.
    pub(super) fn enter(&self, most: u64) -> Option<Place<'_>> {
        let before = self.entered.fetch_add(1, Relaxed);
        // What ended meanwhile may have entered later.
        if before.saturating_sub(self.ended()) < most {
            return Some(Place { tally: self, end: &self.cancelled });
        }
        let refused = if most == 0 { &self.open } else { &self.shed };
        refused.fetch_add(1, Relaxed);
        None
    }

    /// There was no connection for a question.
    pub(super) fn note_open(&self) {
        drop(self.enter(0));
    }

    fn ended(&self) -> u64 {
        let Self { answered, missed, failed, cancelled, shed, open, .. } = self;
        [answered, missed, failed, cancelled, shed, open].iter().map(|it| it.load(Relaxed)).sum()
    }

    /// Those that have not come to an end.
    fn in_flight(&self) -> u64 {
        // First: what begins and ends in between must not end before it began.
        let entered = self.entered.load(Relaxed);
        entered.saturating_sub(self.ended())
    }

    /// All of it until now.
    fn read(&self) -> Asked {
        Asked {
            answered: self.answered.load(Relaxed),
            late: self.late.load(Relaxed),
            missed: self.missed.load(Relaxed),
            failed: self.failed.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            shed: self.shed.load(Relaxed),
            open: self.open.load(Relaxed),
        }
    }

    /// What says how well the server serves, until now: nothing of what became of questions after
    /// their connection was given up.
    pub(super) fn counts(&self) -> Counts {
        let past = self.past.load(Relaxed);
        let Asked { answered, missed, late, .. } = self.read();
        let missed = missed.saturating_sub(past);
        Counts { asked: answered + missed, missed, late }
    }
}

/// A question in flight. Dropped without a word, whoever asked has gone.
#[derive(Debug)]
pub(super) struct Place<'a> {
    tally: &'a Tally,
    end: &'a AtomicU64,
}

impl Place<'_> {
    /// It was answered; `is_late`, after half of its time.
    pub(super) fn answered(mut self, is_late: bool) {
        self.end = &self.tally.answered;
        if is_late {
            self.tally.late.fetch_add(1, Relaxed);
        }
    }

    /// It was not answered in time; `is_past`, on a connection that had been given up before.
    pub(super) fn missed(mut self, is_past: bool) {
        self.end = &self.tally.missed;
        if is_past {
            self.tally.past.fetch_add(1, Relaxed);
        }
    }

    /// Its connection failed.
    pub(super) fn failed(mut self) {
        self.end = &self.tally.failed;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.end.fetch_add(1, Relaxed);
    }
}

/// What became of questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Answered in time.
    pub answered: u64,
    /// Of these, after half of it.
    pub late: u64,
    /// Not answered in time.
    pub missed: u64,
    /// Asked on a connection that failed.
    pub failed: u64,
    /// Given up by whoever asked.
    pub cancelled: u64,
    /// Not asked: too many were in flight.
    pub shed: u64,
    /// Not asked: the server was open, or not known.
    pub open: u64,
}

impl Asked {
    fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            late: self.late + other.late,
            missed: self.missed + other.missed,
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
            shed: self.shed + other.shed,
            open: self.open + other.open,
        }
    }
}

/// The tallies of a store.
#[derive(Debug, Default)]
pub(super) struct Tallies(Mutex<(Asked, Vec<Arc<Tally>>)>);

impl Tallies {
    /// One more.
    pub(super) fn add(&self) -> Arc<Tally> {
        let tally = Arc::default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.1.push(Arc::clone(&tally));
        settle(&mut all);
        tally
    }

    /// The sum of all, also of those that are gone. It never falls.
    pub(super) fn sum(&self) -> Asked {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        settle(&mut all);
        let (gone, tallies) = &*all;
        tallies.iter().map(|tally| tally.read()).fold(*gone, Asked::and)
    }

    /// How many questions are in flight, and how many may be where each connection has `most`.
    pub(super) fn in_flight(&self, most: u64) -> (u64, u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        settle(&mut all);
        let now = all.1.iter().map(|tally| tally.in_flight()).sum();
        (now, most.saturating_mul(all.1.len() as u64))
    }
}

/// Keeps of those that nobody counts with any more their sum alone.
fn settle((gone, tallies): &mut (Asked, Vec<Arc<Tally>>)) {
    tallies.retain(|tally| {
        let is_used = Arc::strong_count(tally) > 1;
        if !is_used {
            *gone = gone.and(tally.read());
        }
        is_used
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_counted_once_by_what_became_of_it() {
        let tally = Tally::default();
        let place = || tally.enter(9).expect("a place");
        place().answered(false);
        place().answered(true);
        place().missed(false);
        place().failed();
        drop(place());
        tally.note_open();
        assert!(tally.enter(0).is_none());
        let expected =
            Asked { answered: 2, late: 1, missed: 1, failed: 1, cancelled: 1, shed: 0, open: 2 };
        assert_eq!(tally.read(), expected);
        let counts = Counts { asked: 3, missed: 1, late: 1 };
        assert_eq!(tally.counts(), counts);
        place().missed(true);
        assert_eq!((tally.counts(), tally.read().missed), (counts, 2), "it says nothing of now");
    }

    #[test]
    fn no_more_than_the_bound_are_in_flight() {
        let tally = Tally::default();
        let mut places: Vec<_> = (0..3).map(|_| tally.enter(3).expect("a place")).collect();
        for shed in 1..=2 {
            assert!(tally.enter(3).is_none());
            assert_eq!(tally.read().shed, shed);
        }
        assert!(tally.enter(4).is_some(), "one whose bound is higher, and it leaves at once");
        places.pop().expect("one").answered(false);
        assert!(tally.enter(3).is_some(), "there is room again");
        assert!(tally.enter(1).is_none(), "a bound that has fallen holds at once");
    }

    #[test]
    fn what_is_in_flight_stands_beside_its_bound() {
        let all = Tallies::default();
        let (one, other) = (all.add(), all.add());
        let place = |tally| Tally::enter(tally, 3).expect("a place");
        let (first, second) = (place(&one), place(&other));
        one.note_open();
        assert_eq!(all.in_flight(3), (2, 6));
        first.answered(false);
        drop(second);
        assert_eq!(all.in_flight(3), (0, 6));
        drop(other);
        assert_eq!(all.in_flight(3), (0, 3));
    }

    #[test]
    fn what_was_counted_outlives_who_counted() {
        let all = Tallies::default();
        for round in 1..=3 {
            let tally = all.add();
            tally.enter(1).expect("a place").answered(false);
            tally.note_open();
            let expected = Asked { answered: round, open: round, ..Asked::default() };
            assert_eq!(all.sum(), expected);
            drop(tally);
            assert_eq!(all.sum(), expected);
        }
        assert!(all.0.lock().unwrap().1.is_empty());
    }
}
