//! `balance`: which of several servers gets a request.

use std::fmt;

use http::HeaderName;
use toml::de::DeValue;

use super::value::{Mistake, Read, cookie_name, echo, field_name, header_name, string};

/// How a server is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// The less busy of two random servers.
    P2c,
    /// In turn, smoothly by weight.
    RoundRobin,
    /// Of two random servers the one that answers sooner (peak EWMA), by what it has to do.
    Ewma,
    /// The same server for the same key; as [`Self::P2c`] for a request without one.
    Hash(HashBy),
}

/// What requests are told apart by where equal ones go to the same server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address, of IPv6 its /64.
    Address,
    /// A claim of the caller's.
    Claim(String),
    /// A field of the request.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// The path.
    Path,
}

impl fmt::Display for HashBy {
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

const EXAMPLE: &str = "\"p2c\", \"round-robin\", \"ewma\" or \"hash:address\"";
const KEYS: &str = "\"hash:address\", \"hash:claim:sub\", \"hash:header:x-tenant\", \
                    \"hash:cookie:sid\" or \"hash:path\"";

/// `"p2c"`, `"round-robin"`, `"ewma"` or `"hash:…"`
pub(super) fn balance(value: &DeValue<'_>) -> Read<Balance> {
    match string(value, EXAMPLE)? {
        "p2c" => Ok(Balance::P2c),
        "round-robin" => Ok(Balance::RoundRobin),
        "ewma" => Ok(Balance::Ewma),
        text => match text.strip_prefix("hash:") {
            Some(by) => hash_by(by).map(Balance::Hash),
            None => {
                let what = format!("{} is not a choice here", echo(text));
                Err(Mistake::new(what, format!("write {EXAMPLE}")))
            }
        },
    }
}

fn hash_by(text: &str) -> Read<HashBy> {
    match text.split_once(':') {
        None if text == "address" => Ok(HashBy::Address),
        None if text == "path" => Ok(HashBy::Path),
        Some(("claim", name)) => field_name(name).map(HashBy::Claim),
        Some(("header", name)) => header_name(name).map(HashBy::Header),
        Some(("cookie", name)) => cookie_name(name).map(HashBy::Cookie),
        _ => {
            let what = format!("{} is nothing that requests go by", echo(text));
            Err(Mistake::new(what, format!("write {KEYS}")))
        }
    }
}
