//! From which level on diagnostics are written: what the configuration says, or what an operator
//! wants for a time. It is the process's own, as diagnostics are.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Level;

/// What diagnostics are written by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelNow {
    /// The level that counts.
    pub level: Level,
    /// The one of the configuration.
    pub configured: Level,
    /// Until when another one counts, in Unix milliseconds.
    pub until_ms: Option<i64>,
    /// Grows with each change.
    turn: u64,
}

static NOW: Mutex<LevelNow> =
    Mutex::new(LevelNow { level: Level::Info, configured: Level::Info, until_ms: None, turn: 0 });

fn now() -> MutexGuard<'static, LevelNow> {
    NOW.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What counts now. Whoever writes diagnostics asks when [`set_level`] has changed it, and not for
/// each of them.
pub fn level() -> LevelNow {
    *now()
}

/// The level of the configuration, which counts from now on.
pub fn configure_level(level: Level) {
    let turn = now().turn;
    *now() = LevelNow { level, configured: level, until_ms: None, turn: turn.wrapping_add(1) };
    tracing::callsite::rebuild_interest_cache();
}

/// Has another level count until a time. Returns what takes it back by [`end_level`].
pub fn set_level(level: Level, until_ms: i64) -> LevelNow {
    let changed = {
        let mut now = now();
        let turn = now.turn.wrapping_add(1);
        *now = LevelNow { level, until_ms: Some(until_ms), turn, ..*now };
        *now
    };
    tracing::callsite::rebuild_interest_cache();
    changed
}

/// Has the level of the configuration count again, unless another change came after that one.
/// Returns whether it does.
pub fn end_level(changed: &LevelNow) -> bool {
    let is_last = {
        let mut now = now();
        let is_last = now.turn == changed.turn;
        if is_last {
            *now = LevelNow { level: now.configured, until_ms: None, ..*now };
        }
        is_last
    };
    tracing::callsite::rebuild_interest_cache();
    is_last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_counts_and_ends_alone() {
        configure_level(Level::Warn);
        let first = set_level(Level::Debug, 7);
        assert_eq!((level().level, level().until_ms), (Level::Debug, Some(7)));
        let second = set_level(Level::Error, 9);
        assert!(!end_level(&first));
        assert_eq!((level().level, level().configured), (Level::Error, Level::Warn));
        assert!(end_level(&second));
        assert_eq!((level().level, level().until_ms), (Level::Warn, None));
    }
}
