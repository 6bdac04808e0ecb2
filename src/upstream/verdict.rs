//! Whether a server is to be used: the one place that says so.
//!
//! Everything that is known against a server is one word, which picks read and nothing else: it
//! changes rarely, so that it stays in the caches of all cores. What changes it is a pure function
//! from one [`Word`] to the next.
//!
//! A server may be *avoided* (it took no connection, or new ones ended without an answer): others
//! are preferred, and one request per `fail_timeout` tries it until it answers. Or it is *out*:
//! ejected for what its requests met, down by its active checks, out because other gateways have
//! ejected it, or taken out by hand. An ejected one is tried by one request when its time is over,
//! and the fate of that decides.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::shard::Padded;

/// By an operator, until he takes it back.
const BY_HAND: u64 = 1;
/// By its active checks, until they say otherwise.
const DOWN: u64 = 1 << 1;
/// By what its requests met, until a request or a check that tries it goes well.
const EJECTED: u64 = 1 << 2;
/// Others are preferred.
const AVOIDED: u64 = 1 << 3;
/// A request tries it although it is ejected.
const PROBING: u64 = 1 << 4;
/// It is back, and its share grows.
const SLOW: u64 = 1 << 5;
/// By what its requests met at other gateways, until these say otherwise.
const ELSEWHERE: u64 = 1 << 6;

const OUT: u64 = BY_HAND | DOWN | EJECTED | ELSEWHERE;
/// What no time ends.
const UNTIMED: u64 = BY_HAND | DOWN | ELSEWHERE;
const FLAGS: u64 = (1 << TIME_SHIFT) - 1;

/// A time of the server's clock: the end of what it is in, or else its begin.
const TIME_SHIFT: u32 = 7;
const TIME_BITS: u32 = 40;
/// Ejections in a row.
const TIMES_SHIFT: u32 = TIME_SHIFT + TIME_BITS;
const TIMES_BITS: u32 = 8;
/// Counts the requests that tried it, so that a late one decides nothing.
const TOKEN_SHIFT: u32 = TIMES_SHIFT + TIMES_BITS;

/// The share with which a server begins that is back, in percent.
const SLOW_PERCENT_MIN: u64 = 10;
/// After so long without an ejection there was one less in a row, in milliseconds.
const QUIET_MS: u64 = 10_000;

/// A request that tries an ejected server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(u64);

/// What is known against a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Word(u64);

impl Word {
    /// Whether nothing is.
    pub(super) fn is_clean(self) -> bool {
        self.0 & FLAGS == 0
    }

    /// Whether it is in, be it avoided or slow.
    pub(super) fn is_usable(self) -> bool {
        self.0 & OUT == 0
    }

    /// Whether others are preferred.
    pub(super) fn is_avoided(self) -> bool {
        self.0 & AVOIDED != 0
    }

    /// Whether an operator has taken it out.
    pub(super) fn is_by_hand(self) -> bool {
        self.0 & BY_HAND != 0
    }

    /// Whether its checks say that it is down.
    pub(super) fn is_down(self) -> bool {
        self.0 & DOWN != 0
    }

    /// Whether it is ejected.
    pub(super) fn is_ejected(self) -> bool {
        self.0 & EJECTED != 0
    }

    /// Whether it is out because other gateways have ejected it.
    pub(super) fn is_out_elsewhere(self) -> bool {
        self.0 & ELSEWHERE != 0
    }

    /// Whether a request tries it.
    pub(super) fn is_probing(self) -> bool {
        self.0 & PROBING != 0
    }

    /// Whether its share grows.
    pub(super) fn is_slow(self) -> bool {
        self.0 & SLOW != 0
    }

    /// Ejections in a row.
    pub(super) fn times(self) -> u64 {
        self.0 >> TIMES_SHIFT & ((1 << TIMES_BITS) - 1)
    }

    /// How long it is out or avoided yet, in milliseconds; nothing where no time ends that.
    pub(super) fn left(self, now: u64) -> Option<u64> {
        let is_timed = self.0 & (EJECTED | AVOIDED) != 0 && self.0 & UNTIMED == 0;
        is_timed.then(|| self.time().saturating_sub(now))
    }

    /// How much of its share it gets, in percent.
    pub(super) fn percent(self, now: u64, slow_start: Duration) -> u64 {
        let window = millis(slow_start);
        if !self.is_slow() || window == 0 {
            return 100;
        }
        let grown = now.saturating_sub(self.time()).saturating_mul(100) / window;
        grown.clamp(SLOW_PERCENT_MIN, 100)
    }

    fn time(self) -> u64 {
        self.0 >> TIME_SHIFT & ((1 << TIME_BITS) - 1)
    }

    fn at(self, time: u64) -> Self {
        let mask = ((1 << TIME_BITS) - 1) << TIME_SHIFT;
        Self(self.0 & !mask | (time << TIME_SHIFT & mask))
    }

    fn with_times(self, times: u64) -> Self {
        let most = (1 << TIMES_BITS) - 1;
        Self(self.0 & !(most << TIMES_SHIFT) | times.min(most) << TIMES_SHIFT)
    }

