//! Rate limits: which counters a request charges, and whether it may pass.
//!
//! Shared limits are charged in the store, all windows of all policies at once or none. Limits of
//! this node alone are charged before the store is asked (`local`), and a key that the store
//! refused is refused here until its time is up (`denied`), so that an attack costs next to no
//! store trips. What the answer decides is corrected afterwards (`receipt`).

mod asked;
mod concurrency;
mod denied;
mod forecast;
mod headers;
mod key;
mod local;
mod policy;
mod receipt;
mod refused;
mod sessions;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::base::facts::{Caller, ClientAddr};
use crate::config::{Over, RatelimitFields};
use crate::store::keys::Keys;
use crate::store::{MemoryStore, StoreError};

use key::principal;
use policy::Limit;

pub use asked::{Asked, question};
pub use concurrency::{InFlight, LeaseRenewal, Ticket, Wanted, wanted};
pub use denied::DenyCache;
pub use forecast::{Forecast, describe, forecast_local};
pub use headers::{Quota, QuotaItem};
pub use local::LocalLimits;
pub use policy::Policy;
pub use receipt::{Correction, Outcome, Receipt};
pub use refused::Refused;
pub use sessions::KnownSessions;

/// What this node knows of limits: its own counters, what the store refused a moment ago, and the
/// counters that stand in while the store is away.
#[derive(Debug)]
pub struct State {
    local: LocalLimits,
    denied: DenyCache,
    stand_in: MemoryStore,
    /// Whom the limits refuse most.
    pub refused: Refused,
    /// Which places the requests of this gateway hold.
    pub in_flight: InFlight,
    /// Which sessions the store has.
    pub sessions: KnownSessions,
}

impl State {
    /// Nothing counted yet; at most `keys_max` keys while the store is away.
    pub fn new(keys_max: usize) -> Self {
        Self {
            local: LocalLimits::default(),
            denied: DenyCache::default(),
            stand_in: MemoryStore::new(keys_max),
            refused: Refused::default(),
            in_flight: InFlight::default(),
            sessions: KnownSessions::default(),
        }
    }

    /// How many counters gave way to others, of those that count while the store is away.
    pub fn evicted(&self) -> u64 {
        self.stand_in.evicted().limits
    }

    /// These keys were reset: nothing was counted, also in the store's place.
    pub fn reset(&self, keys: &[String]) {
        for key in keys {
            self.stand_in.delete(key);
        }
        self.forget(keys);
    }

    /// Some units of these keys were given back.
    pub fn forget(&self, keys: &[String]) {
        for key in keys {
            self.denied.forget(key);
        }
    }
}

/// What a key, a tier and a cost may be made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's address.
    pub address: ClientAddr,
    /// The verified caller.
    pub caller: &'a Caller,
    /// The request's method.
    pub method: &'a Method,
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// The session's id.
    pub session: Option<&'a str>,
    /// The route's name.
    pub route: &'a str,
}

/// What others learn of the limits of one request that was not refused.
#[derive(Debug, Default)]
pub struct Told<'p> {
    /// For the client.
    pub quota: Quota,
    /// For the upstream.
    pub marks: Vec<(HeaderName, HeaderValue)>,
    /// For the operator: the limits that it is over all the same, and what they do about it.
    pub over: Vec<(&'p str, &'static str)>,
}

impl<'p> Told<'p> {
    /// Nothing yet. `fields` are those that clients see.
    pub fn new(fields: RatelimitFields) -> Self {
        Self { quota: Quota::new(fields), ..Self::default() }
    }

    /// The request is over a limit that lets it pass.
    fn note(&mut self, limit: &'p Limit, item: &'p str) {
        let action = match &limit.over {
            Over::Refuse => return,
            Over::Shadow => "shadow",
            Over::Mark(header) => {
                self.mark(header, &limit.name);
                "mark"
            }
        };
        self.over.push((item, action));
    }

    /// Adds a limit to the list in `header`.
    fn mark(&mut self, header: &HeaderName, limit: &str) {
        let known = self.marks.iter().position(|(name, _)| name == header);
        let list = match known
            .and_then(|at| self.marks.swap_remove(at).1.to_str().ok().map(str::to_owned))
        {
            Some(list) if list.split(", ").any(|one| one == limit) => list,
            Some(list) => list + ", " + limit,
            None => limit.to_owned(),
        };
        // Names of the configuration are visible ASCII, which every header value may hold.
        if let Ok(list) = HeaderValue::try_from(list) {
            self.marks.push((header.clone(), list));
        }
    }
}

