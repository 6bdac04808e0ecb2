//! What all servers of one store have in common, beside how they are called: what is counted, and
//! what serves while one of them does not.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::findings::Found;
use super::tally::Tallies;
use crate::base::shard::Counters;
use crate::config::{LimitOutage, OnOutage, Outage};

/// How a server of a Redis Cluster sends a command on.
#[derive(Debug, Clone, Copy)]
pub(super) enum SentOn {
    Moved,
    Ask,
    TryAgain,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Common {
    pub(super) tallies: Tallies,
    /// By [`SentOn`].
    redirects: Counters<3>,
    /// Questions for which no server was known.
    unowned: Counters<1>,
    on_outage: Mutex<OnOutage>,
    findings: Mutex<Found>,
}

impl Common {
    /// Another plan is in force.
    pub(super) fn adopt(&self, on_outage: OnOutage) {
        *self.on_outage.lock().unwrap_or_else(PoisonError::into_inner) = on_outage;
    }

    /// What serves while a server does not.
    pub(super) fn in_its_place(&self) -> InItsPlace {
        InItsPlace(*self.on_outage.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What looks at the servers have found.
    pub(super) fn found(&self) -> MutexGuard<'_, Found> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command was sent on.
    pub(super) fn sent_on(&self, how: SentOn) {
        self.redirects.add(how as usize, 1);
    }

    /// How often that was, by its word.
    pub(super) fn redirects(&self) -> [(&'static str, u64); 3] {
        let sum = |how| self.redirects.sum(how as usize);
        [
            ("moved", sum(SentOn::Moved)),
            ("ask", sum(SentOn::Ask)),
            ("tryagain", sum(SentOn::TryAgain)),
        ]
    }

    /// No server was known for a question.
    pub(super) fn note_unowned(&self) {
        self.unowned.add(0, 1);
    }

    /// How often that was.
    pub(super) fn unowned(&self) -> u64 {
        self.unowned.sum(0)
    }
}

/// What serves while a server does not, as the log says it.
#[derive(Debug)]
pub(super) struct InItsPlace(OnOutage);

impl fmt::Display for InItsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OnOutage { revocation, revocation_max_stale, limits, session, .. } = self.0;
        let or = |outage, otherwise| if outage == Outage::Refuse { "refuse" } else { otherwise };
        let limits = match limits {
            LimitOutage::Local => "local",
            LimitOutage::Allow => "allow",
            LimitOutage::Refuse => "refuse",
        };
        let revocation = or(revocation, "allow");
        let session = or(session, "without");
        write!(f, "limits: {limits}, revocation: ")?;
        if !revocation_max_stale.is_zero() {
            write!(f, "as known for {revocation_max_stale:?}, then ")?;
        }
        write!(f, "{revocation}, session: {session}, cache: bypass")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_serves_is_said_as_it_is_configured_now() {
        let common = Common::default();
        let said = common.in_its_place().to_string();
        assert_eq!(said, "limits: local, revocation: refuse, session: refuse, cache: bypass");
        common.adopt(OnOutage {
            revocation: Outage::Allow,
            revocation_max_stale: Duration::from_secs(300),
            limits: LimitOutage::Allow,
            session: Outage::Allow,
            ..OnOutage::default()
        });
        let said = common.in_its_place().to_string();
        let expected = "limits: allow, revocation: as known for 300s, then allow, session: \
                        without, cache: bypass";
        assert_eq!(said, expected);
    }
}
