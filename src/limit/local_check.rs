//! The limits of this node alone: charged before the store is asked, or once the session is known.

use super::exceeded::Exceeded;
use super::facts::Facts;
use super::headers::WindowLeft;
use super::key::principal;
use super::notes::LimitNotes;
use super::policy::{Limit, Policy};
use super::rate_check::RateCheck;
use super::state::State;
use crate::config::Over;
use crate::observe::LimitOutcome;
use crate::store::keys::Keys;

/// Refuses, before the token is looked at, a client that the route blocks, or whose address is
/// known here to be over a limit.
///
/// # Errors
/// The client is blocked, or a limit is exhausted.
pub fn flood<'p>(
    policy: &'p Policy,
    state: &State,
    keys: &Keys,
    facts: &Facts<'_>,
    notes: &mut LimitNotes<'p>,
) -> Result<(), Exceeded> {
    if policy.blocks(facts.address) {
        return Err(Exceeded::Blocked);
    }
    LocalCheck { policy, state, keys, facts }.charge(Limit::is_early, notes)?;
    if policy.by_address == 0 {
        return Ok(());
    }
    match RateCheck::of(policy, keys, facts, false) {
        Some(check) => check.check_denied_of(state, notes, Limit::is_early),
        None => Ok(()),
    }
}

/// Charges this node's own limits of an identified caller, but for those by session.
///
/// # Errors
/// One of them is exhausted.
pub fn charge<'p>(
    policy: &'p Policy,
    state: &State,
    keys: &Keys,
    facts: &Facts<'_>,
    notes: &mut LimitNotes<'p>,
) -> Result<(), Exceeded> {
    let chosen = |limit: &Limit| !limit.is_early() && !limit.is_by_session();
    LocalCheck { policy, state, keys, facts }.charge(chosen, notes)
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
    notes: &mut LimitNotes<'p>,
) -> Result<(), Exceeded> {
    LocalCheck { policy, state, keys, facts }.charge(Limit::is_by_session, notes)
}

/// Counts the limits that do not count this request, once it is known who calls; those by address
/// alone when its token is no good.
pub fn count_exempt(policy: &Policy, facts: &Facts<'_>, identified: bool, notes: &LimitNotes<'_>) {
    if !policy.exempts {
        return;
    }
    let shared = if identified { &policy.shared } else { &policy.shared[..policy.by_address] };
    let local = policy.local.iter().filter(|limit| identified || limit.is_early());
    let windows = shared.iter().chain(local).filter(|limit| limit.is_exempt(facts));
    let in_flight = policy.concurrent.iter().filter(|it| identified && it.limit.is_exempt(facts));
    let meters = windows.flat_map(Limit::meters).chain(in_flight.map(|it| it.meter));
    meters.for_each(|meter| notes.count(meter, LimitOutcome::Exempt));
}

/// The limits of this node alone that one request meets.
struct LocalCheck<'p, 'a> {
    policy: &'p Policy,
    state: &'a State,
    keys: &'a Keys,
    facts: &'a Facts<'a>,
}

impl<'p> LocalCheck<'p, '_> {
    /// Charges some of them.
    fn charge(
        &self,
        chosen: impl Fn(&Limit) -> bool,
        notes: &mut LimitNotes<'p>,
    ) -> Result<(), Exceeded> {
        let Self { policy, state, keys, facts } = *self;
        for limit in policy.local.iter().filter(|limit| chosen(limit)) {
            for rule in limit.rules(facts) {
                let mut key = String::with_capacity(64);
                keys.limit_into(&mut key, &limit.name, &rule.label, &principal(&limit.key, facts));
                let (free, wait) = state.local.charge(&key, rule.quota, limit.cost(facts));
                let outcome =
                    if wait.is_some() { limit.outcome_over() } else { LimitOutcome::Pass };
                notes.count(rule.meter, outcome);
                if state.pressed.is_sampled() {
                    let allowed = rule.item.limit;
                    let used = allowed.saturating_sub(free);
                    state.pressed.note(&key, &rule.item.name, (used, allowed));
                }
                if limit.is_advertised() {
                    notes.quota.policy.clone_from(&policy.policy_header);
                    let (limit, remaining) = (rule.item.limit, i64::from(free));
                    let back = wait.unwrap_or_default();
                    let left = WindowLeft { limit, remaining, next: back, full: back };
                    notes.quota.push(&rule.item, &left);
                }
                match wait {
                    Some(wait) if limit.over == Over::Refuse => {
                        state.pressed.refuse(&key, &rule.item.name, rule.item.limit);
                        let (jitter, quota) = (limit.retry_jitter, &notes.quota);
                        let over = Exceeded::over(&rule.item.name, jitter, wait, quota);
                        return Err(over.of(&key));
                    }
                    Some(_) => notes.note_over(limit, &rule.item.name),
                    None => {}
                }
            }
        }
        Ok(())
    }
}
