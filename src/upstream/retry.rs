//! When a request is sent more than once, and how many requests may be: retries must never be what
//! keeps an upstream down.
//!
//! Two bounds hold for all requests of an upstream together. So many repeats may be in flight at a
//! time as Envoy's retry budget allows, and so many may begin within a time as Finagle's does. The
//! second is filled by the ticker; only requests that have failed touch it. Where it is spent, a
//! gateway may have its share of what all gateways together have left.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::ends::{Cause, NoAnswer};
use super::percentile::Percentile;
use super::window::{Counts, Window};
use crate::base::shard::Counters;
use crate::config;

/// So many repeats may be in flight, however few requests are.
const IN_FLIGHT_MIN: usize = 3;
/// So many repeats may begin each second, however few requests there are.
const PER_SECOND: u64 = 10;
/// How far back requests are looked at.
const WINDOW: Duration = Duration::from_secs(10);
/// A repeat, in the unit of the budget: as hundredths, requests times percent are whole numbers.
const ONE: i64 = 100;
/// The longest wait before a repeat, in times the first one.
const BACKOFF_TIMES_MAX: u32 = 10;
/// The longest wait that a server may ask for; whoever asks for more is not asked again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// A second server is asked after this time at the earliest.
const HEDGE_MIN: Duration = Duration::from_millis(5);

/// What became of a repeat, or of the wish for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It brought an answer that is no reason for another one.
    Good,
    /// It did not.
    Failed,
    /// There was none: others have used the budget up, or take all places at the upstream.
    OverBudget,
    /// There was none: the deadline would pass first, or the server asks for a longer wait.
    NoTime,
}

impl Outcome {
    /// All, with the words for them, by their index.
    pub(super) const WORDS: [&'static str; 4] = ["good", "failed", "over_budget", "no_time"];
}

/// When requests of an upstream are sent more than once. Made anew by each reload; what was counted
/// is handed on.
#[derive(Debug)]
pub(super) struct Retry {
    settings: config::Retry,
    budget: Arc<Budget>,
    /// None where one server is asked at a time.
    percentile: Option<Arc<Percentile>>,
}

/// What all requests of an upstream have together.
#[derive(Debug)]
struct Budget {
    began: Instant,
    requests: Counters<1>,
    filled: Mutex<Filled>,
    /// Repeats that may begin, in parts of [`ONE`].
    left: AtomicI64,
    /// The same of what the fleet has left.
    lent: AtomicI64,
    /// How many have begun.
    begun: AtomicU64,
    in_flight: AtomicUsize,
    outcomes: [AtomicU64; Outcome::WORDS.len()],
    /// Of two servers, the first was faster, or the second.
    hedges: [AtomicU64; 2],
}

/// What the ticker has seen.
#[derive(Debug)]
struct Filled {
    /// Requests, and repeats that have begun.
    total: Counts,
    window: Window,
    at: u64,
}

/// A repeat in flight.
#[derive(Debug)]
pub(super) struct Spent {
    budget: Arc<Budget>,
}

impl Spent {
    /// It has ended.
    pub(super) fn ends(self, outcome: Outcome) {
        self.budget.note(outcome);
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.budget.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Retry {
    /// As these settings say; nothing where each request is sent once.
    pub(super) fn of(settings: &config::Upstream, former: Option<&Self>) -> Option<Box<Self>> {
        let settings = settings.retry.clone()?;
        let budget = former.map_or_else(Budget::new, |former| Arc::clone(&former.budget));
        let known = former.and_then(|former| former.percentile.clone());
        let known = || known.unwrap_or_else(|| Arc::new(Percentile::new()));
        let percentile = settings.hedge.map(|_| known());
        Some(Box::new(Self { settings, budget, percentile }))
    }

    /// How long answers take, where a second server is asked after some time.
    pub(super) fn percentile(&self) -> Option<&Percentile> {
        self.percentile.as_deref()
    }

    /// After what time that is; nothing where nobody knows.
    pub(super) fn hedges_after(&self) -> Option<Duration> {
        Some(self.percentile()?.found()?.max(HEDGE_MIN))
    }

    /// Two servers were asked; `is_won`: the second one was faster.
    pub(super) fn note_hedge(&self, is_won: bool) {
        self.budget.hedges[usize::from(is_won)].fetch_add(1, Ordering::Relaxed);
    }

    /// How often the first of two servers was faster, and how often the second; nothing where one
    /// is asked at a time.
    pub(super) fn hedges(&self) -> Option<[u64; 2]> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.percentile.as_ref().map(|_| self.budget.hedges.each_ref().map(count))
    }

    /// Longest body that is kept for sending it again, in bytes.
    pub(super) fn body_bytes(&self) -> usize {
        usize::try_from(self.settings.body).unwrap_or(usize::MAX)
    }

    /// How often one request is sent at most.
    pub(super) fn attempts(&self) -> u32 {
        self.settings.attempts
    }

    /// A request begins.
    pub(super) fn note_request(&self) {
        self.budget.requests.add(0, 1);
    }

    /// Whether the end of an exchange without an answer is a reason.
    pub(super) fn repeats_resets(&self) -> bool {
        self.settings.on.reset
    }

    /// Why a request is sent once more after this end, in one word; nothing where it is not.
    pub(super) fn reason(&self, end: Result<StatusCode, &NoAnswer>) -> Option<&'static str> {
        let on = &self.settings.on;
        match end {
            Ok(status) => on.statuses.contains(&status).then_some("status"),
            Err(no_answer) => match no_answer.cause()? {
                Cause::Connect => on.connect.then_some("connect"),
                Cause::Refused => on.refused.then_some("refused"),
                Cause::Reset => on.reset.then_some("reset"),
                Cause::Timeout => on.timeout.then_some("timeout"),
            },
        }
    }

