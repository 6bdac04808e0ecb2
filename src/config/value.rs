//! What one value may be: the kinds (duration, size, header name) that the sections are made of.
//!
//! A kind is a function from a value to what it means, or to the [`Mistake`] in it. A kind never
//! echoes a value that could hold a secret.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;
use toml::de::DeValue;

use crate::base::units::{Rate, parse_duration, parse_positive_duration, parse_size, size_text};

/// Longest echo of a wrong value, in characters.
const ECHO_CHARS_MAX: usize = 60;
/// Longest text that names something: a claim, a cookie, a host.
const TEXT_BYTES_MAX: usize = 2048;

/// One kibibyte.
pub(super) const KIB: u64 = 1 << 10;
/// One mebibyte.
pub(super) const MIB: u64 = 1 << 20;
/// One gibibyte.
pub(super) const GIB: u64 = 1 << 30;

/// Why a value is wrong, and what to write instead.
#[derive(Debug)]
pub(super) struct Mistake {
    /// What is wrong.
    pub(super) what: String,
    /// What to do about it.
    pub(super) remedy: String,
    /// The same for programs.
    pub(super) flaw: Flaw,
}

/// What a value is not, as far as programs can be told: the schema is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Of a type that is taken here.
    Type,
    /// One of these words.
    Choice(Vec<String>),
    /// Of this form, a regular expression.
    Form(&'static str),
    /// A number from the one to the other.
    Range(u64, u64),
    /// There, though it is needed.
    Missing,
    /// A list with an element.
    Empty,
    /// What only the words say.
    Other,
}

/// The form of a duration, of one above zero, of a size, of a share, and of a rate.
const DURATION: &str = "^[0-9]+(ms|s|m|h|d)$";
const DURATION_ABOVE_ZERO: &str = "^0*[1-9][0-9]*(ms|s|m|h|d)$";
const SIZE: &str = "^[0-9]+(B|KiB|MiB|GiB)$";
const PERCENT: &str = "^[0-9]+%$";
const SHARE: &str = "^[0-9]{1,3}([.][0-9]{1,2})?%$";
const RATE: &str = "^0*[1-9][0-9]*/0*[1-9][0-9]*(ms|s|m|h|d)$";

impl Mistake {
    /// A mistake in these words.
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into(), flaw: Flaw::Other }
    }

    /// The same mistake, with what programs are told of it.
    pub(super) fn of(self, flaw: Flaw) -> Self {
        Self { flaw, ..self }
    }

    /// A value of another type than the kind's.
    pub(super) fn wrong_type(value: &DeValue<'_>, wanted: &str, example: &str) -> Self {
        let found = with_article(value.type_str());
        Self::new(format!("must be {wanted}, is {found}"), format!("write {example}"))
            .of(Flaw::Type)
    }
}

/// What a kind returns.
pub(super) type Read<T> = Result<T, Mistake>;

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// A wrong text as it is shown: quoted, on one line, cropped.
pub(super) fn echo(text: &str) -> String {
    let mut head: String = text.chars().take(ECHO_CHARS_MAX).collect();
    if head.len() < text.len() {
        head.push('…');
    }
    format!("{head:?}")
}

/// A string; `example` is what the remedy shows.
pub(super) fn string<'v>(value: &'v DeValue<'_>, example: &str) -> Read<&'v str> {
    value.as_str().ok_or_else(|| Mistake::wrong_type(value, "a string", example))
}

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Read<bool> {
    let wrong = || Mistake::wrong_type(value, "true or false", "true or false, without quotes");
    value.as_bool().ok_or_else(wrong)
}

/// Text that is not empty and has no control characters.
pub(super) fn text(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "it in quotes")?;
    check_text(text)?;
    Ok(text.to_owned())
}

/// See [`text`].
pub(super) fn check_text(text: &str) -> Read<()> {
    if text.is_empty() {
        return Err(Mistake::new("is empty", "write a value, or remove the key"));
    }
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        let what = format!("{} is too long or has control characters", echo(text));
        return Err(Mistake::new(what, format!("write at most {TEXT_BYTES_MAX} visible bytes")));
    }
    Ok(())
}

/// A duration above zero.
pub(super) fn duration(value: &DeValue<'_>) -> Read<Duration> {
    duration_by(value, DURATION_ABOVE_ZERO, parse_positive_duration)
}

/// A duration, or zero for none.
pub(super) fn duration_or_zero(value: &DeValue<'_>) -> Read<Duration> {
    duration_by(value, DURATION, parse_duration)
}

