//! `cors = { … }` of a route: which pages of other origins may call it.

use std::time::Duration;

use http::HeaderValue;
use toml::de::DeValue;

use super::origin::{Origin, origin};
use super::reader::Section;
use super::value::{Mistake, Read, duration_or_zero, echo, flag, header_name, string};

/// Longest time for which browsers remember an answer: the longest that any of them heeds.
const MAX_AGE_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// What scripts may read of a response, beside what they always may: what the gateway adds to it.
const EXPOSED: [&str; 7] = [
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-request-id",
];

/// `cors = { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The pages that may.
    pub origins: Origins,
    /// Whether they may do so with the cookies of their visitor.
    pub credentials: bool,
    /// The request's fields that they may set, as the value of one field, which may be empty;
    /// `None`: those that they ask for.
    pub headers: Option<HeaderValue>,
    /// The response's fields that they may read beside those that every page may, as the value of
    /// one field, which may be empty.
    pub expose: HeaderValue,
    /// How long a browser may remember the answer to a preflight; whole seconds.
    pub max_age: Duration,
}

/// Pages by their origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All of them, `"*"`.
    All,
    /// Those of one of these.
    These(Vec<Origin>),
}

impl Origins {
    /// Whether a page of this origin is among them.
    pub fn cover(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::All => true,
            Self::These(origins) => origins.iter().any(|one| one.covers(origin.as_bytes())),
        }
    }
}

/// Reads `cors = { … }`.
pub(super) fn read(cors: &mut Section<'_>) -> Cors {
    let (has_headers, has_expose) = (cors.has("headers"), cors.has("expose"));
    let headers = cors.list_or_empty("headers", field);
    let mut expose = cors.list_or_empty("expose", field);
    if !has_expose {
        expose = EXPOSED.map(str::to_owned).to_vec();
    }
    let origins = read_origins(cors);
    let credentials = cors.or("credentials", false, flag);
    if credentials && origins == Origins::All {
        let what = "would let every page act with the cookies of its visitor";
        cors.problem("credentials", what, "name the origins, or leave credentials out");
    }
    for (key, names) in [("headers", &headers), ("expose", &expose)] {
        if credentials && names.iter().any(|name| name == "*") {
            let what = "has \"*\", which browsers read as a name where credentials come along";
            cors.problem(key, what, "name the fields");
        }
    }
    Cors {
        origins,
        credentials,
        headers: has_headers.then(|| joined(&headers)),
        expose: joined(&expose),
        max_age: cors.or("max_age", Duration::from_secs(10 * 60), max_age),
    }
}

fn read_origins(cors: &mut Section<'_>) -> Origins {
    // `None` is any.
    let any_or_one = |value: &DeValue<'_>| {
        let is_any = value.as_str() == Some("*");
        if is_any { Ok(None) } else { origin(value).map(Some) }
    };
    let named = cors.need_list("origins", "[\"https://shop.example.com\"]", any_or_one);
    if named.contains(&None) {
        return Origins::All;
    }
    Origins::These(named.into_iter().flatten().collect())
}

fn field(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "the name of a header in quotes")?;
    header_name(text).map(|name| name.as_str().to_owned())
}

/// Names as the value of one field.
fn joined(names: &[String]) -> HeaderValue {
    let joined = names.join(", ");
    // Names of fields are all that stands there.
    HeaderValue::try_from(joined).unwrap_or(HeaderValue::from_static(""))
}

fn max_age(value: &DeValue<'_>) -> Read<Duration> {
    let duration = duration_or_zero(value)?;
    if duration > MAX_AGE_MAX {
        let what =
            format!("{} is longer than browsers remember", echo(value.as_str().unwrap_or("")));
        return Err(Mistake::new(what, "write at most \"2h\""));
    }
    Ok(duration)
}
