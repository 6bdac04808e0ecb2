//! `[limits.NAME]`: rate-limit policies.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::reader::Section;
use super::server::network;
use super::value::{
    Mistake, Read, choice, count, duration, duration_or_zero, echo, field_name, flag, header_name,
    rate, string, text,
};
use crate::base::units::Rate;

/// `[limits.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What is counted; several parts make one composite key.
    pub key: Vec<LimitKey>,
    /// The windows, all of which must pass.
    pub allow: Vec<Rate>,
    /// Most requests in flight, in place of windows.
    pub concurrent: Option<u32>,
    /// How long a place in flight is kept for a gateway of which nothing is heard.
    pub lease: Duration,
    /// Other windows for some callers.
    pub tiers: Option<Tiers>,
    /// Units that a request takes.
    pub cost: Cost,
    /// The response field that says what a request did cost, and the most that it may say.
    pub response_cost: Option<(http::HeaderName, u32)>,
    /// Statuses of responses that count, where not all do.
    pub count: Vec<Statuses>,
    /// Which requests get back what they took.
    pub refund: Vec<Refund>,
    /// What happens to a request over the limit.
    pub over: Over,
    /// Who is not counted.
    pub exempt: Exempt,
    /// Whom routes with this limit refuse.
    pub block: Vec<IpNet>,
    /// Most time that is added to `Retry-After`, at random.
    pub retry_jitter: Duration,
    /// Who counts.
    pub scope: Scope,
}

/// `tiers = { by = "claim:plan", allow = { gold = ["1000/15m"] } }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiers {
    /// Name of the claim whose value names the tier.
    pub claim: String,
    /// The windows of each tier, in place of the limit's own.
    pub allow: BTreeMap<String, Vec<Rate>>,
}

/// What one request takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cost {
    /// `cost = 5`
    Fixed(u32),
    /// `cost = { header = "x-cost", max = 100 }`: what a request field says, from 1 to `max`.
    Header(http::HeaderName, u32),
    /// `cost = { methods = { POST = 5 } }`: 1 for the methods that are not named.
    Methods(Vec<(http::Method, u32)>),
}

/// A status, or a hundred of them: `"401"`, `"4xx"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statuses {
    /// One.
    One(u16),
    /// All that begin with this digit.
    Class(u16),
}

impl Statuses {
    /// What is written so; nothing where it is no status of a response.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_suffix("xx").unwrap_or(text);
        let is_class = digits.len() < text.len();
        let is_whole = digits.len() == if is_class { 1 } else { 3 };
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: u16 = digits.parse().ok().filter(|_| is_whole && is_number)?;
        match is_class {
            true => (1..=5).contains(&number).then_some(Self::Class(number)),
            false => (100..=599).contains(&number).then_some(Self::One(number)),
        }
    }

    /// Whether `status` is meant.
    pub fn contain(self, status: http::StatusCode) -> bool {
        match self {
            Self::One(one) => status.as_u16() == one,
            Self::Class(class) => status.as_u16() / 100 == class,
        }
    }
}

/// Why a request gets back what it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refund {
    /// The upstream did not answer, or with a status from 500 on.
    Failure,
    /// The answer came from the cache.
    Cache,
}

/// What happens to a request over the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// It is refused.
    Refuse,
    /// It passes, and is reported: `shadow = true`.
    Shadow,
    /// It passes, and the upstream is told in this field: `mark = "x-over-limit"`.
    Mark(http::HeaderName),
}

/// `exempt = { addresses = ["10.0.0.0/8"], claims = { role = ["service"] } }`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exempt {
    /// Clients in these networks.
    pub addresses: Vec<IpNet>,
    /// Callers of whom one of these claims has one of its values.
    pub claims: BTreeMap<String, Vec<String>>,
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

/// Shortest and longest lease of a place in flight.
const LEASE_MIN: Duration = Duration::from_secs(5);
const LEASE_MAX: Duration = Duration::from_secs(60 * 60);
/// Most units that one request can be said to cost.
const COST_MAX: u32 = 1_000_000;