/// What `read` reads, up to `max`; beyond that the value is what the first text says, and the
/// second one what to write.
pub(super) fn at_most(
    read: impl Fn(&DeValue<'_>) -> Read<Duration>,
    max: Duration,
    (what, remedy): (&'static str, &'static str),
) -> impl Fn(&DeValue<'_>) -> Read<Duration> {
    move |value| match read(value)? {
        long if long > max => Err(Mistake::new(what, remedy)),
        read => Ok(read),
    }
}

fn duration_by(
    value: &DeValue<'_>,
    form: &'static str,
    parse: impl Fn(&str) -> Result<Duration, String>,
) -> Read<Duration> {
    let text = string(value, "a number and a unit in quotes, such as \"30s\"")?;
    parse(text).map_err(|remedy| {
        let what = format!("{} is not a valid duration", echo(text));
        Mistake::new(what, remedy).of(Flaw::Form(form))
    })
}

/// A size in bytes within `range`, as text with a unit or as a bare number of bytes.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Read<u64> {
    move |value| {
        let (bytes, shown) = match value {
            DeValue::Integer(_) => (integer(value), "the number".to_owned()),
            _ => {
                let text = string(value, "a number and a unit in quotes, such as \"32KiB\"")?;
                let bytes = parse_size(text).map_err(|remedy| {
                    let what = format!("{} is not a size", echo(text));
                    Mistake::new(what, remedy).of(Flaw::Form(SIZE))
                })?;
                (Some(bytes), echo(text))
            }
        };
        bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            let (low, high) = (size_text(*range.start()), size_text(*range.end()));
            Mistake::new(
                format!("{shown} is out of range"),
                format!("write a size from \"{low}\" to \"{high}\""),
            )
            .of(Flaw::Range(*range.start(), *range.end()))
        })
    }
}

/// A whole number within `range`.
pub(super) fn count<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&DeValue<'_>) -> Read<T> {
    move |value| {
        let (low, high) = (range.start(), range.end());
        let example = format!("a number from {low} to {high}, without quotes");
        if !value.is_integer() {
            return Err(Mistake::wrong_type(value, "a whole number", &example));
        }
        integer(value)
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                let mistake = Mistake::new("is out of range", format!("write {example}"));
                mistake.of(Flaw::Range(*low, *high))
            })
    }
}

/// A whole percentage within `range`, in quotes.
pub(super) fn percent(range: RangeInclusive<u8>) -> impl Fn(&DeValue<'_>) -> Read<u8> {
    let range = u16::from(*range.start())..=u16::from(*range.end());
    let read = percent_beyond(range);
    // What is in the range fits.
    move |value| read(value).map(|number| u8::try_from(number).unwrap_or(u8::MAX))
}

/// A whole percentage within `range`, which may be more than all.
pub(super) fn percent_beyond(range: RangeInclusive<u16>) -> impl Fn(&DeValue<'_>) -> Read<u16> {
    move |value| {
        let (low, high) = (range.start(), range.end());
        let example = format!("a whole percentage from \"{low}%\" to \"{high}%\"");
        let text = string(value, &example)?;
        let digits = text.strip_suffix('%').filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let what = format!("{} is not a percentage here", echo(text));
            Mistake::new(what, format!("write {example}")).of(Flaw::Form(PERCENT))
        })
    }
}

/// A share in percent with up to two decimals, in quotes, as ten-thousandths of all.
pub(super) fn share(value: &DeValue<'_>) -> Read<u16> {
    const EXAMPLE: &str = "a percentage from \"0%\" to \"100%\", such as \"0.25%\"";
    let text = string(value, EXAMPLE)?;
    parse_share(text).ok_or_else(|| {
        let what = format!("{} is not a share", echo(text));
        Mistake::new(what, format!("write {EXAMPLE}")).of(Flaw::Form(SHARE))
    })
}

/// See [`share`].
pub(super) fn parse_share(text: &str) -> Option<u16> {
    let number = text.strip_suffix('%')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || whole.len() > 3 || decimals.len() > 2 {
        return None;
    }
    let hundredths = format!("{decimals:0<2}");
    let parts = whole.parse::<u16>().ok()? * 100 + hundredths.parse::<u16>().ok()?;
    (parts <= 10_000).then_some(parts)
}

