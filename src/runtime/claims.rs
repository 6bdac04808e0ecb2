//! The idempotency keys that requests of this node have. While a request runs its claim is renewed,
//! so that others know that somebody will answer it; when it ends, the key holds its answer, or is
//! free again, or says that nobody knows.
//!
//! What the store does not take at once waits here until it does, or until nobody waits for it any
//! more: a key is then held until its claim has run out, and its outcome is unknown from then on.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::config::StoreUse;
use crate::idempotency::Pending;
use crate::observe::{KeyOutcome, Metrics};
use crate::store::{ClaimKey, Store, StoreError, Swap};

/// How often claims are looked at.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// A claim is renewed when this part of it has passed, so that two renewals may fail.
const RENEWAL_PARTS: u32 = 3;
/// Most renewals that wait for the store at a time.
const RENEWALS_MAX: usize = 64;
/// Most ends of claims that wait for the store, of requests that were sent.
const WAITING_MAX: usize = 65_536;
/// Most of those that only asked for their keys: while the store stalls, each that is refused is
/// one, and takes no place from an answer.
const ASKED_MAX: usize = 65_536;
/// Most bytes of answers among them.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long they wait.
const WAITING_TIME: Duration = Duration::from_secs(10 * 60);
/// When a key is freed once more whose claim may have come to the store behind that.
const IN_DOUBT: Duration = Duration::from_secs(1);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// How often the sender looks whether the gateway is still there.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Most bytes of answers that are kept while they pass to their clients.
const PASSING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The name of what keys are for, for the metrics.
const FUNCTION: &str = "idempotency";

/// See the module.
#[derive(Debug)]
pub struct Claims {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    /// This node's part of every owner's name.
    node: u64,
    next: AtomicU64,
    /// Claims of requests that run, by their owners.
    running: Mutex<HashMap<String, Running>>,
    waiting: Mutex<Waiting>,
    bell: Notify,
    /// Held by whoever sends what waits.
    sending: tokio::sync::Mutex<()>,
    room: Arc<Semaphore>,
    exchanges: TaskTracker,
}

/// A claim that is renewed.
#[derive(Debug, Clone)]
struct Running {
    key: String,
    terms: ClaimTerms,
    due: Instant,
}

/// How long a claim lasts.
#[derive(Debug, Clone, Copy)]
pub struct ClaimTerms {
    /// How long an answer is kept.
    pub keep: Duration,
    /// How long others wait for a request of which nothing is heard.
    pub patience: Duration,
}

#[derive(Debug, Default)]
struct Waiting {
    ends: VecDeque<End>,
    /// Those of claims that were only asked for.
    asked: VecDeque<End>,
    bytes: usize,
}

impl Waiting {
    /// Adds one; false where there is no room for it.
    fn push(&mut self, end: End) -> bool {
        let bytes = self.bytes + end.value.len();
        let (ends, most) = match end.is_asked {
            true => (&mut self.asked, ASKED_MAX),
            false => (&mut self.ends, WAITING_MAX),
        };
        if ends.len() >= most || bytes > WAITING_BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        ends.push_back(end);
        true
    }

    /// Takes the next one: answers first, for which somebody may wait.
    fn pop(&mut self) -> Option<End> {
        let end = self.ends.pop_front().or_else(|| self.asked.pop_front())?;
        self.bytes -= end.value.len();
        Some(end)
    }

    fn len(&self) -> usize {
        self.ends.len() + self.asked.len()
    }
}

/// The end of a claim, for the store.
#[derive(Debug, Clone)]
struct End {
    key: String,
    begins: String,
    /// Empty: the key is free.
    value: Vec<u8>,
    keep: Duration,
    /// When nobody waits for it any more.
    until: Instant,
    /// When it is due.
    at: Instant,
    /// Whether its claim was only asked for.
    is_asked: bool,
    /// Whether the claim itself may come to the store behind it, so that it is done once more.
    in_doubt: bool,
}

impl Claims {
    /// Nothing claimed yet. Renews and sends until it is dropped.
    pub(super) fn open(store: &Arc<Store>, metrics: &Arc<Metrics>) -> Arc<Self> {
        let claims = Arc::new(Self {
            store: Arc::clone(store),
            metrics: Arc::clone(metrics),
            node: fastrand::u64(..),
            next: AtomicU64::new(0),
            running: Mutex::default(),
            waiting: Mutex::default(),
            bell: Notify::new(),
            sending: tokio::sync::Mutex::default(),
            room: Arc::new(Semaphore::new(PASSING_BYTES_MAX)),
            exchanges: TaskTracker::new(),
        });
        tokio::spawn(renew(Arc::downgrade(&claims)));
        tokio::spawn(send(Arc::downgrade(&claims)));
        claims
    }

    /// A claim to a key that is to be asked for.
    pub fn claim(self: &Arc<Self>, key: String, terms: ClaimTerms) -> Claim {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let owner = format!("{:016x}-{number}", self.node);
        let value = self.pending(&owner, terms.patience);
        let (claims, state) = (Arc::clone(self), State::Asked);
        Claim { claims, key, owner, terms, value, state, is_second: false, stays: None }
    }

