//! How the share of an arm grows with time.

use std::time::Duration;

use crate::config::Step;

/// What a ramp says at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Now {
    /// The share, in ten-thousandths.
    pub(super) share: u16,
    /// The number of the step, from 1.
    pub(super) step: usize,
    /// Until the next one; nothing at the last.
    pub(super) left: Option<Duration>,
}

/// What a ramp says when it has begun so long ago.
pub(super) fn at(steps: &[Step], since: Duration) -> Now {
    let mut ends = Duration::ZERO;
    for (index, step) in steps.iter().enumerate() {
        let Some(time) = step.time else {
            return Now { share: step.share, step: index + 1, left: None };
        };
        ends = ends.saturating_add(time);
        if since < ends {
            let left = ends.saturating_sub(since);
            return Now { share: step.share, step: index + 1, left: Some(left) };
        }
    }
    let share = steps.last().map_or(0, |step| step.share);
    Now { share, step: steps.len(), left: None }
}