    fn token(self) -> Token {
        Token(self.0 >> TOKEN_SHIFT)
    }

    fn with(self, flags: u64) -> Self {
        Self(self.0 | flags)
    }

    /// Without these flags; one that is in from now on may have to begin slowly.
    fn without(self, flags: u64, now: u64, begins_slowly: bool) -> Self {
        let rest = Self(self.0 & !flags);
        if rest.0 & (OUT | AVOIDED) != 0 {
            return rest;
        }
        let rest = Self(rest.0 & !PROBING).at(now);
        if begins_slowly { rest.with(SLOW) } else { rest }
    }

    /// Out for `time` milliseconds, one time more in a row.
    fn ejected(self, now: u64, time: u64) -> Self {
        // Its own verdict is one that a request may try.
        let rest = Self(self.0 & !(PROBING | SLOW | ELSEWHERE)).with(EJECTED);
        rest.at(now.saturating_add(time)).with_times(self.times() + 1)
    }

    /// Tried by one request, which is lost after `patience` milliseconds.
    fn probed(self, now: u64, patience: u64) -> Self {
        let next = Self(self.0.wrapping_add(1 << TOKEN_SHIFT));
        next.with(PROBING).at(now.saturating_add(patience))
    }
}

/// What one who picks is to do with a server that has its time behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing: it is not due, or another request tries it.
    Not,
    /// Try it; it is avoided.
    Retry,
    /// Try it, and say how that went; it is ejected.
    Probe(Token),
}

/// See the module. Times are milliseconds since it was made.
#[derive(Debug)]
pub(super) struct Verdict {
    word: Padded<AtomicU64>,
    began: Instant,
    /// New connections in a row that ended without an answer.
    losses: AtomicU32,
    /// Failures in a row.
    failures: AtomicU32,
    /// Whether it is known that other gateways have ejected it.
    is_known_out: AtomicBool,
}

impl Verdict {
    /// Of a server of which nothing is known yet; one that joins others may begin slowly.
    pub(super) fn new(begins_slowly: bool) -> Self {
        let word = if begins_slowly { Word(SLOW).at(1) } else { Word::default() };
        Self {
            word: Padded(AtomicU64::new(word.0)),
            began: Instant::now(),
            losses: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            is_known_out: AtomicBool::new(false),
        }
    }

    /// What is known against it.
    pub(super) fn word(&self) -> Word {
        Word(self.word.0.load(Ordering::Relaxed))
    }

    /// The time on its clock.
    pub(super) fn now(&self) -> u64 {
        millis(self.began.elapsed()).saturating_add(1)
    }

    /// Whether the one who asks is to try it: true for one of those who ask.
    pub(super) fn claim(&self, fail_timeout: Duration, patience: Duration) -> Due {
        let (word, now) = (self.word(), self.now());
        let is_waiting = word.0 & (UNTIMED | PROBING) == 0 && now >= word.time();
        if !is_waiting || word.0 & (EJECTED | AVOIDED) == 0 {
            return Due::Not;
        }
        let (next, due) = if word.is_ejected() {
            let next = word.probed(now, millis(patience));
            (next, Due::Probe(next.token()))
        } else {
            (word.at(now.saturating_add(millis(fail_timeout))), Due::Retry)
        };
        let order = Ordering::Relaxed;
        let is_mine = self.word.0.compare_exchange(word.0, next.0, order, order).is_ok();
        if is_mine { due } else { Due::Not }
    }

    /// It lives, whatever it answered.
    pub(super) fn note_life(&self, begins_slowly: bool) {
        // Written only where something changes: all cores read it.
        if self.losses.load(Ordering::Relaxed) != 0 {
            self.losses.store(0, Ordering::Relaxed);
        }
        if self.word().is_avoided() {
            let now = self.now();
            self.change(|word| {
                word.is_avoided().then(|| word.without(AVOIDED, now, begins_slowly))
            });
        }
    }

    /// It took no connection, or nothing on one.
    pub(super) fn avoid(&self, fail_timeout: Duration) {
        let until = self.now().saturating_add(millis(fail_timeout));
        // The time of what is out already ends that, not this.
        self.change(|word| {
            let next = Word(word.0 & !SLOW).with(AVOIDED);
            Some(if word.is_ejected() { next } else { next.at(until) })
        });
    }

    /// A new connection ended without an answer. One may be the fault of what was asked.
    pub(super) fn note_loss(&self, fail_timeout: Duration) {
        if self.losses.fetch_add(1, Ordering::Relaxed) > 0 {
            self.avoid(fail_timeout);
        }
    }

