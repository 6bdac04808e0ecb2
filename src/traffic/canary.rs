//! The canary of one route while the gateway runs: what share each arm has now, what they have
//! answered, and what the fleet knows of that. A request takes one look at the share; whoever looks
//! after it (`look`) moves it.

use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::bucket::arm_of;
use super::fleet::{self, Counts, Said};
use super::ramp;
use super::record::{Record, Stopped, Then};
use super::verdict::judge;
use super::window::{Sum, Window};
use crate::config::{Arm, OnBad, Rollback, Split};
use crate::observe::{ArmNow, CanaryNow, Tally};
use crate::store::{Store, StoreError};

/// How many upstreams are split where one of them can be stopped.
const LED: usize = 2;
/// Longest record, in bytes.
const RECORD_BYTES_MAX: usize = 4096;
/// How long the store keeps the record of a canary that no gateway looks after any more.
const RECORD_KEPT: Duration = Duration::from_secs(60 * 60);
/// The same of one that was stopped, which must not come back by itself.
const STOPPED_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// For how many times the window the last answers of a base count that gets too few by now.
const BASE_KEPT: u32 = 10;
/// How often that life is prolonged.
const RENEWED_EVERY: Duration = Duration::from_secs(10 * 60);

/// Where the fleet's record of a canary lies, and the fleet's time in Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The store.
    pub store: &'a Store,
    /// The key.
    pub key: &'a str,
    /// The time.
    pub now_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Canary {
    route: String,
    split: Split,
    /// Which upstreams and which ramp its record is about.
    about: String,
    started: Instant,
    /// The share of the second arm, where there are two.
    share: AtomicU16,
    arms: Vec<Watched>,
    known: Mutex<Known>,
    rollbacks: Arc<AtomicU64>,
}

/// What one arm has answered.
#[derive(Debug)]
struct Watched {
    answers: Tally,
    failures: Tally,
    /// Where it is judged by that.
    window: Option<Mutex<Window>>,
}

