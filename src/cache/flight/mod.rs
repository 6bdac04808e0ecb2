//! Collapsing: many requests for one missing answer cost the upstream one request.
//!
//! The first to miss leads and asks; those who miss while it does follow and use what it gets, if
//! it may be kept and fits them. Whatever happens to the leader, nobody waits for one who is gone:
//! dropping a [`Lead`] tells the followers. An answer that nobody else may use is remembered for a
//! while, so that its requests never queue behind one another.

mod passing;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use quick_cache::sync::Cache;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::passing::{CutOff, Passing, Reader, Writer};
use super::Stored;
use crate::store::Epoch;

/// How long an answer that could not be shared keeps its requests from waiting for one another.
const ALONE: Duration = Duration::from_secs(60);
/// Most keys that are remembered as not to be shared.
const ALONE_KEYS_MAX: usize = 65_536;

/// The pause after the first refresh that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the pause doubles: up to 64 seconds.
const PAUSE_DOUBLINGS_MAX: u32 = 6;
/// How long followers wait for the end of a response whose length nobody knows. It may never come
/// (a stream of events), and until it has come nobody can tell.
const UNMEASURED: Duration = Duration::from_secs(2);
/// Most refreshes that are remembered as failed.
const FAILED_KEYS_MAX: usize = 16_384;
/// Most responses that are remembered as asked for near their end.
const ASKED_KEYS_MAX: usize = 16_384;

/// How far a leader has come.
#[derive(Debug, Clone)]
pub enum Phase {
    /// The upstream has not answered.
    Asked,
    /// It has, at unknown length, and the response is not complete.
    Unmeasured,
    /// The answer is kept while it passes; whom it fits may read along.
    Passing(Arc<Stored>, Arc<Passing>),
    /// This is the answer.
    Stored(Arc<Stored>),
    /// Nobody else may use the answer.
    Alone,
    /// The upstream failed, with this status or without an answer. What is stored may stand in for
    /// that, to each as its request allows.
    Failed(Option<StatusCode>),
    /// The upstream had no room for the leader's client, which may say nothing of another's.
    Crowded,
    /// The leader left.
    Abandoned,
}

/// One fetch that many may want: of an answer, with nothing withdrawn between them. A read that
/// begins after a write must not get what was fetched before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Flight {
    /// The entry and the variant.
    pub answer: String,
    /// The epochs of the place.
    pub epochs: Arc<[Epoch]>,
    /// Where they are not known: how many withdrawals had passed this node.
    pub unkept: Option<u64>,
}

type Fetches = HashMap<Flight, watch::Receiver<Phase>, foldhash::fast::RandomState>;

/// The answers that are being fetched on this node.
#[derive(Debug)]
pub struct Flights {
    flights: Mutex<Fetches>,
    /// Answers that could not be shared, and until when.
    alone: Cache<String, Instant>,
    /// Refreshes that failed: how often in a row, and until when none is tried.
    failed: Cache<String, (u32, Instant)>,
    /// Responses that were asked for near their end, by when they were answered.
    asked: Cache<String, u64>,
    /// Counts the withdrawals that passed this node.
    withdrawals: AtomicU64,
}

/// What a request that misses is to do.
#[derive(Debug)]
pub enum Boarding {
    /// Ask the upstream, for all.
    Lead(Lead),
    /// Wait for the one who asks.
    Follow(Follow),
    /// Ask the upstream, for oneself: the last answer could not be shared.
    Alone,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            flights: Mutex::default(),
            alone: Cache::new(ALONE_KEYS_MAX),
            failed: Cache::new(FAILED_KEYS_MAX),
            asked: Cache::new(ASKED_KEYS_MAX),
            withdrawals: AtomicU64::new(0),
        }
    }
}

impl Flights {
    /// Joins those who want the same answer.
    pub fn board(self: &Arc<Self>, flight: Flight) -> Boarding {
        if self.is_alone(&flight.answer) {
            return Boarding::Alone;
        }
        self.join(flight)
    }

    fn join(self: &Arc<Self>, flight: Flight) -> Boarding {
        match self.lock().entry(flight) {
            Entry::Occupied(flight) => Boarding::Follow(Follow(flight.get().clone())),
            Entry::Vacant(free) => {
                let (phase, followers) = watch::channel(Phase::Asked);
                let flight = free.key().clone();
                free.insert(followers);
                Boarding::Lead(Lead { flights: Arc::clone(self), flight, phase })
            }
        }
    }

    /// Whether an answer could not be shared a moment ago.
    pub fn is_alone(&self, answer: &str) -> bool {
        let Some(until) = self.alone.get(answer) else { return false };
        let is_alone = Instant::now() < until;
        if !is_alone {
            self.alone.remove(answer);
        }
        is_alone
    }

    /// The duty to refresh what is stored, unless somebody has it, or the last attempt failed a
    /// moment ago. That an earlier answer could not be shared does not matter: this one is sent
    /// stale until somebody fetches it anew.
    pub fn refresh(self: &Arc<Self>, flight: Flight) -> Option<Lead> {
        if self.failed.get(&flight.answer).is_some_and(|(_, until)| Instant::now() < until) {
            return None;
        }
        match self.join(flight) {
            Boarding::Lead(lead) => Some(lead),
            Boarding::Follow(_) | Boarding::Alone => None,
        }
    }

