//! Values as TOML writes them, and quantities of other programs as Portcullis writes them.

use std::time::Duration;

use crate::base::units::{DURATION_MAX, duration_text, size_text};

/// A string. One of JSON is one of TOML, too, but for a character that TOML wants escaped.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// A list of strings.
pub(super) fn list(texts: &[impl AsRef<str>]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", texts.join(", "))
}

/// A key, in quotes where it needs them.
pub(super) fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !name.is_empty() && name.bytes().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// A table on one line, of values as TOML has them.
pub(super) fn table<K: AsRef<str>>(entries: &[(K, String)]) -> String {
    let entries: Vec<String> =
        entries.iter().map(|(name, value)| format!("{} = {value}", key(name.as_ref()))).collect();
    if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
}

/// A duration in quotes; the longest that can be written where it is longer.
pub(super) fn duration(time: Duration) -> String {
    quoted(&duration_text(time.min(DURATION_MAX)))
}

/// A size in quotes.
pub(super) fn size(bytes: u64) -> String {
    quoted(&size_text(bytes))
}

/// Milliseconds of the units that nginx knows: `1h 30m`, `60`, `500ms`. Traefik and Go write
/// `1m30s` and `1.5s`, which are read, too.
pub(super) fn time(text: &str) -> Option<Duration> {
    let mut total = 0_f64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, behind) = rest.split_at(end);
        let number: f64 = digits.parse().ok()?;
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let milliseconds = match unit {
            "ms" => 1_f64,
            "" | "s" => 1_000_f64,
            "m" => 60_000_f64,
            "h" => 3_600_000_f64,
            "d" => 86_400_000_f64,
            "w" => 604_800_000_f64,
            "M" => 2_592_000_000_f64,
            "y" => 31_536_000_000_f64,
            _ => return None,
        };
        total += number * milliseconds;
        rest = behind.trim_start();
    }
    let time = Duration::try_from_secs_f64(total.round() / 1000.0).ok()?;
    (time <= DURATION_MAX).then_some(time)
}

/// Bytes as nginx writes them: `512`, `10k`, `1m`, `2g`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let shift = match unit {
        "" | "b" | "B" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// So many requests in such a time, as `allow` has it.
pub(super) fn rate(count: u64, window: Duration) -> Option<String> {
    let is_writable = (1..=u64::from(u32::MAX)).contains(&count) && window.as_millis() > 0;
    is_writable.then(|| format!("{count}/{}", duration_text(window)))
}

/// What a bucket of `burst` and a request lets through at once and fills again at so many
/// requests in `per`: the window in which as many pass.
pub(super) fn bucket(average: u64, per: Duration, burst: u64) -> Option<String> {
    let count = burst.checked_add(1)?;
    let millis = per.as_millis().checked_mul(u128::from(count))? / u128::from(average.max(1));
    rate(count, Duration::from_millis(u64::try_from(millis.max(1)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_their_programs_do() {
        for (text, expected) in [
            ("60", Some("1m")),
            ("500ms", Some("500ms")),
            ("1h 30m", Some("90m")),
            ("1m30s", Some("90s")),
            ("1.5s", Some("1500ms")),
            ("1d", Some("1d")),
            ("1M", Some("30d")),
            ("", None),
            ("s", None),
            ("1x", None),
            ("1..2s", None),
            ("99999999999999999999y", None),
        ] {
            assert_eq!(time(text).map(duration_text).as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            ("1m", Some(1 << 20)),
            ("10K", Some(10 << 10)),
            ("7", Some(7)),
            ("1t", None),
            ("", None),
            ("99999999999g", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn a_bucket_is_the_window_in_which_its_burst_passes() {
        let second = Duration::from_secs(1);
        for (average, per, burst, expected) in [
            (10, second, 20, "21/2100ms"),
            (10, second, 0, "1/100ms"),
            (5, second * 60, 0, "1/12s"),
            (1, second, 9, "10/10s"),
        ] {
            assert_eq!(bucket(average, per, burst).as_deref(), Some(expected));
        }
        assert_eq!(bucket(0, second, u64::MAX), None);
    }

    #[test]
    fn text_of_strangers_is_one_value() {
        for text in ["a\"b\\c", "a\nb", "\u{7f}\u{1}", "]\n[x]", "größer"] {
            let written = format!("{} = {}", key(text), quoted(text));
            let read = toml::de::DeTable::parse(&written).expect("TOML");
            let value = read.get_ref().get(text).and_then(|value| value.get_ref().as_str());
            assert_eq!(value, Some(text), "{written}");
        }
    }
}
