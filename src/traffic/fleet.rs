//! What gateways tell each other of the answers to a canary, so that one which gets a few at each
//! of them is judged by all. Only failures: how long answers take is each one's own matter, as the
//! way to an upstream is. Pure.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What this is written in; what is written in another one is not understood.
const VERSION: u32 = 1;
/// More within one window is no count.
const COUNT_MAX: u32 = 1_000_000_000;

/// Answers of one arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// All of them.
    pub(super) answers: u32,
    /// Those that are failures.
    pub(super) failures: u32,
}

/// What one gateway says of a canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    v: u32,
    /// Which upstreams and which ramp it is about.
    about: String,
    /// The record that it went by: what was answered before a reset is of no matter after it.
    at: u64,
    /// What the base has answered of late.
    base: Counts,
    /// What the canary has.
    canary: Counts,
}

impl Counts {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            answers: self.answers.saturating_add(other.answers),
            failures: self.failures.saturating_add(other.failures),
        }
    }

    fn is_possible(self) -> bool {
        self.failures <= self.answers && self.answers <= COUNT_MAX
    }
}

impl Said {
    /// What this gateway says.
    pub(super) fn new(about: &str, at: u64, [base, canary]: [Counts; 2]) -> Self {
        Self { v: VERSION, about: about.to_owned(), at, base, canary }
    }

    /// As it is stored. It is made of texts and numbers: nothing in it fails to be written.
    pub(super) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let said: Self = serde_json::from_slice(bytes).ok()?;
        let is_possible = said.base.is_possible() && said.canary.is_possible();
        (said.v == VERSION && is_possible).then_some(said)
    }
}

/// What base and canary have answered at all gateways but `own`, of those that go by the record of
/// this time and ramp.
pub(super) fn others(own: &str, (about, at): (&str, u64), all: &[(Bytes, Bytes)]) -> [Counts; 2] {
    let others = all.iter().filter(|(from, _)| *from != own.as_bytes());
    let said = others.filter_map(|(_, bytes)| Said::read(bytes));
    let alike = said.filter(|said| said.about == about && said.at == at);
    alike.fold(<[Counts; 2]>::default(), |[base, canary], said| {
        [base.and(said.base), canary.and(said.canary)]
    })
}

#[cfg(test)]
mod tests;
