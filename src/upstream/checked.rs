//! What the active checks of one server have said.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// See the module. Times are milliseconds of the server's clock.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Whether a question is open.
    is_open: AtomicBool,
    /// When it was asked last; 0 for never.
    asked_at: AtomicU64,
    /// How much of the interval the next question waits, in percent.
    jitter: AtomicU64,
    /// Good answers in a row, or bad ones below zero; 0 for none yet.
    row: AtomicI64,
    /// What was wrong with the last answer.
    fault: Mutex<Option<String>>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The server is up.
    Up,
    /// The server is down.
    Down,
    /// Not enough of its kind came in a row.
    Nothing,
}

impl Checked {
    /// Whether it is to be asked now, by the one who asks this, after `interval`. Who is told so
    /// says by [`Self::is_over`] when it is.
    pub(super) fn claim(&self, now: u64, interval: Duration, chance: f64) -> bool {
        let last = self.asked_at.load(Ordering::Relaxed);
        let percent = u32::try_from(self.jitter.load(Ordering::Relaxed)).unwrap_or(100);
        let pause = u64::try_from((interval / 100 * percent).as_millis()).unwrap_or(u64::MAX);
        let is_due = last == 0 || now >= last.saturating_add(pause);
        if !is_due || self.is_open.swap(true, Ordering::Acquire) {
            return false;
        }
        self.asked_at.store(now.max(1), Ordering::Relaxed);
        // A tenth more or less, so that many gateways do not ask at once.
        let percent = 90 + Duration::from_secs(20).mul_f64(chance).as_secs();
        self.jitter.store(percent, Ordering::Relaxed);
        true
    }

    /// No question is open any more.
    pub(super) fn is_over(&self) {
        self.is_open.store(false, Ordering::Release);
    }

    /// Notes an answer. The first one counts at once; otherwise `down` bad ones in a row, or `up`
    /// good ones.
    pub(super) fn note(&self, fault: Option<String>, down: u32, up: u32) -> Said {
        let former = self.row.load(Ordering::Relaxed);
        let is_good = fault.is_none();
        let row = if is_good { former.max(0) + 1 } else { former.min(0) - 1 };
        self.row.store(row, Ordering::Relaxed);
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        let enough = i64::from(if is_good { up } else { down });
        match (former == 0 || row.abs() >= enough, is_good) {
            (true, true) => Said::Up,
            (true, false) => Said::Down,
            (false, _) => Said::Nothing,
        }
    }

    /// What was wrong with the last answer; nothing where it was good, or there is none.
    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing that was said counts any more.
    pub(super) fn forget(&self) {
        self.row.store(0, Ordering::Relaxed);
        self.asked_at.store(0, Ordering::Relaxed);
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad() -> Option<String> {
        Some("it is bad".to_owned())
    }

    #[test]
    fn the_first_answer_counts_at_once_and_the_others_in_a_row() {
        let checked = Checked::default();
        assert_eq!(checked.note(bad(), 3, 2), Said::Down);
        assert_eq!(checked.fault(), bad());
        assert_eq!(checked.note(None, 3, 2), Said::Nothing);
        assert_eq!(checked.fault(), None);
        assert_eq!(checked.note(None, 3, 2), Said::Up);
        assert_eq!(checked.note(bad(), 3, 2), Said::Nothing);
        assert_eq!(checked.note(bad(), 3, 2), Said::Nothing);
        assert_eq!(checked.note(None, 3, 2), Said::Nothing);
        for said in [Said::Nothing, Said::Nothing, Said::Down, Said::Down] {
            assert_eq!(checked.note(bad(), 3, 2), said);
        }
        checked.forget();
        assert_eq!(checked.note(None, 3, 2), Said::Up);
    }

    #[test]
    fn one_question_is_open_at_a_time_and_a_tenth_earlier_or_later() {
        let (checked, interval) = (Checked::default(), Duration::from_secs(5));
        assert!(checked.claim(7, interval, 0.0));
        assert!(!checked.claim(90_000, interval, 0.0), "the first one is open");
        checked.is_over();
        assert!(!checked.claim(4_506, interval, 1.0));
        assert!(checked.claim(4_507, interval, 1.0));
        checked.is_over();
        assert!(!checked.claim(10_006, interval, 0.5));
        assert!(checked.claim(10_007, interval, 0.5));
    }
}
