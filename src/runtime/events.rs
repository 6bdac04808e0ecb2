//! What this node has seen of each source of events, and what they are to purge once more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::events::{Fields, Skipped};
use crate::observe::{EventMeter, Metrics};

/// Most epochs that wait to be changed once more; beyond it the whole cache goes in their place.
const AGAIN_MAX: usize = 4096;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// How its source names it.
    pub id: String,
    /// When it was told, in Unix milliseconds.
    pub told_ms: u64,
    /// What it says, or why that is not known.
    pub said: Result<Fields, Skipped>,
}

/// An event of which not all could be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// How its source names it.
    pub id: String,
    /// When it was told, in Unix milliseconds.
    pub told_ms: u64,
    /// Why.
    pub why: String,
}

/// What this node has seen of one source.
#[derive(Debug)]
pub struct EventsSeen {
    /// What it counts.
    pub meter: Arc<EventMeter>,
    now: Mutex<EventsNow>,
}

/// The same, as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventsNow {
    /// Whether this node is the one that reads it.
    pub is_reader: bool,
    /// Why it cannot be read, since it cannot.
    pub fault: Option<String>,
    /// The last event of which not all could be done.
    pub poison: Option<Poison>,
}

/// See the module.
#[derive(Debug)]
pub struct Events {
    metrics: Arc<Metrics>,
    seen: Mutex<BTreeMap<String, Arc<EventsSeen>>>,
    /// When each epoch is to change once more: first and last.
    again: Mutex<BTreeMap<String, (Instant, Instant)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventsSeen {
    /// What is known now.
    pub fn now(&self) -> EventsNow {
        lock(&self.now).clone()
    }

    /// Whether this node reads it.
    pub fn reads(&self, is_reader: bool) {
        let mut now = lock(&self.now);
        now.is_reader = is_reader;
        now.fault = now.fault.take().filter(|_| is_reader);
    }

    /// An event could not be carried out, or not all of it.
    pub(super) fn is_poisoned(&self, poison: Poison) {
        lock(&self.now).poison = Some(poison);
    }

    /// It cannot be read, or can again. True where that is news.
    pub fn fails(&self, fault: Option<String>) -> bool {
        let mut now = lock(&self.now);
        let is_news = now.fault.is_some() != fault.is_some();
        now.fault = fault;
        is_news
    }
}

impl Events {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        Self { metrics: Arc::clone(metrics), seen: Mutex::default(), again: Mutex::default() }
    }

    /// What is known of a source. Their names are the configuration's.
    pub fn of(&self, name: &str) -> Arc<EventsSeen> {
        let mut seen = lock(&self.seen);
        if let Some(known) = seen.get(name) {
            return Arc::clone(known);
        }
        let meter = self.metrics.events(name);
        let new = Arc::new(EventsSeen { meter, now: Mutex::default() });
        seen.insert(name.to_owned(), Arc::clone(&new));
        new
    }

    /// Has these change once more; `all` is the epoch of everything. What waits already does so at
    /// its time, and at the last one that was asked for.
    pub(super) fn again(&self, after: Duration, epochs: Vec<String>, all: &str) {
        let mut again = lock(&self.again);
        let at = Instant::now() + after;
        for epoch in epochs {
            again.entry(epoch).and_modify(|(_, last)| *last = at.max(*last)).or_insert((at, at));
        }
        if again.len() > AGAIN_MAX {
            // Once for the first of them, so that nothing is late, and once for the last.
            let first = again.values().map(|(first, _)| *first).min().unwrap_or(at);
            let last = again.values().map(|(_, last)| *last).max().unwrap_or(at);
            again.clear();
            again.insert(all.to_owned(), (first, last));
        }
    }

    /// Those whose time has come.
    pub(super) fn due(&self) -> Vec<String> {
        let now = Instant::now();
        let mut due = Vec::new();
        lock(&self.again).retain(|epoch, (first, last)| {
            if *first <= now {
                due.push(epoch.clone());
                *first = *last;
            }
            *last > now
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_purged_again_waits_its_time_and_is_bounded() {
        let events = Events::new(&Arc::default());
        events.again(Duration::from_secs(2), vec!["a".to_owned()], "all");
        assert!(events.due().is_empty());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(events.due(), ["a"]);
        assert!(events.due().is_empty());
        for number in 0..=AGAIN_MAX {
            events.again(Duration::from_secs(2), vec![number.to_string()], "all");
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(events.due(), ["all"]);
        assert!(events.due().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_that_waits_is_put_off_by_what_comes_behind() {
        let (events, second) = (Events::new(&Arc::default()), Duration::from_secs(1));
        let many = |from: usize| (0..=AGAIN_MAX).map(|at| (from + at).to_string()).collect();
        for of_one in [true, false] {
            for round in 0..4 {
                let epochs = if of_one { vec!["a".to_owned()] } else { many(round) };
                events.again(3 * second, epochs, "all");
                let name = if of_one { "a" } else { "all" };
                let expected: &[&str] = if round == 3 { &[name] } else { &[] };
                assert_eq!(events.due(), expected, "{round}");
                tokio::time::advance(second).await;
            }
            // The last of them has its whole time.
            assert!(events.due().is_empty());
            tokio::time::advance(2 * second).await;
            assert_eq!(events.due().len(), 1);
        }
    }
}
