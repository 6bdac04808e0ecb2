//! What `portcullis doctor` says of one thing that it has looked at.

use std::time::Duration;

use tokio::time::Instant;

use super::connect_error::ConnectError;

/// What to do where answers are late.
pub(super) const SLOW_REMEDY: &str = "look at SLOWLOG, LATENCY DOCTOR, the processor and the \
                                      network; or raise store.timeout";

/// How it is, from well to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Nobody may know.
    Unknown,
    /// It deserves a look.
    Watch,
    /// Something does not work, or will not.
    Poor,
    /// Nothing can be right.
    Unusable,
    /// It does not answer.
    Unreachable,
}

impl Verdict {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Watch => "watch",
            Self::Poor => "poor",
            Self::Unusable => "unusable",
            Self::Unreachable => "unreachable",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// In one word.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// Host and port of each server; none where it is about all, or there is one.
    pub servers: Vec<String>,
    /// What was seen.
    pub value: String,
    /// What it is compared with.
    pub bound: String,
    /// What to do; empty where there is nothing to do.
    pub remedy: String,
}

impl Checked {
    pub(super) fn new(
        check: &'static str,
        verdict: Verdict,
        value: impl Into<String>,
        bound: impl Into<String>,
    ) -> Self {
        let (value, bound) = (value.into(), bound.into());
        Self { check, verdict, servers: Vec::new(), value, bound, remedy: String::new() }
    }

    pub(super) fn good(check: &'static str, value: impl Into<String>, bound: &str) -> Self {
        Self::new(check, Verdict::Good, value, bound)
    }

    /// The same with what to do, unless it is well.
    pub(super) fn or(mut self, remedy: impl Into<String>) -> Self {
        if self.verdict != Verdict::Good {
            self.remedy = remedy.into();
        }
        self
    }
}

/// What was not answered, though there was a connection: Redis is slow, or gone meanwhile.
pub(super) fn lost(check: &'static str, why: &ConnectError) -> Checked {
    let row = Checked::new(check, Verdict::Poor, why.to_string(), "an answer in connect_timeout");
    row.or(SLOW_REMEDY)
}

/// The time that something takes that is done once, and what it came to.
pub(super) async fn timed<T>(doing: impl Future<Output = T>) -> (Duration, T) {
    let begin = Instant::now();
    let done = doing.await;
    (begin.elapsed(), done)
}
