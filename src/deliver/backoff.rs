//! How long to wait before the next attempt.

use std::time::{Duration, SystemTime};

use http::HeaderValue;

use crate::config::Queue;

/// Beyond so many doublings every pause is the longest.
const DOUBLINGS_MAX: u32 = 30;
/// What a wait that the upstream asks for may be longer, as a share of it: clients that it told the
/// same do not come back together.
const SPREAD: f64 = 0.1;

/// The pauses of one queue.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    first: Duration,
    longest: Duration,
    retry_after_max: Duration,
}

impl Pauses {
    /// As the queue says.
    pub fn of(queue: &Queue) -> Self {
        let Queue { backoff, max_backoff, retry_after_max, .. } = *queue;
        Self { first: backoff, longest: max_backoff, retry_after_max }
    }

    /// The pause behind the `failures`-th failure, from 1: half of it is sure, and half of it by
    /// `chance`, which is 0 to 1. `asked`: what the upstream has asked for.
    pub fn after(&self, failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(DOUBLINGS_MAX);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(factor).min(self.longest);
        let wait = whole / 2 + (whole / 2).mul_f64(chance.clamp(0.0, 1.0));
        let Some(asked) = asked else { return wait };
        let asked = asked.min(self.retry_after_max);
        wait.max(asked.mul_f64(1.0 + SPREAD * chance.clamp(0.0, 1.0)))
    }
}

/// What a `Retry-After` asks for, seconds or a date (RFC 9110 §10.2.3), as of `now`.
pub fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than can be counted is too long, and not nothing.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}
