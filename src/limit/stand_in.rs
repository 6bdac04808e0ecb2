//! What counts in the store's place while it is away.
//!
//! It also counts what the store grants this node, so that it knows what was used before. While the
//! store is away a key has a share of its limit: the limit divided by the gateways, or what this
//! node alone had admitted within the window before, if that was more. Of n gateways nobody admits
//! more than max(L/n, a) in any window then, where a is what the store had granted him, and these
//! add up to L at most: together they admit at most (2 - 1/n) L, and L where the traffic is even.
//!
//! What was admitted meanwhile is a [`Debt`] to the store. It is charged there before its key is
//! asked for again: otherwise the window over the return would admit up to L once more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::base::room::Room;
use crate::store::window::WindowLog;
use crate::store::{ChargeReply, ChargedAt, Charges, Mode, Window, WindowSet};

/// How many of the old are looked at for each new one, so that what is over does not stay.
const LOOKS_AT_OLD: usize = 2;
/// How many of them are looked at from time to time, so that little stays when nothing new comes.
const LOOKS_AT_ONCE: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct StandIn {
    keys_max: usize,
    started: Instant,
    counters: Mutex<Counters>,
    /// Whether anything is owed: looked at for every request.
    owes: AtomicBool,
    /// Whether the store is told of what it missed.
    reconciles: AtomicBool,
    /// Counts how often the store was heard of: what a share was made for is over then.
    heard: AtomicU32,
}

#[derive(Debug, Default)]
struct Counters {
    room: Room<Counter>,
    /// What the store was not told of, by key: never more than the counter has counted.
    owed: HashMap<String, u32>,
    evicted: u64,
}

/// The counter of one key.
#[derive(Debug)]
struct Counter {
    window: Window,
    log: WindowLog,
    /// The most that is admitted here within the window while the store is away; nothing while it
    /// answers.
    share: Option<Share>,
}

/// A share, and what it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    units: u32,
    /// Of which limit: callers of several tiers may have one key.
    limit: u32,
    /// In which outage.
    heard: u32,
}

/// What some keys owe to the store, as charges that nobody may refuse.
#[derive(Debug)]
pub struct Debt {
    set: WindowSet,
    keys: Vec<String>,
}

impl Debt {
    fn of(owed: Vec<(String, Window)>) -> Option<Self> {
        let (keys, windows): (Vec<_>, Vec<_>) = owed.into_iter().unzip();
        (!keys.is_empty()).then(|| Self { set: WindowSet::new(windows), keys })
    }

    pub(super) fn charges(&self) -> Charges<'_> {
        Charges { set: &self.set, keys: &self.keys }
    }

    /// All of it together.
    pub(super) fn units(&self) -> u64 {
        self.set.windows.iter().map(|window| u64::from(window.cost)).sum()
    }
}

impl StandIn {
    /// Nothing counted yet, and never more than `keys_max` keys.
    pub(super) fn new(keys_max: usize) -> Self {
        Self {
            keys_max,
            started: Instant::now(),
            counters: Mutex::default(),
            owes: AtomicBool::new(false),
            reconciles: AtomicBool::new(false),
            heard: AtomicU32::new(0),
        }
    }

