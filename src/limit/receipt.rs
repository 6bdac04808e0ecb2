//! What a request has paid, and what it owes or gets back once its answer is known.
//!
//! A request is charged before it is forwarded, so that no crowd of requests in flight can pass a
//! limit that counts only some answers; the answer then decides what stays charged. A request whose
//! client leaves before the answer has none, so its receipt is dropped and all stays charged: who
//! hangs up must not get requests for nothing, and the upstream has not failed.

use http::{HeaderMap, StatusCode};

use super::policy::{Limit, units};
use super::state::State;
use crate::config::Refund;
use crate::store::{ChargedAt, Charges, Mode, Store, StoreError, Window, WindowSet};

/// The charges of a request that its answer may change.
#[derive(Debug)]
pub struct Receipt<'p> {
    pub(super) charged: Vec<(&'p Limit, String, Window)>,
    pub(super) at: CountedAt,
}

/// Who counted a request, and when.
#[derive(Debug, Clone, Default)]
pub(super) struct CountedAt {
    /// The store; nothing where this node stood in for it.
    pub(super) store: Option<ChargedAt>,
    /// This node, in microseconds of its own; nothing where it does not count what the store does.
    pub(super) here_us: Option<u64>,
    /// Whether the store is to be told later.
    pub(super) is_owed: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// The status that the client gets.
    pub status: StatusCode,
    /// The fields of the response, when there is one.
    pub headers: Option<&'a HeaderMap>,
    /// Whether the upstream did not answer, or with a status from 500 on.
    pub failed: bool,
    /// Whether the answer came from the cache.
    pub cached: bool,
}

/// What is given back, and what is charged on top.
#[derive(Debug)]
pub struct Correction {
    refunds: Changes,
    dues: Changes,
    at: CountedAt,
}

/// Windows, the cost of each being what changes, and their keys.
#[derive(Debug)]
struct Changes {
    set: WindowSet,
    keys: Vec<String>,
}

impl Receipt<'_> {
    /// What the outcome changes; nothing when everything stays as it was charged.
    pub fn settle(self, outcome: &Outcome<'_>) -> Option<Correction> {
        let (mut refunds, mut dues) = (Vec::new(), Vec::new());
        for (limit, key, window) in self.charged {
            let cost = limit.final_cost(window.cost, outcome);
            if cost < window.cost {
                refunds.push((key, Window { cost: window.cost - cost, ..window }));
            } else if cost > window.cost {
                let mode = Mode::Force;
                dues.push((key, Window { cost: cost - window.cost, mode, ..window }));
            }
        }
        Correction::new(refunds, dues, self.at)
    }
}

impl Limit {
    /// What a request with this outcome costs, of which `paid` is charged already.
    fn final_cost(&self, paid: u32, outcome: &Outcome<'_>) -> u32 {
        let counts = |status| self.count.is_empty() || self.count.iter().any(|s| s.contain(status));
        let excused = |why: &Refund| match why {
            Refund::Failure => outcome.failed,
            Refund::Cache => outcome.cached,
        };
        if !counts(outcome.status) || self.refund.iter().any(excused) {
            return 0;
        }
        let said = self.response_cost.as_ref().and_then(|(name, max)| {
            // What a stored response did cost was charged when it was fetched.
            let headers = outcome.headers.filter(|_| !outcome.cached)?;
            units(headers.get(name)?.to_str().ok()?).map(|cost| cost.min(*max))
        });
        said.unwrap_or(paid)
    }
}

impl Correction {
    /// Nothing, when there is nothing to change.
    pub(super) fn new(
        refunds: Vec<(String, Window)>,
        dues: Vec<(String, Window)>,
        at: CountedAt,
    ) -> Option<Self> {
        if refunds.is_empty() && dues.is_empty() {
            return None;
        }
        Some(Self { refunds: Changes::new(refunds), dues: Changes::new(dues), at })
    }

    /// Gives back what the store was not asked to take back.
    ///
    /// # Errors
    /// The store's own.
    pub async fn give_back(&self, store: &Store) -> Result<(), StoreError> {
        match &self.at.store {
            Some(at) => store.refund(self.refunds.charges(), at).await,
            None => Ok(()),
        }
    }

    /// Carries it out where the charges were made.
    ///
    /// # Errors
    /// The store's own; what it did not take is not tried again, so that nothing is given back
    /// twice.
    pub async fn carry_out(&self, store: &Store, state: &State) -> Result<(), StoreError> {
        let CountedAt { store: at, here_us, is_owed } = &self.at;
        let (refunds, dues) = (self.refunds.charges(), self.dues.charges());
        if let Some(here_us) = here_us {
            state.stand_in.refund(refunds, *here_us, *is_owed);
        }
        let mut carried_out = Ok(());
        if !refunds.keys.is_empty() {
            if let Some(at) = at {
                carried_out = store.refund(refunds, at).await;
            }
            state.forget_denied(&self.refunds.keys);
        }
        if !dues.keys.is_empty() {
            if here_us.is_some() {
                state.stand_in.charge(dues, *is_owed);
            }
            if at.is_some()
                && let Err(error) = store.take(dues).await
            {
                if here_us.is_some() && error.is_undone() {
                    state.stand_in.owe(dues);
                }
                // What was given back before must not be taken for not asked.
                let error = if error == StoreError::NotAsked { StoreError::Timeout } else { error };
                carried_out = carried_out.and(Err(error));
            }
        }
        carried_out
    }
}

impl Changes {
    fn new(changes: Vec<(String, Window)>) -> Self {
        let (keys, windows): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        Self { set: WindowSet::new(windows), keys }
    }

    fn charges(&self) -> Charges<'_> {
        Charges { set: &self.set, keys: &self.keys }
    }
}
