//! How a default would be written in the file: the value that its kind reads as just that. Guesses
//! are tried until one is read so; none is told unless it was.

use std::any::Any;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::value::{Flaw, Read};
use crate::base::units::{Rate, duration_text, size_text};

/// Words that are read and that no mistake lists.
const WORDS: [&str; 3] = ["off", "p2c", "memory:"];

/// What to write so that `kind` reads `meant`; nothing where no guess does.
pub(super) fn written<T: PartialEq + Any>(
    meant: &T,
    kind: impl Fn(&DeValue<'_>) -> Read<T>,
) -> Option<Value> {
    let reads = |guess: &Value| {
        let text = format!("v = {guess}");
        let table = DeTable::parse(&text).ok();
        let value = table.as_ref().and_then(|table| table.get_ref().get("v"));
        value.is_some_and(|value| kind(value.get_ref()).is_ok_and(|read| read == *meant))
    };
    let listed = match kind(&DeValue::String("?".into())) {
        Err(mistake) => match mistake.flaw {
            Flaw::Choice(words) => words,
            _ => Vec::new(),
        },
        Ok(_) => Vec::new(),
    };
    let words = listed.into_iter().map(Value::from).chain(WORDS.map(Value::from));
    let flags = [false.into(), true.into()];
    let percentages = (0..=100).map(|number| Value::from(format!("{number}%")));
    own(meant).into_iter().chain(words).chain(flags).chain(percentages).find(reads)
}

/// Guesses from what a value is.
fn own(meant: &dyn Any) -> Vec<Value> {
    let text = |text: String| vec![Value::from(text)];
    if let Some(time) = meant.downcast_ref::<Duration>() {
        return text(duration_text(*time));
    }
    if let Some(rate) = meant.downcast_ref::<Rate>() {
        return text(format!("{}/{}", rate.limit, duration_text(rate.window)));
    }
    if let Some(own) = meant.downcast_ref::<String>() {
        return text(own.clone());
    }
    if let Some(address) = meant.downcast_ref::<SocketAddr>() {
        return text(address.to_string());
    }
    if let Some(name) = meant.downcast_ref::<HeaderName>() {
        return text(name.as_str().to_owned());
    }
    if let Some(value) = meant.downcast_ref::<HeaderValue>() {
        return text(value.to_str().unwrap_or_default().to_owned());
    }
    number(meant).map(of_number).unwrap_or_default()
}

fn number(meant: &dyn Any) -> Option<u64> {
    let status = meant.downcast_ref::<StatusCode>().map(|it| it.as_u16().into());
    status
        .or_else(|| meant.downcast_ref::<u64>().copied())
        .or_else(|| meant.downcast_ref::<usize>().and_then(|it| u64::try_from(*it).ok()))
        .or_else(|| meant.downcast_ref::<u32>().map(|it| (*it).into()))
        .or_else(|| meant.downcast_ref::<u16>().map(|it| (*it).into()))
        .or_else(|| meant.downcast_ref::<u8>().map(|it| (*it).into()))
}

/// A size, a percentage, a share in ten-thousandths, a number each second, or the number itself.
fn of_number(number: u64) -> Vec<Value> {
    let (whole, hundredths) = (number / 100, number % 100);
    let share = match hundredths {
        0 => format!("{whole}%"),
        _ => format!("{whole}.{hundredths:02}%"),
    };
    let texts = [size_text(number), format!("{number}%"), share, format!("{number}/s")];
    texts.into_iter().map(Value::from).chain([number.into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::value::{choice, count, duration, flag, percent, rate, share, size, string};
    use super::*;

    #[test]
    fn what_is_told_is_read_as_what_was_meant() {
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(written(&week, duration), Some("7d".into()));
        assert_eq!(written(&true, flag), Some(true.into()));
        assert_eq!(written(&256u16, count(1..=300)), Some(256.into()));
        assert_eq!(written(&(64u64 << 10), size(1..=1 << 20)), Some("64KiB".into()));
        assert_eq!(written(&0u64, size(0..=1)), Some("0B".into()));
        assert_eq!(written(&50u8, percent(1..=100)), Some("50%".into()));
        assert_eq!(written(&10_000u16, share), Some("100%".into()));
        assert_eq!(written(&25u16, share), Some("0.25%".into()));
        let five = Rate { limit: 5, window: week };
        assert_eq!(written(&five, rate), Some("5/7d".into()));
        assert_eq!(written(&2u8, choice(&[("one", 1), ("two", 2)])), Some("two".into()));
        assert_eq!(written(&3u8, choice(&[("one", 1), ("two", 2)])), None, "no word means it");
        let text = |value: &DeValue<'_>| string(value, "it").map(str::to_owned);
        assert_eq!(written(&"a \"b\"".to_owned(), text), Some("a \"b\"".into()));
    }
}
