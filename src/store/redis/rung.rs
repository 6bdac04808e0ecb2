//! How well one Redis server serves: a ladder of four rungs, as a pure state machine. What happened
//! comes in with its time, what has changed goes out. It knows no clock, no connection, no lock.

use std::fmt;
use std::time::Duration;

/// Pause between two probes that count.
pub(super) const PROBE_PAUSE: Duration = Duration::from_millis(50);
/// How many of them in a row must be good before a server that was open is asked again.
const PROBES_MIN: u32 = 3;
/// How often that number doubles at most, while a server answers probes and not what follows. No
/// setting: with [`PROBE_PAUSE`] it makes 1.2 s, in which a fleet is spared and nobody waits.
const DOUBLINGS_MAX: u32 = 3;
/// How long a server must have served until its next silence is an affair of its own. No setting:
/// it tells one fault from the next, and decides about a second of probes at most.
const AFFAIR_OVER: Duration = Duration::from_secs(10);
/// How long a recovering server must be asked before that is said: one that falls silent at once
/// was not back. No setting: it decides about one line of the log.
const SAID_AFTER: Duration = Duration::from_secs(1);
/// How long nothing may be amiss before a server is healthy again.
const CLEAN_FOR: Duration = Duration::from_secs(2);
/// How long a server is recovering at most.
const RECOVERING_MAX: Duration = Duration::from_secs(10);
/// How many counts are judged together: with one each [`COUNT_PAUSE`], those of a second.
const COUNTS_MAX: usize = 4;
/// Pause between two counts.
pub(super) const COUNT_PAUSE: Duration = Duration::from_millis(250);
/// Of how many questions a share says that a server is open.
const OPEN_ASKED_MIN: u64 = 20;
/// How many late answers are more than a hiccup.
const LATE_MIN: u64 = 3;
/// Of how many it says that one is slow.
const SLOW_ASKED_MIN: u64 = 50;

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rung {
    /// It is asked.
    Healthy,
    /// It is asked, by fewer at a time.
    Slow,
    /// It is not asked, and nobody waits.
    Open,
    /// It is asked again, after it was open.
    Recovering,
}

impl Rung {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Slow, Self::Open, Self::Recovering];

    /// Its name, in logs, metrics and the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "slow",
            Self::Open => "open",
            Self::Recovering => "recovering",
        }
    }
}

/// Why a server is on its rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was not reached yet.
    New,
    /// The first connection stands.
    Connected,
    /// Deadlines were missed in a row.
    Silent,
    /// So many questions of so many were not answered within a second.
    Missed(u64, u64),
    /// So many answers of so many took longer than half of their time, or did not come.
    Late(u64, u64),
    /// No connection stands any more.
    Lost,
    /// It said that it cannot serve, with this code.
    Refused(&'static str),
    /// It sent what is no answer.
    Foreign,
    /// So many probes in a row were good.
    Probed(u32),
    /// Nothing was amiss for long enough.
    Clean,
    /// It served for as long as a server is recovering at most.
    Patience,
}

impl Cause {
    /// Whether questions went unanswered, which probes may not have shown.
    fn is_silence(self) -> bool {
        matches!(self, Self::Silent | Self::Missed(..))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("not reached yet"),
            Self::Connected => f.write_str("connected"),
            Self::Silent => f.write_str("5 silent answers"),
            Self::Missed(missed, asked) => write!(f, "{missed} of {asked} unanswered in 1 s"),
            Self::Late(late, asked) => write!(f, "{late} of {asked} answers late in 1 s"),
            Self::Lost => f.write_str("connections lost"),
            Self::Refused(code) => f.write_str(code),
            Self::Foreign => f.write_str("no answer of a Redis"),
            Self::Probed(count) => write!(f, "{count} good probes"),
            Self::Clean => f.write_str("2 s without a fault"),
            Self::Patience => f.write_str("10 s of service"),
        }
    }
}

