//! HTTP dates (RFC 9110 §5.6.7), in the three forms that a recipient must read and no other.
//!
//! Names of days, of months and the zone are read in any case; everything else is exact, because a
//! date that is nearly one is an invalid one, which for a cache means the past.

use http::HeaderMap;
use http::header::{AsHeaderName, HeaderValue};
use std::time::{Duration, UNIX_EPOCH};

use super::text;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const LONG_DAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

const DAY_S: i64 = 86_400;
/// A date of two digits is not further ahead than this, RFC 9110 §5.6.7.
const AHEAD_YEARS_MAX: i64 = 50;

/// The date in a field, in Unix seconds, if there is exactly one line and it can be read.
/// `now_s` settles the century of dates that do not name it.
pub(super) fn of(headers: &HeaderMap, name: impl AsHeaderName, now_s: u64) -> Option<u64> {
    parse(text::only(headers, name)?, now_s)
}

/// Reads a date as Unix seconds; one before 1970 is zero.
pub(super) fn parse(text: &[u8], now_s: u64) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    imf(text).or_else(|| rfc850(text, now_s)).or_else(|| asctime(text))
}

/// A moment as a field value; none beyond the year 9999, which the format cannot write.
pub(super) fn header(unix_ms: u64) -> Option<HeaderValue> {
    const YEAR_10000: u64 = 253_402_300_800;
    let seconds = Some(unix_ms / 1000).filter(|seconds| *seconds < YEAR_10000)?;
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    HeaderValue::from_maybe_shared(text).ok()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf(text: &str) -> Option<u64> {
    let rest = name(text, 3, &DAYS)?.1.strip_prefix(", ")?;
    let (day, rest) = number(rest, 2)?;
    let (month, rest) = name(rest.strip_prefix(' ')?, 3, &MONTHS)?;
    let (year, rest) = number(rest.strip_prefix(' ')?, 4)?;
    let time = zoned(rest.strip_prefix(' ')?)?;
    seconds(year, month, day, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(text: &str, now_s: u64) -> Option<u64> {
    let (day_name, rest) = text.split_once(", ")?;
    name(day_name, day_name.len(), &LONG_DAYS)?;
    let (day, rest) = number(rest, 2)?;
    let (month, rest) = name(rest.strip_prefix('-')?, 3, &MONTHS)?;
    let (short_year, rest) = number(rest.strip_prefix('-')?, 2)?;
    let time = zoned(rest.strip_prefix(' ')?)?;
    // The latest year with these digits that is not too far ahead.
    let now_s = i64::try_from(now_s).unwrap_or(i64::MAX).min(DAY_S * 366 * 8000);
    let latest = year_of(now_s) + AHEAD_YEARS_MAX;
    let mut year = latest - (latest - short_year).rem_euclid(100);
    let is_ahead = |at: u64| i64::try_from(at).unwrap_or(i64::MAX) - now_s > ahead_max_s();
    if year == latest && seconds(year, month, day, time).is_some_and(is_ahead) {
        year -= 100;
    }
    seconds(year, month, day, time)
}

fn ahead_max_s() -> i64 {
    AHEAD_YEARS_MAX * 365 * DAY_S + AHEAD_YEARS_MAX / 4 * DAY_S
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &str) -> Option<u64> {
    let rest = name(text, 3, &DAYS)?.1.strip_prefix(' ')?;
    let (month, rest) = name(rest, 3, &MONTHS)?;
    let rest = rest.strip_prefix(' ')?;
    let (day, rest) = match rest.strip_prefix(' ') {
        Some(rest) => number(rest, 1)?,
        None => number(rest, 2)?,
    };
    let (time, rest) = clock(rest.strip_prefix(' ')?)?;
    let (year, rest) = number(rest.strip_prefix(' ')?, 4)?;
    if rest.is_empty() { seconds(year, month, day, time) } else { None }
}

/// Splits off the first `length` bytes, which must be one of `names`, and yields its position.
fn name<'t>(text: &'t str, length: usize, names: &[&str]) -> Option<(i64, &'t str)> {
    let (head, rest) = text.split_at_checked(length)?;
    let at = names.iter().position(|name| name.eq_ignore_ascii_case(head))?;
    Some((i64::try_from(at).ok()?, rest))
}

fn number(text: &str, digits: usize) -> Option<(i64, &str)> {
    let (head, rest) = text.split_at_checked(digits)?;
    if !head.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((head.parse().ok()?, rest))
}

/// `08:49:37`, as seconds of the day.
fn clock(text: &str) -> Option<(i64, &str)> {
    let (hour, rest) = number(text, 2)?;
    let (minute, rest) = number(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = number(rest.strip_prefix(':')?, 2)?;
    // 60 is a leap second.
    let exists = hour < 24 && minute < 60 && second <= 60;
    exists.then_some((hour * 3600 + minute * 60 + second, rest))
}

/// `08:49:37 GMT` and nothing behind it.
fn zoned(text: &str) -> Option<i64> {
    let (time, zone) = clock(text)?;
    zone.eq_ignore_ascii_case(" GMT").then_some(time)
}

/// Seconds since 1970; `month` counts from zero.
fn seconds(year: i64, month: i64, day: i64, time: i64) -> Option<u64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 => 28 + i64::from(is_leap),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let total = days_to(year, month, day).saturating_mul(DAY_S).saturating_add(time);
    Some(u64::try_from(total).unwrap_or(0))
}

/// Days from 1970-01-01, in a calendar whose year begins with March, so that the leap day is last.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

fn year_of(unix_s: i64) -> i64 {
    let days = unix_s.div_euclid(DAY_S);
    let guess = 1970 + days.div_euclid(365);
    (guess - 30..=guess).rev().find(|year| days_to(*year, 0, 1) <= days).unwrap_or(guess)
}
