//! Limits on rates: which windows a request charges, and what the store's answer means.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::exceeded::Exceeded;
use super::facts::Facts;
use super::forecast::Forecast;
use super::headers::{self, Quota, WindowLeft};
use super::key::principal;
use super::notes::LimitNotes;
use super::policy::{Limit, Policy, Rule};
use super::receipt::{Correction, CountedAt, Receipt};
use super::state::State;
use super::timing::{after, duration, while_away};
use crate::config::{LimitKey, LimitOutage, Over};
use crate::observe::LimitOutcome;
use crate::store::keys::Keys;
use crate::store::{ChargeReply, Charges, Mode, Reply, Window, WindowSet, WindowState};

/// What a request charges: one key per window of every limit that counts it.
#[derive(Debug)]
pub struct RateCheck<'p> {
    policy: &'p Policy,
    /// The limit and the window of each key.
    rules: Vec<Charged<'p>>,
    pub(super) keys: Vec<String>,
    set: Cow<'p, Arc<WindowSet>>,
    asked_at: Option<Instant>,
}

/// What was charged for a request that the limits allow, and where.
#[derive(Debug)]
pub struct Taken<'r> {
    reply: Cow<'r, ChargeReply>,
    at: CountedAt,
}

impl<'r> Taken<'r> {
    /// What the store charged.
    pub fn by_store(reply: &'r ChargeReply) -> Self {
        let at = CountedAt { store: Some(reply.at.clone()), ..CountedAt::default() };
        Self { reply: Cow::Borrowed(reply), at }
    }
}

/// What was counted, by which windows, and where.
type Counted<'s, 'r> = (Cow<'r, ChargeReply>, Cow<'s, WindowSet>, CountedAt);

/// A limit and one of its windows.
type Charged<'p> = (&'p Limit, &'p Rule);

/// The windows of some limits that the request is in, and the key of each.
fn chargeable<'p>(
    keys: &Keys,
    facts: &Facts<'_>,
    limits: &'p [Limit],
) -> (Vec<Charged<'p>>, Vec<String>) {
    let mut rules = Vec::with_capacity(limits.len());
    let mut written = Vec::with_capacity(limits.len());
    let mut last: Option<(&[LimitKey], String)> = None;
    for limit in limits {
        for rule in limit.rules(facts) {
            let principal = match &last {
                Some((key, principal)) if *key == limit.key.as_slice() => principal,
                _ => &last.insert((&limit.key, principal(&limit.key, facts))).1,
            };
            let mut key = String::with_capacity(64);
            keys.limit_into(&mut key, &limit.name, &rule.label, principal);
            written.push(key);
            rules.push((limit, rule));
        }
    }
    (rules, written)
}

impl<'p> RateCheck<'p> {
    /// Which shared windows the request charges; those keyed by address alone when its token is no
    /// good. Nothing when no limit counts it.
    pub fn of(
        policy: &'p Policy,
        keys: &Keys,
        facts: &Facts<'_>,
        identified: bool,
    ) -> Option<Self> {
        let limits = if identified { &policy.shared } else { &policy.shared[..policy.by_address] };
        let (rules, keys) = chargeable(keys, facts, limits);
        if rules.is_empty() {
            return None;
        }
        let set = match &policy.fixed {
            Some(fixed) if identified => Cow::Borrowed(&fixed.all),
            Some(fixed) => Cow::Borrowed(&fixed.by_address),
            None => {
                let priced = rules.iter().map(|(limit, rule)| rule.priced(limit.cost(facts)));
                Cow::Owned(Arc::new(WindowSet::new(priced.collect())))
            }
        };
        Some(Self { policy, rules, keys, set, asked_at: None })
    }

    /// When the store was asked: what it says of waiting counts from then on.
    pub fn were_asked_at(&mut self, asked_at: Instant) {
        self.asked_at = Some(asked_at);
    }