    /// The store answers. Counters that are over are forgotten, a few at a time.
    pub(super) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        let mut counters = self.lock();
        let now_us = self.now_us();
        for _ in 0..LOOKS_AT_ONCE {
            counters.forget_old(now_us);
        }
    }

    /// How many counters gave way to others though they were not over.
    pub(super) fn evicted(&self) -> u64 {
        self.lock().evicted
    }

    /// The store has answered: counts what it granted. `is_owed` says that it is told again what
    /// it loses. Returns when that was, for [`Self::refund`].
    pub(super) fn note(&self, charges: Charges<'_>, reply: &ChargeReply, is_owed: bool) -> u64 {
        // Written seldom: all threads read it.
        if self.reconciles.load(Ordering::Relaxed) != is_owed {
            self.reconciles.store(is_owed, Ordering::Relaxed);
        }
        let mut counters = self.lock();
        let now_us = self.now_us();
        for (at, (key, window)) in charges.keys.iter().zip(&charges.set.windows).enumerate() {
            let is_charged = reply.windows.get(at).is_some_and(|state| window.charges(state));
            let counter = if reply.allowed && is_charged {
                counters.of(key, window, self.keys_max, now_us)
            } else {
                counters.room.get_mut(key)
            };
            let Some(counter) = counter else { continue };
            counter.share = None;
            if reply.allowed && is_charged {
                counter.log.forget(window, now_us);
                counter.log.charge(window, now_us, window.cost);
            }
        }
        now_us
    }

    /// Charges the share of this node, one of `nodes`: all windows or none. `is_owed` says that the
    /// store is to be told. Returns the shares, and what was left of them.
    pub(super) fn take(
        &self,
        charges: Charges<'_>,
        nodes: u32,
        is_owed: bool,
    ) -> (WindowSet, ChargeReply) {
        let mut counters = self.lock();
        let (now_us, heard) = (self.now_us(), self.heard.load(Ordering::Relaxed));
        let (mut shares, mut states) = (Vec::new(), Vec::new());
        for (key, window) in charges.keys.iter().zip(&charges.set.windows) {
            let mut unknown = Counter::new(window);
            let counter = counters.room.get_mut(key).unwrap_or(&mut unknown);
            let share = counter.share_of(window, nodes, (now_us, heard));
            // What is asked for fits into it once.
            let limit = share.units.max(window.cost).clamp(1, window.limit.max(1));
            let window = Window { limit, ..*window };
            states.push(counter.log.state(&window, now_us, window.cost));
            shares.push((window, share));
        }
        let pairs = || shares.iter().zip(&states);
        let allowed = !pairs().any(|((window, _), state)| window.refuses(state));
        if allowed {
            for ((key, window), ((_, share), state)) in
                charges.keys.iter().zip(&charges.set.windows).zip(pairs())
            {
                if window.charges(state)
                    && let Some(counter) = counters.of(key, window, self.keys_max, now_us)
                {
                    counter.share = Some(*share);
                    counter.log.charge(window, now_us, window.cost);
                    if is_owed {
                        counters.owe(key, window.cost);
                    }
                }
            }
            self.owes.store(!counters.owed.is_empty(), Ordering::Relaxed);
        }
        let reply = ChargeReply { allowed, at: ChargedAt::of(now_us), windows: states };
        (WindowSet::new(shares.into_iter().map(|(window, _)| window).collect()), reply)
    }

    /// Charges what was spent already; `is_owed` says that the store is to be told of it.
    pub(super) fn charge(&self, charges: Charges<'_>, is_owed: bool) {
        let mut counters = self.lock();
        let now_us = self.now_us();
        for (key, window) in charges.keys.iter().zip(&charges.set.windows) {
            if let Some(counter) = counters.of(key, window, self.keys_max, now_us) {
                counter.log.charge(window, now_us, window.cost);
                if is_owed {
                    counters.owe(key, window.cost);
                }
            }
        }
        self.owes.store(!counters.owed.is_empty(), Ordering::Relaxed);
    }

    /// Gives back the cost of each window, charged at `at_us`; `is_owed` says that the store was
    /// not asked for it.
    pub(super) fn refund(&self, charges: Charges<'_>, at_us: u64, is_owed: bool) {
        let mut counters = self.lock();
        for (key, window) in charges.keys.iter().zip(&charges.set.windows) {
            let counter = counters.room.get_mut(key);
            let is_given = counter.is_some_and(|it| it.log.refund(window, at_us, window.cost));
            if is_given
                && is_owed
                && let Some(owed) = counters.owed.get_mut(key)
            {
                *owed = owed.saturating_sub(window.cost);
            }
        }
    }

    /// Nothing was counted for this key.
    pub(super) fn forget(&self, key: &str) {
        let mut counters = self.lock();
        counters.room.remove(key);
        counters.owed.remove(key);
    }

    /// Whether any key owes something.
    pub(super) fn owes(&self) -> bool {
        self.owes.load(Ordering::Relaxed)
    }

    /// What these keys owe. It is taken for paid, unless it comes back by [`Self::owe`].
    pub(super) fn debt(&self, keys: &[String]) -> Option<Debt> {
        if !self.owes() {
            return None;
        }
        let mut counters = self.lock();
        let owed = keys.iter().filter_map(|key| counters.settle(key, self.now_us())).collect();
        self.owes.store(!counters.owed.is_empty(), Ordering::Relaxed);
        Debt::of(owed)
    }

    /// Up to so many keys that owe something.
    pub(super) fn debtors(&self, most: usize) -> Vec<String> {
        self.lock().owed.keys().take(most).cloned().collect()
    }

    /// All keys that are counted, if the store is told again what it loses.
    pub(super) fn counted(&self) -> Vec<Arc<str>> {
        if !self.reconciles.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.lock().room.iter().map(|(key, _)| Arc::clone(key)).collect()
    }

    /// The store has lost these keys: what counts here within their windows is owed to it.
    pub(super) fn owe_again<'k>(&self, keys: impl Iterator<Item = &'k str>) {
        let mut counters = self.lock();
        let now_us = self.now_us();
        for key in keys {
            let Some(Counter { window, log, .. }) = counters.room.get_mut(key) else { continue };
            let used = log.used_in(window, now_us);
            if used > 0 {
                // What is owed already is among it.
                counters.owed.insert(key.to_owned(), used);
            }
        }
        self.owes.store(!counters.owed.is_empty(), Ordering::Relaxed);
    }

    /// The store is to be told of this later.
    pub(super) fn owe(&self, charges: Charges<'_>) {
        let mut counters = self.lock();
        for (key, window) in charges.keys.iter().zip(&charges.set.windows) {
            counters.owe(key, window.cost);
        }
        self.owes.store(!counters.owed.is_empty(), Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counter {
    fn new(window: &Window) -> Self {
        Self { window: *window, log: WindowLog::default(), share: None }
    }

    /// The share of this node, one of `nodes`. It stays what it was when the store went away: made
    /// anew, it is never larger, because no more than it was used.
    fn share_of(&mut self, window: &Window, nodes: u32, (now_us, heard): (u64, u32)) -> Share {
        let limit = window.limit;
        if let Some(share) = self.share.filter(|it| it.limit == limit && it.heard == heard) {
            return share;
        }
        let units = (limit / nodes.max(1)).max(self.log.used_in(window, now_us));
        let share = Share { units, limit, heard };
        self.share = Some(share);
        share
    }
}

impl Counters {
    /// The counter of a key that is charged something, for which others make room.
    fn of(&mut self, key: &str, window: &Window, most: usize, now_us: u64) -> Option<&mut Counter> {
        if window.cost == 0 {
            return None;
        }
        let place = match self.room.place(key) {
            Some(place) => place,
            None => {
                self.make_room(most, now_us);
                self.room.insert(key, Counter::new(window))
            }
        };
        let counter = self.room.at_mut(place)?;
        counter.window = *window;
        Some(counter)
    }

    fn make_room(&mut self, most: usize, now_us: u64) {
        for _ in 0..LOOKS_AT_OLD {
            self.forget_old(now_us);
        }
        while self.room.len() >= most.max(1) {
            let rank = |_: &str, it: &Counter| Some(it.log.rank(&it.window, now_us));
            let Some(at) = self.room.lowest(rank) else { return };
            if let Some(gone) = self.remove_at(at)
                && !gone.log.is_idle(&gone.window, now_us)
            {
                self.evicted += 1;
            }
        }
    }

    /// Looks at one of them, and forgets it if it is over.
    fn forget_old(&mut self, now_us: u64) {
        if let Some(at) = self.room.any(|it| it.log.is_idle(&it.window, now_us)) {
            self.remove_at(at);
        }
    }

    fn remove_at(&mut self, at: usize) -> Option<Counter> {
        let (key, gone) = self.room.remove_at(at)?;
        self.owed.remove(&*key);
        Some(gone)
    }

    fn owe(&mut self, key: &str, units: u32) {
        match self.owed.get_mut(key) {
            Some(owed) => *owed = owed.saturating_add(units),
            None => drop(self.owed.insert(key.to_owned(), units)),
        }
    }

    /// What a key owes and still counts.
    fn settle(&mut self, key: &str, now_us: u64) -> Option<(String, Window)> {
        let (key, owed) = self.owed.remove_entry(key)?;
        let Counter { window, log, .. } = self.room.get_mut(&key)?;
        let cost = owed.min(log.used_in(window, now_us));
        (cost > 0).then_some((key, Window { cost, mode: Mode::Force, ..*window }))
    }
}

#[cfg(test)]
mod tests;
