//! What gateways are still to be told of revocations that are in force.
//!
//! In a Redis Cluster a revocation's key and the stream lie on two servers. When the second one
//! does not answer, whoever revokes is told so; and the entry is written when that server is back,
//! so that gateways that follow the stream learn of what is in force already.
//!
//! What is told last of a key must be what is so. This gateway tells one thing of a key at a time
//! ([`Journal::turn`]), and another one may have changed the key since: it is looked at before.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::reply::unexpected;
use super::stream::{Told, be_late};
use super::topology::Topology;
use crate::store::Reply;

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Of how many keys something can be told at a time, at most.
const TURNS: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    entries: Mutex<VecDeque<Entry>>,
    /// Of the next entry.
    number: AtomicU64,
    most: usize,
    repeated: AtomicU64,
    /// By a hash of the key.
    turns: [tokio::sync::Mutex<()>; TURNS],
}

/// The commands that tell of one key.
#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    key: String,
    /// Whether they tell that it is not revoked any more.
    is_undone: bool,
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
        let turns = std::array::from_fn(|_| tokio::sync::Mutex::default());
        let (number, repeated) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { entries: Mutex::default(), number, most, repeated, turns }
    }

    /// Waits until nobody else here tells anything of this key.
    pub(super) async fn turn(&self, key: &str) -> tokio::sync::MutexGuard<'_, ()> {
        self.turns[xxh3_64(key.as_bytes()) as usize % TURNS].lock().await
    }

    /// These commands were not carried out. They take the place of others of the same key.
    fn add(&self, told: &Told<'_>, commands: Vec<Cmd>) {
        self.entries().retain(|entry| entry.key != told.key());
        self.add_beside(told, commands);
    }

    /// The same where nobody knows whether the key was changed. What else is to be told of it
    /// stays: each is told only if it is so.
    fn add_beside(&self, told: &Told<'_>, mut commands: Vec<Cmd>) {
        be_late(&mut commands);
        let key = told.key();
        let mut entries = self.entries();
        if entries.len() >= self.most {
            entries.pop_front();
            tracing::warn!(
                "more revocations wait to be told to gateways than store.revocation_journal; the \
                 oldest is in force and will not be known during an outage\n    help: raise it, \
                 or repeat the revocation once Redis is whole again"
            );
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (key, is_undone) = (key.to_owned(), told.is_undone());
        entries.push_back(Entry { number, key, is_undone, commands });
    }

    /// This was told of its key. Where something else was to be told of it, that may have been
    /// carried out without an answer, or may be yet: so this is told once more behind it.
    fn replace(&self, told: &Told<'_>, commands: Vec<Cmd>) {
        let is_pending = self.entries().iter().any(|entry| entry.key == told.key());
        if is_pending {
            self.add(told, commands);
        }
    }

    /// How many were told later.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// What is not told yet, the oldest first.
    fn all(&self) -> Vec<Entry> {
        self.entries().iter().cloned().collect()
    }

    fn holds(&self, entry: &Entry) -> bool {
        self.entries().iter().any(|known| known.number == entry.number)
    }

    /// It is not to be told any more.
    fn remove(&self, done: &Entry) {
        self.entries().retain(|entry| entry.number != done.number);
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be told of a key that is being changed. Dropped before it was told, it is in the
/// journal from then on.
#[derive(Debug)]
pub(super) struct Untold<'a> {
    journal: &'a Journal,
    told: Told<'a>,
    commands: Vec<Cmd>,
    key: Changed,
    was_told: bool,
}

/// Whether a key was changed.
#[derive(Debug, Clone, Copy)]
enum Changed {
    /// Nobody knows.
    Maybe,
    No,
    Yes,
}

impl<'a> Untold<'a> {
    /// The key is about to be changed; these commands tell of it.
    pub(super) fn new(journal: &'a Journal, told: Told<'a>, commands: Vec<Cmd>) -> Self {
        Self { journal, told, commands, key: Changed::Maybe, was_told: false }
    }

    /// What came of changing the key.
    pub(super) fn note<T>(&mut self, changed: &Reply<T>) {
        self.key = match changed {
            Ok(_) => Changed::Yes,
            Err(error) if error.is_undone() => Changed::No,
            Err(_) => Changed::Maybe,
        };
    }

    /// Everybody is told.
    pub(super) fn was_told(mut self) {
        self.was_told = true;
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        let commands = std::mem::take(&mut self.commands);
        match self.key {
            _ if self.was_told => self.journal.replace(&self.told, commands),
            Changed::Yes => self.journal.add(&self.told, commands),
            Changed::Maybe => self.journal.add_beside(&self.told, commands),
            Changed::No => {}
        }
    }
}

async fn repeat(journal: Weak<Journal>, topology: Arc<Topology>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(journal) = journal.upgrade() else { return };
        // One whose server is away waits for the next round, and holds up no other.
        for entry in journal.all() {
            let _ = repeat_one(&journal, &topology, &entry).await;
        }
    }
}