    /// A request went well.
    pub(super) fn note_success(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed. Returns how many have in a row.
    pub(super) fn note_failure(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Takes it out for so long as `time` says of the ejections in a row. False where it is
    /// ejected already.
    pub(super) fn eject(&self, time: impl Fn(u64) -> Duration) -> bool {
        let now = self.now();
        let next = |word: Word| word.ejected(now, millis(time(word.times() + 1)));
        let done = self.change(|word| (!word.is_ejected()).then(|| next(word)));
        if done {
            self.failures.store(0, Ordering::Relaxed);
        }
        done
    }

    /// What tried it went well: it is back. False where another one tries it by now.
    pub(super) fn pass_probe(&self, token: Token, begins_slowly: bool) -> bool {
        let now = self.now();
        let passed = self.change(|word| {
            let passed = word.without(EJECTED | AVOIDED | PROBING, now, begins_slowly);
            is_tried_by(word, token).then_some(passed)
        });
        self.forget_failures(passed)
    }

    /// Those that came in while it was out are of before.
    fn forget_failures(&self, is_back: bool) -> bool {
        if is_back {
            self.failures.store(0, Ordering::Relaxed);
        }
        is_back
    }

    /// What tried it failed: it is out again, for longer.
    pub(super) fn fail_probe(&self, token: Token, time: impl Fn(u64) -> Duration) -> bool {
        let now = self.now();
        let next = |word: Word| word.ejected(now, millis(time(word.times() + 1)));
        self.change(|word| is_tried_by(word, token).then(|| next(word)))
    }

    /// What tries it is lost after `patience` from now.
    pub(super) fn prolong_probe(&self, token: Token, patience: Duration) {
        let until = self.now().saturating_add(millis(patience));
        self.change(|word| is_tried_by(word, token).then(|| word.at(until)));
    }

    /// What tried it has said nothing: another one may.
    pub(super) fn drop_probe(&self, token: Token) {
        let now = self.now();
        let untried = |word: Word| Word(word.0 & !PROBING).at(now);
        self.change(|word| is_tried_by(word, token).then(|| untried(word)));
    }

    /// The request that tries it, where that has said nothing for too long.
    pub(super) fn lost_probe(&self) -> Option<Token> {
        let word = self.word();
        (word.is_probing() && self.now() >= word.time()).then(|| word.token())
    }

    /// What its checks say. True where that is something new.
    pub(super) fn set_down(&self, is_down: bool, begins_slowly: bool) -> bool {
        self.set(DOWN, is_down, begins_slowly)
    }

    /// A check that is believed went well: no ejection outlives that. True where there was one.
    pub(super) fn end_ejection(&self, begins_slowly: bool) -> bool {
        let now = self.now();
        let back = |word: Word| word.without(EJECTED | AVOIDED | PROBING, now, begins_slowly);
        let is_back = self.change(|word| word.is_ejected().then(|| back(word)));
        self.forget_failures(is_back)
    }

    /// Other gateways have ejected it. True where that takes it out: not where it was restored
    /// since they did, or has a verdict of its own.
    pub(super) fn follow(&self) -> bool {
        let is_news = !self.is_known_out.swap(true, Ordering::Relaxed);
        let out = |word: Word| Word(word.0 & !SLOW).with(ELSEWHERE);
        is_news && self.change(|word| (!word.is_ejected()).then(|| out(word)))
    }

    /// Other gateways have not ejected it, as far as is known. True where it was out for that.
    pub(super) fn unfollow(&self, begins_slowly: bool) -> bool {
        self.is_known_out.load(Ordering::Relaxed)
            && self.is_known_out.swap(false, Ordering::Relaxed)
            && self.set(ELSEWHERE, false, begins_slowly)
    }

    /// An operator takes it out. True where it was in.
    pub(super) fn take_out(&self) -> bool {
        self.set(BY_HAND, true, false)
    }

    /// An operator brings it back, whatever is known of it. True where that changes anything.
    pub(super) fn restore(&self, begins_slowly: bool) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        self.losses.store(0, Ordering::Relaxed);
        let now = self.now();
        let flags = OUT | AVOIDED | PROBING;
        let back = |word: Word| word.without(flags, now, begins_slowly).with_times(0);
        self.change(|word| (word.0 & flags != 0).then(|| back(word)))
    }

    /// What only time does: a share has grown, and a quiet time makes ejections forgotten.
    pub(super) fn tick(&self, slow_start: Duration) {
        let word = self.word();
        let age = self.now().saturating_sub(word.time());
        let next = if word.is_slow() && age >= millis(slow_start) {
            Word(word.0 & !SLOW).at(self.now())
        } else if word.is_clean() && word.times() > 0 && age >= QUIET_MS {
            word.with_times(word.times() - 1).at(self.now())
        } else {
            return;
        };
        let order = Ordering::Relaxed;
        // What changes it meanwhile is newer.
        let _ = self.word.0.compare_exchange(word.0, next.0, order, order);
    }

    fn set(&self, flag: u64, is_set: bool, begins_slowly: bool) -> bool {
        let now = self.now();
        self.change(|word| match (word.0 & flag != 0, is_set) {
            (false, true) => Some(Word(word.0 & !SLOW).with(flag)),
            (true, false) => Some(word.without(flag, now, begins_slowly)),
            _ => None,
        })
    }

    fn change(&self, next: impl Fn(Word) -> Option<Word>) -> bool {
        let order = Ordering::Relaxed;
        let next = |word| next(Word(word)).map(|word| word.0);
        self.word.0.fetch_update(order, order, next).is_ok()
    }
}

fn is_tried_by(word: Word, token: Token) -> bool {
    word.is_probing() && word.token() == token
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
