//! What of a request is hashed, where all of its kind are to meet the same: `sticky` of a route,
//! and `balance = "hash:…"` of an upstream.

use std::fmt;

use http::HeaderName;
use toml::de::DeValue;

use super::value::{Mistake, Read, cookie_name, echo, field_name, header_name, string};

/// What a remedy shows.
const EXAMPLE: &str = "\"address\", \"claim:NAME\", \"cookie:NAME\", \"header:NAME\" or \"path\"";

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// `address` (IPv6: its /64)
    Address,
    /// `claim:NAME`
    Claim(String),
    /// `cookie:NAME`
    Cookie(String),
    /// `header:NAME`
    Header(HeaderName),
    /// `path`
    Path,
}

impl fmt::Display for HashKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => out.write_str("address"),
            Self::Claim(name) => write!(out, "claim:{name}"),
            Self::Header(name) => write!(out, "header:{name}"),
            Self::Cookie(name) => write!(out, "cookie:{name}"),
            Self::Path => out.write_str("path"),
        }
    }
}

/// Reads one.
pub(super) fn hash_key(value: &DeValue<'_>) -> Read<HashKey> {
    let text = string(value, EXAMPLE)?;
    parse(text).unwrap_or_else(|| {
        let what = format!("{} cannot be hashed", echo(text));
        Err(Mistake::new(what, format!("write {EXAMPLE}")))
    })
}

/// Reads one from its text; nothing where that is of no kind that is known.
pub(super) fn parse(text: &str) -> Option<Read<HashKey>> {
    Some(match text.split_once(':') {
        None if text == "address" => Ok(HashKey::Address),
        None if text == "path" => Ok(HashKey::Path),
        Some(("claim", name)) => field_name(name).map(HashKey::Claim),
        Some(("cookie", name)) => cookie_name(name).map(HashKey::Cookie),
        Some(("header", name)) => header_name(name).map(HashKey::Header),
        _ => return None,
    })
}
