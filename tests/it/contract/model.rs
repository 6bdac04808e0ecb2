//! The limiter of either store, in real time and on its own clock, beside a log that keeps every
//! event.

use std::sync::atomic::{AtomicU32, Ordering};

use portcullis::store::{
    ChargeReply, ChargedAt, Charges, Mode, Store, Window, WindowSet, WindowState,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::charges::take;
use super::{Subject, over_all_stores};

over_all_stores![random_windows_admit_what_a_log_of_all_events_admits];

/// Every charge of one key, on the store's clock: its time and its cost.
#[derive(Debug, Default, Clone)]
struct Naive {
    charged: Vec<(u64, u32)>,
}

impl Naive {
    /// A clock that stepped back stands still.
    fn now(&self, at_us: u64) -> u64 {
        at_us.max(self.charged.last().map_or(0, |charge| charge.0))
    }

    fn younger_than(&self, span: u64, now: u64) -> &[(u64, u32)] {
        let first = self.charged.partition_point(|(at, _)| now - at >= span);
        &self.charged[first..]
    }

    fn sum_within(&self, span: u64, now: u64) -> i64 {
        self.younger_than(span, now).iter().map(|(_, cost)| i64::from(*cost)).sum()
    }

    /// What an exact window says.
    fn state(&self, window: &Window, at_us: u64) -> WindowState {
        let now = self.now(at_us);
        let live = self.younger_than(window.span_us, now);
        let left = |(at, _): &(u64, u32)| (window.span_us - (now - at)).div_ceil(1000) as i64;
        let free = i64::from(window.limit) - self.sum_within(window.span_us, now);
        let mut needed = i64::from(window.cost) - free;
        let mut retry_ms = if needed > 0 && window.cost > window.limit { -1 } else { 0 };
        for charge in live {
            if needed <= 0 || retry_ms == -1 {
                break;
            }
            needed -= i64::from(charge.1);
            retry_ms = left(charge);
        }
        WindowState {
            free,
            retry_ms,
            next_ms: live.first().map_or(0, left),
            full_ms: live.last().map_or(0, left),
        }
    }

    /// Compares an answer with the truth.
    fn check(&self, window: &Window, at_us: u64, said: &WindowState) -> Result<(), TestCaseError> {
        if window.quantum_us == 1 {
            prop_assert_eq!(*said, self.state(window, at_us));
            return Ok(());
        }
        let now = self.now(at_us);
        let counted = i64::from(window.limit) - said.free;
        let least = self.sum_within(window.span_us, now);
        let most = self.sum_within(window.span_us + window.quantum_us, now);
        prop_assert!(counted >= least, "{} counted of {}: over the limit", counted, least);
        prop_assert!(counted <= most, "{} counted of {}: late", counted, most);
        prop_assert_eq!(said.retry_ms == 0, said.free >= i64::from(window.cost));
        Ok(())
    }
}

/// One question.
#[derive(Debug, Clone)]
struct Step {
    /// Which of the windows are asked, as bits.
    mask: u8,
    /// After how many questions about something else.
    gap: u8,
    cost: u32,
    mode: Mode,
    /// Which of the charges that still count is given back before it.
    refund: Option<Index>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mode = prop_oneof![
        8 => Just(Mode::Enforce),
        2 => Just(Mode::Observe),
        1 => Just(Mode::Force),
        1 => Just(Mode::Peek),
    ];
    let refund = prop_oneof![4 => Just(None), 1 => any::<Index>().prop_map(Some)];
    let step = (1..8u8, 0..6u8, 0..4u32, mode, refund)
        .prop_map(|(mask, gap, cost, mode, refund)| Step { mask, gap, cost, mode, refund });
    proptest::collection::vec(step, 40..200)
}

/// Spans of microseconds to milliseconds, about as long as one and as a hundred questions take.
fn windows() -> impl Strategy<Value = Vec<Window>> {
    let span = prop_oneof![40..400u64, 400..8000u64, 8000..30_000u64];
    let window =
        (1..10u32, span, 1..16u64, any::<bool>()).prop_map(|(limit, span_us, parts, exact)| {
            let quantum_us = if exact { 1 } else { (span_us / parts).max(2) };
            Window { limit, span_us, quantum_us, cost: 1, mode: Mode::Enforce }
        });
    proptest::collection::vec(window, 1..=3)
}

async fn random_windows_admit_what_a_log_of_all_events_admits(it: Subject) {
    let cases = 32;
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let handle = tokio::runtime::Handle::current();
    let store = it.store.clone();
    let run = move || {
        let result = runner.run(&(windows(), steps()), |(windows, steps)| {
            handle.block_on(play(&store, &windows, &steps))
        });
        result.unwrap_or_else(|failure| panic!("{failure}\n{runner}"));
    };
    tokio::task::spawn_blocking(run)
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
}

async fn play(store: &Store, windows: &[Window], steps: &[Step]) -> Result<(), TestCaseError> {
    static CASE: AtomicU32 = AtomicU32::new(0);
    let case = CASE.fetch_add(1, Ordering::Relaxed);
    let keys: Vec<String> =
        (0..windows.len()).map(|n| format!("app:ratelimit:{{case={case}}}:{n}:w")).collect();
    let idle =
        (super::charges::set(&[u32::MAX]), vec![format!("app:ratelimit:{{case={case}}}:idle:w")]);
    let mut logs = vec![Naive::default(); windows.len()];
    for Step { mask, gap, cost, mode, refund } in steps {
        for _ in 0..*gap {
            take(store, &idle.0, &idle.1).await.map_err(failed)?;
        }
        let chosen: Vec<usize> = (0..windows.len()).filter(|n| mask & (1 << n) != 0).collect();
        let Some(first) = chosen.first() else { continue };
        if let Some(index) = refund {
            give_back(store, &windows[*first], &keys[*first], &mut logs[*first], index).await?;
        }
        let asked = |n: &usize| Window { cost: *cost, mode: *mode, ..windows[*n] };
        let set = WindowSet::new(chosen.iter().map(asked).collect());
        let charged: Vec<String> = chosen.iter().map(|n| keys[*n].clone()).collect();
        let reply: ChargeReply = take(store, &set, &charged).await.map_err(failed)?;
        prop_assert_eq!(reply.windows.len(), chosen.len());
        for ((n, window), said) in chosen.iter().zip(&set.windows).zip(&reply.windows) {
            logs[*n].check(window, reply.at.micros(), said)?;
        }
        let fits = |said: &WindowState| said.retry_ms == 0;
        let free_pass = matches!(mode, Mode::Observe | Mode::Force);
        prop_assert_eq!(reply.allowed, free_pass || reply.windows.iter().all(fits));
        for ((n, window), said) in chosen.iter().zip(&set.windows).zip(&reply.windows) {
            let counted = match mode {
                Mode::Enforce => reply.allowed,
                Mode::Observe => fits(said),
                Mode::Force => true,
                Mode::Peek => false,
            };
            if counted && *cost > 0 {
                let now = logs[*n].now(reply.at.micros());
                logs[*n].charged.push((now, *cost));
                let live = logs[*n].sum_within(window.span_us, now);
                let bounded = *mode != Mode::Force && fits(said);
                prop_assert!(!bounded || live <= i64::from(window.limit), "{} in one", live);
            }
        }
    }
    Ok(())
}

/// Gives back one of the charges that count for sure, exactly once.
async fn give_back(
    store: &Store,
    window: &Window,
    key: &str,
    log: &mut Naive,
    index: &Index,
) -> Result<(), TestCaseError> {
    if log.charged.is_empty() {
        return Ok(());
    }
    let (at, cost) = log.charged[index.index(log.charged.len())];
    // Whether a charge near the end of its life is still there when the refund arrives depends on
    // the moment of its arrival; those that end soon are left alone.
    let peek = WindowSet::new(vec![Window { cost: 0, mode: Mode::Peek, ..*window }]);
    let keys = [key.to_owned()];
    let now = take(store, &peek, &keys).await.map_err(failed)?.at.micros();
    if log.now(now) - at >= window.span_us / 4 || window.span_us < 8000 {
        return Ok(());
    }
    let set = WindowSet::new(vec![Window { cost, ..*window }]);
    store.refund(Charges { set: &set, keys: &keys }, &ChargedAt::of(at)).await.map_err(failed)?;
    if let Some(gone) = log.charged.iter().position(|charge| *charge == (at, cost)) {
        log.charged.remove(gone);
    }
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}
