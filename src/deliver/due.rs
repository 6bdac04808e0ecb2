//! When a request is due, as its client says it.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName};

use super::backoff::retry_after;

/// The field says no time, or one that is too far ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DueFault {
    /// It is no time.
    #[error("the delivery time is neither seconds nor a date (RFC 9110 or RFC 3339)")]
    Malformed,
    /// It is beyond `max_delay`.
    #[error("the delivery time is further ahead than this route allows")]
    TooFar,
}

/// In how long a request is due: what `field` says in seconds or as a date (RFC 9110 §5.6.7, RFC
/// 3339), which may be past. Nothing said is now.
///
/// # Errors
/// See [`DueFault`].
pub fn due_in(
    field: Option<&HeaderName>,
    fields: &HeaderMap,
    max_delay: Duration,
    now: SystemTime,
) -> Result<Duration, DueFault> {
    let Some(field) = field else { return Ok(Duration::ZERO) };
    let mut values = fields.get_all(field).iter();
    let Some(value) = values.next() else { return Ok(Duration::ZERO) };
    if values.next().is_some() {
        return Err(DueFault::Malformed);
    }
    let delay = retry_after(value, now).or_else(|| {
        let text = value.to_str().ok()?.trim();
        let at = SystemTime::from(text.parse::<jiff::Timestamp>().ok()?);
        Some(at.duration_since(now).unwrap_or_default())
    });
    match delay {
        None => Err(DueFault::Malformed),
        Some(delay) if delay > max_delay => Err(DueFault::TooFar),
        Some(delay) => Ok(delay),
    }
}