    /// How long the `nth` repeat waits after an answer with these fields, or after none; nothing
    /// where that is too long.
    pub(super) fn wait(&self, nth: u32, fields: Option<&HeaderMap>) -> Option<Duration> {
        let wait = backoff(self.settings.backoff, nth, fastrand::f64());
        match fields.and_then(|fields| fields.get(RETRY_AFTER)).and_then(retry_after) {
            Some(asked) if asked > RETRY_AFTER_MAX => None,
            Some(asked) => Some(asked.max(wait)),
            None => Some(wait),
        }
    }

    /// Lets one repeat begin while so many requests are in flight, where the budget has one left.
    pub(super) fn spend(&self, busy: usize) -> Option<Spent> {
        let spent = self.budget.spend(busy, self.settings.budget);
        if spent.is_none() {
            self.budget.note(Outcome::OverBudget);
        }
        spent
    }

    /// There is no repeat, because all places at the upstream are taken.
    pub(super) fn note_over_budget(&self) {
        self.budget.note(Outcome::OverBudget);
    }

    /// There is no repeat, because of its time.
    pub(super) fn note_no_time(&self) {
        self.budget.note(Outcome::NoTime);
    }

    /// Fills the budget. To be called regularly, by one at a time.
    pub(super) fn tick(&self) {
        self.budget.fill(self.settings.budget);
        if let (Some(percentile), Some(percent)) = (&self.percentile, self.settings.hedge) {
            percentile.tick(percent);
        }
    }

    /// What became of repeats, by the words for it.
    pub(super) fn outcomes(&self) -> [u64; Outcome::WORDS.len()] {
        self.budget.outcomes.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// How many repeats may begin now.
    pub(super) fn left(&self) -> u64 {
        let whole = |of: &AtomicI64| u64::try_from(of.load(Ordering::Relaxed) / ONE).unwrap_or(0);
        whole(&self.budget.left).saturating_add(whole(&self.budget.lent))
    }

    /// How many of all requests may be repeats, in percent.
    pub(super) fn percent(&self) -> u8 {
        self.settings.budget
    }

    /// Requests of the last ten seconds, and how many repeats have begun meanwhile.
    pub(super) fn seen(&self) -> Counts {
        let filled = self.budget.filled.lock().unwrap_or_else(PoisonError::into_inner);
        filled.window.sum(filled.at)
    }

    /// The fleet lends so many hundredths of a repeat for a second.
    pub(super) fn lend(&self, hundredths: u64) {
        self.budget.lend(hundredths);
    }
}

impl Budget {
    /// With as much as a second brings.
    fn new() -> Arc<Self> {
        let filled = Filled { total: Counts::default(), window: Window::new(WINDOW), at: 0 };
        Arc::new(Self {
            began: Instant::now(),
            requests: Counters::default(),
            filled: Mutex::new(filled),
            left: AtomicI64::new(PER_SECOND.cast_signed() * ONE),
            lent: AtomicI64::new(0),
            begun: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            outcomes: Default::default(),
            hedges: Default::default(),
        })
    }

