//! Limits on requests in flight: which slots a request asks for, and what the answer means. A
//! request holds its slots until the last byte of its response.

use std::time::Duration;

use serde_json::{Value, json};

use super::exceeded::Exceeded;
use super::facts::Facts;
use super::headers::Quota;
use super::key::principal;
use super::notes::LimitNotes;
use super::policy::{Concurrent, Policy};
use super::slots::HeldSlots;
use super::state::State;
use crate::config::LimitOutage;
use crate::observe::LimitOutcome;
use crate::store::keys::{Keys, limit_parts};
use crate::store::{ConcurrencyLimit, LeaseReply, Leases, Mode, Release, Reply};

/// What a client over such a limit is told to wait: nobody knows when a slot gets free.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// The slots that a request asks for.
#[derive(Debug)]
pub struct SlotCheck<'p> {
    policy: &'p Policy,
    shared: Wanted<'p>,
    local: Wanted<'p>,
    holder: String,
}

/// A slot of each of several limits.
#[derive(Debug, Default)]
struct Wanted<'p> {
    rules: Vec<&'p Concurrent>,
    keys: Vec<String>,
    limits: Vec<ConcurrencyLimit>,
    /// Whether this node counts them in the store's place.
    stands_in: bool,
}

impl<'p> SlotCheck<'p> {
    /// Which slots the request needs, if any.
    pub fn of(policy: &'p Policy, state: &State, keys: &Keys, facts: &Facts<'_>) -> Option<Self> {
        if policy.concurrent.is_empty() {
            return None;
        }
        let (mut shared, mut local) = (Wanted::default(), Wanted::default());
        for concurrent in &policy.concurrent {
            let limit = &concurrent.limit;
            if limit.is_exempt(facts) {
                continue;
            }
            let wanted = if concurrent.is_local { &mut local } else { &mut shared };
            let principal = principal(&limit.key, facts);
            wanted.keys.push(keys.in_flight(&limit.name, &principal));
            wanted.rules.push(concurrent);
            wanted.limits.push(concurrent.bound);
        }
        Some(Self { policy, shared, local, holder: state.slots.new_holder() })
    }

    /// The question for the store.
    pub fn leases(&self) -> Option<Leases<'_>> {
        let Wanted { keys, limits, .. } = &self.shared;
        (!keys.is_empty()).then_some(Leases { limits, keys, holder: &self.holder })
    }

    /// The limits for a store that only looks; the keys are those of [`Self::leases`].
    pub fn peek(&self) -> Vec<ConcurrencyLimit> {
        let peek = |limit: &ConcurrencyLimit| ConcurrencyLimit { mode: Mode::Peek, ..*limit };
        self.shared.limits.iter().map(peek).collect()
    }

    /// What the answer to [`Self::peek`] means, for operators; an error when a slot is missing that
    /// the request needs.
    pub fn forecast(&self, reply: &LeaseReply) -> (Vec<Value>, Result<(), Exceeded>) {
        self.shared.forecast(&reply.held, "shared")
    }

    /// The same of the slots that this node counts.
    pub fn forecast_local(&self, state: &State) -> (Vec<Value>, Result<(), Exceeded>) {
        self.local.forecast(&state.slots.count_local(&self.local.keys), "local")
    }

    /// What is given back if the request ends before anybody knows what the store gave: also slots
    /// that it gives later, because the question was late.
    pub(super) fn held(&self) -> HeldSlots {
        let Wanted { keys, limits, .. } = &self.shared;
        let leased = (!keys.is_empty()).then(|| self.release(keys.clone(), limits.clone(), true));
        HeldSlots { local: Vec::new(), leased }
    }

    fn release(&self, keys: Vec<String>, limits: Vec<ConcurrencyLimit>, in_doubt: bool) -> Release {
        Release { keys, limits, holder: self.holder.clone(), in_doubt }
    }

    /// Judges the store's answer, and takes the slots that this node counts. `held` says what must
    /// be given back, also after an error.
    #[expect(
        clippy::too_many_arguments,
        reason = "a reply, by which rule it is judged, and the three that the verdict changes"
    )]
    pub(super) fn admit(
        &self,
        reply: Option<&Reply<LeaseReply>>,
        outage: LimitOutage,
        state: &State,
        notes: &mut LimitNotes<'p>,
        held: &mut HeldSlots,
    ) -> Result<(), Exceeded> {
        match (reply, outage) {
            (Some(Ok(reply)), _) => {
                held.leased = None;
                self.shared.judge(&reply.held, state, notes)?;
                let (keys, limits) = self.shared.admitted(&reply.held);
                state.slots.keep_leased(&self.holder, keys.clone(), limits.clone());
                held.leased = Some(self.release(keys, limits, false));
            }
            (Some(Err(error)), LimitOutage::Refuse) => {
                return Err(Exceeded::Unknown(error.clone()));
            }
            (Some(Err(_)), LimitOutage::Local) => {
                let share = self.shared.divided_by(state.fleet.nodes(self.policy.nodes));
                held.local.extend(share.take_here(state, notes)?);
            }
            (Some(Err(_)), LimitOutage::Allow) | (None, _) => {}
        }
        held.local.extend(self.local.take_here(state, notes)?);
        Ok(())
    }
}

