//! The circuit breaker of a whole upstream: while it is open, requests are refused at once.
//!
//! It is closed until too many requests have failed, then open for some time, and then half open: a
//! few requests try the upstream, exactly as many as were asked for, whatever the number of cores,
//! because all of them take their turn from one word. If all go well it is closed; if one fails it
//! is open again, for longer. Times are arguments, in milliseconds of whatever clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
const STATE: u64 = 3;

/// When it is half open at the earliest; then, when those that try the upstream take too long.
const TIME: Field = Field { shift: 2, bits: 40 };
/// Requests that try the upstream.
const BEGUN: Field = Field { shift: 42, bits: 6 };
/// Those of them that went well.
const GOOD: Field = Field { shift: 48, bits: 6 };
/// How often it has opened in a row.
const TIMES: Field = Field { shift: 54, bits: 4 };
/// Counts the rounds, so that a late request decides nothing in a later one.
const ROUND: Field = Field { shift: 58, bits: 6 };

/// What a client is told to wait while others try the upstream.
const SOON: Duration = Duration::from_secs(1);

/// Some bits of the word.
#[derive(Clone, Copy)]
struct Field {
    shift: u32,
    bits: u32,
}

impl Field {
    fn most(self) -> u64 {
        (1 << self.bits) - 1
    }

    fn of(self, word: u64) -> u64 {
        word >> self.shift & self.most()
    }

    fn set(self, word: u64, value: u64) -> u64 {
        word & !(self.most() << self.shift) | (value & self.most()) << self.shift
    }
}

/// Whether a request may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It may.
    Closed(Round),
    /// It may: what tried it before was enough, and it is closed from now on.
    Closes(Round),
    /// It may, and its fate is to be told.
    Probe(Round),
    /// It may not, for so long.
    Refused(Duration),
}

/// The round in which a request begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round(u64);

/// What the fate of such a request has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing yet.
    None,
    /// All went well.
    Closed,
    /// It is open again.
    Opened,
}

/// What holds when somebody asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<F> {
    /// The time.
    pub(super) now: u64,
    /// How many requests try the upstream.
    pub(super) probes: u8,
    /// How long they may do so before others do, in milliseconds.
    pub(super) patience: u64,
    /// How long it is open, of how often it has opened in a row.
    pub(super) time: F,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Breaker(AtomicU64);

impl Breaker {
    /// Lets a request begin, or says how long it is refused.
    pub(super) fn enter<F>(&self, terms: &Terms<F>) -> Entry {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let tried = match word & STATE {
                CLOSED => return Entry::Closed(Round(ROUND.of(word))),
                OPEN => {
                    let left = TIME.of(word).saturating_sub(terms.now);
                    if left > 0 {
                        return Entry::Refused(Duration::from_millis(left));
                    }
                    half_opened(word, terms)
                }
                // Fewer are asked for than were when it began: no further one will close it.
                _ if GOOD.of(word) >= u64::from(terms.probes) => {
                    let closed = ROUND.set(CLOSED, ROUND.of(word));
                    let order = (Ordering::AcqRel, Ordering::Relaxed);
                    match self.0.compare_exchange(word, closed, order.0, order.1) {
                        Ok(_) => return Entry::Closes(Round(ROUND.of(word))),
                        Err(other) => word = other,
                    }
                    continue;
                }
                _ if BEGUN.of(word) < u64::from(terms.probes) => word,
                // Uploads may take for ever, and nobody else would be let in meanwhile. What they
                // come to counts all the same.
                _ if TIME.of(word) <= terms.now => {
                    TIME.set(BEGUN.set(word, GOOD.of(word)), lost_at(terms))
                }
                _ => return Entry::Refused(SOON),
            };
            let next = BEGUN.set(tried, BEGUN.of(tried) + 1);
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            match self.0.compare_exchange_weak(word, next, order.0, order.1) {
                Ok(_) => return Entry::Probe(Round(ROUND.of(next))),
                Err(other) => word = other,
            }
        }
    }

    /// How a request that tries the upstream went; nothing where nobody can say, and another one is
    /// to try it.
    pub(super) fn settle(
        &self,
        round: Round,
        is_good: Option<bool>,
        terms: &Terms<impl Fn(u64) -> Duration>,
    ) -> Change {
        let mut change = Change::None;
        let next = |word: u64| {
            change = Change::None;
            if word & STATE != HALF_OPEN || ROUND.of(word) != round.0 {
                return None;
            }
            let good = GOOD.of(word) + 1;
            Some(match is_good {
                None => BEGUN.set(word, BEGUN.of(word).saturating_sub(1)),
                Some(true) if good < u64::from(terms.probes) => GOOD.set(word, good),
                Some(true) => {
                    change = Change::Closed;
                    ROUND.set(CLOSED, ROUND.of(word))
                }
                Some(false) => {
                    change = Change::Opened;
                    opened(word, terms)
                }
            })
        };
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
        change
    }

    /// Opens it, if it is closed.
    pub(super) fn open(&self, terms: &Terms<impl Fn(u64) -> Duration>) -> bool {
        let next = |word: u64| (word & STATE == CLOSED).then(|| opened(word, terms));
        self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next).is_ok()
    }

    /// Closes it, whatever is known.
    pub(super) fn close(&self) -> bool {
        let next = |word: u64| {
            let is_closed = word & STATE == CLOSED;
            // What began before is of another round.
            (!is_closed).then(|| ROUND.set(CLOSED, ROUND.of(word) + 1))
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next).is_ok()
    }

    /// The round, where all requests may begin.
    pub(super) fn closed(&self) -> Option<Round> {
        let word = self.0.load(Ordering::Relaxed);
        (word & STATE == CLOSED).then(|| Round(ROUND.of(word)))
    }

    /// Whether a request of this round began since it was closed.
    pub(super) fn is_in(&self, round: Round) -> bool {
        ROUND.of(self.0.load(Ordering::Relaxed)) == round.0
    }

    /// What it is, in one word.
    pub(super) fn state(&self) -> &'static str {
        match self.0.load(Ordering::Relaxed) & STATE {
            CLOSED => "closed",
            OPEN => "open",
            _ => "half_open",
        }
    }

    /// How long requests are refused yet; nothing where they are not. It only looks.
    pub(super) fn refuses<F>(&self, terms: &Terms<F>) -> Option<Duration> {
        let word = self.0.load(Ordering::Relaxed);
        let left = Duration::from_millis(TIME.of(word).saturating_sub(terms.now));
        match word & STATE {
            OPEN => Some(left).filter(|left| !left.is_zero()),
            HALF_OPEN if GOOD.of(word) >= u64::from(terms.probes) => None,
            HALF_OPEN if BEGUN.of(word) >= u64::from(terms.probes) => {
                (!left.is_zero()).then_some(SOON)
            }
            _ => None,
        }
    }
}