/// Tells of one key, if it is still so. Whoever has changed it since has told of that.
///
/// # Errors
/// A server does not answer: it is told later.
async fn repeat_one(journal: &Journal, topology: &Topology, entry: &Entry) -> Reply<()> {
    let _turn = journal.turn(&entry.key).await;
    if !journal.holds(entry) {
        return Ok(());
    }
    let mut look = Pipeline::with_capacity(2);
    look.cmd("EXISTS").arg(&entry.key);
    let is_there = match topology.run(&mut look, topology.deadline()).await?.pop() {
        Some(Value::Int(count)) => count > 0,
        other => return Err(unexpected(&other.unwrap_or_default())),
    };
    if is_there != entry.is_undone {
        topology.transact(entry.commands.clone()).await?;
        journal.repeated.fetch_add(1, Ordering::Relaxed);
    }
    journal.remove(entry);
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::store::StoreError;

    fn keys(journal: &Journal) -> Vec<String> {
        journal.entries().iter().map(|it| it.key.clone()).collect()
    }

    #[test]
    fn what_is_newer_takes_the_place_and_the_oldest_gives_way() {
        let journal = Journal::new(2);
        let add = |key| journal.add(&Told::again(key, None, 9), vec![]);
        add("a");
        add("b");
        let old = journal.all()[0].clone();
        journal.add(&Told::undone("a"), vec![redis::cmd("PING")]);
        assert_eq!(keys(&journal), ["b", "a"]);
        assert!(!journal.holds(&old), "it is not told any more");
        add("c");
        assert_eq!(keys(&journal), ["a", "c"]);
        let first = journal.all()[0].clone();
        assert!(first.is_undone && first.commands.len() == 1);
        journal.remove(&old);
        journal.remove(&first);
        assert_eq!(keys(&journal), ["c"]);
        let next = journal.all()[0].clone();
        journal.remove(&next);
        assert!(journal.all().is_empty());
    }

    #[test]
    fn what_was_told_is_told_once_more_behind_what_may_come_late() {
        let journal = Journal::new(2);
        journal.replace(&Told::undone("a"), vec![]);
        assert!(journal.all().is_empty(), "nothing else is on its way");
        journal.add(&Told::again("a", None, 9), vec![]);
        journal.replace(&Told::undone("a"), vec![]);
        assert!(journal.all()[0].is_undone);
        assert_eq!(keys(&journal), ["a"]);
    }

    #[test]
    fn what_was_begun_and_not_told_is_told_later() {
        let journal = Journal::new(4);
        Untold::new(&journal, Told::again("a", None, 9), vec![]).was_told();
        assert!(journal.all().is_empty(), "it was told");
        // The caller leaves before the key is changed, as far as anybody knows.
        drop(Untold::new(&journal, Told::again("a", None, 9), vec![]));
        drop(Untold::new(&journal, Told::undone("a"), vec![]));
        assert_eq!(keys(&journal), ["a", "a"], "each is told if it is so");
        // The caller leaves between the key and the stream.
        let mut untold = Untold::new(&journal, Told::undone("a"), vec![]);
        untold.note(&Ok(()));
        drop(untold);
        assert!(journal.all()[0].is_undone);
        assert_eq!(keys(&journal), ["a"]);
        let mut untold = Untold::new(&journal, Told::again("b", None, 9), vec![]);
        untold.note(&Reply::<()>::Err(StoreError::Unavailable));
        drop(untold);
        assert_eq!(keys(&journal), ["a"], "nothing was changed");
        // What was told goes behind what may have been.
        Untold::new(&journal, Told::again("a", None, 9), vec![]).was_told();
        assert!(!journal.all()[0].is_undone);
    }

    #[test]
    fn one_thing_is_told_of_a_key_at_a_time() {
        let journal = Journal::new(2);
        let is_free = |key: &str| journal.turn(key).now_or_never().is_some();
        let first = journal.turn("a").now_or_never().expect("nobody else tells of it");
        assert!(!is_free("a"));
        assert!((0..TURNS).any(|key| is_free(&key.to_string())), "others wait for nobody");
        drop(first);
        assert!(is_free("a"));
    }
}
