//! What gateways are still to be told of revocations that are in force.
//!
//! In a Redis Cluster a revocation's key and the stream lie on two servers. When the second one
//! does not answer, whoever revokes is told so; and the entry is written when that server is back,
//! so that gateways that follow the stream learn of what is in force already.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::Cmd;

use super::topology::Topology;

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    entries: Mutex<VecDeque<Entry>>,
    most: usize,
    repeated: AtomicU64,
}

/// The commands that tell of one key.
#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    key: String,
    commands: Vec<Cmd>,
}

impl Journal {
    /// Has what is in it repeated. It ends when the journal is dropped. Must be called within a
    /// tokio runtime.
    pub(super) fn start(topology: &Arc<Topology>) -> Arc<Self> {
        let journal = Arc::new(Self::new(topology.settings.revocation_journal));
        tokio::spawn(repeat(Arc::downgrade(&journal), Arc::clone(topology)));
        journal
    }

    fn new(most: usize) -> Self {
        Self { entries: Mutex::default(), most, repeated: AtomicU64::new(0) }
    }

    /// These commands were not carried out. They take the place of others of the same key.
    pub(super) fn add(&self, key: &str, commands: Vec<Cmd>) {
        self.forget(key);
        let mut entries = self.entries();
        if entries.len() >= self.most {
            entries.pop_front();
            tracing::warn!(
                "more revocations wait to be told to gateways than store.revocation_journal; the \
                 oldest is in force and will not be known during an outage\n    help: raise it, \
                 or repeat the revocation once Redis is whole again"
            );
        }
        let number = entries.back().map_or(0, |last| last.number + 1);
        entries.push_back(Entry { number, key: key.to_owned(), commands });
    }

    /// Something newer was told of this key.
    pub(super) fn forget(&self, key: &str) {
        self.entries().retain(|entry| entry.key != key);
    }

    /// How many were told later.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    fn first(&self) -> Option<Entry> {
        self.entries().front().cloned()
    }

    fn is_done(&self, done: &Entry) {
        let mut entries = self.entries();
        if entries.front().is_some_and(|first| first.number == done.number && first.key == done.key)
        {
            entries.pop_front();
        }
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn repeat(journal: Weak<Journal>, topology: Arc<Topology>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(journal) = journal.upgrade() else { return };
        while let Some(entry) = journal.first() {
            if topology.transact(entry.commands.clone()).await.is_err() {
                break;
            }
            journal.is_done(&entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_newer_takes_the_place_and_the_oldest_gives_way() {
        let journal = Journal::new(2);
        let keys = || journal.entries().iter().map(|it| it.key.clone()).collect::<Vec<_>>();
        journal.add("a", vec![]);
        journal.add("b", vec![]);
        journal.add("a", vec![redis::cmd("PING")]);
        assert_eq!(keys(), ["b", "a"]);
        journal.add("c", vec![]);
        assert_eq!(keys(), ["a", "c"]);
        let first = journal.first().unwrap();
        assert_eq!(first.commands.len(), 1);
        journal.forget("a");
        journal.is_done(&first);
        assert_eq!(keys(), ["c"], "it was told while it was taken away");
        journal.is_done(&journal.first().unwrap());
        assert!(journal.first().is_none());
    }
}