    /// The keys of its windows.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The question for the store.
    pub fn charges(&self) -> Charges<'_> {
        Charges { set: &self.set, keys: &self.keys }
    }

    /// The same question, of a store that only looks.
    pub fn peek(&self) -> WindowSet {
        let peek = |window: &Window| Window { mode: Mode::Peek, ..*window };
        WindowSet::new(self.set.windows.iter().map(peek).collect())
    }

    /// What the answer to [`Self::peek`] means, window by window.
    pub fn forecast(&self, reply: &ChargeReply) -> Vec<Forecast<'p>> {
        let windows = self.set.windows.iter().zip(&reply.windows);
        let all = self.rules.iter().zip(&self.keys).zip(windows);
        all.map(|(((limit, rule), key), (window, state))| {
            Forecast::new(limit, rule, key, window, state)
        })
        .collect()
    }

    /// Gives everything back that was charged.
    pub fn undo(&self, taken: &Taken<'_>) -> Option<Correction> {
        let Taken { reply, at } = taken;
        let charged = self.charged(reply).map(|(_, key, window)| (key.to_owned(), window));
        Correction::new(charged.collect(), Vec::new(), at.clone())
    }

    /// Gives back what was charged for an answer that is sent once more. What counts addresses
    /// stays: it bounds how often anybody may ask at all.
    pub fn undo_again(&self, taken: &Taken<'_>) -> Option<Correction> {
        let Taken { reply, at } = taken;
        let charged = self.charged(reply).filter(|(limit, ..)| !limit.is_by_address());
        let charged = charged.map(|(_, key, window)| (key.to_owned(), window));
        Correction::new(charged.collect(), Vec::new(), at.clone())
    }

    /// The limit, key and window of each charge that was made.
    fn charged(&self, reply: &ChargeReply) -> impl Iterator<Item = (&'p Limit, &str, Window)> {
        let windows = self.set.windows.iter().zip(&reply.windows);
        let all = self.rules.iter().zip(&self.keys).zip(windows);
        all.filter(|(_, (window, state))| reply.allowed && window.charges(state))
            .map(|(((limit, _), key), (window, _))| (*limit, key.as_str(), *window))
    }

    /// Refuses at once what the store refused a moment ago. Where it must say first whether there
    /// is a session (`in_doubt`), nobody knows yet whom the limits by session count.
    ///
    /// # Errors
    /// A limit is exhausted.
    pub fn check_denied(
        &self,
        state: &State,
        notes: &LimitNotes<'_>,
        in_doubt: bool,
    ) -> Result<(), Exceeded> {
        self.check_denied_of(state, notes, |limit| !(in_doubt && limit.is_by_session()))
    }

    /// The same for some of the limits.
    pub(super) fn check_denied_of(
        &self,
        state: &State,
        notes: &LimitNotes<'_>,
        chosen: impl Fn(&Limit) -> bool,
    ) -> Result<(), Exceeded> {
        for (index, ((limit, rule), window)) in self.rules.iter().zip(&self.set.windows).enumerate()
        {
            if limit.over == Over::Refuse
                && chosen(limit)
                && let Some(wait) = state.denied.until(&self.keys[index], window)
            {
                notes.count(rule.meter, LimitOutcome::DeniedLocally);
                let mut quota = notes.quota.renewed();
                quota.policy = self.policy_header();
                let limit = rule.item.limit;
                let left = WindowLeft { limit, remaining: 0, next: wait, full: wait };
                quota.push(&rule.item, &left);
                return Err(self.refuse(index, wait, &quota, state));
            }
        }
        Ok(())
    }

    /// Counts here what the store has granted, where this node is to stand in for it.
    fn note(&self, reply: &ChargeReply, outage: LimitOutage, state: &State) -> Option<u64> {
        let is_counted = outage == LimitOutage::Local && state.counts_grants;
        is_counted.then(|| state.stand_in.note(self.charges(), reply, self.policy.reconcile))
    }

    /// Judges the store's answer; without one, does what `outage` says. Returns what was charged.
    ///
    /// # Errors
    /// A limit is exhausted, or the store did not answer and the request is refused then.
    pub fn admit<'r>(
        &self,
        reply: &'r Reply<ChargeReply>,
        outage: LimitOutage,
        state: &State,
        notes: &mut LimitNotes<'p>,
    ) -> Result<Option<Taken<'r>>, Exceeded> {
        let Some((reply, set, at)) = self.counted(reply, outage, state)? else { return Ok(None) };
        notes.quota.policy = self.policy_header();
        let fits = if at.store.is_some() { LimitOutcome::Pass } else { LimitOutcome::Local };
        let is_sampled = state.pressed.is_sampled();
        let mut worst: Option<(usize, &WindowState)> = None;
        for (index, (window, found)) in set.windows.iter().zip(&reply.windows).enumerate() {
            let (limit, rule) = self.rules[index];
            let is_over = found.retry_ms != 0;
            notes.count(rule.meter, if is_over { limit.outcome_over() } else { fits });
            if limit.is_advertised() {
                let paid = if reply.allowed { i64::from(window.cost) } else { 0 };
                let (next, full) = after(found, window, reply.allowed);
                let (limit, remaining) = (window.limit, found.free - paid);
                let left = WindowLeft { limit, remaining, next, full };
                notes.quota.push(&rule.item, &left);
            }
            if is_sampled {
                let is_charged = reply.allowed && window.charges(found);
                let used = in_use(found, window, is_charged);
                state.pressed.note(&self.keys[index], &rule.item.name, (used, window.limit));
            }
            if !is_over {
                continue;
            }
            match &limit.over {
                Over::Refuse => {
                    if at.store.is_some() {
                        let wait = duration(found.retry_ms);
                        let asked_at = self.asked_at.unwrap_or_else(Instant::now);
                        state.denied.deny(&self.keys[index], asked_at, wait, window);
                    }
                    if worst.is_none_or(|(_, other)| is_longer(found, other)) {
                        worst = Some((index, found));
                    }
                }
                Over::Shadow | Over::Mark(_) => notes.note_over(limit, &rule.item.name),
            }
        }
        if let Some((index, found)) = worst.filter(|_| !reply.allowed) {
            return Err(self.refuse(index, duration(found.retry_ms), &notes.quota, state));
        }
        Ok(Some(Taken { reply, at }))
    }

    /// What was counted, by which windows and where: by the store, or in its place as `outage`
    /// says. Nothing where that lets everybody pass.
    fn counted<'s, 'r>(
        &'s self,
        reply: &'r Reply<ChargeReply>,
        outage: LimitOutage,
        state: &State,
    ) -> Result<Option<Counted<'s, 'r>>, Exceeded> {
        Ok(Some(match (reply, outage) {
            (Ok(reply), _) => {
                let here_us = self.note(reply, outage, state);
                let at = CountedAt { store: Some(reply.at.clone()), here_us, is_owed: false };
                (Cow::Borrowed(reply), Cow::Borrowed(&**self.set), at)
            }
            (Err(_), LimitOutage::Allow) => return Ok(None),
            (Err(error), LimitOutage::Refuse) => return Err(Exceeded::Unknown(error.clone())),
            (Err(_), LimitOutage::Local) => {
                let Policy { nodes, reconcile: is_owed, .. } = *self.policy;
                let nodes = state.fleet.nodes(nodes);
                let (shares, mut reply) = state.stand_in.take(self.charges(), nodes, is_owed);
                for found in reply.windows.iter_mut().filter(|found| found.retry_ms != 0) {
                    *found = while_away(found);
                }
                let here_us = Some(reply.at.micros());
                let at = CountedAt { store: None, here_us, is_owed };
                (Cow::Owned(reply), Cow::Owned(shares), at)
            }
        }))
    }

    /// The receipt for what was charged, where the answer decides what stays charged in the end.
    pub fn receipt(&self, taken: &Taken<'_>) -> Option<Receipt<'p>> {
        let Taken { reply, at } = taken;
        if !self.rules.iter().any(|(limit, _)| limit.is_corrected()) {
            return None;
        }
        let corrected = self.charged(reply).filter(|(limit, ..)| limit.is_corrected());
        let charged = corrected.map(|(limit, key, window)| (limit, key.to_owned(), window));
        Some(Receipt { charged: charged.collect(), at: at.clone() })
    }

    /// The refusal by one of the windows.
    fn refuse(&self, index: usize, wait: Duration, quota: &Quota, state: &State) -> Exceeded {
        let (limit, rule) = self.rules[index];
        state.pressed.refuse(&self.keys[index], &rule.item.name, rule.item.limit);
        Exceeded::over(&rule.item.name, limit.retry_jitter, wait, quota).of(&self.keys[index])
    }

    /// `RateLimit-Policy` of this very request.
    fn policy_header(&self) -> Option<HeaderValue> {
        if self.policy.policy_header.is_some() {
            return self.policy.policy_header.clone();
        }
        let advertised = self.rules.iter().filter(|(limit, _)| limit.is_advertised());
        headers::policy_header(advertised.map(|(_, rule)| &rule.item))
    }
}

/// Units of a window in use after a request that was charged for or not.
fn in_use(found: &WindowState, window: &Window, is_charged: bool) -> u32 {
    let paid = if is_charged { window.cost } else { 0 };
    let used = i64::from(window.limit) - found.free + i64::from(paid);
    u32::try_from(used.max(0)).unwrap_or(u32::MAX)
}

/// Whether `found` is waited for longer than `other`; what never fits is waited for longest.
fn is_longer(found: &WindowState, other: &WindowState) -> bool {
    duration(found.retry_ms) > duration(other.retry_ms)
}
