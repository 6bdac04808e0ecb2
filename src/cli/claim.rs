//! A claim as the command line writes it.

use serde_json::{Map, Value};

/// A claim as the command line names it, `name=value`.
pub(super) fn read_claim(claim: &str) -> Result<(String, Value), String> {
    let (name, value) =
        claim.split_once('=').ok_or_else(|| format!("{claim:?} is not NAME=VALUE"))?;
    // A subject that looks like a number is still a string, as RFC 7519 wants it.
    let text = || Value::from(value);
    let value = match name {
        "sub" | "jti" | "sid" | "iss" => text(),
        _ => serde_json::from_str(value).unwrap_or_else(|_| text()),
    };
    Ok((name.to_owned(), value))
}

/// Claims, each written as `NAME=VALUE`; of one name the last one counts.
pub(super) fn read_claims(claims: &[String]) -> Result<Map<String, Value>, String> {
    claims.iter().map(|claim| read_claim(claim)).collect()
}
