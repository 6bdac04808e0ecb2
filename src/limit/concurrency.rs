//! Limits on requests in flight.
//!
//! A request holds its place until the last byte of its response. A gateway that dies gives nothing
//! back, so a place in the store is leased: the gateway renews the leases of requests that take
//! long, and those of the dead end by themselves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::key::principal;
use super::policy::{Concurrent, Policy};
use super::{Exceeded, Facts, Quota, State, Told};
use crate::config::{LimitOutage, Over};
use crate::store::keys::{Keys, limit_parts};
use crate::store::{Crowd, LeaseReply, Leases, Mode, Release, Reply};

/// What a client over such a limit is told to wait: nobody knows when a place gets free.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// A lease is renewed when this part of it has passed, so that two renewals may fail.
const RENEWAL_PARTS: u32 = 3;

/// The places that a request asks for.
#[derive(Debug)]
pub struct Wanted<'p> {
    policy: &'p Policy,
    shared: Places<'p>,
    local: Places<'p>,
    holder: String,
}

/// One key and bound per limit.
#[derive(Debug, Default)]
struct Places<'p> {
    limits: Vec<&'p Concurrent>,
    keys: Vec<String>,
    crowds: Vec<Crowd>,
}

/// The places that a request holds, or may hold.
#[derive(Debug, Default)]
pub struct Ticket {
    /// Places that this gateway counts.
    local: Vec<String>,
    /// Places in the store.
    leased: Option<Release>,
}

impl Ticket {
    /// The places in the store.
    pub fn leased(&self) -> Option<&Release> {
        self.leased.as_ref()
    }

    /// The store has answered, so that nothing of the question is still on its way.
    pub fn heard(&mut self) {
        if let Some(release) = &mut self.leased {
            release.in_doubt = false;
        }
    }
}

/// What the requests of this gateway hold.
#[derive(Debug)]
pub struct InFlight {
    /// This gateway's part of every holder's name.
    node: u64,
    next: AtomicU64,
    /// Places that only this gateway counts.
    local: Mutex<HashMap<String, u32>>,
    /// Places in the store by holder.
    leased: Mutex<HashMap<String, LeaseRenewal>>,
}

/// A lease that must be renewed while its request lasts.
#[derive(Debug, Clone)]
pub struct LeaseRenewal {
    /// The keys.
    pub keys: Vec<String>,
    /// Their bounds, which a renewal does not mind.
    pub crowds: Vec<Crowd>,
    at: Instant,
    /// Whether a renewal failed, and may still reach the store.
    in_doubt: bool,
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            node: fastrand::u64(..),
            next: AtomicU64::new(0),
            local: Mutex::default(),
            leased: Mutex::default(),
        }
    }
}

/// Which places the request needs, if any.
pub fn wanted<'p>(
    policy: &'p Policy,
    state: &State,
    keys: &Keys,
    facts: &Facts<'_>,
) -> Option<Wanted<'p>> {
    if policy.concurrent.is_empty() {
        return None;
    }
    let (mut shared, mut local) = (Places::default(), Places::default());
    for concurrent in &policy.concurrent {
        let limit = &concurrent.limit;
        if limit.is_exempt(facts) {
            continue;
        }
        let places = if concurrent.is_local { &mut local } else { &mut shared };
        let principal = principal(&limit.key, facts);
        places.keys.push(keys.in_flight(&limit.name, &principal));
        places.limits.push(concurrent);
        places.crowds.push(concurrent.crowd);
    }
    let number = state.in_flight.next.fetch_add(1, Ordering::Relaxed);
    let holder = format!("{:016x}-{number}", state.in_flight.node);
    Some(Wanted { policy, shared, local, holder })
}

