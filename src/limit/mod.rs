//! Rate limits: which counters a request charges, and whether it may pass.
//!
//! Shared limits are charged in the store, all windows of all policies at once or none. Limits of
//! this node alone are charged before the store is asked (`local`), and a key that the store
//! refused is refused here until its time is up (`denied`), so that an attack costs next to no
//! store trips.

mod denied;
mod headers;
mod key;
mod local;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::base::facts::{Caller, ClientAddr};
use crate::config::{self, LimitKey, LimitOutage, Scope};
use crate::store::keys::Keys;
use crate::store::{
    ChargeReply, Charges, MemoryStore, Reply, StoreError, Window, WindowSet, WindowState,
};

use key::principal;

pub use denied::DenyCache;
pub use headers::{Quota, QuotaItem};
pub use local::LocalLimits;

/// What this node knows of limits: its own counters, what the store refused a moment ago, and the
/// counters that stand in while the store is away.
#[derive(Debug)]
pub struct State {
    local: LocalLimits,
    denied: DenyCache,
    stand_in: MemoryStore,
}

impl State {
    /// Nothing counted yet; at most `keys_max` keys while the store is away.
    pub fn new(keys_max: usize) -> Self {
        Self {
            local: LocalLimits::default(),
            denied: DenyCache::default(),
            stand_in: MemoryStore::new(keys_max),
        }
    }

    /// Some units of these keys were given back.
    pub fn forget(&self, keys: &[String]) {
        for key in keys {
            self.denied.forget(key);
        }
    }
}

/// The limits of one route, compiled.
#[derive(Debug, Default)]
pub struct Policy {
    /// Shared windows, those keyed by address alone first.
    rules: Vec<Rule>,
    /// How many of `rules` need nothing but the address.
    address_rules: usize,
    /// All windows, as the store takes them.
    all: Arc<WindowSet>,
    /// The first `address_rules` windows.
    address_only: Arc<WindowSet>,
    /// The same at this node's share, for an outage.
    all_local: WindowSet,
    address_only_local: WindowSet,
    /// Limits of this node alone.
    local: Vec<LocalRule>,
    /// The `RateLimit-Policy` field.
    policy_header: Option<http::HeaderValue>,
}

/// One shared window.
#[derive(Debug)]
struct Rule {
    policy: String,
    window_label: String,
    key: Vec<LimitKey>,
    item: QuotaItem,
}

/// One window of a limit that this node keeps alone.
#[derive(Debug)]
struct LocalRule {
    id: String,
    key: Vec<LimitKey>,
    quota: governor::Quota,
    item: QuotaItem,
}

/// What a key may be made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's address.
    pub address: ClientAddr,
    /// The verified caller.
    pub caller: &'a Caller,
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// The session's id.
    pub session: Option<&'a str>,
    /// The route's name.
    pub route: &'a str,
}

/// What a request charges.
#[derive(Debug)]
pub struct Asked<'p> {
    policy: &'p Policy,
    set: &'p Arc<WindowSet>,
    local_set: &'p WindowSet,
    keys: Vec<String>,
    asked_at: Instant,
}

/// Why a request may not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// A limit is exhausted.
    #[error("the limit `{limit}` is exhausted")]
    Limit {
        /// Which one.
        limit: String,
        /// When a retry would pass, never earlier than the truth.
        retry_after: Duration,
        /// What to tell the client.
        quota: Box<Quota>,
    },
    /// The store did not say, and the configuration says to refuse then.
    #[error("the store that counts limits does not answer")]
    Unknown(StoreError),
}

