//! What one request has waited for, and when: for its access line, and for whoever shows more of
//! it. Every time here comes from a clock that was read anyway.

use std::time::Duration;

use tokio::time::Instant;

/// Most waits of one request that are kept, with the last. Those without a place count as sending.
const MARKS_MAX: usize = 6;

/// Something that took time.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub time: Duration,
}

impl Took {
    /// What began then, and is over now.
    pub fn since(began: Instant) -> Self {
        Self { began, time: began.elapsed() }
    }
}

/// What a request waits for, in the order in which that comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// The store, for the record of an API key.
    #[default]
    Identify,
    /// The store, for everything else.
    Store,
    /// The head of the upstream's answer.
    Upstream,
    /// The answer of another request, here or at another gateway, and then the client.
    Collapsed,
    /// The client, behind all of that, until it has the last byte.
    Send,
}

impl Stage {
    /// Its name in the access line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Store => "store",
            Self::Upstream => "upstream",
            Self::Collapsed => "collapsed",
            Self::Send => "send",
        }
    }
}

/// One wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// From the begin of the request, in nanoseconds.
    pub begin_ns: u64,
    /// See `begin_ns`.
    pub end_ns: u64,
    /// Of an upstream, the status of its answer, or 0.
    pub detail: u16,
    /// What was waited for.
    pub stage: Stage,
}

// Every request has room for its marks.
const _: () = assert!(size_of::<Mark>() <= 24);

/// The waits of one request, in order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    marks: [Mark; MARKS_MAX],
    count: u8,
}

impl Marks {
    /// A request that began at `started` has waited for this.
    pub fn add(&mut self, stage: Stage, started: Instant, took: Took) {
        self.add_with(stage, started, took, 0);
    }

    /// The same with its detail.
    pub fn add_with(&mut self, stage: Stage, started: Instant, took: Took, detail: u16) {
        let begin = took.began.saturating_duration_since(started);
        let (begin_ns, end_ns) = (ns(begin), ns(begin + took.time));
        // One place is left for the end.
        if usize::from(self.count) + 1 < MARKS_MAX {
            self.push(Mark { begin_ns, end_ns, detail, stage });
        }
    }

    /// The request has ended, after so long; what was waited for since the last mark.
    pub fn end(&mut self, after: Duration, stage: Stage) {
        let (begin_ns, end_ns) = (self.all().last().map_or(0, |last| last.end_ns), ns(after));
        if begin_ns < end_ns && !self.all().is_empty() {
            self.push(Mark { begin_ns, end_ns, detail: 0, stage });
        }
    }

    fn push(&mut self, mark: Mark) {
        if let Some(free) = self.marks.get_mut(usize::from(self.count)) {
            *free = mark;
            self.count += 1;
        }
    }

    /// All of them.
    pub fn all(&self) -> &[Mark] {
        self.marks.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Microseconds by stage; what was waited for twice counts together.
    pub fn micros(&self) -> Vec<(&'static str, u64)> {
        let mut sums: Vec<(&'static str, u64)> = Vec::with_capacity(4);
        for mark in self.all() {
            let (word, took) =
                (mark.stage.word(), mark.end_ns.saturating_sub(mark.begin_ns) / 1000);
            match sums.iter_mut().find(|(known, _)| *known == word) {
                Some((_, sum)) => *sum += took,
                None => sums.push((word, took)),
            }
        }
        sums
    }
}

/// A duration beyond five centuries does not fit.
fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_summed_by_stage_and_the_rest_is_sending() {
        let (started, ms) = (Instant::now(), Duration::from_millis);
        let took = |begin: u64, time: u64| Took { began: started + ms(begin), time: ms(time) };
        let mut marks = Marks::default();
        marks.end(ms(1), Stage::Send);
        assert!(marks.all().is_empty(), "nothing was waited for");
        marks.add(Stage::Store, started, took(1, 2));
        marks.add(Stage::Store, started, took(4, 3));
        marks.add_with(Stage::Upstream, started, took(7, 10), 200);
        marks.end(ms(20), Stage::Send);
        assert_eq!(marks.micros(), [("store", 5000), ("upstream", 10_000), ("send", 3000)]);
        let upstream = marks.all()[2];
        assert_eq!((upstream.begin_ns, upstream.end_ns), (7_000_000, 17_000_000));
        assert_eq!(upstream.detail, 200);
        for _ in 0..99 {
            marks.add(Stage::Store, started, took(20, 1));
        }
        marks.end(ms(99), Stage::Send);
        assert_eq!(marks.all().len(), MARKS_MAX, "a bound");
        let last = marks.all()[MARKS_MAX - 1];
        assert_eq!((last.stage, last.end_ns), (Stage::Send, 99_000_000), "the rest is sending");
    }
}
