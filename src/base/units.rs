//! Quantities as people write them in the configuration: durations, sizes, rates; and secrets that
//! do not print.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest duration that can be written: far above every sensible timeout, far below any overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * DAY_S);
/// Longest window of a rate.
const WINDOW_MAX: Duration = Duration::from_secs(365 * DAY_S);
const DAY_S: u64 = 24 * 60 * 60;

/// Units of durations with their milliseconds, the largest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", DAY_S * 1000), ("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];

/// Units of sizes with their bytes. Decimal units do not exist, so that no size can be misread.
const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads a duration: digits and one unit, `250ms` `30s` `15m` `1h` `2d`. Zero is a duration.
///
/// # Errors
/// Says what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write a whole number and one unit: 250ms, 30s, 15m, 1h or 2d";
    const RANGE: &str = "write at most 3650d";
    let (digits, unit) = split_number(text).ok_or(FORM)?;
    let unit_ms = lookup(&DURATION_UNITS, unit).ok_or(FORM)?;
    // Only too many digits can fail here: their form was checked by the split.
    let count: u64 = digits.parse().map_err(|_| RANGE)?;
    let duration = Duration::from_millis(count.checked_mul(unit_ms).ok_or(RANGE)?);
    if duration > DURATION_MAX { Err(RANGE.to_owned()) } else { Ok(duration) }
}

/// Reads a duration like [`parse_duration`], and refuses zero: for timeouts and periods, which zero
/// would turn into "always too late".
///
/// # Errors
/// Says what to write instead.
pub fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() {
        Err("write more than zero, such as 1s".to_owned())
    } else {
        Ok(duration)
    }
}

/// Writes a duration in the largest unit that divides it: `15m`, `1h`, `250ms`. Parts below 1 ms
/// are left out.
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    DURATION_UNITS
        .iter()
        .find(|(_, unit_ms)| ms != 0 && ms.is_multiple_of(u128::from(*unit_ms)))
        .map_or_else(
            || "0s".to_owned(),
            |(unit, unit_ms)| format!("{}{unit}", ms / u128::from(*unit_ms)),
        )
}

/// Reads a size in bytes: digits and one unit, `512B` `32KiB` `10MiB` `2GiB`.
///
/// # Errors
/// Says what to write instead.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const FORM: &str = "write a whole number and one unit: 512B, 32KiB, 10MiB or 2GiB";
    const RANGE: &str = "write a smaller number of bytes";
    let (digits, unit) = split_number(text).ok_or(FORM)?;
    let unit_bytes = lookup(&SIZE_UNITS, unit).ok_or(FORM)?;
    let count: u64 = digits.parse().map_err(|_| RANGE)?;
    count.checked_mul(unit_bytes).ok_or_else(|| RANGE.to_owned())
}

/// Writes a size in the largest unit that divides it: `32KiB`, `1MiB`, `1000B`.
pub fn size_text(bytes: u64) -> String {
    SIZE_UNITS
        .iter()
        .rev()
        .find(|(_, unit_bytes)| bytes != 0 && bytes.is_multiple_of(*unit_bytes))
        .map_or_else(
            || "0B".to_owned(),
            |(unit, unit_bytes)| format!("{}{unit}", bytes / unit_bytes),
        )
}

/// Splits `30s` into `30` and `s`; nothing without digits.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn lookup(units: &[(&str, u64)], name: &str) -> Option<u64> {
    units.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor)
}

/// At most `limit` requests within any `window`; written `100/15m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many, at least 1.
    pub limit: u32,
    /// In which time, 1 ms to 365 days.
    pub window: Duration,
}

