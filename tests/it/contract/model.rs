//! The limiter of either store, in real time and on its own clock, beside a log that keeps every
//! event.

use std::sync::atomic::{AtomicU32, Ordering};

use portcullis::store::{ChargeReply, Store, Window, WindowSet, WindowState};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::charges::take;
use super::{Subject, over_both_stores};

over_both_stores![random_windows_admit_what_a_log_of_all_events_admits];

/// Every admitted charge of one key, on the store's clock.
#[derive(Debug, Default, Clone)]
struct Naive {
    admitted: Vec<u64>,
}

impl Naive {
    /// A clock that stepped back stands still.
    fn now(&self, at_us: u64) -> u64 {
        at_us.max(self.admitted.last().copied().unwrap_or(0))
    }

    fn younger_than(&self, span: u64, now: u64) -> &[u64] {
        let first = self.admitted.partition_point(|at| now - at >= span);
        &self.admitted[first..]
    }

    /// What an exact window says.
    fn state(&self, window: &Window, at_us: u64) -> WindowState {
        let now = self.now(at_us);
        let live = self.younger_than(window.span_us, now);
        let left = |at: &u64| (window.span_us - (now - at)).div_ceil(1000) as i64;
        let free = window.limit as usize - live.len();
        WindowState {
            free: free as i64,
            // With a cost of 1 the oldest charge is the one to wait for.
            retry_ms: if free == 0 { live.first().map_or(0, left) } else { 0 },
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
        let least = self.younger_than(window.span_us, now).len() as i64;
        let most = self.younger_than(window.span_us + window.quantum_us, now).len() as i64;
        prop_assert!(counted >= least, "{} counted of {}: over the limit", counted, least);
        prop_assert!(counted <= most, "{} counted of {}: late", counted, most);
        prop_assert_eq!(said.retry_ms == 0, said.free > 0);
        Ok(())
    }
}

/// Some of the windows are charged, after this many questions about something else.
type Step = (u8, u8);

/// Spans of microseconds to milliseconds, about as long as one and as a hundred questions take.
fn windows() -> impl Strategy<Value = Vec<Window>> {
    let span = prop_oneof![40..400u64, 400..8000u64, 8000..30_000u64];
    let window =
        (1..10u32, span, 1..16u64, any::<bool>()).prop_map(|(limit, span_us, parts, exact)| {
            let quantum_us = if exact { 1 } else { (span_us / parts).max(2) };
            Window { limit, span_us, quantum_us }
        });
    proptest::collection::vec(window, 1..=3)
}

async fn random_windows_admit_what_a_log_of_all_events_admits(it: Subject) {
    let cases = 32;
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let steps = proptest::collection::vec((1..8u8, 0..6u8), 40..200);
    let handle = tokio::runtime::Handle::current();
    let store = it.store.clone();
    let run = move || {
        let result = runner.run(&(windows(), steps), |(windows, steps)| {
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
    for (mask, gap) in steps {
        for _ in 0..*gap {
            take(store, &idle.0, &idle.1).await.map_err(|e| TestCaseError::fail(e.to_string()))?;
        }
        let chosen: Vec<usize> = (0..windows.len()).filter(|n| mask & (1 << n) != 0).collect();
        if chosen.is_empty() {
            continue;
        }
        let set = WindowSet::new(chosen.iter().map(|n| windows[*n]).collect());
        let charged: Vec<String> = chosen.iter().map(|n| keys[*n].clone()).collect();
        let reply = take(store, &set, &charged).await;
        let reply: ChargeReply = reply.map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(reply.windows.len(), chosen.len());
        for (n, said) in chosen.iter().zip(&reply.windows) {
            logs[*n].check(&windows[*n], reply.at_us, said)?;
        }
        prop_assert_eq!(reply.allowed, reply.windows.iter().all(|window| window.retry_ms == 0));
        if reply.allowed {
            for n in chosen {
                let now = logs[n].now(reply.at_us);
                logs[n].admitted.push(now);
                let live = logs[n].younger_than(windows[n].span_us, now).len();
                prop_assert!(live <= windows[n].limit as usize, "{} in one window", live);
            }
        }
    }
    Ok(())
}
