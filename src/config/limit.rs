//! `[limits.NAME]`: rate-limit policies.

use toml::de::DeValue;

use super::reader::Section;
use super::value::{Mistake, Read, choice, echo, field_name, header_name, string};
use crate::base::units::Rate;

/// `[limits.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What is counted; several parts make one composite key.
    pub key: Vec<LimitKey>,
    /// The windows, all of which must pass.
    pub allow: Vec<Rate>,
    /// Who counts.
    pub scope: Scope,
}

/// One part of a limit's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitKey {
    /// `address` (IPv6: its /64)
    Address,
    /// `claim:NAME`
    Claim(String),
    /// `header:NAME`
    Header(http::HeaderName),
    /// `session`
    Session,
    /// `route`
    Route,
}

/// Who counts a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All gateways on one store.
    Shared,
    /// This node alone.
    Local,
}

/// Reads `[limits.NAME]`.
pub(super) fn read(limit: &mut Section<'_>) -> Limit {
    limit.not_built("tiers", "every caller would have the same limits");
    limit.not_built("shadow", "the policy would refuse, not only count");
    let scopes = [("shared", Scope::Shared), ("local", Scope::Local)];
    let key = limit.need_list("key", "[\"address\"]", limit_key);
    let allow = limit.need_list("allow", "[\"100/15m\"]", rate);
    report_duplicates(limit, &key, &allow);
    Limit { key, allow, scope: limit.or("scope", Scope::Shared, choice(&scopes)) }
}

/// A window that is given twice has two limits of which one never counts; so has a part of the key.
fn report_duplicates(limit: &Section<'_>, key: &[LimitKey], allow: &[Rate]) {
    if key.iter().enumerate().any(|(at, part)| key.iter().take(at).any(|other| other == part)) {
        limit.problem("key", "names the same part twice", "remove one of them");
    }
    let same = |a: &Rate, b: &Rate| a.window == b.window;
    for (at, rate) in allow.iter().enumerate() {
        if allow.iter().take(at).any(|other| same(other, rate)) {
            let what = format!("has two limits for a window of {}", rate.label());
            limit.problem("allow", what, "keep the smaller one");
        }
    }
}

fn rate(value: &DeValue<'_>) -> Read<Rate> {
    let text = string(value, "a number and a window in quotes, such as \"100/15m\"")?;
    text.parse()
        .map_err(|remedy: String| Mistake::new(format!("{} is not a limit", echo(text)), remedy))
}

fn limit_key(value: &DeValue<'_>) -> Read<LimitKey> {
    const EXAMPLE: &str = "\"address\", \"claim:NAME\", \"header:NAME\", \"session\" or \"route\"";
    let text = string(value, EXAMPLE)?;
    match text.split_once(':') {
        None if text == "address" => Ok(LimitKey::Address),
        None if text == "session" => Ok(LimitKey::Session),
        None if text == "route" => Ok(LimitKey::Route),
        Some(("claim", name)) => field_name(name).map(LimitKey::Claim),
        Some(("header", name)) => header_name(name).map(LimitKey::Header),
        _ => {
            let what = format!("{} cannot be counted by", echo(text));
            Err(Mistake::new(what, format!("write {EXAMPLE}")))
        }
    }
}
