//! `[upstreams.NAME.retry]` and `hedge`: when a request is sent more than once.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use toml::de::DeValue;

use super::reader::Section;
use super::value::{Flaw, KIB, MIB, Mistake, Read, count, duration, echo, percent, size, string};

/// `[upstreams.NAME.retry]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often one request is sent at most, the first time among them.
    pub attempts: u32,
    /// Longest wait before the second attempt; twice as long before each further one.
    pub backoff: Duration,
    /// After what.
    pub on: RetryOn,
    /// Longest body that is kept while it is sent, for sending it again, in bytes.
    pub body: u64,
    /// How many of all requests may be sent once more, in percent.
    pub budget: u8,
    /// After which percentile of the time to an answer another server is asked, too; nothing asks
    /// one server alone.
    pub hedge: Option<u8>,
}

/// After what a request is sent once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryOn {
    /// There was no connection, or none that took anything.
    pub connect: bool,
    /// The server said that it has not looked at the request.
    pub refused: bool,
    /// The exchange ended without an answer.
    pub reset: bool,
    /// There was no answer in time.
    pub timeout: bool,
    /// An answer of one of these statuses.
    pub statuses: Vec<StatusCode>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Connect,
    Refused,
    Reset,
    Timeout,
    Status(StatusCode),
}

const ON_DEFAULT: [Word; 4] =
    [Word::Connect, Word::Refused, Word::Reset, Word::Status(StatusCode::SERVICE_UNAVAILABLE)];

/// Reads the table, and the key beside it.
pub(super) fn read(upstream: &mut Section<'_>) -> Option<Retry> {
    let retry = upstream.optional("retry", read_retry);
    let hedge = upstream.get("hedge", percentile);
    if retry.is_none() && upstream.has("hedge") {
        let what = "asks a second server, which the budget of retry is to bound";
        upstream.problem("hedge", what, "write [upstreams.NAME.retry], or remove hedge");
    }
    retry.map(|retry| Retry { hedge, ..retry })
}

fn read_retry(retry: &mut Section<'_>) -> Retry {
    let on = retry.list("on", word);
    retry.holds("on", || Some(json!(["connect", "refused", "reset", "503"])));
    let on = on.as_deref().unwrap_or(&ON_DEFAULT);
    let statuses = on.iter().filter_map(|word| match word {
        Word::Status(status) => Some(*status),
        _ => None,
    });
    Retry {
        attempts: retry.or("attempts", 2, count(2..=10)),
        backoff: retry.or("backoff", Duration::from_millis(50), duration),
        on: RetryOn {
            connect: on.contains(&Word::Connect),
            refused: on.contains(&Word::Refused),
            reset: on.contains(&Word::Reset),
            timeout: on.contains(&Word::Timeout),
            statuses: statuses.collect(),
        },
        body: retry.or("body", 64 * KIB, size(0..=MIB)),
        budget: retry.or("budget", 20, percent(1..=100)),
        hedge: None,
    }
}

fn word(value: &DeValue<'_>) -> Read<Word> {
    const EXAMPLE: &str = "\"connect\", \"refused\", \"reset\", \"timeout\" or a status such as \
                           \"503\"";
    let text = string(value, EXAMPLE)?;
    let status = || {
        let status: u16 = text.parse().ok().filter(|status| (400..=599).contains(status))?;
        StatusCode::from_u16(status).ok().map(Word::Status)
    };
    match text {
        "connect" => Ok(Word::Connect),
        "refused" => Ok(Word::Refused),
        "reset" => Ok(Word::Reset),
        "timeout" => Ok(Word::Timeout),
        _ => status().ok_or_else(|| {
            let what = format!("{} is no reason to send a request again", echo(text));
            let form = "^(connect|refused|reset|timeout|[45][0-9]{2})$";
            Mistake::new(what, format!("write {EXAMPLE}")).of(Flaw::Form(form))
        }),
    }
}

/// Such as `p95`.
fn percentile(value: &DeValue<'_>) -> Read<u8> {
    const EXAMPLE: &str = "a percentile from \"p50\" to \"p99\", such as \"p95\"";
    let text = string(value, EXAMPLE)?;
    let digits = text.strip_prefix('p').filter(|digits| digits.len() == 2);
    let found = digits.and_then(|digits| digits.parse().ok());
    found.filter(|percent| (50..=99).contains(percent)).ok_or_else(|| {
        let what = format!("{} is not a percentile", echo(text));
        Mistake::new(what, format!("write {EXAMPLE}")).of(Flaw::Form("^p[5-9][0-9]$"))
    })
}
