//! Purges that the store has not taken yet. Until they are carried out, this node does not read its
//! cache.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::store::StoreError;
use crate::store::keys::Keys;

/// Most purges that wait for the store; beyond it the whole cache is purged at once.
const PENDING_MAX: usize = 32;
/// Most of those that are to be carried out once more.
const AGAIN_MAX: usize = 4096;

/// The epochs to change.
#[derive(Debug)]
pub(super) struct PendingPurges {
    /// The epoch whose change purges everything.
    base: String,
    /// The epoch without which no tag and no group changes.
    tags_clock: String,
    any: AtomicBool,
    /// Whether somebody is carrying them out; the others do without the cache meanwhile.
    settling: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each with the number of its addition, so that one that was added again in the meantime is
    /// not taken for done.
    epochs: Vec<(u64, String)>,
    additions: u64,
    /// Those that wait for marks of writers before.
    held: Vec<(Hold, String)>,
    /// Whether the log says that some wait.
    is_told: bool,
}

/// What an epoch waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    /// The number of the last mark that is to be set before.
    mark: u64,
    /// When those of its first write count no more: it waits no longer.
    until: Instant,
    /// When none of them counts any more.
    last: Instant,
    /// Whether the epoch has changed already, and is to change once more.
    is_again: bool,
}

/// Which epochs are let go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Release {
    /// Those that wait for marks up to this number, or have waited long enough.
    UpTo(u64),
    /// Those that have not changed yet, for the store refuses marks.
    Refused,
    /// All of them, as far as there is room: the process ends.
    All,
}

/// What has been let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Released {
    pub(super) is_any: bool,
    /// Whether more may go, and there was no room.
    pub(super) is_more: bool,
}

impl Hold {
    /// Until this mark is set, or that time.
    pub(super) fn new(mark: u64, until: Instant, is_again: bool) -> Self {
        Self { mark, until, last: until, is_again }
    }

    /// Writes that go on put off no end of a wait.
    fn and(self, other: Self) -> Self {
        Self {
            mark: self.mark.max(other.mark),
            until: self.until.min(other.until),
            last: self.last.max(other.last),
            is_again: self.is_again && other.is_again,
        }
    }

    /// Whether the epoch is to change, and whether it waits on, to change once more.
    fn fate(&self, which: Release, now: Instant) -> (bool, bool) {
        match which {
            Release::UpTo(mark) if self.mark <= mark => (true, false),
            Release::UpTo(_) => (self.until <= now, self.last > now),
            Release::Refused => (!self.is_again, true),
            Release::All => (true, false),
        }
    }
}

impl Waiting {
    fn add(&mut self, epochs: Vec<String>, base: &str) {
        for epoch in epochs {
            self.additions += 1;
            let number = self.additions;
            self.epochs.retain(|(_, known)| *known != epoch);
            self.epochs.push((number, epoch));
        }
        if self.epochs.len() > PENDING_MAX {
            self.epochs = vec![(self.additions, base.to_owned())];
        }
    }

    /// Takes the base for those of one kind, where they are too many.
    fn bound(&mut self, is_again: bool, most: usize, base: &str) {
        if self.held_so(is_again) > most {
            let of_kind = self.held.extract_if(.., |(hold, _)| hold.is_again == is_again);
            if let Some(all) = of_kind.map(|(hold, _)| hold).reduce(Hold::and) {
                self.held.push((all, base.to_owned()));
            }
        }
    }

    /// Whether something must not be read for that it waits.
    fn any(&self) -> bool {
        !self.epochs.is_empty() || self.is_held()
    }

    fn is_held(&self) -> bool {
        self.held_so(false) > 0
    }

    fn held_so(&self, is_again: bool) -> usize {
        self.held.iter().filter(|(hold, _)| hold.is_again == is_again).count()
    }
}

impl PendingPurges {
    /// None yet.
    pub(super) fn new(keys: &Keys) -> Self {
        let (base, tags_clock) = (keys.cache_base(), keys.cache_tags_clock());
        let (any, settling) = <(AtomicBool, AtomicBool)>::default();
        Self { base, tags_clock, any, settling, waiting: Mutex::default() }
    }

    /// Whether something waits.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Adds some.
    pub(super) fn add(&self, epochs: Vec<String>) {
        let mut waiting = self.lock();
        waiting.add(epochs, &self.base);
        self.any.store(waiting.any(), Ordering::Release);
    }