#[derive(Debug, Default)]
struct Known {
    record: Option<Record>,
    /// When the store was last told of it.
    written: Option<Instant>,
    /// What the ramp has come to under this record: a clock that goes back takes nothing back.
    reached: Option<(u64, u16)>,
    /// What the base answered when it was last asked enough, and when that was.
    base: Option<(Instant, Sum)>,
    /// What base and canary have answered at other gateways of late, under the record of a time.
    others: Option<(u64, [Counts; 2])>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Canary {
    /// The canary of a route. `former` is that of before a reload.
    pub fn new(route: &str, split: &Split, former: Option<&Self>) -> Self {
        let about = about(split);
        let watched = |arm: &Arm| {
            let of_former = former.and_then(|former| former.watched(&arm.upstream));
            let count = |tally: fn(&Watched) -> &Tally| {
                of_former.map(|it| tally(it).clone()).unwrap_or_default()
            };
            let window = split.rollback.as_ref().map(|rule| Mutex::new(Window::new(rule.window)));
            Watched { answers: count(|it| &it.answers), failures: count(|it| &it.failures), window }
        };
        let former_led = former.filter(|_| split.arms.len() == LED);
        let known = former_led.map(|former| former.inherited(&about)).unwrap_or_default();
        let canary = Self {
            route: route.to_owned(),
            arms: split.arms.iter().map(watched).collect(),
            split: split.clone(),
            started: Instant::now(),
            share: AtomicU16::new(0),
            rollbacks: former.map(|former| Arc::clone(&former.rollbacks)).unwrap_or_default(),
            about,
            known: Mutex::new(Known::default()),
        };
        // What the ramp has come to stays until its clock is looked at again.
        let share = match (&known.record, known.reached) {
            (Some(Record { stopped: Some(stopped), .. }), _) => stopped.share,
            (Some(_), Some((_, reached))) if canary.is_ramped() => reached,
            _ => canary.share_by_itself(),
        };
        canary.share.store(share, Ordering::Relaxed);
        *lock(&canary.known) = known;
        canary
    }

    /// Whether it is the canary of this split.
    pub fn is_described_by(&self, split: &Split) -> bool {
        self.split == *split
    }

    /// The index of the arm that takes a number below [`crate::config::WHOLE`].
    pub fn arm_of(&self, bucket: u16) -> usize {
        if self.arms.len() == 2 { usize::from(bucket < self.share()) } else { self.arm(bucket) }
    }

    fn arm(&self, bucket: u16) -> usize {
        arm_of(&self.split.arms, bucket)
    }

    /// The share of the second arm now, in ten-thousandths.
    pub fn share(&self) -> u16 {
        self.share.load(Ordering::Relaxed)
    }

    /// The arm with this name: that of its upstream, or `always` for the second, `never` for the
    /// base.
    pub fn named(&self, name: &[u8]) -> Option<usize> {
        match name {
            b"always" => Some(1),
            b"never" => Some(0),
            name => self.split.arms.iter().position(|arm| arm.upstream.as_bytes() == name),
        }
    }

    /// The name of an arm.
    pub fn name(&self, arm: usize) -> Option<&str> {
        self.split.arms.get(arm).map(|arm| &*arm.upstream)
    }

    /// An arm has answered, or has failed to, after so long.
    pub fn note(&self, arm: usize, failed: bool, took: Option<Duration>) {
        let Some(watched) = self.arms.get(arm) else { return };
        watched.answers.inc();
        if failed {
            watched.failures.inc();
        }
        if let Some(window) = &watched.window {
            lock(window).note(self.started.elapsed(), failed, took);
        }
    }

    /// Looks after it: reads what the fleet knows, judges what was answered of late, and moves the
    /// share. To be called regularly.
    pub async fn look(&self, place: Place<'_>) {
        if !self.is_led() {
            return;
        }
        match place.store.read(place.key, RECORD_BYTES_MAX).await {
            Ok(found) => {
                let found = found.and_then(|bytes| serde_json::from_slice(&bytes).ok());
                self.meet(place, found).await;
            }
            // That the store is away is said elsewhere: it goes on by what is known here.
            Err(error) => tracing::debug!(route = self.route, %error, "the canary's record"),
        }
        self.move_share(place.now_ms);
        if let Some(why) = self.judged() {
            self.roll_back(place, &why).await;
            self.move_share(place.now_ms);
        }
    }

    /// What this gateway says to others of what was answered; nothing where nobody judges by that.
    pub fn say(&self) -> Option<Vec<u8>> {
        let counts = [self.sum(0)?.own(), self.sum(1)?.own()];
        let at = lock(&self.known).record.as_ref()?.at;
        Some(Said::new(&self.about, at, counts).bytes())
    }

    /// Judges from now on also by what all of them say, this one under `own`; by itself alone where
    /// none is heard.
    pub fn hear(&self, own: &str, all: &[(Bytes, Bytes)]) {
        let mut known = lock(&self.known);
        let at = known.record.as_ref().map(|record| record.at);
        known.others = at.map(|at| (at, fleet::others(own, (&self.about, at), all)));
    }

    /// Has the canary stopped at this share until it is reset, or go on from its beginning.
    ///
    /// # Errors
    /// The store did not take it, and nothing has changed.
    pub async fn order(&self, place: Place<'_>, stop: Option<String>) -> Result<(), StoreError> {
        let stopped = stop.map(|why| Stopped { share: 0, why });
        let next = {
            let known = lock(&self.known);
            let next = Record::next(known.record.as_ref(), &self.about, place.now_ms);
            let began = if stopped.is_some() { next.began } else { next.at };
            Record { began, stopped, ..next }
        };
        write(place, &next).await?;
        self.adopt(next);
        self.move_share(place.now_ms);
        Ok(())
    }

    /// Whether it can be stopped and reset: where one upstream is tried beside the base. A reload
    /// that takes ramp and roll-back away does not let go on what was stopped.
    pub fn is_led(&self) -> bool {
        self.arms.len() == LED
    }

    /// What is known of it.
    pub fn now(&self, now_ms: u64) -> CanaryNow {
        let known = lock(&self.known);
        let record = known.record.as_ref();
        let stopped = record.and_then(|record| record.stopped.as_ref());
        let step = record.filter(|_| self.is_ramped() && stopped.is_none()).map(|record| {
            let now = ramp::at(&self.split.ramp, since(record, now_ms));
            (now.step, now.left)
        });
        let whole: u16 = crate::config::WHOLE;
        let arms = self.split.arms.iter().zip(&self.arms).enumerate();
        let arms = arms.map(|(index, (arm, watched))| ArmNow {
            upstream: arm.upstream.clone(),
            share: match (self.arms.len(), index) {
                (2, 0) => whole.saturating_sub(self.share()),
                (2, _) => self.share(),
                _ => arm.share,
            },
            answers: watched.answers.get(),
            failures: watched.failures.get(),
        });
        CanaryNow {
            route: self.route.clone(),
            arms: arms.collect(),
            rollbacks: self.rollbacks.load(Ordering::Relaxed),
            steps: self.split.ramp.len(),
            step,
            stopped: stopped.map(|stopped| stopped.why.clone()),
        }
    }

    fn is_ramped(&self) -> bool {
        !self.split.ramp.is_empty()
    }

    /// The share before anything is known: a ramp without its clock is at nothing.
    fn share_by_itself(&self) -> u16 {
        let arm = self.split.arms.get(1).filter(|_| !self.is_ramped());
        arm.map_or(0, |arm| arm.share)
    }

    fn watched(&self, upstream: &str) -> Option<&Watched> {
        let index = self.split.arms.iter().position(|arm| arm.upstream == upstream)?;
        self.arms.get(index)
    }

    /// What of it is true also of another one, which is about this.
    fn inherited(&self, about: &str) -> Known {
        let known = lock(&self.known);
        let is_true = |record: &&Record| record.about == about || record.stopped.is_some();
        let record = known.record.as_ref().filter(is_true).cloned();
        let reached = known.reached.filter(|_| record.is_some());
        let base = known.base.clone().filter(|_| record.is_some());
        Known { record, reached, base, ..Known::default() }
    }

    /// Brings together what is known here and in the store.
    async fn meet(&self, place: Place<'_>, found: Option<Record>) {
        let is_same = found.as_ref().is_some_and(|found| found.about == self.about);
        let (then, record, was_known) = {
            let mut known = lock(&self.known);
            let was_known = known.record.is_some();
            let was_stopped = is_stopped(known.record.as_ref());
            let mut then = Record::settle(&mut known.record, found, &self.about, place.now_ms);
            let is_due = known.written.is_none_or(|at| at.elapsed() >= RENEWED_EVERY);
            // What lies there about another ramp is for others to prolong.
            if then == Then::Nothing && is_due && is_same {
                then = Then::Write;
            }
            if is_stopped(known.record.as_ref()) != was_stopped {
                self.has_changed(&mut known);
            }
            if known.is_frozen_below_reached(place.now_ms) {
                then = Then::Write;
            }
            (then, known.record.clone(), was_known)
        };
        let Some(record) = record else { return };
        let written = match then {
            Then::Nothing => return,
            Then::WriteNew => write_new(place, &record).await,
            Then::Write => write(place, &record).await.map(|()| true),
        };
        if let Ok(true) = written {
            lock(&self.known).written = Some(Instant::now());
        }
        if let (Ok(false), false) = (written, was_known) {
            // Another gateway was faster: what it wrote is read at the next look.
            lock(&self.known).record = None;
        }
    }

    /// Why the second arm is to be taken back, if it is. A base that gets too few answers to be
    /// judged by, as where the other one has all, is judged by its last ones for a while.
    fn judged(&self) -> Option<String> {
        let rule = self.split.rollback.as_ref()?;
        let (base, own, now) = (self.sum(0)?, self.sum(1)?, Instant::now());
        let mut known = lock(&self.known);
        if is_stopped(known.record.as_ref()) {
            return None;
        }
        let [of_base, of_own] = known.others_now();
        let (base, own) = (base.with_others(of_base), own.with_others(of_own));
        known.note_base(rule, &base, now);
        let base = match &known.base {
            Some((then, last)) if base.of_all().answers < rule.answers => {
                (now <= *then + rule.window * BASE_KEPT).then_some(last)?
            }
            _ => &base,
        };
        judge(rule, base, &own).map(|bad| bad.to_string())
    }

    /// What an arm has answered here of late, where it is judged by that.
    fn sum(&self, arm: usize) -> Option<Sum> {
        Some(lock(self.arms.get(arm)?.window.as_ref()?).sum(self.started.elapsed()))
    }

    async fn roll_back(&self, place: Place<'_>, why: &str) {
        let share = match &self.split.rollback {
            Some(Rollback { on_bad: OnBad::Freeze, .. }) => self.share(),
            _ => 0,
        };
        let next = {
            let known = lock(&self.known);
            let next = Record::next(known.record.as_ref(), &self.about, place.now_ms);
            Record { stopped: Some(Stopped { share, why: why.to_owned() }), ..next }
        };
        self.rollbacks.fetch_add(1, Ordering::Relaxed);
        self.adopt(next.clone());
        // Where the store does not take it, the next look writes it.
        if write(place, &next).await.is_ok() {
            lock(&self.known).written = Some(Instant::now());
        }
    }

    fn adopt(&self, record: Record) {
        let mut known = lock(&self.known);
        known.written = Some(Instant::now());
        let was_stopped = is_stopped(known.record.as_ref());
        known.record = Some(record);
        if was_stopped != is_stopped(known.record.as_ref()) {
            self.has_changed(&mut known);
        }
    }

    /// It was stopped, or goes on: says so, and judges from now on by what is answered from now on.
    fn has_changed(&self, known: &mut Known) {
        known.base = None;
        for window in self.arms.iter().filter_map(|arm| arm.window.as_ref()) {
            lock(window).clear();
        }
        let arm = self.name(1).unwrap_or_default();
        match known.record.as_ref().and_then(|record| record.stopped.as_ref()) {
            Some(Stopped { share, why }) => tracing::warn!(
                "routes.{}: the canary {arm} is stopped at {}% of the requests: {why}\n    help: \
                 it stays so until POST /v1/canary/reset",
                self.route,
                f64::from(*share) / 100.0,
            ),
            None => tracing::info!("routes.{}: the canary {arm} goes on", self.route),
        }
    }

    /// Moves the share to what it is to be now.
    fn move_share(&self, now_ms: u64) {
        let mut known = lock(&self.known);
        let share = match &known.record {
            Some(Record { stopped: Some(stopped), .. }) => stopped.share,
            Some(record) if self.is_ramped() => {
                let share = ramp::at(&self.split.ramp, since(record, now_ms)).share;
                let began = record.began;
                let reached = known.reached.filter(|(of, _)| *of == began).map_or(0, |(_, it)| it);
                known.reached = Some((began, reached.max(share)));
                reached.max(share)
            }
            _ => self.share_by_itself(),
        };
        let was = self.share.swap(share, Ordering::Relaxed);
        if was != share {
            let arm = self.name(1).unwrap_or_default();
            let percent = f64::from(share) / 100.0;
            tracing::info!("routes.{}: {arm} takes {percent}% of the requests", self.route);
        }
    }
}

impl Known {
    /// Keeps what the base has answered, if it was enough. While it gets less and less, what there
    /// was at first says most.
    fn note_base(&mut self, rule: &Rollback, base: &Sum, now: Instant) {
        let is_best = |(then, last): &(Instant, Sum)| {
            base.of_all().answers >= last.of_all().answers || now >= *then + rule.window
        };
        if base.of_all().answers >= rule.answers && self.base.as_ref().is_none_or(is_best) {
            self.base = Some((now, base.clone()));
        }
    }