impl Rate {
    /// The window as short text, in the largest unit that divides it: `15m`, `1s`, `250ms`, `1h`.
    pub fn label(&self) -> String {
        duration_text(self.window)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (limit, window) =
            text.split_once('/').ok_or("write a number, a slash and a window, such as 100/15m")?;
        let limit = match split_number(limit) {
            Some((digits, "")) => digits.parse().unwrap_or(0),
            _ => 0,
        };
        if limit == 0 {
            return Err(format!("write a number from 1 to {} before the slash: 100/15m", u32::MAX));
        }
        let window =
            parse_positive_duration(window).map_err(|error| format!("after the slash, {error}"))?;
        if window > WINDOW_MAX {
            return Err("write a window of at most 365d".to_owned());
        }
        Ok(Self { limit, window })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.limit, self.label())
    }
}

/// Bytes that are never printed: the only way out is [`Secret::expose`], which is easy to search
/// for.
///
/// Equality is not constant in time: compare what a client sent with a function made for that.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Hides `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_digits_and_one_unit() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("250ms", Ok(ms(250))),
            ("30s", Ok(ms(30_000))),
            ("15m", Ok(ms(900_000))),
            ("1h", Ok(ms(3_600_000))),
            ("2d", Ok(ms(172_800_000))),
            ("0s", Ok(ms(0))),
            ("3650d", Ok(DURATION_MAX)),
            ("3651d", Err("at most 3650d")),
            ("99999999999999999999s", Err("at most 3650d")),
            ("18446744073709551615d", Err("at most 3650d")),
            ("", Err("whole number")),
            ("s", Err("whole number")),
            ("30", Err("whole number")),
            ("30 s", Err("whole number")),
            ("-1s", Err("whole number")),
            ("1.5s", Err("whole number")),
            ("1h30m", Err("whole number")),
            ("30S", Err("whole number")),
            ("٣s", Err("whole number")),
        ] {
            match (parse_duration(text), expected) {
                (Ok(duration), Ok(expected)) => assert_eq!(duration, expected, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (outcome, _) => panic!("{text}: {outcome:?}"),
            }
        }
        assert!(parse_positive_duration("0ms").is_err());
        assert_eq!(parse_positive_duration("1ms"), Ok(ms(1)));
    }

    #[test]
    fn sizes_have_digits_and_one_unit() {
        for (text, expected) in [
            ("512B", Some(512)),
            ("32KiB", Some(32_768)),
            ("10MiB", Some(10_485_760)),
            ("2GiB", Some(2_147_483_648)),
            ("0B", Some(0)),
            ("18446744073709551615B", Some(u64::MAX)),
            ("18446744073709551616B", None),
            ("18446744073709551615KiB", None),
            ("10MB", None),
            ("10", None),
            ("KiB", None),
            ("1.5MiB", None),
            (" 1B", None),
        ] {
            assert_eq!(parse_size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn rates_have_a_number_and_a_window() {
        for (text, expected) in [
            ("100/15m", Some((100, "15m"))),
            ("20/1s", Some((20, "1s"))),
            ("1/250ms", Some((1, "250ms"))),
            ("5/60m", Some((5, "1h"))),
            ("5/90m", Some((5, "90m"))),
            ("5/24h", Some((5, "1d"))),
            ("4294967295/365d", Some((u32::MAX, "365d"))),
            ("4294967296/1s", None),
            ("0/1s", None),
            ("+1/1s", None),
            ("1/0s", None),
            ("1/366d", None),
            ("1", None),
            ("/1s", None),
            ("1/", None),
            ("1/s", None),
            ("1/1s/1s", None),
        ] {
            let rate: Result<Rate, String> = text.parse();
            let read = rate.as_ref().ok().map(|rate| (rate.limit, rate.label()));
            let expected = expected.map(|(limit, label)| (limit, label.to_owned()));
            assert_eq!(read, expected, "{text}: {rate:?}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("correct horse");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "*** Some(***)");
        assert_eq!(secret.expose(), b"correct horse");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 1..=DURATION_MAX.as_millis() as u64, bytes: u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "[0-9]{0,25}/?[0-9]{0,25}.{0,4}") {
            let _ = (parse_duration(&text), parse_size(&text), text.parse::<Rate>());
        }
    }
}
