//! `warm = { … }` of a route's cache: what is fetched before anybody asks for it.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use toml::de::DeValue;

use super::reader::Section;
use super::value::{Mistake, Read, count, duration, echo, header_name, string, text};
use crate::base::http::fields::{is_credential, is_framing, is_of_connection, is_request_modifier};

/// Requests at a time.
const CONCURRENCY: usize = 4;
/// Requests per second.
const PER_SECOND: u32 = 50;

/// `warm = { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warm {
    /// Paths with queries.
    pub urls: Vec<String>,
    /// Path of a sitemap, whose pages on the route are fetched too.
    pub sitemap: Option<String>,
    /// The host that clients name; the route's own where it has one.
    pub host: Option<String>,
    /// Request fields of each variant; none for one request without any.
    pub vary: Vec<Vec<(HeaderName, HeaderValue)>>,
    /// Requests at a time.
    pub concurrency: usize,
    /// Requests per second.
    pub per_second: u32,
    /// How often it is done again after the start.
    pub every: Option<Duration>,
}

/// Reads `warm = { … }`.
pub(super) fn read(warm: &mut Section<'_>) -> Warm {
    Warm {
        urls: warm.list("urls", path).unwrap_or_default(),
        sitemap: warm.get("sitemap", path),
        host: warm.get("host", text),
        vary: warm.list("vary", variant).unwrap_or_default(),
        concurrency: warm.or("concurrency", CONCURRENCY, count(1..=256)),
        per_second: warm.or("per_second", PER_SECOND, count(1..=10_000)),
        every: warm.get("every", duration),
    }
}

fn path(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "a path in quotes, such as \"/products?page=1\"")?;
    let is_path = text.starts_with('/') && !text.contains('#');
    match text.parse::<http::uri::PathAndQuery>() {
        Ok(_) if is_path => Ok(text.to_owned()),
        _ => {
            let what = format!("{} is not a path on the route's host", echo(text));
            Err(Mistake::new(what, "write one like \"/products?page=1\""))
        }
    }
}

fn variant(value: &DeValue<'_>) -> Read<Vec<(HeaderName, HeaderValue)>> {
    const EXAMPLE: &str = "{ accept-language = \"de\" }";
    let table = value.as_table().ok_or_else(|| Mistake::wrong_type(value, "a table", EXAMPLE))?;
    table.iter().map(|(name, value)| field(name.get_ref(), value.get_ref())).collect()
}

/// What a response may be chosen by; not what would make the request another one.
fn field(name: &str, value: &DeValue<'_>) -> Read<(HeaderName, HeaderValue)> {
    let name = header_name(name)?;
    let field = name.as_str();
    let is_other = is_of_connection(field)
        || is_framing(field)
        || is_credential(field)
        || is_request_modifier(field);
    if is_other {
        let what = format!("{name} does not choose between variants that everybody may have");
        return Err(Mistake::new(what, "name fields that the response's Vary names"));
    }
    let text = string(value, "the field's value in quotes")?;
    let value = HeaderValue::try_from(text);
    let value = value.map_err(|_| Mistake::new("is no field value", "write visible characters"))?;
    Ok((name, value))
}
