//! What an upstream learns from its requests, and does about it: servers are ejected, and the
//! breaker of the whole upstream opens.
//!
//! Requests count on their own thread's cache lines. One ticker outside the serving threads sums
//! that up and judges (`tick`); only what cannot wait is judged at once: failures in a row, and the
//! fate of a request that tries what is out. Health belongs to the upstream: all routes share it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Breaker, Change, Entry, Round, Terms};
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::tally::{Judged, Outcome};
use super::verdict::{Token, Word};
use super::window::Counts;
use crate::base::shard::Counters;
use crate::base::units::duration_text;
use crate::config;

/// Longest ejection, unless the first one is longer.
const EJECTION_MAX: Duration = Duration::from_secs(5 * 60);
/// After so long without a request nobody is in a hurry to know how servers are.
pub(super) const QUIET: Duration = Duration::from_secs(60);
/// Longest time for which the breaker is open, unless the first one is longer.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// Why a server was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// So many failures in a row.
    InARow,
    /// Too small a share of good answers.
    Ratio,
    /// The request that tried it failed.
    Probe,
    /// Other gateways have ejected it.
    Fleet,
}

impl Reason {
    /// All, with the words for them, by their index.
    pub(super) const WORDS: [&'static str; 4] = ["failures", "ratio", "probe", "fleet"];
}

/// See the module. It is made anew by each reload; what was learned is handed on.
#[derive(Debug)]
pub(super) struct Care {
    name: String,
    settings: Arc<config::Upstream>,
    servers: Vec<Arc<Endpoint>>,
    learned: Arc<Learned>,
    /// Whether another one judges these servers by now.
    is_retired: AtomicBool,
}

/// What outlives a reload.
#[derive(Debug)]
struct Learned {
    began: Instant,
    breaker: Breaker,
    /// Requests, and those that failed; only where there is a breaker.
    requests: Counters<2>,
    judged: Mutex<Judged>,
    /// Held by who takes servers out, so that never too many are, and none by who is retired.
    judging: Mutex<()>,
    /// By their reasons.
    ejections: [AtomicU64; Reason::WORDS.len()],
    /// Whether anybody has asked since the last tick.
    is_asked: AtomicBool,
    /// The last tick at which somebody had; 0 for none.
    asked_at: AtomicU64,
}

impl Learned {
    fn new(window: Duration) -> Self {
        Self {
            began: Instant::now(),
            breaker: Breaker::default(),
            requests: Counters::default(),
            judged: Mutex::new(Judged::new(window)),
            judging: Mutex::default(),
            ejections: Default::default(),
            is_asked: AtomicBool::new(false),
            asked_at: AtomicU64::new(0),
        }
    }
}

impl Care {
    /// For these servers; nothing where nothing is to be learned. `former` has learned already.
    pub(super) fn new(
        name: &str,
        settings: &Arc<config::Upstream>,
        servers: Vec<Arc<Endpoint>>,
        former: Option<&Self>,
    ) -> Option<Arc<Self>> {
        if !settings.care.is_on() {
            return None;
        }
        let window = |settings: &config::Upstream| {
            settings.care.breaker.as_ref().map_or(Duration::ZERO, |breaker| breaker.window)
        };
        let learned = match former {
            None => Arc::new(Learned::new(window(settings))),
            Some(former) => Arc::clone(&former.learned),
        };
        let settings = Arc::clone(settings);
        let is_retired = AtomicBool::new(false);
        let care = Self { name: name.to_owned(), settings, servers, learned, is_retired };
        if former.is_some_and(|former| window(&former.settings) != window(&care.settings)) {
            *care.judged() = Judged::new(window(&care.settings));
            care.forget_requests();
        }
        Some(Arc::new(care))
    }

    /// Another one judges from now on: whatever this one would take out, nobody would bring back.
    pub(super) fn retire(&self) {
        let _one = self.learned.judging.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_retired.store(true, Ordering::Relaxed);
    }