    /// A refresh failed: the next is tried after a pause that doubles each time, with jitter.
    pub fn failed(&self, answer: &str) {
        let times = self.failed.get(answer).map_or(0, |(times, _)| times).min(PAUSE_DOUBLINGS_MAX);
        let pause = PAUSE * 2u32.pow(times);
        let until = Instant::now() + pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.failed.insert(answer.to_owned(), (times + 1, until));
    }

    /// Whether the response under `key` that was answered at this time (Unix milliseconds) was
    /// asked for before, as far as that is remembered; it is from now on.
    pub fn is_asked_again(&self, key: &str, answered_ms: u64) -> bool {
        let is_again = self.asked.get(key) == Some(answered_ms);
        if !is_again {
            self.asked.insert(key.to_owned(), answered_ms);
        }
        is_again
    }

    /// Something that is cached was changed by way of this node: those who ask from now on must not
    /// get what was asked for before.
    pub fn withdraw(&self) {
        self.withdrawals.fetch_add(1, Ordering::AcqRel);
    }

    /// How many withdrawals have passed this node.
    pub fn withdrawals(&self) -> u64 {
        self.withdrawals.load(Ordering::Acquire)
    }

    /// Answers being fetched now.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Fetches> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to fetch an answer for all who want it. Dropped before its end is told, it tells the
/// followers that nobody asks any more.
#[derive(Debug)]
pub struct Lead {
    flights: Arc<Flights>,
    flight: Flight,
    phase: watch::Sender<Phase>,
}

impl Lead {
    /// The answer has begun and is kept while it passes.
    pub fn passing(&self, head: Arc<Stored>, passing: Arc<Passing>) {
        self.phase.send_replace(Phase::Passing(head, passing));
    }

    /// The answer has begun, and only its end tells whether it is kept.
    pub fn unmeasured(&self) {
        self.phase.send_replace(Phase::Unmeasured);
    }

    /// The answer is this one.
    pub fn stored(self, stored: Arc<Stored>) {
        self.phase.send_replace(Phase::Stored(stored));
    }

    /// Nobody else may use the answer, now and for a while.
    pub fn alone(self) {
        self.flights.alone.insert(self.flight.answer.clone(), Instant::now() + ALONE);
        self.phase.send_replace(Phase::Alone);
    }

    /// The upstream failed.
    pub fn failed(self, status: Option<StatusCode>) {
        self.phase.send_replace(Phase::Failed(status));
    }

    /// The upstream had no room for the client of this request.
    pub fn crowded(self) {
        self.phase.send_replace(Phase::Crowded);
    }

    /// The answer is kept: if this was a refresh, it succeeded.
    pub fn succeeded(&self) {
        self.flights.failed.remove(&self.flight.answer);
    }

    /// Another node refreshes it, or nobody can know: this one does not try again at once. Whoever
    /// came to wait for it asks for an answer of its own.
    pub fn left_to_others(self) {
        let (answer, failed) = (&self.flight.answer, &self.flights.failed);
        let times = failed.get(answer).map_or(0, |(times, _)| times);
        failed.insert(answer.clone(), (times, Instant::now() + PAUSE));
    }

    /// Whether anybody waits for the answer.
    pub fn is_awaited(&self) -> bool {
        // One receiver is kept for those who board.
        self.phase.receiver_count() > 1
    }

    /// Nobody else may use this answer; the next may be another case.
    pub fn alone_once(self) {
        self.phase.send_replace(Phase::Alone);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        // A follower who boarded late must find nothing that has ended.
        self.flights.lock().remove(&self.flight);
        self.phase.send_if_modified(|phase| {
            let unsettled = matches!(phase, Phase::Asked | Phase::Unmeasured);
            if unsettled {
                *phase = Phase::Abandoned;
            }
            unsettled
        });
    }
}

/// The right to be told what the leader gets.
#[derive(Debug)]
pub struct Follow(watch::Receiver<Phase>);

impl Follow {
    /// Whether the upstream has not answered yet.
    pub fn is_early(&self) -> bool {
        matches!(*self.0.borrow(), Phase::Asked)
    }

    /// Waits until the leader has an answer, or none, or one that may never end.
    pub async fn landed(mut self) -> Phase {
        let landed = async |watch: &mut watch::Receiver<Phase>, or: fn(&Phase) -> bool| match watch
            .wait_for(|phase| !matches!(phase, Phase::Asked | Phase::Unmeasured) || or(phase))
            .await
        {
            Ok(phase) => phase.clone(),
            Err(_) => Phase::Abandoned,
        };
        match landed(&mut self.0, |phase| matches!(phase, Phase::Unmeasured)).await {
            Phase::Unmeasured => {
                let ended = tokio::time::timeout(UNMEASURED, landed(&mut self.0, |_| false)).await;
                ended.unwrap_or(Phase::Alone)
            }
            phase => phase,
        }
    }
}

#[cfg(test)]
mod tests;
