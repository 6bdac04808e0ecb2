//! What an arm has answered of late: how often, how well, and how fast.

use std::time::Duration;

use super::fleet::Counts;

/// Into how many parts the time is cut that is looked back upon.
pub(super) const PARTS: usize = 12;
/// Parts of each doubling of time: a time is known to an eighth.
const PARTS_OF_DOUBLING: u64 = 8;
/// Doublings that are told apart, from 8 µs on; what takes longer (18 minutes) counts as the last.
const DOUBLINGS: usize = 28;
const TIMES: usize = DOUBLINGS * 8;

/// Answers of one arm.
#[derive(Debug)]
pub(super) struct Window {
    part: Duration,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    /// Its number since the beginning.
    number: u128,
    sum: Sum,
}

/// Answers that are counted together.
#[derive(Debug, Clone)]
pub(super) struct Sum {
    /// All of them.
    pub(super) answers: u32,
    /// Those that are failures.
    pub(super) failures: u32,
    /// The same at other gateways.
    others: Counts,
    /// How many took so long.
    times: Box<[u32; TIMES]>,
}

impl Default for Sum {
    fn default() -> Self {
        Self { answers: 0, failures: 0, others: Counts::default(), times: Box::new([0; TIMES]) }
    }
}

impl Window {
    /// Looks back upon this time.
    pub(super) fn new(length: Duration) -> Self {
        let part = (length / PARTS as u32).max(Duration::from_millis(1));
        let empty = Part { number: 0, sum: Sum::default() };
        Self { part, parts: vec![empty; PARTS] }
    }

    /// Counts an answer, `at` since the beginning, which took so long.
    pub(super) fn note(&mut self, at: Duration, failed: bool, took: Option<Duration>) {
        let number = at.as_nanos() / self.part.as_nanos();
        let index = usize::try_from(number % PARTS as u128).unwrap_or_default();
        let Some(part) = self.parts.get_mut(index) else { return };
        if part.number != number {
            *part = Part { number, sum: Sum::default() };
        }
        part.sum.note(failed, took);
    }

    /// What was counted within the time that is looked back upon.
    pub(super) fn sum(&self, at: Duration) -> Sum {
        let now = at.as_nanos() / self.part.as_nanos();
        let is_recent = |part: &&Part| part.number + PARTS as u128 > now && part.number <= now;
        let mut sum = Sum::default();
        self.parts.iter().filter(is_recent).for_each(|part| sum.add(&part.sum));
        sum
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.parts.iter_mut().for_each(|part| part.sum = Sum::default());
    }
}

impl Sum {
    /// Those of this gateway, whatever they took.
    pub(super) fn own(&self) -> Counts {
        Counts { answers: self.answers, failures: self.failures }
    }

    /// The same, with what others have answered.
    pub(super) fn with_others(self, others: Counts) -> Self {
        Self { others, ..self }
    }

    /// Those of all gateways.
    pub(super) fn of_all(&self) -> Counts {
        self.own().and(self.others)
    }

    fn note(&mut self, failed: bool, took: Option<Duration>) {
        self.answers = self.answers.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(failed));
        if let Some(count) = took.and_then(|took| self.times.get_mut(place(took))) {
            *count = count.saturating_add(1);
        }
    }

    fn add(&mut self, other: &Self) {
        self.answers = self.answers.saturating_add(other.answers);
        self.failures = self.failures.saturating_add(other.failures);
        for (count, more) in self.times.iter_mut().zip(other.times.iter()) {
            *count = count.saturating_add(*more);
        }
    }

    /// Answers of which it is known how long they took.
    pub(super) fn timed(&self) -> u32 {
        self.times.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The time within which 95 of 100 of them came, to an eighth; nothing without any.
    pub(super) fn p95(&self) -> Option<Duration> {
        let wanted = (u64::from(self.timed()) * 95).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, count) in self.times.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Some(Duration::from_micros(begin(index + 1)));
            }
        }
        None
    }

    /// How many answers certainly took longer.
    pub(super) fn slower_than(&self, limit: Duration) -> u32 {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let slow = self.times.iter().enumerate().filter(|(index, _)| begin(*index) >= micros);
        slow.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// The place of a time among those that are counted.
fn place(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < PARTS_OF_DOUBLING {
        return 0;
    }
    let doubling = micros.ilog2() - PARTS_OF_DOUBLING.ilog2();
    let part = (micros >> doubling) - PARTS_OF_DOUBLING;
    let place = u64::from(doubling) * PARTS_OF_DOUBLING + part;
    usize::try_from(place).unwrap_or(usize::MAX).min(TIMES - 1)
}

/// The shortest time at a place, in µs.
fn begin(place: usize) -> u64 {
    let place = place as u64;
    if place == 0 {
        return 0;
    }
    let (doubling, part) = (place / PARTS_OF_DOUBLING, place % PARTS_OF_DOUBLING);
    (PARTS_OF_DOUBLING + part) << doubling
}
