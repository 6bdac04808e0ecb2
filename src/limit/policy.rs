//! The limits of one route, compiled: which windows a request meets, and at what cost.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::facts::Facts;
use super::headers::{self, QuotaItem};
use super::local;
use crate::base::claim::{Found, Spelling};
use crate::base::facts::{ClientAddr, Identity};
use crate::base::units::Rate;
use crate::config::{self, Cost, LimitKey, Over, Refund, Scope, Statuses};
use crate::observe::LimitOutcome;
use crate::store::keys::JSON_MARK;
use crate::store::{ConcurrencyLimit, Mode, Window, WindowSet};

/// The limits of one route, compiled.
#[derive(Debug, Default)]
pub struct Policy {
    /// Limits that the store counts, those keyed by address alone first.
    pub(super) shared: Vec<Limit>,
    /// How many of `shared` need nothing but the address.
    pub(super) by_address: usize,
    /// Limits of this node alone.
    pub(super) local: Vec<Limit>,
    /// Limits on requests in flight.
    pub(super) concurrent: Vec<Concurrent>,
    /// What every request asks of the store, when all ask the same.
    pub(super) fixed: Option<Fixed>,
    /// The `RateLimit-Policy` field, when it is the same for all.
    pub(super) policy_header: Option<HeaderValue>,
    /// Whether a question depends on the caller's session.
    asks_by_session: bool,
    /// Whether any limit counts by session.
    uses_session: bool,
    /// Whether any limit does not count everybody.
    pub(super) exempts: bool,
    /// Whom the route refuses.
    blocked: Vec<IpNet>,
    /// How many gateways share the limits.
    pub(super) nodes: u32,
    /// Whether the store is told afterwards what was counted in its place.
    pub(super) reconcile: bool,
}

/// Windows as the store takes them, already encoded.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) all: Arc<WindowSet>,
    /// Of the limits that are keyed by address alone.
    pub(super) by_address: Arc<WindowSet>,
}

/// One limit.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) key: Vec<LimitKey>,
    pub(super) over: Over,
    pub(super) retry_jitter: Duration,
    pub(super) count: Vec<Statuses>,
    pub(super) refund: Vec<Refund>,
    pub(super) response_cost: Option<(HeaderName, u32)>,
    cost: Cost,
    exempt: config::Exempt,
    rules: Vec<Rule>,
    tiers: Option<(String, BTreeMap<String, Vec<Rule>>)>,
}

/// A limit on requests in flight.
#[derive(Debug)]
pub(super) struct Concurrent {
    pub(super) limit: Limit,
    pub(super) bound: ConcurrencyLimit,
    /// Whether each gateway counts for itself.
    pub(super) is_local: bool,
    /// Which of the route's meters counts for it.
    pub(super) meter: usize,
}

/// One window of a limit.
#[derive(Debug)]
pub(super) struct Rule {
    /// The window as the store's key names it: `15m`.
    pub(super) label: String,
    pub(super) item: QuotaItem,
    pub(super) window: Window,
    pub(super) quota: governor::Quota,
    /// Which of the route's meters counts for it.
    pub(super) meter: usize,
}

