//! Coalescing: many requests for one missing response cost the upstream one request.
//!
//! The first to miss leads and fetches; those who miss while it does follow and use what it gets,
//! if it may be stored and fits them. Whatever happens to the leader, nobody waits for one who is
//! gone: dropping a [`Leader`] tells the followers. A response that nobody else may use is
//! remembered for a while as hit-for-pass, so that its requests never queue behind one another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use quick_cache::sync::Cache;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cache::Stored;
use crate::capture::SharedBody;
use crate::store::Epoch;

/// How long a response that could not be shared keeps its requests from waiting for one another.
const HIT_FOR_PASS: Duration = Duration::from_secs(60);
/// Most responses that are remembered as hit-for-pass.
const HIT_FOR_PASS_MAX: usize = 65_536;

/// The pause after the first refresh that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the pause doubles: up to 64 seconds.
const PAUSE_DOUBLINGS_MAX: u32 = 6;
/// How long followers wait for the end of a response whose length nobody knows. It may never come
/// (a stream of events), and until it has come nobody can tell.
const LENGTH_UNKNOWN_WAIT: Duration = Duration::from_secs(2);
/// Most refreshes that are remembered as failed.
const FAILED_KEYS_MAX: usize = 16_384;
/// Most responses that are remembered as asked for near their end.
const ASKED_KEYS_MAX: usize = 16_384;

/// What a follower learns of the fetch that it waited for.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The response is stored while it arrives; a request that it fits may read along.
    Streaming(Arc<Stored>, Arc<SharedBody>),
    /// The response is complete.
    Done(Arc<Stored>),
    /// The upstream failed, with this status or without an answer. What is stored may stand in for
    /// that, to each as its request allows.
    Failed(Option<StatusCode>),
    /// The upstream had no room for the leader's client, which says nothing of another client's.
    Crowded,
    /// Nobody else may use the response.
    GiveUp,
    /// The leader is gone without a response: somebody else must lead.
    Dangling,
}

/// How far a leader has come.
#[derive(Debug)]
enum Progress {
    /// The upstream has not answered.
    Waiting,
    /// It has, at unknown length, and the response is not complete.
    LengthUnknown,
    /// There is something to tell the followers.
    Known(Outcome),
}

/// The moment of a request for which the epochs are not known: how many invalidations had passed
/// this node then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EpochsUnknown(u64);

/// What names one fetch that many may want: a response, with nothing invalidated between them. A
/// read that begins after a write must not get what was fetched before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchKey {
    /// The entry and the variant.
    pub(super) response: String,
    /// The epochs of the entry.
    pub(super) epochs: Arc<[Epoch]>,
    /// Stands in for the epochs where they are not known.
    pub(super) epochs_unknown: Option<EpochsUnknown>,
}

impl Hash for FetchKey {
    /// Of the response alone: at one moment there is seldom more than one fetch of it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.response.hash(state);
    }
}

type Fetches = HashMap<FetchKey, watch::Receiver<Progress>, foldhash::fast::RandomState>;

/// The fetches of this node that requests may share.
#[derive(Debug)]
pub(super) struct Coalescer {
    fetches: Mutex<Fetches>,
    /// Responses that could not be shared, and until when.
    hit_for_pass: Cache<String, Instant>,
    /// Refreshes that failed: how often in a row, and until when none is tried.
    failed: Cache<String, (u32, Instant)>,
    /// Responses that were asked for near their end, by when they were answered.
    asked: Cache<String, u64>,
    /// Counts the invalidations that passed this node.
    invalidations: AtomicU64,
}

/// What a request that misses is to do.
#[derive(Debug)]
pub(super) enum Joined {
    /// Fetch, for all.
    Leader(Leader),
    /// Wait for the one who fetches.
    Follower(Follower),
    /// Fetch for itself: the last response could not be shared.
    HitForPass,
}

impl Default for Coalescer {
    fn default() -> Self {
        Self {
            fetches: Mutex::default(),
            hit_for_pass: Cache::new(HIT_FOR_PASS_MAX),
            failed: Cache::new(FAILED_KEYS_MAX),
            asked: Cache::new(ASKED_KEYS_MAX),
            invalidations: AtomicU64::new(0),
        }
    }
}

impl Coalescer {
    /// Joins those who want the same response.
    pub(super) fn join(self: &Arc<Self>, key: FetchKey) -> Joined {
        if self.is_hit_for_pass(&key.response) {
            return Joined::HitForPass;
        }
        self.lead_or_follow(key)
    }

    fn lead_or_follow(self: &Arc<Self>, key: FetchKey) -> Joined {
        match self.lock().entry(key) {
            Entry::Occupied(fetch) => Joined::Follower(Follower(fetch.get().clone())),
            Entry::Vacant(free) => {
                let (progress, followers) = watch::channel(Progress::Waiting);
                let key = free.key().clone();
                free.insert(followers);
                Joined::Leader(Leader { coalescer: Arc::clone(self), key, progress })
            }
        }
    }

    /// Whether a response could not be shared a moment ago.
    pub(super) fn is_hit_for_pass(&self, response: &str) -> bool {
        let Some(until) = self.hit_for_pass.get(response) else { return false };
        let still = Instant::now() < until;
        if !still {
            self.hit_for_pass.remove(response);
        }
        still
    }

    /// The duty to refresh what is stored, unless somebody has it, or the last attempt failed a
    /// moment ago. That an earlier response could not be shared does not matter: what is stored is
    /// sent stale until somebody fetches it anew.
    pub(super) fn refresh(self: &Arc<Self>, key: FetchKey) -> Option<Leader> {
        if self.failed.get(&key.response).is_some_and(|(_, until)| Instant::now() < until) {
            return None;
        }
        match self.lead_or_follow(key) {
            Joined::Leader(leader) => Some(leader),
            Joined::Follower(_) | Joined::HitForPass => None,
        }
    }