    /// Whether another gateway has frozen it at less than this one had come to, as ramps step on at
    /// each gateway by itself. Then all keep the larger share: nobody goes back.
    fn is_frozen_below_reached(&mut self, now_ms: u64) -> bool {
        let Some(record) = &mut self.record else { return false };
        let reached = self.reached.filter(|(began, _)| *began == record.began);
        let (Some(stopped), Some((_, reached))) = (&mut record.stopped, reached) else {
            return false;
        };
        // One that was given back has no share to keep.
        let is_below = stopped.share > 0 && stopped.share < reached;
        if is_below {
            stopped.share = reached;
            record.at = now_ms.max(record.at + 1);
        }
        is_below
    }

    /// What others have answered, if that was under the record of now.
    fn others_now(&self) -> [Counts; 2] {
        let record = self.record.as_ref().map(|record| record.at);
        let others = self.others.filter(|(at, _)| record == Some(*at));
        others.map(|(_, others)| others).unwrap_or_default()
    }
}

fn is_stopped(record: Option<&Record>) -> bool {
    record.is_some_and(|record| record.stopped.is_some())
}

fn since(record: &Record, now_ms: u64) -> Duration {
    Duration::from_millis(now_ms.saturating_sub(record.began))
}

/// Names the upstreams and the ramp of a split.
fn about(split: &Split) -> String {
    let mut hash = Xxh3::new();
    for arm in &split.arms {
        hash.write(arm.upstream.as_bytes());
        hash.write(b"\n");
    }
    for step in &split.ramp {
        hash.write(format!("{step:?}\n").as_bytes());
    }
    format!("{:016x}", hash.finish())
}

async fn write(place: Place<'_>, record: &Record) -> Result<(), StoreError> {
    place.store.put(place.key, &bytes(record), kept(record)).await
}

async fn write_new(place: Place<'_>, record: &Record) -> Result<bool, StoreError> {
    place.store.put_new(place.key, &bytes(record), kept(record)).await
}

fn kept(record: &Record) -> Duration {
    if record.stopped.is_some() { STOPPED_KEPT } else { RECORD_KEPT }
}

/// A record as it is stored. It is made of texts and numbers: nothing in it fails to be written.
fn bytes(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).unwrap_or_default()
}