impl<'p> Wanted<'p> {
    /// One node's share of the same slots, at least one of each limit.
    fn divided_by(&self, nodes: u32) -> Self {
        let share = |limit: &ConcurrencyLimit| {
            let most = (limit.most / nodes.max(1)).max(1);
            ConcurrencyLimit { most, ..*limit }
        };
        let limits = self.limits.iter().map(share).collect();
        Self { rules: self.rules.clone(), keys: self.keys.clone(), limits, stands_in: true }
    }

    /// Takes them from what this node counts, all or none. Returns the keys.
    fn take_here(
        &self,
        state: &State,
        notes: &mut LimitNotes<'p>,
    ) -> Result<Vec<String>, Exceeded> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        let judge = |held: &[u32]| self.judge(held, state, notes);
        state.slots.take_local(&self.keys, &self.limits, judge)
    }

    /// What these holders mean to a request, for operators.
    fn forecast(&self, held: &[u32], scope: &str) -> (Vec<Value>, Result<(), Exceeded>) {
        let mut verdict = Ok(());
        let all = self.rules.iter().zip(&self.keys);
        let shown = all.zip(self.limits.iter().zip(held)).map(|((rule, key), (bound, held))| {
            let limit = &rule.limit;
            if bound.refuses(*held) {
                let quota = Quota::default();
                verdict = Err(Exceeded::over(&limit.name, Duration::ZERO, RETRY_SOON, &quota));
            }
            json!({
                "limit": limit.name,
                "scope": scope,
                "key": limit_parts(key).map_or(key.as_str(), |parts| parts.0),
                "concurrent": bound.most,
                "in_flight": held,
                "verdict": limit.verdict(*held < bound.most),
            })
        });
        (shown.collect(), verdict)
    }

    /// Where there was a free slot: a limit that refuses nobody may have had none.
    fn admitted(&self, held: &[u32]) -> (Vec<String>, Vec<ConcurrencyLimit>) {
        let all = self.keys.iter().zip(self.limits.iter().zip(held));
        let admitted = all.filter(|(_, (limit, held))| limit.admits(**held));
        admitted.map(|(key, (limit, _))| (key.clone(), *limit)).unzip()
    }

    /// Refuses, or notes what is over all the same.
    fn judge(
        &self,
        held: &[u32],
        state: &State,
        notes: &mut LimitNotes<'p>,
    ) -> Result<(), Exceeded> {
        for ((rule, key), (bound, held)) in
            self.rules.iter().zip(&self.keys).zip(self.limits.iter().zip(held))
        {
            let limit = &rule.limit;
            let outcome = match () {
                () if *held >= bound.most => limit.outcome_over(),
                () if self.stands_in => LimitOutcome::Local,
                () => LimitOutcome::Pass,
            };
            notes.count(rule.meter, outcome);
            if bound.refuses(*held) {
                state.pressed.refuse(key, &limit.name, bound.most);
                let (jitter, quota) = (limit.retry_jitter, &notes.quota);
                return Err(Exceeded::over(&limit.name, jitter, RETRY_SOON, quota).of(key));
            }
            if *held >= bound.most {
                notes.note_over(limit, &limit.name);
            }
            if state.pressed.is_sampled() {
                let used = (held + 1).min(bound.most);
                state.pressed.note(key, &limit.name, (used, bound.most));
            }
        }
        Ok(())
    }
}