/// Reads `[limits.NAME]`.
pub(super) fn read(limit: &mut Section<'_>) -> Limit {
    let scopes = [("shared", Scope::Shared), ("local", Scope::Local)];
    let refunds = [("failure", Refund::Failure), ("cache", Refund::Cache)];
    let key = limit.need_list("key", "[\"address\"]", limit_key);
    let concurrent = limit.get("concurrent", count(1..=1_000_000));
    let allow = if limit.has("concurrent") {
        limit.list_or_empty("allow", rate)
    } else {
        limit.need_list("allow", "[\"100/15m\"]", rate)
    };
    report_duplicates(limit, &key, &allow);
    limit.holds("cost", || Some(1.into()));
    let read = Limit {
        key,
        allow,
        concurrent,
        lease: limit.or("lease", Duration::from_secs(30), lease),
        tiers: limit.optional("tiers", read_tiers).flatten(),
        cost: limit.either("cost", fixed_cost, read_cost).unwrap_or(Cost::Fixed(1)),
        response_cost: limit.optional("response_cost", read_response_cost).flatten(),
        count: limit.optional("count", read_count).unwrap_or_default(),
        refund: limit.list_or_empty("refund", choice(&refunds)),
        over: read_over(limit),
        exempt: limit.section("exempt", read_exempt),
        block: limit.list_or_empty("block", network),
        retry_jitter: limit.or("retry_jitter", Duration::ZERO, duration_or_zero),
        scope: limit.or("scope", Scope::Shared, choice(&scopes)),
    };
    report_local(limit, &read);
    report_concurrent(limit, &read);
    report_unpayable(limit, &read);
    read
}

fn read_tiers(tiers: &mut Section<'_>) -> Option<Tiers> {
    let claim = tiers.need("by", "\"claim:NAME\"", claim);
    let allow = tiers.map("allow", field_name, |rates| rates.list_of(rate));
    if allow.is_empty() {
        let remedy = "write allow = { gold = [\"1000/15m\"] }, or remove tiers";
        tiers.problem("allow", "names no tier", remedy);
    }
    claim.map(|claim| Tiers { claim, allow })
}

fn fixed_cost(value: &DeValue<'_>) -> Read<Cost> {
    count(0..=u64::from(COST_MAX))(value).map(Cost::Fixed)
}

fn read_cost(cost: &mut Section<'_>) -> Option<Cost> {
    let by_header = cost.get("header", header);
    let max = cost.or("max", 100, count(1..=u64::from(COST_MAX)));
    let costs =
        cost.map("methods", method_name, |units| units.read(count(0..=u64::from(COST_MAX))));
    let methods: Vec<(http::Method, u32)> = costs
        .into_iter()
        .filter_map(|(name, units)| Some((http::Method::from_bytes(name.as_bytes()).ok()?, units)))
        .collect();
    match (by_header, methods.is_empty()) {
        (Some(header), true) => Some(Cost::Header(header, max)),
        (None, false) => Some(Cost::Methods(methods)),
        _ => {
            let remedy = "write a number, { header = \"x-cost\", max = 100 } or \
                          { methods = { POST = 5 } }";
            cost.problem("", "does not say what a request costs, or says it twice", remedy);
            None
        }
    }
}

fn read_response_cost(cost: &mut Section<'_>) -> Option<(http::HeaderName, u32)> {
    let header = cost.need("header", "\"x-cost\"", header);
    let max = cost.or("max", 1000, count(1..=u64::from(COST_MAX)));
    header.map(|header| (header, max))
}

fn read_count(count: &mut Section<'_>) -> Vec<Statuses> {
    count.need_list("status", "[\"401\", \"403\"]", statuses)
}

fn read_over(limit: &mut Section<'_>) -> Over {
    let shadow = limit.or("shadow", false, flag);
    match (shadow, limit.get("mark", header)) {
        (false, None) => Over::Refuse,
        (true, None) => Over::Shadow,
        (false, Some(header)) => Over::Mark(header),
        (true, Some(_)) => {
            limit.problem("mark", "contradicts shadow, which nobody sees", "keep one of them");
            Over::Shadow
        }
    }
}