impl Policy {
    /// Compiles the named limits of one route. `nodes` is the number of gateways that share them.
    pub fn compile<'a>(
        limits: impl Iterator<Item = (&'a str, &'a config::Limit)>,
        nodes: u32,
    ) -> Self {
        let mut shared: Vec<(Rule, Window)> = Vec::new();
        let mut local = Vec::new();
        for (name, limit) in limits {
            for rate in &limit.allow {
                let label = rate.label();
                let item_name =
                    if limit.allow.len() > 1 { format!("{name}-{label}") } else { name.to_owned() };
                let item = QuotaItem::new(item_name, rate.limit, rate.window);
                let key = limit.key.clone();
                match limit.scope {
                    Scope::Shared => {
                        let window = Window::new(rate.limit, rate.window);
                        let policy = name.to_owned();
                        shared.push((Rule { policy, window_label: label, key, item }, window));
                    }
                    Scope::Local => {
                        let id = format!("{name}:{label}");
                        local.push(LocalRule { id, key, quota: local::quota(rate), item });
                    }
                }
            }
        }
        // A stable sort: address-keyed windows form a prefix, which is what a request without a
        // valid token charges.
        shared.sort_by_key(|(rule, _)| !is_by_address(&rule.key));
        let address_rules = shared.iter().filter(|(rule, _)| is_by_address(&rule.key)).count();
        let (rules, windows): (Vec<_>, Vec<_>) = shared.into_iter().unzip();
        let all = WindowSet::new(windows.clone());
        let address_only = WindowSet::new(windows[..address_rules].to_vec());
        let items = rules.iter().map(|r: &Rule| &r.item).chain(local.iter().map(|r| &r.item));
        let policy_header = headers::policy_header(items);
        Self {
            all_local: all.divided_by(nodes),
            address_only_local: address_only.divided_by(nodes),
            all: Arc::new(all),
            address_only: Arc::new(address_only),
            address_rules,
            rules,
            local,
            policy_header,
        }
    }

    /// Whether the route has no limits.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.local.is_empty()
    }
}

/// Refuses, before the token is looked at, a client whose address is known here to be over a limit.
pub fn flood(
    policy: &Policy,
    state: &State,
    keys: &Keys,
    (address, route): (ClientAddr, &str),
    quota: &mut Quota,
) -> Result<(), Exceeded> {
    if policy.local.is_empty() && policy.address_rules == 0 {
        return Ok(());
    }
    let nobody = HeaderMap::new();
    let facts = Facts { address, caller: &None, headers: &nobody, session: None, route };
    charge_local(policy, state, &facts, true, quota)?;
    match question(policy, keys, &facts, false) {
        Some(asked) => asked.recall_shared(state),
        None => Ok(()),
    }
}

/// Charges the limits of this node alone: those keyed by address, or the others.
fn charge_local(
    policy: &Policy,
    state: &State,
    facts: &Facts<'_>,
    by_address: bool,
    quota: &mut Quota,
) -> Result<(), Exceeded> {
    for rule in policy.local.iter().filter(|rule| is_by_address(&rule.key) == by_address) {
        let key = format!("{} {}", rule.id, principal(&rule.key, facts));
        let (free, wait) = state.local.charge(&key, rule.quota);
        let back = wait.unwrap_or_default();
        quota.policy.clone_from(&policy.policy_header);
        quota.push((&rule.item, rule.item.limit), i64::from(free), back, back);
        if let Some(retry_after) = wait {
            return Err(Exceeded::Limit {
                limit: rule.item.name.clone(),
                retry_after,
                quota: Box::new(quota.clone()),
            });
        }
    }
    Ok(())
}

fn is_by_address(key: &[LimitKey]) -> bool {
    key.iter().all(|part| matches!(part, LimitKey::Address | LimitKey::Route))
}

/// Charges this node's own limits of an identified caller.
pub fn charge(
    policy: &Policy,
    state: &State,
    facts: &Facts<'_>,
    quota: &mut Quota,
) -> Result<(), Exceeded> {
    if policy.local.is_empty() { Ok(()) } else { charge_local(policy, state, facts, false, quota) }
}

/// Which shared counters the request charges; those keyed by address alone when its token is no
/// good.
pub fn question<'p>(
    policy: &'p Policy,
    keys: &Keys,
    facts: &Facts<'_>,
    identified: bool,
) -> Option<Asked<'p>> {
    let (rules, set, local_set) = if identified {
        (policy.rules.as_slice(), &policy.all, &policy.all_local)
    } else {
        let rules = &policy.rules[..policy.address_rules];
        (rules, &policy.address_only, &policy.address_only_local)
    };
    if rules.is_empty() {
        return None;
    }
    let mut written = Vec::with_capacity(rules.len());
    let mut last: Option<(&[LimitKey], String)> = None;
    for rule in rules {
        let principal = match &last {
            Some((key, principal)) if *key == rule.key.as_slice() => principal,
            _ => &last.insert((&rule.key, principal(&rule.key, facts))).1,
        };
        let mut key = String::with_capacity(64);
        keys.limit_into(&mut key, &rule.policy, &rule.window_label, principal);
        written.push(key);
    }
    Some(Asked { policy, set, local_set, keys: written, asked_at: Instant::now() })
}