    fn note(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn spend(self: &Arc<Self>, busy: usize, percent: u8) -> Option<Spent> {
        let most = (busy.saturating_mul(usize::from(percent)) / 100).max(IN_FLIGHT_MIN);
        let order = Ordering::Relaxed;
        let more = |count: usize| (count < most).then_some(count + 1);
        self.in_flight.fetch_update(order, order, more).ok()?;
        // From here on it is given back, whatever follows.
        let spent = Spent { budget: Arc::clone(self) };
        let less = |left: i64| (left >= ONE).then_some(left - ONE);
        let is_paid = |from: &AtomicI64| from.fetch_update(order, order, less).is_ok();
        (is_paid(&self.left) || is_paid(&self.lent)).then(|| {
            self.begun.fetch_add(1, order);
            spent
        })
    }

    /// What the fleet lends for a second, in parts of [`ONE`]. What is not used is not saved up,
    /// but for the parts of one repeat.
    fn lend(&self, parts: u64) {
        let parts = i64::try_from(parts).unwrap_or(i64::MAX);
        let next = |left: i64| {
            Some(if parts == 0 { 0 } else { left.saturating_add(parts).min(parts.max(ONE)) })
        };
        let _ = self.lent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// What came since the last time fills it, up to what the window allows.
    fn fill(&self, percent: u8) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let total = Counts { all: self.requests.sum(0), bad: self.begun.load(Ordering::Relaxed) };
        let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        let (news, ms) = (total.since(filled.total), now.saturating_sub(filled.at));
        let all = news.all;
        (filled.total, filled.at) = (total, now);
        filled.window.add(now, news);
        let percent = u64::from(percent);
        let most = filled.window.sum(now).all * percent + PER_SECOND * ONE.cast_unsigned();
        let more = all * percent + PER_SECOND * ONE.cast_unsigned() * ms / 1_000;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let more = i64::try_from(more).unwrap_or(i64::MAX);
        let next = |left: i64| Some(left.saturating_add(more).min(most));
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

/// Full jitter: anything up to twice as much each time, and up to ten times the first, by `chance`,
/// which is 0 to 1 (AWS Architecture Blog, "Exponential Backoff And Jitter").
fn backoff(first: Duration, nth: u32, chance: f64) -> Duration {
    let times = 1_u32.checked_shl(nth.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(times.min(BACKOFF_TIMES_MAX)).mul_f64(chance)
}

/// How long a server asks to be left alone (RFC 9110 §10.2.3).
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than can be counted is too long, and not nothing.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_random() {
        let ms = |nth, chance| backoff(Duration::from_millis(50), nth, chance).as_millis();
        assert_eq!([1, 2, 3, 4, 5, 99].map(|nth| ms(nth, 1.0)), [50, 100, 200, 400, 500, 500]);
        assert_eq!([ms(1, 0.0), ms(3, 0.5)], [0, 100]);
    }

    fn retry(more: &str) -> Box<Retry> {
        let text = format!("[upstreams.a]\nservers = [\"http://a\"]\nretry = {{ {more} }}\n");
        let loaded = config::parse("t.toml", std::path::Path::new("."), &text, &|_| None).unwrap();
        assert_eq!(loaded.source.render(&loaded.problems), "0 problems in t.toml\n", "{text}");
        Retry::of(&loaded.config.upstreams["a"], None).unwrap()
    }

    #[test]
    fn a_server_says_how_long_to_wait() {
        let retry = retry("backoff = \"1ms\"");
        let wait = |text: &str| {
            let mut fields = HeaderMap::new();
            fields.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            retry.wait(1, Some(&fields))
        };
        assert_eq!(wait("5"), Some(Duration::from_secs(5)));
        for too_long in ["6", "18446744073709551615", "18446744073709551616"] {
            assert_eq!(wait(too_long), None, "{too_long}");
        }
        assert_eq!(wait("Thu, 31 Dec 2099 23:59:59 GMT"), None);
        for none in ["0", "Sun, 06 Nov 1994 08:49:37 GMT", "soon", "-1"] {
            assert!(wait(none).unwrap() <= Duration::from_millis(1), "{none}");
        }
        assert!(retry.wait(1, None).unwrap() <= Duration::from_millis(1));
    }

    /// Tries one repeat for each of so many requests each second.
    async fn fail_all(retry: &Retry, per_second: u64, seconds: u64) -> u64 {
        let mut repeats = 0;
        for _ in 0..seconds * 5 {
            for _ in 0..per_second / 5 {
                retry.note_request();
                repeats += u64::from(retry.spend(1_000).is_some());
            }
            tokio::time::advance(Duration::from_millis(200)).await;
            retry.tick();
        }
        repeats
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_fail_a_fifth_is_repeated() {
        let retry = retry("");
        let repeats = fail_all(&retry, 1_000, 10).await;
        assert!((2_000..=2_200).contains(&repeats), "{repeats} of 10,000");
        assert_eq!(retry.outcomes()[Outcome::OverBudget as usize], 10_000 - repeats);
        // Where nobody asks, each second has its own.
        tokio::time::advance(Duration::from_secs(60)).await;
        retry.tick();
        assert_eq!(retry.left(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_good_times_leave_is_bounded_by_the_window() {
        let retry = retry("budget = \"10%\"");
        for _ in 0..60 {
            (0..1_000).for_each(|_| retry.note_request());
            tokio::time::advance(Duration::from_secs(1)).await;
            retry.tick();
        }
        assert_eq!(retry.left(), 1_010, "10 % of ten seconds, and 10");
    }

    #[test]
    fn only_so_many_are_in_flight() {
        let retry = retry("");
        let few: Vec<_> = (0..4).filter_map(|_| retry.spend(5)).collect();
        assert_eq!(few.len(), 3);
        drop(few);
        let many: Vec<_> = (0..9).filter_map(|_| retry.spend(35)).collect();
        assert_eq!(many.len(), 7, "a fifth of 35");
        many.into_iter().for_each(|spent| spent.ends(Outcome::Good));
        assert_eq!(retry.outcomes(), [7, 0, 3, 0]);
        // What was refused for one bound leaves nothing in the other.
        assert_eq!(retry.budget.in_flight.load(Ordering::Relaxed), 0);
        assert_eq!(retry.left(), 0);
        assert!(retry.spend(1_000).is_none());
        assert_eq!(retry.budget.in_flight.load(Ordering::Relaxed), 0);
    }
}