/// What became of questions since the last count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Those that were answered, or not in time.
    pub(super) asked: u64,
    /// Those that were not answered in time.
    pub(super) missed: u64,
    /// Those that were answered after half of their time.
    pub(super) late: u64,
}

impl Counts {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            asked: self.asked.saturating_add(other.asked),
            missed: self.missed.saturating_add(other.missed),
            late: self.late.saturating_add(other.late),
        }
    }

    /// What has come on top of `before`. Less where some of those who counted are gone.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            asked: self.asked.saturating_sub(before.asked),
            missed: self.missed.saturating_sub(before.missed),
            late: self.late.saturating_sub(before.late),
        }
    }

    /// Why a server with these is open.
    fn open(self) -> Option<Cause> {
        let Self { asked, missed, .. } = self;
        let is_open = asked >= OPEN_ASKED_MIN && is_share(missed, asked, 2);
        is_open.then_some(Cause::Missed(missed, asked))
    }

    /// Why it is slow, where one of `part` is too many.
    fn slow(self, part: u64) -> Option<Cause> {
        let Self { asked, missed, late } = self;
        // Of few, one alone is a share that says nothing.
        if asked < SLOW_ASKED_MIN {
            None
        } else if is_share(missed, asked, part) {
            Some(Cause::Missed(missed, asked))
        } else {
            let late = missed.saturating_add(late);
            let is_slow = late >= LATE_MIN && is_share(late, asked, part);
            is_slow.then_some(Cause::Late(late, asked))
        }
    }
}

/// Whether so many are at least one of `part` of all.
fn is_share(some: u64, all: u64, part: u64) -> bool {
    some > 0 && some.saturating_mul(part) >= all
}

/// A server is on another rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// Nothing where it was not reached yet.
    pub(super) from: Option<Rung>,
    pub(super) to: Rung,
    pub(super) cause: Cause,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.map_or("new", Rung::name);
        write!(f, "{from} -> {} ({})", self.to.name(), self.cause)
    }
}

/// One server on the ladder. All times are since the same moment, and never fall.
#[derive(Debug)]
pub(super) struct Ladder {
    rung: Rung,
    since: Duration,
    cause: Cause,
    /// When something was amiss last, or the rung was reached.
    amiss: Duration,
    /// Good probes in a row, and when the last one was that counts.
    probes: u32,
    probed: Option<Duration>,
    /// The latest counts since the rung was reached, the newest last.
    counts: [Counts; COUNTS_MAX],
    /// When it was counted last.
    counted: Duration,
    /// How often it fell silent since it served for long, and since when it is not open.
    silences: u32,
    serves: Duration,
    /// The rung that was said last; nothing before the server was reached.
    said: Option<Rung>,
}

impl Default for Ladder {
    /// Of a server that was not reached yet.
    fn default() -> Self {
        Self {
            rung: Rung::Open,
            since: Duration::ZERO,
            cause: Cause::New,
            amiss: Duration::ZERO,
            probes: 0,
            probed: None,
            counts: Default::default(),
            counted: Duration::ZERO,
            silences: 0,
            serves: Duration::ZERO,
            said: None,
        }
    }
}

impl Ladder {
    pub(super) fn rung(&self) -> Rung {
        self.rung
    }

    /// Since when it is on this rung, and why.
    pub(super) fn reached(&self) -> (Duration, Cause) {
        (self.since, self.cause)
    }

    /// Whether it takes probes until the server is asked again. One that was not reached yet is
    /// asked when it is.
    pub(super) fn wants_probes(&self) -> bool {
        self.rung == Rung::Open && self.cause != Cause::New
    }

