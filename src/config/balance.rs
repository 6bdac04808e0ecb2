//! `balance`: which of several servers gets a request.

use toml::de::DeValue;

use super::hash_key::{self, HashKey};
use super::value::{Mistake, Read, echo, string};

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
    Hash(HashKey),
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
            Some(by) => {
                let nothing = || {
                    let what = format!("{} is nothing that requests go by", echo(by));
                    Err(Mistake::new(what, format!("write {KEYS}")))
                };
                hash_key::parse(by).unwrap_or_else(nothing).map(Balance::Hash)
            }
            None => {
                let what = format!("{} is not a choice here", echo(text));
                Err(Mistake::new(what, format!("write {EXAMPLE}")))
            }
        },
    }
}
