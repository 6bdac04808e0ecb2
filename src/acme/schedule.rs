//! When a certificate is due, and when a failed order is tried again. Pure.

use std::time::Duration;

/// Pauses after one failure, two, three …, in units of the first; the last one stays.
const PAUSES: [u32; 13] = [1, 2, 2, 5, 10, 10, 20, 20, 30, 60, 120, 240, 360];

/// When a certificate is due, in Unix seconds: when the authority wants it renewed (RFC 9773), else
/// when a third of its life is left; and in any case before a twentieth is left.
pub(super) fn due_at((not_before, not_after): (i64, i64), wanted: Option<i64>) -> i64 {
    let life = not_after.saturating_sub(not_before).max(0);
    let latest = not_after.saturating_sub(life / 20);
    wanted.unwrap_or(not_after.saturating_sub(life / 3)).min(latest)
}

/// A moment of the authority's window, in Unix seconds, by a random number from 0 to 1: the
/// certificates of one day are not renewed in one hour (RFC 9773 §4.2).
pub(super) fn within((start, end): (i64, i64), random: f64) -> i64 {
    let width = end.saturating_sub(start).max(0);
    #[expect(clippy::cast_precision_loss, reason = "of seconds in a window of days")]
    let offset = width as f64 * random.clamp(0.0, 1.0);
    #[expect(clippy::cast_possible_truncation, reason = "it is below the width")]
    start.saturating_add(offset as i64)
}

/// The pause after so many failures in a row.
pub(super) fn pause(failures: u32, first: Duration) -> Duration {
    let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    first.saturating_mul(PAUSES[at.min(PAUSES.len() - 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_chooses_the_time_but_not_past_a_twentieth() {
        let days = |days: i64| days * 86_400;
        for (wanted, due) in [
            (None, days(60)),
            (Some(days(40)), days(40)),
            (Some(0), 0),
            (Some(days(89)), days(90) - days(90) / 20),
            (Some(i64::MAX), days(90) - days(90) / 20),
        ] {
            assert_eq!(due_at((0, days(90)), wanted), due, "{wanted:?}");
        }
        assert_eq!(due_at((10, 5), None), 5, "dates the wrong way round");
    }

    #[test]
    fn a_moment_lies_within_the_window() {
        for (random, at) in [(0.0, 100), (0.5, 150), (1.0, 200), (7.0, 200)] {
            assert_eq!(within((100, 200), random), at);
        }
        assert_eq!(within((200, 100), 0.5), 200, "a window the wrong way round");
    }

    #[test]
    fn pauses_grow_to_six_hours() {
        let minutes = |failures| pause(failures, Duration::from_secs(60)).as_secs() / 60;
        assert_eq!([0, 1, 2, 3, 4, 5].map(minutes), [1, 1, 2, 2, 5, 10]);
        assert_eq!([13, 14, u32::MAX].map(minutes), [360, 360, 360]);
        assert_eq!(pause(9, Duration::MAX), Duration::MAX);
    }
}