/// Why a request may not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// The route refuses the client's address.
    #[error("the client's address is blocked")]
    Blocked,
    /// A limit is exhausted.
    #[error("the limit `{limit}` is exhausted")]
    Limit {
        /// Which one.
        limit: String,
        /// When a retry would pass, never earlier than the truth.
        retry_after: Duration,
        /// What to tell the client.
        quota: Box<Quota>,
        /// The key of the store, or of this node, that is exhausted: whose it is, for the log.
        key: String,
    },
    /// The store did not say, and the configuration says to refuse then.
    #[error("the store that counts limits does not answer")]
    Unknown(StoreError),
}

impl Exceeded {
    /// A limit is exhausted for `wait`. Clients are told of up to `jitter` more, so that those who
    /// were refused together do not come back together.
    fn over(limit: &str, jitter: Duration, wait: Duration, quota: &Quota) -> Self {
        let retry_after = wait + jitter.mul_f64(fastrand::f64());
        let (limit, quota) = (limit.to_owned(), Box::new(quota.clone()));
        Self::Limit { limit, retry_after, quota, key: String::new() }
    }

    /// The same refusal, which names the exhausted key.
    fn of(mut self, exhausted: &str) -> Self {
        if let Self::Limit { key, .. } = &mut self {
            exhausted.clone_into(key);
        }
        self
    }
}

/// Refuses, before the token is looked at, a client that the route blocks, or whose address is
/// known here to be over a limit.
pub fn flood<'p>(
    policy: &'p Policy,
    state: &State,
    keys: &Keys,
    facts: &Facts<'_>,
    told: &mut Told<'p>,
) -> Result<(), Exceeded> {
    if policy.blocks(facts.address) {
        return Err(Exceeded::Blocked);
    }
    charge_local(policy, state, keys, facts, Limit::is_early, told)?;
    if policy.by_address == 0 {
        return Ok(());
    }
    match question(policy, keys, facts, false) {
        Some(asked) => asked.recall_shared(state, told, Limit::is_early),
        None => Ok(()),
    }
}

/// Charges this node's own limits of an identified caller, but for those by session.
pub fn charge<'p>(
    policy: &'p Policy,
    state: &State,
    keys: &Keys,
    facts: &Facts<'_>,
    told: &mut Told<'p>,
) -> Result<(), Exceeded> {
    let chosen = |limit: &Limit| !limit.is_early() && !limit.is_by_session();
    charge_local(policy, state, keys, facts, chosen, told)
}

/// Charges this node's own limits by session, once it is known whether there is one.
///
/// # Errors
/// One of them is exhausted.
pub fn charge_by_session<'p>(
    policy: &'p Policy,
    state: &State,
    keys: &Keys,
    facts: &Facts<'_>,
    told: &mut Told<'p>,
) -> Result<(), Exceeded> {
    charge_local(policy, state, keys, facts, Limit::is_by_session, told)
}

/// Charges some of the limits of this node alone.
fn charge_local<'p>(
    policy: &'p Policy,
    state: &State,
    keys: &Keys,
    facts: &Facts<'_>,
    chosen: impl Fn(&Limit) -> bool,
    told: &mut Told<'p>,
) -> Result<(), Exceeded> {
    for limit in policy.local.iter().filter(|limit| chosen(limit)) {
        for rule in limit.rules(facts) {
            let mut key = String::with_capacity(64);
            keys.limit_into(&mut key, &limit.name, &rule.label, &principal(&limit.key, facts));
            let (free, wait) = state.local.charge(&key, rule.quota, limit.cost(facts));
            let back = wait.unwrap_or_default();
            if limit.is_told() {
                told.quota.policy.clone_from(&policy.policy_header);
                told.quota.push((&rule.item, rule.item.limit), i64::from(free), back, back);
            }
            match wait {
                Some(wait) if limit.over == Over::Refuse => {
                    state.refused.count(&key);
                    let (jitter, quota) = (limit.retry_jitter, &told.quota);
                    return Err(Exceeded::over(&rule.item.name, jitter, wait, quota).of(&key));
                }
                Some(_) => told.note(limit, &rule.item.name),
                None => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