    fn pending(&self, owner: &str, patience: Duration) -> String {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        Pending { owner, until_ms: self.now_ms().saturating_add(patience) }.value()
    }

    /// Now, in Unix milliseconds of the store's clock.
    pub fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let own = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        own.saturating_add_signed(self.store.clock_offset_ms(StoreUse::Main))
    }

    /// Room for so many bytes of an answer that is kept while it passes; none if there is none.
    pub fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(bytes).ok()
    }

    /// What the end of the process waits for.
    pub fn exchanges(&self) -> &TaskTracker {
        &self.exchanges
    }

    /// Waits for exchanges that go on without their clients, for `limit` at most.
    pub async fn finish_exchanges(&self, limit: Duration) {
        self.exchanges.close();
        if tokio::time::timeout(limit, self.exchanges.wait()).await.is_err() {
            tracing::warn!(
                "requests with an Idempotency-Key are cut off: their outcome is unknown"
            );
        }
    }

    /// Tells the store what it was not told yet, for `limit` at most: for the end of the process.
    pub async fn finish(&self, limit: Duration) {
        let sent = async {
            while self.send().await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(limit, sent).await;
    }

    async fn swap(&self, end: &End) -> Result<bool, StoreError> {
        let (begins, ttl) = (end.begins.as_bytes(), end.keep);
        self.store.swap(Swap { key: &end.key, begins, value: &end.value, ttl }).await
    }

    /// Adds an end that waits for the store. Of an answer for which there is no room, the claim
    /// runs out.
    fn wait(&self, end: End) {
        let is_taken = self.lock_waiting().push(end);
        if is_taken {
            self.bell.notify_one();
        } else {
            self.metrics.store_failed(FUNCTION);
        }
    }

    /// Sends what waits and is due.
    async fn send(&self) -> Result<(), StoreError> {
        let _alone = self.sending.lock().await;
        let count = self.lock_waiting().len();
        for _ in 0..count {
            let Some(end) = self.lock_waiting().pop() else { break };
            let now = Instant::now();
            if end.until <= now {
                continue;
            }
            if end.at > now {
                self.wait(end);
                continue;
            }
            match self.swap(&end).await {
                Ok(false) if end.in_doubt => {
                    self.wait(End { at: now + IN_DOUBT, in_doubt: false, ..end });
                }
                Ok(_) => {}
                Err(error) if error.is_outage() => {
                    self.metrics.store_failed(FUNCTION);
                    self.wait(end);
                    return Err(error);
                }
                // It would be refused again.
                Err(_) => self.metrics.store_failed(FUNCTION),
            }
        }
        Ok(())
    }

    async fn renew(&self, owner: String, running: Running) {
        // It may have ended since others were renewed.
        if !self.lock_running().contains_key(&owner) {
            return;
        }
        let Running { key, terms, .. } = running;
        let value = self.pending(&owner, terms.patience);
        let begins = Pending::begins(&owner);
        let swap = Swap {
            key: &key,
            begins: begins.as_bytes(),
            value: value.as_bytes(),
            ttl: terms.keep.max(terms.patience),
        };
        if self.store.swap(swap).await.is_err() {
            // It stays due, so the next look tries again.
            self.metrics.store_failed(FUNCTION);
        } else if let Some(running) = self.lock_running().get_mut(&owner) {
            running.due = Instant::now() + terms.patience / RENEWAL_PARTS;
        }
    }

    fn lock_waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a claim has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It may be there: the store was asked, and has not answered.
    Asked,
    /// It is there.
    Held,
    /// Its request was sent.
    Sent,
    /// It is of no concern any more.
    Over,
}

/// A key that one request has, or wants to have. Dropping it frees the key; once the request was
/// sent, or has taken the key over, it says instead that nobody knows how it ended.
#[derive(Debug)]
pub struct Claim {
    claims: Arc<Claims>,
    key: String,
    owner: String,
    terms: ClaimTerms,
    value: String,
    state: State,
    /// Whether it was taken over. Then the key is never free again: another request may have had
    /// an effect under it, whatever becomes of this one.
    is_second: bool,
    /// What says that the request goes on when its client leaves.
    stays: Option<Arc<AtomicBool>>,
}