    /// The server is not to be asked any more.
    pub(super) fn fail(&mut self, now: Duration, cause: Cause) -> Option<Change> {
        self.probes = 0;
        if self.rung == Rung::Open {
            return None;
        }
        let is_over = now.saturating_sub(self.serves) >= AFFAIR_OVER;
        let before = if is_over { 0 } else { self.silences };
        self.silences = before.saturating_add(u32::from(cause.is_silence()));
        Some(self.reach(Rung::Open, now, cause))
    }

    /// How many good probes it takes now: more and more of a server that answers them, and not the
    /// questions that follow.
    fn probes_wanted(&self) -> u32 {
        PROBES_MIN << self.silences.saturating_sub(1).min(DOUBLINGS_MAX)
    }

    /// A probe was good. [`Self::rung`] says then whether the server is asked.
    pub(super) fn probe(&mut self, now: Duration) -> Option<Change> {
        if self.rung != Rung::Open {
            return None;
        }
        if self.cause == Cause::New {
            return Some(self.reach(Rung::Healthy, now, Cause::Connected));
        }
        if self.probed.is_none_or(|last| now.saturating_sub(last) >= PROBE_PAUSE) {
            self.probes += 1;
            self.probed = Some(now);
        }
        let wanted = self.probes_wanted();
        (self.probes >= wanted).then(|| self.reach(Rung::Recovering, now, Cause::Probed(wanted)))
    }

    /// A probe was not good.
    pub(super) fn fail_probe(&mut self) {
        self.probes = 0;
    }

    /// Takes what was counted since the last time.
    pub(super) fn count(&mut self, now: Duration, counts: Counts) -> Option<Change> {
        let is_whole = self.counted >= self.since;
        self.counted = now;
        if self.rung == Rung::Open {
            return None;
        }
        // What began before the rung was reached says nothing of how the server is on it.
        let counts = if is_whole { counts } else { Counts::default() };
        self.counts.rotate_left(1);
        if let Some(newest) = self.counts.last_mut() {
            *newest = counts;
        }
        let all = self.counts.into_iter().fold(Counts::default(), Counts::and);
        if let Some(cause) = all.open() {
            return self.fail(now, cause);
        }
        match self.rung {
            Rung::Healthy => {
                let cause = all.slow(100)?;
                return Some(self.reach(Rung::Slow, now, cause));
            }
            // Half of what made it slow.
            Rung::Slow if all.slow(200).is_some() => self.amiss = now,
            Rung::Recovering if counts.missed > 0 => self.amiss = now,
            Rung::Slow | Rung::Recovering | Rung::Open => {}
        }
        if now.saturating_sub(self.amiss) >= CLEAN_FOR {
            return Some(self.reach(Rung::Healthy, now, Cause::Clean));
        }
        let is_long = now.saturating_sub(self.since) >= RECOVERING_MAX;
        (self.rung == Rung::Recovering && is_long)
            .then(|| self.reach(Rung::Healthy, now, Cause::Patience))
    }

    /// What is to be said of it now, if anything: a server that is asked again and falls silent at
    /// once has been open all the while.
    pub(super) fn news(&mut self, now: Duration) -> Option<Change> {
        let is_early = now.saturating_sub(self.since) < SAID_AFTER;
        let is_new = self.cause != Cause::New && self.said != Some(self.rung);
        if !is_new || self.rung == Rung::Recovering && is_early {
            return None;
        }
        let from = self.said.replace(self.rung);
        Some(Change { from, to: self.rung, cause: self.cause })
    }

    fn reach(&mut self, to: Rung, now: Duration, cause: Cause) -> Change {
        let from = (self.cause != Cause::New).then_some(self.rung);
        *self = Self {
            rung: to,
            since: now,
            cause,
            amiss: now,
            // Nothing was asked before it was reached first.
            counted: if from.is_none() { now } else { self.counted },
            silences: self.silences,
            serves: if from.is_none_or(|from| from == Rung::Open) { now } else { self.serves },
            said: self.said,
            ..Self::default()
        };
        Change { from, to, cause }
    }
}

#[cfg(test)]
mod tests;