    /// Adds some of which nothing is carried out before their release.
    pub(super) fn hold(&self, epochs: Vec<String>, hold: Hold) {
        let mut waiting = self.lock();
        for epoch in epochs {
            match waiting.held.iter_mut().find(|(_, known)| *known == epoch) {
                Some((known, _)) => *known = known.and(hold),
                None => waiting.held.push((hold, epoch)),
            }
        }
        waiting.bound(false, PENDING_MAX, &self.base);
        waiting.bound(true, AGAIN_MAX, &self.base);
        self.any.store(waiting.any(), Ordering::Release);
    }

    /// Lets go what need not be held any more.
    pub(super) fn release(&self, which: Release) -> Released {
        let (now, mut waiting) = (Instant::now(), self.lock());
        // What has changed once goes a few at a time, beside the clock of tags and what has not:
        // more of them at once would be a purge of everything.
        let taken = waiting.epochs.len() + waiting.held_so(false) + 1;
        let mut room = PENDING_MAX.saturating_sub(taken);
        let (mut gone, mut is_more) = (Vec::new(), false);
        waiting.held.retain_mut(|(hold, epoch)| {
            let (goes, stays) = hold.fate(which, now);
            if goes && hold.is_again {
                if room == 0 {
                    is_more = true;
                    // At the end it goes no more: that is better than a purge of everything.
                    return !matches!(which, Release::All);
                }
                room -= 1;
            }
            if goes {
                gone.push(epoch.clone());
                *hold = Hold { until: hold.last, is_again: true, ..*hold };
            }
            stays || !goes
        });
        // The clock may wait for a later write, and changes with each of what is behind it.
        if gone.iter().any(|epoch| Keys::is_behind_tags_clock(epoch)) {
            gone.insert(0, self.tags_clock.clone());
        }
        let is_any = !gone.is_empty();
        waiting.add(gone, &self.base);
        self.any.store(waiting.any(), Ordering::Release);
        Released { is_any, is_more }
    }

    /// Says once that some wait, until none does.
    pub(super) fn tell(&self, error: &StoreError) {
        let mut waiting = self.lock();
        if !waiting.epochs.is_empty() && !std::mem::replace(&mut waiting.is_told, true) {
            tracing::warn!(%error, "an invalidation waits for the store");
        }
    }

    /// What waits, for the one who gets to carry it out.
    pub(super) fn begin(&self) -> Option<Settling<'_>> {
        if !self.any() || self.settling.swap(true, Ordering::AcqRel) {
            return None;
        }
        let waiting = self.lock();
        let (upto, is_held) = (waiting.additions, waiting.is_held());
        let epochs = waiting.epochs.iter().map(|(_, epoch)| epoch.clone()).collect();
        drop(waiting);
        let settling = Settling { pending: self, epochs, upto, is_held };
        (!settling.epochs.is_empty()).then_some(settling)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carrying out what waits. Dropping it without [`Settling::done`] leaves it waiting.
pub(super) struct Settling<'a> {
    pending: &'a PendingPurges,
    pub(super) epochs: Vec<String>,
    upto: u64,
    /// Whether others wait for marks.
    is_held: bool,
}