impl<'p> Wanted<'p> {
    /// The question for the store.
    pub fn leases(&self) -> Option<Leases<'_>> {
        let Places { keys, crowds, .. } = &self.shared;
        (!keys.is_empty()).then_some(Leases { crowds, keys, holder: &self.holder })
    }

    /// The bounds for a store that only looks; the keys are those of [`Self::leases`].
    pub fn peek(&self) -> Vec<Crowd> {
        let peek = |crowd: &Crowd| Crowd { mode: Mode::Peek, ..*crowd };
        self.shared.crowds.iter().map(peek).collect()
    }

    /// What the answer to [`Self::peek`] means, for operators; an error when a place is missing
    /// that the request needs.
    pub fn forecast(&self, reply: &LeaseReply) -> (Vec<Value>, Result<(), Exceeded>) {
        self.shared.forecast(&reply.held, "shared")
    }

    /// The same of the places that this gateway counts.
    pub fn forecast_local(&self, state: &State) -> (Vec<Value>, Result<(), Exceeded>) {
        let counts = lock(&state.in_flight.local);
        let held = self.local.keys.iter().map(|key| counts.get(key).copied().unwrap_or(0));
        self.local.forecast(&held.collect::<Vec<_>>(), "local")
    }

    /// What is given back if the request ends before anybody knows what the store gave: also places
    /// that it gives later, because the question was late.
    pub fn ticket(&self) -> Ticket {
        let Places { keys, crowds, .. } = &self.shared;
        let leased = (!keys.is_empty()).then(|| self.release(keys.clone(), crowds.clone(), true));
        Ticket { local: Vec::new(), leased }
    }

    fn release(&self, keys: Vec<String>, crowds: Vec<Crowd>, in_doubt: bool) -> Release {
        Release { keys, crowds, holder: self.holder.clone(), in_doubt }
    }

    /// Judges the store's answer, and takes the places that this gateway counts. The ticket says
    /// what must be given back, also after an error.
    pub fn admit(
        &self,
        reply: Option<&Reply<LeaseReply>>,
        outage: LimitOutage,
        state: &State,
        told: &mut Told<'p>,
        ticket: &mut Ticket,
    ) -> Result<(), Exceeded> {
        match (reply, outage) {
            (Some(Ok(reply)), _) => {
                ticket.leased = None;
                self.shared.judge(&reply.held, state, told)?;
                let (keys, crowds) = self.shared.admitted(&reply.held);
                let renewal = LeaseRenewal::new(keys.clone(), crowds.clone());
                lock(&state.in_flight.leased).insert(self.holder.clone(), renewal);
                ticket.leased = Some(self.release(keys, crowds, false));
            }
            (Some(Err(error)), LimitOutage::Refuse) => {
                return Err(Exceeded::Unknown(error.clone()));
            }
            (Some(Err(_)), LimitOutage::Local) => {
                let nodes = self.policy.nodes.max(1);
                let share = |crowd: &Crowd| Crowd { most: (crowd.most / nodes).max(1), ..*crowd };
                let crowds = self.shared.crowds.iter().map(share).collect();
                let Places { limits, keys, .. } = &self.shared;
                let here = Places { limits: limits.clone(), keys: keys.clone(), crowds };
                state.in_flight.enter(&here, state, told, ticket)?;
            }
            (Some(Err(_)), LimitOutage::Allow) | (None, _) => {}
        }
        state.in_flight.enter(&self.local, state, told, ticket)
    }
}

impl<'p> Places<'p> {
    /// What these holders mean to a request, for operators.
    fn forecast(&self, held: &[u32], scope: &str) -> (Vec<Value>, Result<(), Exceeded>) {
        let mut verdict = Ok(());
        let all = self.limits.iter().zip(&self.keys);
        let shown =
            all.zip(self.crowds.iter().zip(held)).map(|((concurrent, key), (crowd, held))| {
                let limit = &concurrent.limit;
                if crowd.refuses(*held) {
                    let quota = Quota::default();
                    verdict = Err(Exceeded::over(&limit.name, Duration::ZERO, RETRY_SOON, &quota));
                }
                json!({
                    "limit": limit.name,
                    "scope": scope,
                    "key": limit_parts(key).map_or(key.as_str(), |parts| parts.0),
                    "concurrent": crowd.most,
                    "in_flight": held,
                    "verdict": limit.verdict(*held < crowd.most),
                })
            });
        (shown.collect(), verdict)
    }

    /// Where there was room: a crowd that refuses nobody may have had none.
    fn admitted(&self, held: &[u32]) -> (Vec<String>, Vec<Crowd>) {
        let all = self.keys.iter().zip(self.crowds.iter().zip(held));
        let admitted = all.filter(|(_, (crowd, held))| crowd.admits(**held));
        admitted.map(|(key, (crowd, _))| (key.clone(), *crowd)).unzip()
    }

