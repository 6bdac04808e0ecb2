//! What the gateways of a fleet know together of a route's canary: when its ramp began, and whether
//! it was stopped. It lies in the store under one key. Of two records the newer one counts, so that
//! all end with the same, whoever wrote last.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// When it was made, in Unix milliseconds of the fleet's clock.
    pub(super) at: u64,
    /// When its ramp began, in the same.
    pub(super) began: u64,
    /// Which upstreams and which ramp it is about.
    pub(super) about: String,
    /// Where it was stopped: until an operator lets it go on.
    pub(super) stopped: Option<Stopped>,
}

/// How a canary was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stopped {
    /// The share that it keeps, in ten-thousandths.
    pub(super) share: u16,
    /// Why.
    pub(super) why: String,
}

/// What is to be done about what lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// This gateway's record belongs there, unless another one comes first.
    WriteNew,
    /// This gateway's record belongs there.
    Write,
}

impl Record {
    /// A canary that begins now.
    pub(super) fn begun(about: &str, now_ms: u64) -> Self {
        Self { at: now_ms, began: now_ms, about: about.to_owned(), stopped: None }
    }

    /// The record that comes next, at `now_ms` or later: clocks may have gone back.
    pub(super) fn next(own: Option<&Self>, about: &str, now_ms: u64) -> Self {
        let at = own.map_or(now_ms, |own| now_ms.max(own.at + 1));
        let begun = Self::begun(about, at);
        match own {
            Some(own) if own.about == about => Self { began: own.began, ..begun },
            _ => begun,
        }
    }

    /// Brings together what this gateway knows and what was found in the store.
    pub(super) fn settle(
        own: &mut Option<Self>,
        found: Option<Self>,
        about: &str,
        now_ms: u64,
    ) -> Then {
        let Some(found) = found else {
            // Where the store has lost it, it gets back what this gateway knows.
            own.get_or_insert_with(|| Self::begun(about, now_ms));
            return Then::WriteNew;
        };
        let Some(known) = own else {
            let is_mine = found.about == about || found.stopped.is_some();
            let next = Self::next(Some(&found), about, now_ms);
            *own = Some(if is_mine { found } else { next });
            return if is_mine { Then::Nothing } else { Then::Write };
        };
        if found.at < known.at {
            return Then::Write;
        }
        if found.at > known.at {
            if found.about == about {
                *own = Some(found);
            } else {
                // A gateway with another ramp, while a fleet is reloaded: this one goes on with its
                // own, but stops and goes on with all.
                let at = found.at;
                let stopped = found.stopped;
                *known = Self { at, stopped, ..known.clone() };
            }
        }
        Then::Nothing
    }
}