fn read_exempt(exempt: &mut Section<'_>) -> Exempt {
    Exempt {
        addresses: exempt.list_or_empty("addresses", network),
        claims: exempt.map("claims", field_name, |values| values.list_of(text)),
    }
}

/// What a limit of this node alone cannot do: it has no counter that could be corrected.
fn report_local(section: &Section<'_>, limit: &Limit) {
    if limit.scope == Scope::Shared {
        return;
    }
    let corrections = [
        ("count", !limit.count.is_empty()),
        ("refund", !limit.refund.is_empty()),
        ("response_cost", limit.response_cost.is_some()),
    ];
    for (key, _) in corrections.into_iter().filter(|(_, given)| *given) {
        let what = "needs a counter that can be corrected, which scope = \"local\" has not";
        section.problem(key, what, "remove it, or write scope = \"shared\"");
    }
}

/// What a limit on requests in flight cannot have: it has places, not units that come back in time.
fn report_concurrent(section: &Section<'_>, limit: &Limit) {
    if limit.concurrent.is_none() {
        if section.has("lease") {
            let what = "needs concurrent, whose places it keeps";
            section.problem("lease", what, "add concurrent = 10, or remove lease");
        }
        return;
    }
    for key in ["allow", "tiers", "cost", "response_cost", "count", "refund"] {
        if section.has(key) {
            let what = "counts units of a window, which concurrent has not";
            section.problem(key, what, "remove it, or make it a limit of its own");
        }
    }
}

/// A cost above a limit never passes.
fn report_unpayable(section: &Section<'_>, limit: &Limit) {
    let dearest = match &limit.cost {
        Cost::Fixed(cost) => *cost,
        Cost::Header(_, max) => *max,
        Cost::Methods(costs) => costs.iter().map(|(_, cost)| *cost).max().unwrap_or(0),
    };
    let tiers = limit.tiers.iter().flat_map(|tiers| tiers.allow.values().flatten());
    if let Some(rate) = limit.allow.iter().chain(tiers).find(|rate| rate.limit < dearest) {
        let what = format!("can be {dearest}, which {rate} never lets pass");
        section.problem("cost", what, "lower the cost, or raise the limit");
    }
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

/// A lease is renewed once a second at most often, and must survive two renewals that fail.
fn lease(value: &DeValue<'_>) -> Read<Duration> {
    let lease = duration(value)?;
    if (LEASE_MIN..=LEASE_MAX).contains(&lease) {
        Ok(lease)
    } else {
        Err(Mistake::new("is out of range", "write 5s to 1h"))
    }
}

fn claim(value: &DeValue<'_>) -> Read<String> {
    const EXAMPLE: &str = "\"claim:NAME\"";
    let text = string(value, EXAMPLE)?;
    match text.split_once(':') {
        Some(("claim", name)) => field_name(name),
        _ => {
            let what = format!("{} does not name a claim", echo(text));
            Err(Mistake::new(what, format!("write {EXAMPLE}")))
        }
    }
}

fn header(value: &DeValue<'_>) -> Read<http::HeaderName> {
    header_name(string(value, "a header name in quotes")?)
}

fn method_name(name: &str) -> Read<String> {
    let known = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase());
    let wrong = || {
        let what = format!("{} is not a method", echo(name));
        Mistake::new(what, "write one in upper case, such as POST")
    };
    if known { Ok(name.to_owned()) } else { Err(wrong()) }
}

fn statuses(value: &DeValue<'_>) -> Read<Statuses> {
    const EXAMPLE: &str = "\"401\" or \"4xx\"";
    let text = string(value, EXAMPLE)?;
    Statuses::parse(text).ok_or_else(|| {
        let what = format!("{} is no status of a response", echo(text));
        Mistake::new(what, format!("write {EXAMPLE}"))
    })
}