impl Policy {
    /// Compiles the named limits of one route. At least `nodes` gateways share them; `reconcile`
    /// says that the store is told what they count in its place.
    pub fn compile<'a>(
        limits: impl Iterator<Item = (&'a str, &'a config::Limit)>,
        nodes: u32,
        reconcile: bool,
    ) -> Self {
        let mut blocked = Vec::new();
        let (mut shared, mut local, mut concurrent) = (Vec::new(), Vec::new(), Vec::new());
        for (name, written) in limits {
            blocked.extend_from_slice(&written.block);
            let limit = Limit::compile(name, written);
            let is_local = written.scope == Scope::Local;
            match written.concurrent {
                Some(most) => {
                    let mode = mode(&limit.over);
                    let bound = ConcurrencyLimit { most, lease: written.lease, mode };
                    concurrent.push(Concurrent { limit, bound, is_local, meter: 0 });
                }
                None if is_local => local.push(limit),
                None => shared.push(limit),
            }
        }
        // A stable sort: address-keyed limits form a prefix, which is what a request without a
        // valid token charges.
        shared.sort_by_key(|limit: &Limit| !limit.is_by_address());
        let by_address = shared.iter().filter(|limit| limit.is_by_address()).count();
        number(shared.iter_mut().chain(&mut local), &mut concurrent);
        let uniform = shared.iter().all(Limit::is_uniform);
        let windows = |limits: &[Limit]| {
            let rules = limits.iter().flat_map(|limit| limit.rules.iter().map(move |r| (limit, r)));
            let priced = rules.map(|(limit, rule)| rule.priced(limit.fixed_cost()));
            Arc::new(WindowSet::new(priced.collect()))
        };
        let fixed = uniform
            .then(|| Fixed { all: windows(&shared), by_address: windows(&shared[..by_address]) });
        let advertised = shared.iter().chain(&local).filter(|limit| limit.is_advertised());
        let items = advertised.flat_map(|limit| limit.rules.iter().map(|rule| &rule.item));
        let uniform = uniform && local.iter().all(Limit::is_uniform);
        let policy_header = if uniform { headers::policy_header(items) } else { None };
        let all = shared.iter().chain(concurrent.iter().map(|it: &Concurrent| &it.limit));
        let asks_by_session = all.clone().any(Limit::is_by_session);
        let exempts = all.chain(&local).any(|limit| limit.exempt != config::Exempt::default());
        let uses_session = asks_by_session || local.iter().any(Limit::is_by_session);
        Self {
            shared,
            by_address,
            local,
            concurrent,
            fixed,
            policy_header,
            asks_by_session,
            uses_session,
            exempts,
            blocked,
            nodes,
            reconcile,
        }
    }

    /// Whether what is asked of the store, or held, depends on the caller's session.
    pub fn asks_by_session(&self) -> bool {
        self.asks_by_session
    }

    /// Whether any limit counts by session, where there is one.
    pub fn uses_session(&self) -> bool {
        self.uses_session
    }

    /// The names that clients see of each limit, or of each of its windows, and what it does to
    /// requests over it.
    pub fn items(&self) -> impl Iterator<Item = (&str, LimitOutcome)> {
        let windows = self.shared.iter().chain(&self.local).flat_map(|limit| {
            let tiers = limit.tiers.iter().flat_map(|(_, tiers)| tiers.values().flatten());
            let rules = limit.rules.iter().chain(tiers);
            rules.map(|rule| (rule.item.name.as_str(), limit.outcome_over()))
        });
        let in_flight = self.concurrent.iter();
        windows.chain(in_flight.map(|it| (it.limit.name.as_str(), it.limit.outcome_over())))
    }

    /// Whether any limit is asked of the store.
    pub fn asks(&self) -> bool {
        !self.shared.is_empty() || !self.concurrent.is_empty()
    }

    /// Whether there is no limit, and nobody is refused.
    pub fn is_empty(&self) -> bool {
        let Self { shared, local, concurrent, blocked, .. } = self;
        shared.is_empty() && local.is_empty() && concurrent.is_empty() && blocked.is_empty()
    }

    /// Whether the route refuses this client, whatever it asks.
    pub fn blocks(&self, address: ClientAddr) -> bool {
        !self.blocked.is_empty() && contains(&self.blocked, address)
    }
}

impl Limit {
    fn compile(name: &str, written: &config::Limit) -> Self {
        let mode = mode(&written.over);
        let rules = |rates: &[Rate]| -> Vec<Rule> {
            let several = rates.len() > 1;
            rates.iter().map(|rate| Rule::compile(name, several, rate, mode)).collect()
        };
        let tiers = written.tiers.as_ref().map(|tiers| {
            let compiled = tiers.allow.iter().map(|(tier, rates)| (tier.clone(), rules(rates)));
            (tiers.claim.clone(), compiled.collect())
        });
        Self {
            name: name.to_owned(),
            key: written.key.clone(),
            over: written.over.clone(),
            retry_jitter: written.retry_jitter,
            count: written.count.clone(),
            refund: written.refund.clone(),
            response_cost: written.response_cost.clone(),
            cost: written.cost.clone(),
            exempt: written.exempt.clone(),
            rules: rules(&written.allow),
            tiers,
        }
    }

    /// Whether this request is not counted.
    pub(super) fn is_exempt(&self, facts: &Facts<'_>) -> bool {
        let identity = facts.caller.as_deref();
        contains(&self.exempt.addresses, facts.address)
            || self.exempt.claims.iter().any(|(claim, values)| says(identity, claim, values))
    }

    /// The windows that count this request; none when it is exempt.
    pub(super) fn rules(&self, facts: &Facts<'_>) -> &[Rule] {
        if self.is_exempt(facts) {
            return &[];
        }
        let identity = facts.caller.as_deref();
        let tier = self
            .tiers
            .as_ref()
            .and_then(|(claim, tiers)| tiers.get(&*tier_of(identity?.find(claim)?.spelling())?));
        tier.unwrap_or(&self.rules)
    }

    /// Units that this request takes.
    pub(super) fn cost(&self, facts: &Facts<'_>) -> u32 {
        match &self.cost {
            Cost::Fixed(cost) => *cost,
            Cost::Header(name, max) => {
                let said = facts.headers.get(name).and_then(|value| value.to_str().ok());
                said.and_then(units).unwrap_or(1).clamp(1, *max)
            }
            Cost::Methods(costs) => {
                costs.iter().find(|(method, _)| method == facts.method).map_or(1, |(_, cost)| *cost)
            }
        }
    }

    /// Whether the limit counts by nothing but the client's address (and the route).
    pub(super) fn is_by_address(&self) -> bool {
        self.key.iter().all(|part| matches!(part, LimitKey::Address | LimitKey::Route))
    }