/// The beginning of a round in which requests try the upstream.
fn half_opened<F>(word: u64, terms: &Terms<F>) -> u64 {
    let next = ROUND.set(word, ROUND.of(word) + 1) & !STATE | HALF_OPEN;
    TIME.set(BEGUN.set(GOOD.set(next, 0), 0), lost_at(terms))
}

/// When requests that begin to try the upstream now take too long.
fn lost_at<F>(terms: &Terms<F>) -> u64 {
    terms.now.saturating_add(terms.patience).min(TIME.most())
}

fn opened(word: u64, terms: &Terms<impl Fn(u64) -> Duration>) -> u64 {
    let times = (TIMES.of(word) + 1).min(TIMES.most());
    let time = u64::try_from((terms.time)(times).as_millis()).unwrap_or(u64::MAX);
    let until = terms.now.saturating_add(time).min(TIME.most());
    TIMES.set(TIME.set(word, until), times) & !STATE | OPEN
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Three try it; it is open twice as long each time.
    fn at(now: u64) -> Terms<impl Fn(u64) -> Duration> {
        Terms { now, probes: 3, patience: 60_000, time: |times| SECOND * (1_u32 << (times - 1)) }
    }

    fn closed(round: u64) -> Entry {
        Entry::Closed(Round(round))
    }

    fn probe(breaker: &Breaker, now: u64) -> Round {
        match breaker.enter(&at(now)) {
            Entry::Probe(round) => round,
            other => panic!("{other:?}"),
        }
    }

    /// One that is half open from 1,000 on.
    fn opened() -> Breaker {
        let breaker = Breaker::default();
        assert!(breaker.open(&at(0)) && !breaker.open(&at(0)));
        breaker
    }

    #[test]
    fn others_try_it_where_those_who_do_take_too_long() {
        let breaker = Breaker::default();
        assert!(breaker.open(&at(0)));
        let slow = probe(&breaker, 1_000);
        probe(&breaker, 1_000);
        probe(&breaker, 1_000);
        assert_eq!(breaker.enter(&at(60_999)), Entry::Refused(SOON));
        assert_eq!(breaker.refuses(&at(60_999)), Some(SOON));
        assert_eq!(breaker.refuses(&at(61_000)), None);
        let tries = [(); 3].map(|()| probe(&breaker, 61_000));
        assert_eq!(breaker.enter(&at(61_000)), Entry::Refused(SOON));
        // What the slow ones come to counts all the same, and fewer are wanted next time.
        assert_eq!(breaker.settle(slow, Some(true), &at(61_001)), Change::None);
        probe(&breaker, 121_000);
        probe(&breaker, 121_000);
        assert_eq!(breaker.enter(&at(121_000)), Entry::Refused(SOON));
        for (round, change) in tries.into_iter().zip([Change::None, Change::Closed]) {
            assert_eq!(breaker.settle(round, Some(true), &at(121_001)), change);
        }
    }

    #[test]
    fn it_refuses_until_its_time_is_over() {
        let breaker = Breaker::default();
        assert_eq!((breaker.enter(&at(5)), breaker.refuses(&at(5))), (closed(0), None));
        let breaker = opened();
        assert_eq!((breaker.enter(&at(0)), breaker.state()), (Entry::Refused(SECOND), "open"));
        assert_eq!(breaker.refuses(&at(0)), Some(SECOND));
        assert_eq!(breaker.enter(&at(500)), Entry::Refused(SECOND / 2));
        assert_eq!(breaker.refuses(&at(1_000)), None);
        probe(&breaker, 1_000);
        assert_eq!((breaker.state(), breaker.closed()), ("half_open", None));
    }

    #[test]
    fn it_closes_when_all_have_gone_well() {
        let breaker = opened();
        let rounds = [0; 3].map(|_| probe(&breaker, 1_000));
        assert_eq!(breaker.enter(&at(9_000)), Entry::Refused(SOON));
        let settle = |round| breaker.settle(round, Some(true), &at(1_000));
        assert_eq!(settle(rounds[0]), Change::None);
        assert_eq!(settle(rounds[1]), Change::None);
        // As many as there are: those that went well free no place.
        assert_eq!(breaker.enter(&at(1_000)), Entry::Refused(SOON));
        assert_eq!(breaker.refuses(&at(1_000)), Some(SOON));
        assert_eq!(settle(rounds[2]), Change::Closed);
        assert_eq!(breaker.enter(&at(1_000)), closed(1));
        // What comes late decides nothing.
        assert_eq!(breaker.settle(rounds[0], Some(false), &at(1_000)), Change::None);
        assert_eq!(breaker.closed(), Some(Round(1)));
        // What began before it opened is of another round.
        assert!(breaker.is_in(Round(1)) && !breaker.is_in(Round(0)));
        // It begins with the shortest time again.
        breaker.open(&at(2_000));
        assert_eq!(breaker.enter(&at(2_000)), Entry::Refused(SECOND));
    }

    #[test]
    fn one_failure_opens_it_for_longer() {
        let breaker = opened();
        let rounds = [0; 2].map(|_| probe(&breaker, 1_000));
        assert_eq!(breaker.settle(rounds[0], Some(false), &at(1_000)), Change::Opened);
        assert_eq!(breaker.enter(&at(1_000)), Entry::Refused(SECOND * 2));
        let next = probe(&breaker, 3_000);
        // One of the round before.
        assert_eq!(breaker.settle(rounds[1], Some(false), &at(3_000)), Change::None);
        assert_eq!(breaker.state(), "half_open");
        assert_eq!(breaker.settle(next, Some(false), &at(3_000)), Change::Opened);
        assert_eq!(breaker.enter(&at(3_000)), Entry::Refused(SECOND * 4));
    }

    #[test]
    fn who_says_nothing_leaves_the_place_to_another() {
        let breaker = opened();
        let rounds = [0; 3].map(|_| probe(&breaker, 1_000));
        assert_eq!(breaker.enter(&at(1_000)), Entry::Refused(SOON));
        assert_eq!(breaker.settle(rounds[1], None, &at(1_000)), Change::None);
        probe(&breaker, 1_000);
        assert_eq!(breaker.enter(&at(1_000)), Entry::Refused(SOON));
        assert!(breaker.close() && !breaker.close());
        assert_eq!(breaker.enter(&at(1_000)), closed(2));
    }

    /// A reload may ask for fewer than have gone well already.
    #[test]
    fn it_closes_where_fewer_are_asked_for() {
        let breaker = opened();
        let rounds = [0; 2].map(|_| probe(&breaker, 1_000));
        breaker.settle(rounds[0], Some(true), &at(1_000));
        let one = Terms { probes: 1, ..at(1_000) };
        assert_eq!(breaker.refuses(&one), None);
        assert_eq!(breaker.enter(&one), Entry::Closes(Round(1)));
        assert_eq!(breaker.enter(&one), closed(1));
    }

    #[test]
    fn exactly_as_many_as_were_asked_for_try_it() {
        const THREADS: usize = 16;
        for _ in 0..100 {
            let (breaker, all_are_here) = (opened(), Barrier::new(THREADS));
            let tried: usize = std::thread::scope(|scope| {
                let one = || {
                    all_are_here.wait();
                    let entries = (0..64).map(|_| breaker.enter(&at(1_000)));
                    entries.filter(|entry| matches!(entry, Entry::Probe(_))).count()
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(tried, 3);
        }
    }
}