impl Settling<'_> {
    /// It is carried out. Returns whether that was all.
    pub(super) fn done(&self) -> bool {
        let mut waiting = self.pending.lock();
        waiting.epochs.retain(|(number, _)| *number > self.upto);
        let is_empty = waiting.epochs.is_empty();
        self.pending.any.store(waiting.any(), Ordering::Release);
        if is_empty && std::mem::take(&mut waiting.is_told) {
            tracing::info!("no invalidation waits any more");
        }
        !self.is_held
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.pending.settling.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What is carried out now, and whether that is all.
    fn carried_out(pending: &PendingPurges) -> (Vec<String>, bool) {
        let Some(settling) = pending.begin() else { return (Vec::new(), !pending.any()) };
        (settling.epochs.clone(), settling.done())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    const BASE: &str = "app:cache-epoch:{*}";
    const MINUTE: Duration = Duration::from_secs(60);

    fn none() -> PendingPurges {
        PendingPurges::new(&Keys::new("app"))
    }

    /// For a minute.
    fn hold(mark: u64, is_again: bool) -> Hold {
        Hold::new(mark, Instant::now() + MINUTE, is_again)
    }

    fn is_any(pending: &PendingPurges, which: Release) -> bool {
        pending.release(which).is_any
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_waits_for_its_mark_or_its_time() {
        let pending = none();
        pending.hold(names(&["a", "b"]), hold(1, false));
        pending.hold(names(&["b"]), hold(2, true));
        pending.add(names(&["c"]));
        assert_eq!(carried_out(&pending), (names(&["c"]), false));
        assert!(!is_any(&pending, Release::UpTo(0)));
        assert_eq!(carried_out(&pending), (names(&[]), false));
        assert!(is_any(&pending, Release::UpTo(1)));
        assert_eq!(carried_out(&pending), (names(&["a"]), false), "b has another mark to wait for");
        assert!(pending.any(), "nothing is read yet");
        assert!(is_any(&pending, Release::UpTo(2)));
        assert_eq!(carried_out(&pending), (names(&["b"]), true));
        // What has gone once is nothing that must not be read.
        pending.hold(names(&["a"]), hold(3, true));
        assert!(!pending.any());
        tokio::time::advance(MINUTE).await;
        assert!(is_any(&pending, Release::UpTo(2)));
        assert_eq!(carried_out(&pending), (names(&["a"]), true));
        let many: Vec<String> = (0..=PENDING_MAX).map(|it| it.to_string()).collect();
        pending.hold(many, hold(4, false));
        assert!(pending.any());
        assert!(is_any(&pending, Release::UpTo(4)));
        assert_eq!(carried_out(&pending), (names(&[BASE]), true));
    }

    #[tokio::test(start_paused = true)]
    async fn writes_that_go_on_put_off_nothing() {
        let pending = none();
        let half = MINUTE / 2;
        for mark in 1..=2 {
            pending.hold(names(&["a"]), hold(mark, false));
            assert!(!is_any(&pending, Release::UpTo(0)));
            tokio::time::advance(half).await;
        }
        // The first one has waited long enough, and the second one's mark is to come.
        assert!(is_any(&pending, Release::UpTo(0)));
        assert_eq!(carried_out(&pending), (names(&["a"]), true));
        assert!(!is_any(&pending, Release::UpTo(1)), "it has gone, and waits for the second mark");
        tokio::time::advance(half).await;
        assert!(is_any(&pending, Release::UpTo(1)));
        assert_eq!(carried_out(&pending), (names(&["a"]), true), "once more");
        assert!(!is_any(&pending, Release::UpTo(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_for_a_mark_that_is_refused() {
        let pending = none();
        pending.hold(names(&["a"]), hold(1, false));
        assert!(is_any(&pending, Release::Refused));
        assert_eq!(carried_out(&pending), (names(&["a"]), true));
        assert!(!is_any(&pending, Release::Refused), "once");
        assert!(is_any(&pending, Release::UpTo(1)), "and once more behind its mark");
        assert_eq!(carried_out(&pending), (names(&["a"]), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_changes_with_the_clock_of_tags_whatever_that_waits_for() {
        let (pending, keys) = (none(), Keys::new("app"));
        let clock = keys.cache_tags_clock();
        for (mark, group) in [(1, "a"), (2, "b")] {
            let group = keys.cache_group("http", "h", group.as_bytes());
            pending.hold(vec![clock.clone(), group], hold(mark, false));
        }
        for (mark, group, is_all) in [(1, "a", false), (2, "b", true)] {
            assert!(is_any(&pending, Release::UpTo(mark)));
            let group = keys.cache_group("http", "h", group.as_bytes());
            assert_eq!(carried_out(&pending), (vec![clock.clone(), group], is_all));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_change_once_more_do_so_a_few_at_a_time() {
        let pending = none();
        let many = |count: usize| (0..count).map(|it| it.to_string()).collect::<Vec<_>>();
        let release = || {
            let released = pending.release(Release::UpTo(1));
            (released.is_more, carried_out(&pending).0)
        };
        pending.hold(many(AGAIN_MAX), hold(1, true));
        assert!(!pending.any());
        let mut gone = Vec::new();
        while let (true, epochs) = release() {
            assert!((1..=PENDING_MAX).contains(&epochs.len()), "{epochs:?}");
            gone.extend(epochs);
        }
        assert_eq!(gone.len(), AGAIN_MAX - AGAIN_MAX % (PENDING_MAX - 1));
        assert!(!gone.contains(&BASE.to_owned()));
        // The others are not in their way, nor they in that of the others.
        pending.hold(many(AGAIN_MAX), hold(1, true));
        pending.hold(names(&["a"]), hold(1, false));
        assert!(release().1.contains(&"a".to_owned()));
        pending.hold(many(AGAIN_MAX + 1), hold(1, true));
        assert_eq!(release(), (false, names(&[BASE])));
        // Nor do they become a purge of everything when the process ends.
        pending.hold(many(AGAIN_MAX), hold(1, true));
        pending.hold(names(&["a"]), hold(2, false));
        pending.release(Release::All);
        let epochs = carried_out(&pending).0;
        assert!(epochs.contains(&"a".to_owned()) && !epochs.contains(&BASE.to_owned()));
    }
}
