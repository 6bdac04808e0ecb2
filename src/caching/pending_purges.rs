//! Purges that the store has not taken yet. Until they are carried out, this node does not read its
//! cache.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::store::StoreError;

/// Most purges that wait for the store; beyond it the whole cache is purged at once.
const PENDING_MAX: usize = 32;

/// The epochs to change.
#[derive(Debug, Default)]
pub(super) struct PendingPurges {
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
    pub(super) mark: u64,
    /// When none of them counts any more.
    pub(super) until: Instant,
    /// Whether the epoch has changed already, and is to change once more.
    pub(super) is_again: bool,
}

impl Hold {
    fn and(self, other: Self) -> Self {
        Self {
            mark: self.mark.max(other.mark),
            until: self.until.max(other.until),
            is_again: self.is_again && other.is_again,
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

    /// Whether something must not be read for that it waits.
    fn any(&self) -> bool {
        !self.epochs.is_empty() || self.is_held()
    }

    fn is_held(&self) -> bool {
        self.held.iter().any(|(hold, _)| !hold.is_again)
    }
}

impl PendingPurges {
    /// Whether something waits.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Adds some. `base` is the epoch whose change purges everything.
    pub(super) fn add(&self, epochs: Vec<String>, base: &str) {
        let mut waiting = self.lock();
        waiting.add(epochs, base);
        self.any.store(waiting.any(), Ordering::Release);
    }

    /// Adds some of which nothing is carried out before their release.
    pub(super) fn hold(&self, epochs: Vec<String>, hold: Hold, base: &str) {
        let mut waiting = self.lock();
        for epoch in epochs {
            match waiting.held.iter_mut().find(|(_, known)| *known == epoch) {
                Some((known, _)) => *known = known.and(hold),
                None => waiting.held.push((hold, epoch)),
            }
        }
        if waiting.held.len() > PENDING_MAX {
            let all = waiting.held.drain(..).map(|(hold, _)| hold).fold(hold, Hold::and);
            waiting.held.push((all, base.to_owned()));
        }
        self.any.store(waiting.any(), Ordering::Release);
    }

    /// Lets go what waits for marks up to this number, or has waited long enough; false where that
    /// is nothing.
    pub(super) fn release(&self, mark: u64, base: &str) -> bool {
        let (now, mut waiting) = (Instant::now(), self.lock());
        let is_over = |hold: &Hold| hold.mark <= mark || hold.until <= now;
        let released = waiting.held.extract_if(.., |(hold, _)| is_over(hold));
        let released: Vec<String> = released.map(|(_, epoch)| epoch).collect();
        let is_any = !released.is_empty();
        waiting.add(released, base);
        self.any.store(waiting.any(), Ordering::Release);
        is_any
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

    #[tokio::test(start_paused = true)]
    async fn what_is_held_waits_for_its_mark_or_its_time() {
        let pending = PendingPurges::default();
        let minute = Duration::from_secs(60);
        let hold = |mark, is_again| Hold { mark, until: Instant::now() + minute, is_again };
        pending.hold(names(&["a", "b"]), hold(1, false), "base");
        pending.hold(names(&["b"]), hold(2, true), "base");
        pending.add(names(&["c"]), "base");
        assert_eq!(carried_out(&pending), (names(&["c"]), false));
        assert!(!pending.release(0, "base"));
        assert_eq!(carried_out(&pending), (names(&[]), false));
        assert!(pending.release(1, "base"));
        assert_eq!(carried_out(&pending), (names(&["a"]), false), "b has another mark to wait for");
        assert!(pending.any(), "nothing is read yet");
        assert!(pending.release(2, "base"));
        assert_eq!(carried_out(&pending), (names(&["b"]), true));
        // What has gone once is nothing that must not be read.
        pending.hold(names(&["a"]), hold(3, true), "base");
        assert!(!pending.any());
        tokio::time::advance(minute).await;
        assert!(pending.release(2, "base"));
        assert_eq!(carried_out(&pending), (names(&["a"]), true));
        let many: Vec<String> = (0..=PENDING_MAX).map(|it| it.to_string()).collect();
        pending.hold(many, hold(4, false), "base");
        assert!(pending.any());
        assert!(pending.release(4, "base"));
        assert_eq!(carried_out(&pending), (names(&["base"]), true));
    }
}