/// The number, when it is an integer that fits.
fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// One of some words.
pub(super) fn choice<T: Copy>(words: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> Read<T> {
    move |value| {
        let all: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let all = all.join(" or ");
        let text = string(value, &all)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        found.ok_or_else(|| {
            let words = words.iter().map(|(word, _)| (*word).to_owned()).collect();
            Mistake::new(format!("{} is not a choice here", echo(text)), format!("write {all}"))
                .of(Flaw::Choice(words))
        })
    }
}

/// An address to listen on.
pub(super) fn address(value: &DeValue<'_>) -> Read<SocketAddr> {
    // Of a port alone nobody can say for whom it is.
    let of_port = |port: u16| format!("\"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for everybody");
    if let Some(port) = value.as_integer().and_then(|it| it.as_str().parse().ok()) {
        return Err(Mistake::wrong_type(value, "a string", &of_port(port)));
    }
    let text = string(value, "it in quotes, such as \"0.0.0.0:8080\"")?;
    text.parse().map_err(|_| {
        let what = format!("{} is not an address and a port", echo(text));
        let port = text.strip_prefix(':').unwrap_or(text).parse().ok();
        let remedy = port.map_or("one like \"0.0.0.0:8080\" or \"[::1]:8080\"".into(), of_port);
        Mistake::new(what, format!("write {remedy}"))
    })
}

/// The name of a header field, in lower case.
pub(super) fn header_name(text: &str) -> Read<HeaderName> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Mistake::new(
            format!("{} cannot be a header name", echo(text)),
            "write one like \"x-user-id\"",
        )
    })
}

/// The name of a cookie: a token of RFC 9110.
pub(super) fn cookie_name(text: &str) -> Read<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > 256 || !text.bytes().all(token) {
        let what = format!("{} cannot be a cookie name", echo(text));
        return Err(Mistake::new(what, "write one like \"cookie:sid\""));
    }
    Ok(text.to_owned())
}

/// The name of a query parameter, as it is after percent-decoding.
pub(super) fn parameter_name(text: &str) -> Read<String> {
    if text.is_empty() || text.len() > 256 || !text.bytes().all(|b| (0x21..=0x7E).contains(&b)) {
        let what = format!("{} cannot be the name of a query parameter", echo(text));
        return Err(Mistake::new(what, "write one like \"query:access_token\""));
    }
    Ok(text.to_owned())
}

/// The name of a claim or of a session field.
pub(super) fn field_name(text: &str) -> Read<String> {
    check_text(text).map(|()| text.to_owned())
}

/// The name of a claim alone, where nothing but a claim can be meant.
pub(super) fn claim_name(text: &str) -> Read<String> {
    if let Some(name) = text.strip_prefix("claim:") {
        let what = format!("{} is not the name of a claim", echo(text));
        return Err(Mistake::new(what, format!("write the claim's name alone: {}", echo(name))));
    }
    field_name(text)
}

/// An HTTP method in upper case: methods are case-sensitive, and `get` would match nothing that
/// browsers send.
pub(super) fn method(value: &DeValue<'_>) -> Read<http::Method> {
    const REMEDY: &str = "write one in upper case, such as \"GET\"";
    let text = string(value, "one in quotes, such as \"GET\"")?;
    let wrong = || Mistake::new(format!("{} is not a method", echo(text)), REMEDY);
    if !text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Err(wrong());
    }
    http::Method::from_bytes(text.as_bytes()).map_err(|_| wrong())
}

/// `host`, `host:port` or `[v6]:port`; the host is returned without brackets. Nothing when it is
/// something else.
pub(super) fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (is_host_name(host).then_some(host)?, Some(port)),
            None => (is_host_name(text).then_some(text)?, None),
        },
    };
    let port = match port {
        None => default_port,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0)?
        }
        Some(_) => return None,
    };
    Some((host.to_owned(), port))
}

/// A password in a url would be shown.
pub(super) fn no_credentials(rest: &str) -> Read<()> {
    if rest.contains('@') {
        return Err(Mistake::new(
            "has a user or a password inside the url, where logs and process lists would show it",
            "remove everything up to `@`, and write the keys username and password",
        ));
    }
    Ok(())
}

/// Letters, digits, `.`, `-` and `_` (which container networks use): also every IPv4 address.
fn is_host_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed)
}

/// A number of requests in a time, such as `100/15m`.
pub(super) fn rate(value: &DeValue<'_>) -> Read<Rate> {
    let text = string(value, "a number and a window in quotes, such as \"100/15m\"")?;
    text.parse().map_err(|remedy: String| {
        let what = format!("{} is not a limit", echo(text));
        Mistake::new(what, remedy).of(Flaw::Form(RATE))
    })
}