    /// A refresh failed: the next is tried after a pause that doubles each time, with jitter.
    pub(super) fn refresh_failed(&self, response: &str) {
        let times = self.failed.get(response).map_or(0, |(times, _)| times);
        let times = times.min(PAUSE_DOUBLINGS_MAX);
        let pause = PAUSE * 2u32.pow(times);
        let until = Instant::now() + pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.failed.insert(response.to_owned(), (times + 1, until));
    }

    /// Whether the response that was answered at this time (Unix milliseconds) was asked for
    /// before, as far as that is remembered; it is from now on.
    pub(super) fn is_asked_again(&self, response: &str, answered_ms: u64) -> bool {
        let is_again = self.asked.get(response) == Some(answered_ms);
        if !is_again {
            self.asked.insert(response.to_owned(), answered_ms);
        }
        is_again
    }

    /// Something that is cached was changed by way of this node: those who ask from now on must not
    /// get what was fetched before it.
    pub(super) fn note_invalidation(&self) {
        self.invalidations.fetch_add(1, Ordering::AcqRel);
    }

    /// This moment, for a request that does not know the epochs.
    pub(super) fn epochs_unknown(&self) -> EpochsUnknown {
        EpochsUnknown(self.invalidations.load(Ordering::Acquire))
    }

    /// Fetches that are under way.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Fetches> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to fetch a response for all who want it. Dropped before its outcome is known, it tells
/// the followers that nobody fetches any more.
#[derive(Debug)]
pub(super) struct Leader {
    coalescer: Arc<Coalescer>,
    key: FetchKey,
    progress: watch::Sender<Progress>,
}

impl Leader {
    fn tell(&self, outcome: Outcome) {
        self.show(Progress::Known(outcome));
    }

    /// Wakes nobody where nobody waits. That is found out under the lock of the value: whoever
    /// joins meanwhile is counted, or sees what is new.
    fn show(&self, progress: Progress) {
        self.progress.send_if_modified(|shown| {
            *shown = progress;
            self.is_awaited()
        });
    }

    /// The response has begun and is stored while it arrives.
    pub(super) fn streaming(&self, head: Arc<Stored>, body: Arc<SharedBody>) {
        self.tell(Outcome::Streaming(head, body));
    }

    /// The response has begun, and only its end tells whether it is stored.
    pub(super) fn length_unknown(&self) {
        self.show(Progress::LengthUnknown);
    }

    /// The response is this one.
    pub(super) fn done(self, response: Arc<Stored>) {
        self.tell(Outcome::Done(response));
    }

    /// Nobody else may use the response, now and for a while.
    pub(super) fn hit_for_pass(self) {
        let until = Instant::now() + HIT_FOR_PASS;
        self.coalescer.hit_for_pass.insert(self.key.response.clone(), until);
        self.tell(Outcome::GiveUp);
    }

    /// Nobody else may use this response; the next may be another case.
    pub(super) fn give_up(self) {
        self.tell(Outcome::GiveUp);
    }

    /// The upstream failed.
    pub(super) fn failed(self, status: Option<StatusCode>) {
        self.tell(Outcome::Failed(status));
    }

    /// The upstream had no room for the client of this request.
    pub(super) fn crowded(self) {
        self.tell(Outcome::Crowded);
    }

    /// The response is stored: if this was a refresh, it succeeded.
    pub(super) fn succeeded(&self) {
        self.coalescer.failed.remove(&self.key.response);
    }

    /// Another node refreshes it, or nobody can know: this one does not try again at once. Whoever
    /// came to wait for it fetches for itself.
    pub(super) fn left_to_others(self) {
        let (response, failed) = (&self.key.response, &self.coalescer.failed);
        let times = failed.get(response).map_or(0, |(times, _)| times);
        failed.insert(response.clone(), (times, Instant::now() + PAUSE));
    }

    /// Whether anybody waits for the response.
    pub(super) fn is_awaited(&self) -> bool {
        // The map holds one receiver, for those who join.
        self.progress.receiver_count() > 1
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // A follower who joined late must find nothing that has ended.
        self.coalescer.lock().remove(&self.key);
        self.progress.send_if_modified(|progress| {
            let is_unknown = !matches!(progress, Progress::Known(_));
            if is_unknown {
                *progress = Progress::Known(Outcome::Dangling);
            }
            is_unknown
        });
    }
}

/// The right to be told what the leader gets.
#[derive(Debug)]
pub(super) struct Follower(watch::Receiver<Progress>);

impl Follower {
    /// Whether the upstream has not answered yet.
    pub(super) fn is_early(&self) -> bool {
        matches!(*self.0.borrow(), Progress::Waiting)
    }

    /// Waits for the outcome of the fetch; for one of unknown length, a while only.
    pub(super) async fn wait(mut self) -> Outcome {
        let has_begun = |progress: &Progress| !matches!(progress, Progress::Waiting);
        match self.0.wait_for(has_begun).await.as_deref() {
            Ok(Progress::Known(outcome)) => return outcome.clone(),
            Ok(Progress::Waiting | Progress::LengthUnknown) => {}
            Err(_) => return Outcome::Dangling,
        }
        let is_known = |progress: &Progress| matches!(progress, Progress::Known(_));
        match tokio::time::timeout(LENGTH_UNKNOWN_WAIT, self.0.wait_for(is_known)).await {
            Ok(Ok(progress)) => match &*progress {
                Progress::Known(outcome) => outcome.clone(),
                Progress::Waiting | Progress::LengthUnknown => Outcome::Dangling,
            },
            Ok(Err(_)) => Outcome::Dangling,
            Err(_) => Outcome::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests;
