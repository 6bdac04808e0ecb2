//! What the store's milliseconds mean in time.

use std::time::Duration;

use crate::store::{Window, WindowState};

/// The wait that never ends, in time: the longest that still prints.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// What nobody is told to wait longer for while each gateway counts a share of the limit: the store
/// may be back any time, and then the whole limit counts.
const AWAY_WAIT_MAX: Duration = Duration::from_secs(5);

/// A wait for a share of a limit, which ends when the store is back.
pub(super) fn while_away(state: &WindowState) -> WindowState {
    let most = i64::try_from(AWAY_WAIT_MAX.as_millis()).unwrap_or(i64::MAX);
    // Below zero stands what never fits, whoever counts.
    let [retry_ms, next_ms, full_ms] =
        [state.retry_ms, state.next_ms, state.full_ms].map(|wait| wait.min(most));
    WindowState { retry_ms, next_ms, full_ms, ..*state }
}

/// A wait as the store says it. A cost that never fits (-1) becomes [`NEVER`]: the caller cannot do
/// better than not to retry.
pub(super) fn duration(ms: i64) -> Duration {
    u64::try_from(ms).map_or(NEVER, Duration::from_millis)
}

/// When units come back, and when all are back, seen from after the charge: the charge itself is
/// the last to return.
pub(super) fn after(state: &WindowState, window: &Window, allowed: bool) -> (Duration, Duration) {
    let span = Duration::from_micros(window.span_us);
    match (allowed && window.charges(state) && window.cost > 0, state.next_ms) {
        (true, 0) => (span, span),
        (true, next_ms) => (duration(next_ms), span),
        (false, next_ms) => (duration(next_ms), duration(state.full_ms)),
    }
}