impl Claim {
    /// The question for it.
    pub fn question(&self) -> ClaimKey<'_> {
        let ttl = self.terms.keep.max(self.terms.patience);
        ClaimKey { key: &self.key, value: self.value.as_bytes(), ttl }
    }

    /// The store key that it is of.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What it wrote, if the key is its own.
    pub fn value(&self) -> &[u8] {
        self.value.as_bytes()
    }

    /// What the claims of all requests share.
    pub fn claims(&self) -> &Arc<Claims> {
        &self.claims
    }

    /// The store has said that the key is its own.
    pub fn hold(&mut self) {
        self.state = State::Held;
        let due = Instant::now() + self.terms.patience / RENEWAL_PARTS;
        let running = Running { key: self.key.clone(), terms: self.terms, due };
        self.claims.lock_running().insert(self.owner.clone(), running);
        self.claims.metrics.idempotency(KeyOutcome::Claimed);
    }

    /// The key is another request's.
    pub fn leave(&mut self) {
        self.state = State::Over;
    }

    /// Takes the key over from a request of which nobody knows how it ended; `found` is what it
    /// left. False where somebody else was quicker.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn take_over(&mut self, found: &[u8]) -> Result<bool, StoreError> {
        (self.state, self.is_second) = (State::Asked, true);
        let ClaimKey { key, value, ttl } = self.question();
        let taken = self.claims.store.swap(Swap { key, begins: found, value, ttl }).await?;
        if taken {
            self.hold()
        } else {
            self.leave()
        }
        Ok(taken)
    }

    /// From now on the upstream may act; a key that the store did not give is of no concern.
    /// `stays` is told that the request goes on when its client leaves.
    pub fn send(&mut self, stays: Option<&Arc<AtomicBool>>) {
        if self.state == State::Over {
            return;
        }
        self.state = State::Sent;
        self.stays = stays.cloned();
        if let Some(stays) = &self.stays {
            stays.store(true, Ordering::Release);
        }
    }

    /// The key holds its answer from now on: `value`, or where there is no room for that, `less`.
    /// What the store does not take now is sent later.
    pub async fn answered(mut self, value: Vec<u8>, less: Vec<u8>) {
        if self.state == State::Over {
            return;
        }
        self.claims.metrics.idempotency(KeyOutcome::Answered);
        let end = self.end(value);
        match self.claims.swap(&end).await {
            Ok(_) => {}
            Err(error) if error.is_out_of_memory() => self.claims.wait(End { value: less, ..end }),
            Err(_) => self.claims.wait(end),
        }
    }

    /// The same for whoever cannot wait.
    pub fn answered_later(mut self, value: Vec<u8>) {
        if self.state == State::Over {
            return;
        }
        self.claims.metrics.idempotency(KeyOutcome::Answered);
        let end = self.end(value);
        self.claims.wait(end);
    }

    /// The key is free again: its request has had no effect. Waits for the store, so that whoever
    /// is told that finds it free. One that was taken over is as unknown as it was.
    pub async fn free(mut self) {
        if self.state == State::Over {
            return;
        }
        if self.is_second {
            return self.unknown().await;
        }
        self.claims.metrics.idempotency(KeyOutcome::Freed);
        let end = self.end(Vec::new());
        if self.claims.swap(&end).await.is_err() {
            self.claims.wait(end);
        }
    }

    /// Nobody knows how its request ended. Waits for the store, as above.
    pub async fn unknown(mut self) {
        if self.state == State::Over {
            return;
        }
        let end = self.end_unknown();
        if self.claims.swap(&end).await.is_err() {
            self.claims.wait(end);
        }
    }

    fn end_unknown(&mut self) -> End {
        self.claims.metrics.idempotency(KeyOutcome::Unknown);
        let value = Pending::unknown(&self.owner);
        self.end(value.into_bytes())
    }

    fn end(&mut self, value: Vec<u8>) -> End {
        let was = std::mem::replace(&mut self.state, State::Over);
        self.claims.lock_running().remove(&self.owner);
        let now = Instant::now();
        // A claim that was asked for may come to the store behind its own end.
        let is_asked = was == State::Asked;
        End {
            key: self.key.clone(),
            begins: Pending::begins(&self.owner),
            value,
            keep: self.terms.keep,
            until: now + WAITING_TIME,
            at: now,
            is_asked,
            in_doubt: is_asked,
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let end = match self.state {
            State::Over => return,
            State::Sent => self.end_unknown(),
            State::Asked | State::Held if self.is_second => self.end_unknown(),
            State::Asked => self.end(Vec::new()),
            State::Held => {
                self.claims.metrics.idempotency(KeyOutcome::Freed);
                self.end(Vec::new())
            }
        };
        self.claims.wait(end);
    }
}

/// Renews claims, until they are dropped.
async fn renew(claims: Weak<Claims>) {
    let mut ticks = tokio::time::interval(RENEWAL_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(claims) = claims.upgrade() else { return };
        let now = Instant::now();
        let due: Vec<_> = {
            let running = claims.lock_running();
            let due = running.iter().filter(|(_, it)| it.due <= now);
            due.map(|(owner, it)| (owner.clone(), it.clone())).collect()
        };
        let mut renewals = JoinSet::new();
        for (owner, running) in due {
            if renewals.len() >= RENEWALS_MAX {
                renewals.join_next().await;
            }
            let claims = Arc::clone(&claims);
            renewals.spawn(async move { claims.renew(owner, running).await });
        }
        renewals.join_all().await;
    }
}

/// Sends ends of claims as they come, until the claims are dropped.
async fn send(claims: Weak<Claims>) {
    loop {
        let Some(strong) = claims.upgrade() else { return };
        let _ = strong.send().await;
        let is_idle = strong.lock_waiting().len() == 0;
        if is_idle {
            // Whether it rang or not, what waits is looked at.
            let _ = tokio::time::timeout(IDLE_MAX, strong.bell.notified()).await;
        } else {
            drop(strong);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests;