    /// Lets one take servers out, or bring them back; nobody who is retired.
    pub(super) fn judging(&self) -> Option<MutexGuard<'_, ()>> {
        let one = self.learned.judging.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.is_retired.load(Ordering::Relaxed)).then_some(one)
    }

    /// What was configured.
    pub(super) fn settings(&self) -> &Arc<config::Upstream> {
        &self.settings
    }

    fn policy(&self) -> &config::Care {
        &self.settings.care
    }

    /// The servers.
    pub(super) fn servers(&self) -> &[Arc<Endpoint>] {
        &self.servers
    }

    /// How long a request that tries a server may take to be answered.
    pub(super) fn patience(&self) -> Duration {
        self.settings.response_timeout
    }

    /// Whether a server that is back begins slowly.
    pub(super) fn begins_slowly(&self) -> bool {
        !self.policy().slow_start.is_zero()
    }

    /// Notes that somebody asks.
    pub(super) fn note_asked(&self) {
        if !self.learned.is_asked.load(Ordering::Relaxed) {
            self.learned.is_asked.store(true, Ordering::Relaxed);
        }
    }

    /// Whether anybody has asked in the last [`QUIET`].
    pub(super) fn is_in_use(&self) -> bool {
        let last = self.learned.asked_at.load(Ordering::Relaxed);
        last != 0 && self.now().saturating_sub(last) < millis(QUIET)
    }

    /// Whether the breaker lets a request begin, where there is one: nothing where nobody wants to
    /// know how it goes.
    ///
    /// # Errors
    /// [`Failure::Open`]
    pub(super) fn admit(&self) -> Result<Option<Entry>, Failure> {
        let Some(breaker) = &self.policy().breaker else { return Ok(None) };
        if let Some(round) = self.learned.breaker.closed() {
            return Ok(Some(Entry::Closed(round)));
        }
        self.note_asked();
        match self.learned.breaker.enter(&self.terms(breaker)) {
            Entry::Refused(left) => Err(Failure::Open(left)),
            Entry::Closes(round) => {
                self.is_closed();
                Ok(Some(Entry::Closed(round)))
            }
            entry => Ok(Some(entry)),
        }
    }

    /// How long the breaker refuses requests; nothing where it does not. It only looks.
    pub(super) fn refuses(&self) -> Option<Duration> {
        let breaker = self.policy().breaker.as_ref()?;
        self.learned.breaker.refuses(&self.terms(breaker))
    }

    /// Whether the breaker lets all requests begin, as it does where there is none. It only looks.
    pub(super) fn takes_all(&self) -> bool {
        self.policy().breaker.is_none() || self.learned.breaker.closed().is_some()
    }

    /// What the breaker is, in one word; nothing where there is none.
    pub(super) fn breaker_state(&self) -> Option<&'static str> {
        self.policy().breaker.as_ref().map(|_| self.learned.breaker.state())
    }

    /// Closes the breaker, and forgets what has opened it. True where it was not closed.
    pub(super) fn close_breaker(&self) -> bool {
        let was_open = self.learned.breaker.close();
        if was_open {
            self.forget_requests();
        }
        was_open
    }

    /// How many ejections there were, by their reasons.
    pub(super) fn ejections(&self) -> [u64; Reason::WORDS.len()] {
        self.learned.ejections.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// What a request that tries the upstream has come to.
    pub(super) fn settle_round(&self, round: Round, outcome: Outcome) {
        let Some(breaker) = &self.policy().breaker else { return };
        let is_good = match outcome {
            Outcome::Good | Outcome::Throttled => Some(true),
            Outcome::Failed(_) => Some(false),
            Outcome::Nothing => None,
        };
        match self.learned.breaker.settle(round, is_good, &self.terms(breaker)) {
            Change::None => {}
            Change::Closed => self.is_closed(),
            Change::Opened => {
                tracing::warn!(
                    "upstreams.{}: the breaker is open again: what tried it failed",
                    self.name
                );
            }
        }
    }

    /// The breaker has closed: what opened it counts no more.
    fn is_closed(&self) {
        self.forget_requests();
        tracing::info!("upstreams.{}: the breaker is closed again", self.name);
    }

    /// What a request came to that began in this round, whichever servers it has met. What began
    /// before the breaker was open says nothing of how the upstream is since.
    pub(super) fn count_request(&self, round: Round, outcome: Outcome) {
        if !self.learned.breaker.is_in(round) {
            return;
        }
        if outcome != Outcome::Nothing {
            self.learned.requests.add(0, 1);
        }
        if matches!(outcome, Outcome::Failed(_)) {
            self.learned.requests.add(1, 1);
        }
    }

    /// What a request at one server came to.
    pub(super) fn count(&self, server: &Endpoint, outcome: Outcome) {
        server.tally().count(outcome);
        match outcome {
            Outcome::Good => server.verdict().note_success(),
            Outcome::Failed(_) => {
                let failures = server.verdict().note_failure();
                // Where it must stay, that is asked again after as many more.
                let is_enough = |eject: &config::Eject| failures.is_multiple_of(eject.failures);
                if self.policy().eject.as_ref().is_some_and(is_enough) {
                    self.eject(server, Reason::InARow);
                }
            }
            Outcome::Throttled | Outcome::Nothing => {}
        }
    }

    /// What a request that tries an ejected server came to.
    pub(super) fn settle_probe(&self, server: &Endpoint, token: Token, outcome: Outcome) {
        let verdict = server.verdict();
        match outcome {
            Outcome::Good | Outcome::Throttled => {
                if verdict.pass_probe(token, self.begins_slowly()) {
                    server.tally().forget();
                    self.tell_back(server, "a request that tried it went well");
                }
            }
            Outcome::Failed(kind) => {
                let (Some(_one), Some(eject)) = (self.judging(), &self.policy().eject) else {
                    // Whoever judges now has another request try it.
                    return verdict.drop_probe(token);
                };
                let time = |times| ejection_time(eject.time, times, fastrand::f64());
                if verdict.fail_probe(token, time) {
                    self.learned.ejections[Reason::Probe as usize].fetch_add(1, Ordering::Relaxed);
                    let why = format!("a request that tried it failed ({})", kind.word());
                    self.tell_out(server, &why);
                }
            }
            Outcome::Nothing => verdict.drop_probe(token),
        }
    }

    /// Says in the log that a server is used again.
    pub(super) fn tell_back(&self, server: &Endpoint, why: &str) {
        tracing::info!("upstreams.{}: {} is back: {why}", self.name, server.transport().url());
    }

    /// Says in the log that a server is not used.
    pub(super) fn tell_out(&self, server: &Endpoint, why: &str) {
        let (verdict, url) = (server.verdict(), server.transport().url());
        let left = verdict.word().left(verdict.now()).map(Duration::from_millis);
        let left = left.map(|left| format!(" for {}", duration_text(whole_seconds(left))));
        tracing::warn!("upstreams.{}: {url} is out{}: {why}", self.name, left.unwrap_or_default());
    }

    /// Judges what was counted. To be called regularly, by one at a time.
    pub(super) fn tick(&self) {
        let now = self.now();
        if self.learned.is_asked.swap(false, Ordering::Relaxed) {
            self.learned.asked_at.store(now.max(1), Ordering::Relaxed);
        }
        for server in &self.servers {
            server.verdict().tick(self.policy().slow_start);
            if let Some(token) = server.verdict().lost_probe() {
                self.settle_probe(server, token, Outcome::Failed(super::tally::Kind::Silent));
            }
            // Also where nobody judges: what was long ago is not of the window of who does later.
            let seen = server.tally().look(now);
            let Some(eject) = &self.policy().eject else { continue };
            if seen.has_fewer_good(eject.ratio, eject.requests) {
                self.eject(server, Reason::Ratio);
            }
        }
        let Some(breaker) = &self.policy().breaker else { return };
        let seen = {
            let total = self.requests();
            self.judged().look(now, total)
        };
        if seen.has_as_many_bad(breaker.failures, breaker.requests)
            && self.learned.breaker.open(&self.terms(breaker))
        {
            self.forget_requests();
            tracing::warn!(
                "upstreams.{}: the breaker is open: {} of {} requests failed",
                self.name,
                seen.bad,
                seen.all
            );
        }
    }

    /// Takes a server out, unless it is out or must stay: never the last one, unless others take
    /// its requests, and never more of them than `most`.
    fn eject(&self, server: &Endpoint, reason: Reason) {
        let Some(eject) = &self.policy().eject else { return };
        let time = |times| ejection_time(eject.time, times, fastrand::f64());
        let is_ejected = {
            let Some(_one) = self.judging() else { return };
            self.can_spare(server, eject) && server.verdict().eject(time)
        };
        if !is_ejected {
            return;
        }
        server.tally().forget();
        self.learned.ejections[reason as usize].fetch_add(1, Ordering::Relaxed);
        let why = match reason {
            Reason::InARow => format!("{} requests in a row failed", eject.failures),
            Reason::Ratio => format!("less than {} % of its answers were good", eject.ratio),
            Reason::Probe => "a request that tried it failed".to_owned(),
            Reason::Fleet => "other gateways have ejected it".to_owned(),
        };
        self.tell_out(server, &why);
    }

    /// Whether a server may be ejected, as the others are.
    fn can_spare(&self, server: &Endpoint, eject: &config::Eject) -> bool {
        let others = self.servers.iter().filter(|it| !std::ptr::eq(&raw const ***it, server));
        let words = others.map(|it| it.verdict().word());
        let is_ejected = |word: &Word| word.is_ejected() || word.is_out_elsewhere();
        let ejected = words.clone().filter(is_ejected).count();
        let may_go = self.settings.gives_way || words.into_iter().any(Word::is_usable);
        may_go && ejected < self.most(eject)
    }

    /// Other gateways have ejected a server, or have not. It is taken out as by an own verdict
    /// where it has had too few requests for one, and for as long as they say.
    pub(super) fn follow(&self, server: &Endpoint, is_out: bool) {
        let (Some(one), Some(eject)) = (self.judging(), &self.policy().eject) else { return };
        let verdict = server.verdict();
        if !is_out {
            let is_back = verdict.unfollow(self.begins_slowly());
            drop(one);
            if is_back {
                self.tell_back(server, "other gateways have not ejected it any more");
            }
            return;
        }
        let is_quiet = server.tally().look(self.now()).all < u64::from(eject.failures);
        let is_taken_out = is_quiet && self.can_spare(server, eject) && verdict.follow();
        drop(one);
        if is_taken_out {
            self.learned.ejections[Reason::Fleet as usize].fetch_add(1, Ordering::Relaxed);
            self.tell_out(server, "other gateways have ejected it");
        }
    }

    /// What requests met at all servers of late.
    pub(super) fn seen(&self) -> Counts {
        let now = self.now();
        let all = self.servers.iter().map(|server| server.tally().look(now));
        all.fold(Counts::default(), Counts::and)
    }

    /// Whether a server is ejected here, and that is no verdict of long ago which nobody has asked
    /// about since.
    pub(super) fn has_ejected(&self, server: &Endpoint) -> bool {
        let (word, now) = (server.verdict().word(), server.verdict().now());
        let is_fresh = word.is_probing() || self.is_in_use() || word.left(now) > Some(0);
        word.is_ejected() && is_fresh
    }

    /// How many servers may be ejected at a time.
    fn most(&self, eject: &config::Eject) -> usize {
        (self.servers.len() * usize::from(eject.most) / 100).max(1)
    }

    fn terms(&self, breaker: &config::Breaker) -> Terms<impl Fn(u64) -> Duration + use<>> {
        let open = breaker.open;
        let time = move |times| open_time(open, times, fastrand::f64());
        // One that hangs has failed before: it decides, and not who comes next.
        let patience = millis(self.patience().saturating_mul(2));
        Terms { now: self.now(), probes: breaker.probes, patience, time }
    }

    fn forget_requests(&self) {
        let total = self.requests();
        self.judged().forget(total);
    }

    fn requests(&self) -> Counts {
        let bad = self.learned.requests.sum(1);
        Counts { bad, all: self.learned.requests.sum(0) }
    }

    fn judged(&self) -> MutexGuard<'_, Judged> {
        self.learned.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        millis(self.learned.began.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// So many times the first time, and up to a tenth more by `chance`, which is 0 to 1.
fn ejection_time(first: Duration, times: u64, chance: f64) -> Duration {
    let times = u32::try_from(times).unwrap_or(u32::MAX);
    jittered(first.saturating_mul(times).min(first.max(EJECTION_MAX)), chance)
}

/// Twice as long each time, and up to a tenth more by `chance`, which is 0 to 1.
fn open_time(first: Duration, times: u64, chance: f64) -> Duration {
    let doubled = 1_u32.checked_shl(u32::try_from(times - 1).unwrap_or(u32::MAX));
    jittered(first.saturating_mul(doubled.unwrap_or(u32::MAX)).min(first.max(OPEN_MAX)), chance)
}

fn jittered(time: Duration, chance: f64) -> Duration {
    time.saturating_add((time / 10).mul_f64(chance))
}

/// In whole seconds: what is less is nothing to an operator.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(millis(time).div_ceil(1_000).max(1))
}

#[cfg(test)]
mod tests;