impl Asked<'_> {
    /// The question for the store.
    pub fn charges(&self) -> Charges<'_> {
        Charges { set: self.set, keys: &self.keys }
    }

    /// What was charged, for a refund.
    pub fn owned(&self) -> (Arc<WindowSet>, Vec<String>) {
        (Arc::clone(self.set), self.keys.clone())
    }

    /// Refuses at once what the store refused a moment ago.
    pub fn recall_shared(&self, State { denied, .. }: &State) -> Result<(), Exceeded> {
        for (key, rule) in self.keys.iter().zip(&self.policy.rules) {
            if let Some(retry_after) = denied.until(key) {
                let mut quota = Quota::default();
                quota.policy.clone_from(&self.policy.policy_header);
                quota.push((&rule.item, rule.item.limit), 0, retry_after, retry_after);
                let limit = rule.item.name.clone();
                return Err(Exceeded::Limit { limit, retry_after, quota: Box::new(quota) });
            }
        }
        Ok(())
    }

    /// Judges the store's answer; without one, does what `outage` says.
    pub fn admit(
        &self,
        reply: Reply<ChargeReply>,
        outage: LimitOutage,
        State { denied, stand_in, .. }: &State,
        quota: &mut Quota,
    ) -> Result<(), Exceeded> {
        let (reply, set, shared) = match (reply, outage) {
            (Ok(reply), _) => (reply, &**self.set, true),
            (Err(_), LimitOutage::Allow) => return Ok(()),
            (Err(error), LimitOutage::Refuse) => return Err(Exceeded::Unknown(error)),
            (Err(_), LimitOutage::Local) => {
                let charges = Charges { set: self.local_set, keys: &self.keys };
                (stand_in.take(charges).map_err(Exceeded::Unknown)?, self.local_set, false)
            }
        };
        quota.policy = self.policy.policy_header.clone();
        let mut worst: Option<(&Rule, &WindowState)> = None;
        let judged =
            self.keys.iter().zip(&self.policy.rules).zip(set.windows.iter().zip(&reply.windows));
        for ((key, rule), (window, state)) in judged {
            let left = state.free - i64::from(reply.allowed);
            let (next, full) = after(state, window, reply.allowed);
            quota.push((&rule.item, window.limit), left, next, full);
            if state.retry_ms != 0 {
                if shared {
                    denied.deny(key, self.asked_at, duration(state.retry_ms));
                }
                if worst.is_none_or(|(_, other)| other.retry_ms < state.retry_ms) {
                    worst = Some((rule, state));
                }
            }
        }
        match worst {
            Some((rule, state)) if !reply.allowed => Err(Exceeded::Limit {
                limit: rule.item.name.clone(),
                retry_after: duration(state.retry_ms),
                quota: Box::new(quota.clone()),
            }),
            _ => Ok(()),
        }
    }
}

/// When units come back, and when all are back, seen from after the charge: the charge itself is
/// the last to return.
fn after(state: &WindowState, window: &Window, charged: bool) -> (Duration, Duration) {
    let span = Duration::from_micros(window.span_us);
    match (charged, state.next_ms) {
        (true, 0) => (span, span),
        (true, next_ms) => (duration(next_ms), span),
        (false, next_ms) => (duration(next_ms), duration(state.full_ms)),
    }
}

fn duration(ms: i64) -> Duration {
    // -1 (it never fits) becomes the longest wait that still prints: the caller cannot do better
    // than not to retry.
    u64::try_from(ms).map_or(Duration::from_secs(86_400 * 365), Duration::from_millis)
}

#[cfg(test)]
mod tests;
