//! What all servers of one store have in common: what connections to them are made with, what is
//! counted, what their histories are, and what serves while one of them does not.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::credentials::Credentials;
use super::finding::Finding;
use super::findings::{Found, Report};
use super::history::Histories;
use super::state::WhyAway;
use super::tally::Tallies;
use crate::base::shard::Counters;
use crate::config::{self, LimitOutage, OnOutage, Outage, StoreUse};

/// How a server of a Redis Cluster sends a command on.
#[derive(Debug, Clone, Copy)]
pub(super) enum SentOn {
    Moved,
    Ask,
    TryAgain,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Common {
    /// Its table in the configuration.
    pub(super) table: &'static str,
    /// The same, where there are several stores to tell apart.
    pub(super) among_others: Option<&'static str>,
    /// What it is used for.
    uses: Vec<StoreUse>,
    pub(super) credentials: Arc<Credentials>,
    /// What all connections have shown of the histories of the servers.
    pub(super) histories: Histories,
    pub(super) tallies: Tallies,
    /// By [`SentOn`].
    redirects: Counters<3>,
    /// Questions for which no server was known.
    unowned: Counters<1>,
    /// Connections that were made again.
    reconnects: AtomicU64,
    on_outage: Mutex<OnOutage>,
    away: Mutex<Option<WhyAway>>,
    findings: Mutex<Found>,
    /// By the names of servers.
    memories: Mutex<HashMap<String, Memory>>,
    /// Rung when a server was looked at.
    pub(super) looked: Arc<Notify>,
}

/// How a server keeps what is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memory {
    /// Its `maxmemory-policy`.
    pub(super) policy: String,
    /// Whether keys go when its memory is full, which has a bound.
    pub(super) evicts: bool,
    /// Whether it appends what is written to a file; nothing where nobody has asked.
    pub(super) appends: Option<bool>,
    /// Whether it can say what is on its disk (WAITAOF); nothing where nobody has asked.
    pub(super) fsyncs: Option<bool>,
}

impl Common {
    /// Of the store of these settings.
    pub(super) fn of(settings: &config::Store) -> Arc<Self> {
        Arc::new(Self {
            table: settings.usage.table(),
            among_others: settings.is_one_of_several().then(|| settings.usage.table()),
            uses: settings.uses().filter(|it| settings.has(*it)).collect(),
            credentials: Credentials::of(settings),
            histories: Histories::default(),
            tallies: Tallies::default(),
            redirects: Counters::default(),
            unowned: Counters::default(),
            reconnects: AtomicU64::new(0),
            on_outage: Mutex::default(),
            away: Mutex::default(),
            findings: Mutex::default(),
            memories: Mutex::default(),
            looked: Arc::default(),
        })
    }

    /// Another plan is in force.
    pub(super) fn adopt(&self, on_outage: OnOutage) {
        *self.on_outage.lock().unwrap_or_else(PoisonError::into_inner) = on_outage;
    }

    /// What serves while a server does not.
    pub(super) fn in_its_place(&self) -> InItsPlace<'_> {
        let on_outage = *self.on_outage.lock().unwrap_or_else(PoisonError::into_inner);
        InItsPlace { on_outage, uses: &self.uses }
    }

    /// An attempt to reach a server failed, or none has since.
    pub(super) fn note_away(&self, why: Option<WhyAway>) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// See [`super::topology::Topology::why_away`].
    pub(super) fn why_away(&self) -> Option<WhyAway> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is used for this.
    pub(super) fn is_for(&self, usage: StoreUse) -> bool {
        self.uses.contains(&usage)
    }

    /// A server was looked at.
    pub(super) fn note_memory(&self, server: &str, memory: Memory) {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.insert(server.to_owned(), memory);
        drop(memories);
        self.looked.notify_waiters();
    }

    /// How this server keeps what is written; nothing before it was looked at.
    pub(super) fn memory(&self, server: &str) -> Option<Memory> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    /// What looks at the servers have found.
    pub(super) fn found(&self) -> MutexGuard<'_, Found> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a look at a server found, and says what is new.
    pub(super) fn tell(&self, server: &str, report: Report) {
        let new = self.found().take(server, report);
        for Finding { is_fatal, check, seen, suffers, remedy } in new {
            let kind = if is_fatal { "cannot serve" } else { "is not as it should be" };
            tracing::warn!(check, suffers, remedy, server, "Redis {kind}: {seen}");
        }
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

    /// A connection that was lost was made again.
    pub(super) fn note_reconnect(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
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

/// What serves while a server does not, as the log says it: of what the store is used for.
#[derive(Debug)]
pub(super) struct InItsPlace<'a> {
    on_outage: OnOutage,
    uses: &'a [StoreUse],
}

impl fmt::Display for InItsPlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OnOutage { revocation, revocation_max_stale, limits, session, .. } = self.on_outage;
        let or = |outage, otherwise| if outage == Outage::Refuse { "refuse" } else { otherwise };
        let limits = match limits {
            LimitOutage::Local => "local",
            LimitOutage::Allow => "allow",
            LimitOutage::Refuse => "refuse",
        };
        let revocation = or(revocation, "allow");
        let session = or(session, "without");
        let mut said = Vec::with_capacity(4);
        if self.uses.contains(&StoreUse::Limits) {
            said.push(format!("limits: {limits}"));
        }
        if self.uses.contains(&StoreUse::Main) {
            let known = format!("as known for {revocation_max_stale:?}, then ");
            let known = if revocation_max_stale.is_zero() { "" } else { &*known };
            said.push(format!("revocation: {known}{revocation}"));
            said.push(format!("session: {session}"));
        }
        if self.uses.contains(&StoreUse::Cache) {
            said.push("cache: bypass".to_owned());
        }
        if self.uses.contains(&StoreUse::Queue) {
            said.push("queues: refuse".to_owned());
        }
        f.write_str(&said.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_serves_is_said_as_it_is_configured_now() {
        let common = Common::of(&config::Store::default());
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

    #[test]
    fn only_what_the_store_is_used_for_is_said() {
        let own = |usage| Some(Box::new(config::Store { usage, ..config::Store::default() }));
        let all = config::Store {
            cache: own(StoreUse::Cache),
            limits: own(StoreUse::Limits),
            ..config::Store::default()
        };
        let said = |settings| Common::of(settings).in_its_place().to_string();
        assert_eq!(said(&all), "revocation: refuse, session: refuse");
        assert_eq!(said(all.used_for(StoreUse::Cache)), "cache: bypass");
        assert_eq!(said(all.used_for(StoreUse::Limits)), "limits: local");
    }
}
