//! Epochs as this node knows them without asking: a table of what was read, out of which every
//! change takes its key. Pure: who tells of changes is somebody else's.
//!
//! A read that raced with a change must not put the old value back: a reader takes a [`Mark`]
//! before it asks, and what it read is kept only if nothing changed since. Reads of the table take
//! no lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::lineage::{Known, Lineage};

/// Longest silence of the connection that tells of changes; after it nothing is known any more
/// until it is heard again.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(1);

/// The table. Names of connections are numbers that are never used again.
#[derive(Debug)]
pub(crate) struct KnownEpochs {
    epochs: Cache<String, Known>,
    state: Mutex<State>,
    /// Whether a connection tells of changes; a copy of `State::told_by` for readers.
    told: AtomicBool,
    /// When that connection was last known to have told everything, in microseconds since
    /// `started`.
    heard_us: AtomicU64,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// Counts everything that takes something out.
    changes: u64,
    /// The connection that tells of changes.
    told_by: Option<u64>,
    /// Of its server: it tells of no other one's changes.
    lineage: Lineage,
}

/// A moment; see [`KnownEpochs::mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl KnownEpochs {
    /// A table of at most about `most` epochs.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            epochs: Cache::new(most),
            state: Mutex::default(),
            told: AtomicBool::new(false),
            heard_us: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// All of these, if all are known now.
    pub(crate) fn get(&self, keys: &[String], now: Instant) -> Option<Vec<Known>> {
        let heard = self.started + Duration::from_micros(self.heard_us.load(Ordering::Acquire));
        let is_silent = now.saturating_duration_since(heard) > SILENCE_MAX;
        if is_silent || !self.told.load(Ordering::Acquire) {
            return None;
        }
        keys.iter().map(|key| self.epochs.get(key.as_str())).collect()
    }

    /// How many are known, and whether a connection tells of changes.
    pub(crate) fn state_at(&self, now: Instant) -> (usize, bool) {
        let heard = self.started + Duration::from_micros(self.heard_us.load(Ordering::Acquire));
        let is_silent = now.saturating_duration_since(heard) > SILENCE_MAX;
        (self.epochs.len(), !is_silent && self.told.load(Ordering::Acquire))
    }

    /// Before a question whose answer may be kept; nothing while nobody tells of changes.
    pub(crate) fn mark(&self) -> Option<Mark> {
        let state = self.state();
        state.told_by.map(|_| Mark(state.changes))
    }

    /// Keeps what was read since `mark`, unless something changed since.
    pub(crate) fn learn(&self, mark: Mark, keys: &[String], read: impl Iterator<Item = Known>) {
        let state = self.state();
        if state.told_by.is_none() || Mark(state.changes) != mark {
            return;
        }
        for (key, known) in keys.iter().zip(read) {
            // What is known has not changed; most of it is.
            if known.lineage == state.lineage && self.epochs.get(key.as_str()) != Some(known) {
                self.epochs.insert(key.clone(), known);
            }
        }
    }

    /// These changed, or may have.
    pub(crate) fn forget<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        let mut state = self.state();
        state.changes += 1;
        for key in keys {
            self.epochs.remove(key);
        }
    }

    /// All may have changed.
    pub(crate) fn forget_all(&self) {
        let mut state = self.state();
        state.changes += 1;
        self.epochs.clear();
    }

    /// From now on this connection tells of every change of a server with this lineage, unless it
    /// is closed already.
    pub(crate) fn begin(
        &self,
        (connection, lineage): (u64, Lineage),
        closed: &AtomicBool,
        at: Instant,
    ) {
        let mut state = self.state();
        state.lineage = lineage;
        state.changes += 1;
        self.epochs.clear();
        self.heard(at);
        // Whoever closes it says so first and calls `end` then: one of the two is not missed.
        if !closed.load(Ordering::Acquire) {
            state.told_by = Some(connection);
            self.told.store(true, Ordering::Release);
        }
    }

    /// This connection tells nothing any more.
    pub(crate) fn end(&self, connection: u64) {
        let mut state = self.state();
        if state.told_by == Some(connection) {
            state.told_by = None;
            state.changes += 1;
            self.told.store(false, Ordering::Release);
            self.epochs.clear();
        }
    }

    /// The connection had told everything that happened before this moment.
    pub(crate) fn heard(&self, at: Instant) {
        let since = at.saturating_duration_since(self.started).as_micros();
        self.heard_us.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CachedReply;
    use crate::store::Epoch;

    fn epoch(byte: u8) -> Epoch {
        Epoch { hard: [byte; 8], soft: [byte; 8] }
    }

    fn keys(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A table that connection 1 tells of changes.
    fn table() -> KnownEpochs {
        let table = KnownEpochs::new(1000);
        table.begin((1, Lineage::default()), &AtomicBool::new(false), Instant::now());
        table
    }

    fn read(epochs: usize) -> CachedReply {
        CachedReply { epochs: vec![epoch(1); epochs], ..CachedReply::of_epochs(&[]) }
    }

    fn learn(table: &KnownEpochs, names: &[&str]) {
        table.learn(table.mark().expect("a mark"), &keys(names), read(names.len()).each());
    }

    /// At the moment when the table was heard of last, however long the test takes.
    fn get(table: &KnownEpochs, names: &[&str]) -> Option<Vec<Epoch>> {
        let heard = Duration::from_micros(table.heard_us.load(Ordering::Acquire));
        let known = table.get(&keys(names), table.started + heard);
        known.map(|known| known.into_iter().map(|it| it.epoch).collect())
    }

    #[test]
    fn all_are_known_or_none() {
        let table = table();
        learn(&table, &["a", "b"]);
        assert_eq!(get(&table, &["a", "b"]), Some(vec![epoch(1); 2]));
        assert_eq!(get(&table, &["a", "c"]), None);
        table.forget(["b"].into_iter());
        assert_eq!(get(&table, &["a"]), Some(vec![epoch(1)]));
        assert_eq!(get(&table, &["a", "b"]), None);
        table.forget_all();
        assert_eq!(get(&table, &["a"]), None);
    }

    #[test]
    fn a_read_that_raced_with_a_change_is_not_kept() {
        type Change = fn(&KnownEpochs);
        let changes: [Change; 4] = [
            |table| table.forget(["a"].into_iter()),
            |table| table.forget(["another"].into_iter()),
            KnownEpochs::forget_all,
            |table| {
                table.end(1);
                table.begin((2, Lineage::default()), &AtomicBool::new(false), Instant::now());
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let table = table();
            let mark = table.mark().expect("a mark");
            change(&table);
            table.learn(mark, &keys(&["a"]), read(1).each());
            assert_eq!(get(&table, &["a"]), None, "change {number}");
            learn(&table, &["a"]);
            assert!(get(&table, &["a"]).is_some(), "the next read is kept");
        }
    }

    #[test]
    fn nothing_is_known_while_nobody_tells() {
        let table = KnownEpochs::new(1000);
        assert_eq!(table.mark(), None);
        assert_eq!(get(&table, &[]), None);
        table.begin((1, Lineage::default()), &AtomicBool::new(true), Instant::now());
        assert_eq!(table.mark(), None, "it was closed before it began");
        table.begin((2, Lineage::default()), &AtomicBool::new(false), Instant::now());
        learn(&table, &["a"]);
        table.end(1);
        assert!(get(&table, &["a"]).is_some(), "the end of an older connection");
        let mark = table.mark().expect("a mark");
        table.end(2);
        assert_eq!(get(&table, &["a"]), None);
        table.learn(mark, &keys(&["a"]), read(1).each());
        table.begin((3, Lineage::default()), &AtomicBool::new(false), Instant::now());
        assert_eq!(get(&table, &["a"]), None, "what was known before is not trusted again");
    }

    #[test]
    fn what_another_server_answers_is_not_known() {
        let (own, other) = (Lineage::of("own"), Lineage::of("other"));
        let table = KnownEpochs::new(1000);
        table.begin((1, own), &AtomicBool::new(false), Instant::now());
        let mut answer = read(1).mixed(own);
        answer.join(read(1).mixed(other));
        table.learn(table.mark().expect("a mark"), &keys(&["a", "b"]), answer.each());
        assert_eq!(get(&table, &["a"]), Some(vec![own.mix(epoch(1))]));
        assert_eq!(get(&table, &["b"]), None);
    }

    #[test]
    fn silence_is_not_trusted_for_long() {
        let table = table();
        learn(&table, &["a"]);
        let heard = Instant::now();
        table.heard(heard);
        let at = |after| table.get(&keys(&["a"]), heard + after).is_some();
        assert!(at(SILENCE_MAX - Duration::from_millis(1)));
        assert!(!at(SILENCE_MAX + Duration::from_millis(1)));
        table.heard(heard + SILENCE_MAX);
        assert!(at(SILENCE_MAX + Duration::from_millis(1)), "it told everything meanwhile");
    }

    #[test]
    fn the_table_is_bounded() {
        let table = KnownEpochs::new(100);
        table.begin((1, Lineage::default()), &AtomicBool::new(false), Instant::now());
        for number in 0..10_000 {
            learn(&table, &[&number.to_string()]);
        }
        assert!(table.epochs.len() <= 200, "{}", table.epochs.len());
        assert!(get(&table, &["9999"]).is_some());
    }
}