    /// Refuses, or notes what is over all the same.
    fn judge(&self, held: &[u32], state: &State, told: &mut Told<'p>) -> Result<(), Exceeded> {
        for ((concurrent, key), (crowd, held)) in
            self.limits.iter().zip(&self.keys).zip(self.crowds.iter().zip(held))
        {
            let limit = &concurrent.limit;
            if crowd.refuses(*held) {
                state.refused.count(key);
                let (jitter, quota) = (limit.retry_jitter, &told.quota);
                return Err(Exceeded::over(&limit.name, jitter, RETRY_SOON, quota).of(key));
            }
            if *held >= crowd.most {
                told.note(limit, &limit.name);
            }
        }
        Ok(())
    }
}

impl InFlight {
    /// Takes places that this gateway counts: all or none.
    fn enter<'p>(
        &self,
        places: &Places<'p>,
        state: &State,
        told: &mut Told<'p>,
        ticket: &mut Ticket,
    ) -> Result<(), Exceeded> {
        if places.keys.is_empty() {
            return Ok(());
        }
        let mut counts = lock(&self.local);
        let held: Vec<u32> =
            places.keys.iter().map(|key| counts.get(key).copied().unwrap_or(0)).collect();
        places.judge(&held, state, told)?;
        for ((key, crowd), held) in places.keys.iter().zip(&places.crowds).zip(held) {
            if crowd.admits(held) {
                *counts.entry(key.clone()).or_default() += 1;
                ticket.local.push(key.clone());
            }
        }
        Ok(())
    }

    /// Gives back what this gateway counts, and renews the rest no more: it is returned, for the
    /// store.
    pub fn leave(&self, ticket: Ticket) -> Option<Release> {
        let mut counts = lock(&self.local);
        for key in &ticket.local {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        drop(counts);
        let mut release = ticket.leased?;
        if let Some(renewal) = lock(&self.leased).remove(&release.holder) {
            release.in_doubt |= renewal.in_doubt;
        }
        Some(release)
    }

    /// A renewal failed: it may yet come, also after the release.
    pub fn doubt(&self, holder: &str) {
        if let Some(renewal) = lock(&self.leased).get_mut(holder) {
            renewal.in_doubt = true;
        }
    }

    /// The leases that must be renewed now, by holder.
    pub fn due(&self) -> Vec<(String, LeaseRenewal)> {
        let now = Instant::now();
        let leased = lock(&self.leased);
        let due = leased.iter().filter(|(_, renewal)| renewal.at <= now);
        due.map(|(holder, renewal)| (holder.clone(), renewal.clone())).collect()
    }

    /// Whether a holder's request still lasts.
    pub fn lasts(&self, holder: &str) -> bool {
        lock(&self.leased).contains_key(holder)
    }

    /// A lease was renewed. False when its request has ended meanwhile: then it must be given back
    /// once more, because the renewal may have come after the release.
    pub fn renewed(&self, holder: &str) -> bool {
        let mut leased = lock(&self.leased);
        let Some(renewal) = leased.get_mut(holder) else { return false };
        let in_doubt = renewal.in_doubt;
        *renewal = LeaseRenewal::new(renewal.keys.clone(), renewal.crowds.clone());
        renewal.in_doubt = in_doubt;
        true
    }
}

impl LeaseRenewal {
    fn new(keys: Vec<String>, crowds: Vec<Crowd>) -> Self {
        let shortest = crowds.iter().map(|crowd| crowd.lease).min().unwrap_or_default();
        let crowds = crowds.into_iter().map(|crowd| Crowd { mode: Mode::Force, ..crowd });
        let at = Instant::now() + shortest / RENEWAL_PARTS;
        Self { keys, crowds: crowds.collect(), at, in_doubt: false }
    }
}

/// What a limit on requests in flight does with those that find no place.
pub(super) fn mode(over: &Over) -> Mode {
    match over {
        Over::Refuse => Mode::Enforce,
        Over::Shadow | Over::Mark(_) => Mode::Observe,
    }
}

/// Every change under the lock is one number or one entry, so a panic leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