    /// Whether it counts by session, where there is one.
    pub(super) fn is_by_session(&self) -> bool {
        self.key.contains(&LimitKey::Session)
    }

    /// Whether it can be judged before anybody knows who calls.
    pub(super) fn is_early(&self) -> bool {
        self.is_by_address() && self.exempt.claims.is_empty() && self.tiers.is_none()
    }

    /// What becomes of a request, in words for operators.
    pub(super) fn verdict(&self, fits: bool) -> &'static str {
        match &self.over {
            _ if fits => "passes",
            Over::Refuse => "refuses",
            Over::Shadow => "passes, in shadow",
            Over::Mark(_) => "passes, marked",
        }
    }

    /// What becomes of a request over it, as metrics say it.
    pub(super) fn outcome_over(&self) -> LimitOutcome {
        match &self.over {
            Over::Refuse => LimitOutcome::Refuse,
            Over::Shadow => LimitOutcome::Shadow,
            Over::Mark(_) => LimitOutcome::Mark,
        }
    }

    /// The meters of its windows without a tier, which stand for those that do not count a request.
    pub(super) fn meters(&self) -> impl Iterator<Item = usize> {
        self.rules.iter().map(|rule| rule.meter)
    }

    /// Whether clients are told of it.
    pub(super) fn is_advertised(&self) -> bool {
        self.over != Over::Shadow
    }

    /// Whether the answer decides what is charged in the end.
    pub(super) fn is_corrected(&self) -> bool {
        !self.count.is_empty() || !self.refund.is_empty() || self.response_cost.is_some()
    }

    /// Whether every request meets the same windows at the same cost.
    fn is_uniform(&self) -> bool {
        matches!(self.cost, Cost::Fixed(_))
            && self.tiers.is_none()
            && self.exempt == config::Exempt::default()
    }

    fn fixed_cost(&self) -> u32 {
        if let Cost::Fixed(cost) = self.cost { cost } else { 1 }
    }
}

impl Rule {
    fn compile(name: &str, several: bool, rate: &Rate, mode: Mode) -> Self {
        let label = rate.label();
        let item = if several { format!("{name}-{label}") } else { name.to_owned() };
        Self {
            item: QuotaItem::new(item, rate.limit, rate.window),
            label,
            window: Window { mode, ..Window::new(rate.limit, rate.window) },
            quota: local::quota(rate),
            meter: 0,
        }
    }

    /// The window at a cost.
    pub(super) fn priced(&self, cost: u32) -> Window {
        Window { cost, ..self.window }
    }
}

/// Says which of the route's meters counts for which window, in the order of [`Policy::items`].
fn number<'l>(windows: impl Iterator<Item = &'l mut Limit>, concurrent: &'l mut [Concurrent]) {
    let windows = windows.flat_map(|Limit { rules, tiers, .. }| {
        let tiers = tiers.iter_mut().flat_map(|(_, tiers)| tiers.values_mut().flatten());
        rules.iter_mut().chain(tiers).map(|rule| &mut rule.meter)
    });
    let meters = windows.chain(concurrent.iter_mut().map(|it| &mut it.meter));
    meters.enumerate().for_each(|(index, meter)| *meter = index);
}

/// What the store does with a request over a limit.
fn mode(over: &Over) -> Mode {
    match over {
        Over::Refuse => Mode::Enforce,
        Over::Shadow | Over::Mark(_) => Mode::Observe,
    }
}

/// A number of units as a header says it; one beyond all bounds is the largest there is.
pub(super) fn units(text: &str) -> Option<u32> {
    let digits = text.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u32::MAX))
}

fn contains(networks: &[IpNet], address: ClientAddr) -> bool {
    !networks.is_empty() && networks.iter().any(|network| network.contains(&address.ip()))
}

/// The tier that a claim names. A string names itself, unless it imitates another type; a number
/// or a boolean is written `json=7` in the configuration, as in a limit's key. Nothing else names
/// a tier.
fn tier_of(claim: Spelling<'_>) -> Option<Cow<'_, str>> {
    match claim {
        Spelling::Text(text) => (!text.starts_with(JSON_MARK)).then(|| text.into()),
        Spelling::Json(text) if text.starts_with(['[', '{']) || text == "null" => None,
        Spelling::Json(text) => Some([JSON_MARK, &text].concat().into()),
    }
}

/// Whether a claim has one of these values, or holds one in a list.
fn says(identity: Option<&Identity>, claim: &str, values: &[String]) -> bool {
    let is_one = |value: Found<'_>| {
        value.scalar().is_some_and(|text| values.iter().any(|accepted| *accepted == *text))
    };
    let Some(found) = identity.and_then(|identity| identity.find(claim)) else { return false };
    match found.items() {
        Some(mut items) => items.any(is_one),
        None => is_one(found),
    }
}
