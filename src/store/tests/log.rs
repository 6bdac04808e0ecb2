//! The laws of the sliding window. Times are in microseconds and small, so that random events meet.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::store::window::WindowLog;
use crate::store::{Mode, Window, WindowSet, WindowState};

/// A log that keeps every event: slow, and obviously right.
#[derive(Debug, Default)]
struct Naive {
    /// Time and cost, in order of time.
    events: Vec<(u64, u32)>,
}

impl Naive {
    /// The state before a charge of `cost`; forgets what has left the window.
    fn state(&mut self, window: &Window, clock: u64, cost: u32) -> WindowState {
        let now = self.now(clock);
        self.events.retain(|(at, _)| now - at < window.span_us);
        let left = |at: u64| (window.span_us - (now - at)).div_ceil(1000) as i64;
        let used: u32 = self.events.iter().map(|event| event.1).sum();
        let mut still_used = used;
        let mut retry_ms = if cost > window.limit { -1 } else { 0 };
        for (at, freed) in &self.events {
            if retry_ms == -1 || still_used + cost <= window.limit {
                break;
            }
            still_used -= freed;
            retry_ms = left(*at);
        }
        WindowState {
            free: i64::from(window.limit) - i64::from(used),
            retry_ms,
            next_ms: self.events.first().map_or(0, |event| left(event.0)),
            full_ms: self.events.last().map_or(0, |event| left(event.0)),
        }
    }

    /// A clock that stepped back stands still.
    fn now(&self, clock: u64) -> u64 {
        clock.max(self.events.last().map_or(0, |event| event.0))
    }

    fn charge(&mut self, clock: u64, cost: u32) -> u64 {
        let now = self.now(clock);
        self.events.push((now, cost));
        now
    }
}

/// What happens to a log.
#[derive(Debug, Clone)]
enum Step {
    /// After a wait, somebody asks for some units.
    Take { wait: u64, cost: u32 },
    /// The clock is set back.
    Back(u64),
    /// One of the events that still count is given back.
    Refund(Index),
}

fn steps(clock_steps_back: bool) -> impl Strategy<Value = Vec<Step>> {
    let take = (0..30u64, 1..4u32).prop_map(|(wait, cost)| Step::Take { wait, cost });
    let back = (1..60u64).prop_map(Step::Back);
    let refund = any::<Index>().prop_map(Step::Refund);
    let backs = u32::from(clock_steps_back);
    proptest::collection::vec(prop_oneof![8 => take, backs => back, 1 => refund], 1..120)
}

/// The sum of the costs of `events` younger than `span` at `now`.
fn sum_within(events: &[(u64, u32)], now: u64, span: u64) -> u64 {
    let young = events.iter().filter(|(at, _)| now - at < span);
    young.map(|(_, cost)| u64::from(*cost)).sum()
}

proptest! {
    #[test]
    fn with_a_quantum_of_one_the_log_is_exact(
        limit in 1..7u32,
        span_us in 1..90u64,
        steps in steps(true),
    ) {
        let window = Window { limit, span_us, quantum_us: 1, cost: 1, mode: Mode::Enforce };
        let (mut log, mut naive) = (WindowLog::default(), Naive::default());
        let mut clock = 1000;
        for step in steps {
            match step {
                Step::Take { wait, cost } => {
                    clock += wait;
                    let state = log.state(&window, clock, cost);
                    prop_assert_eq!(state, naive.state(&window, clock, cost));
                    if state.retry_ms == 0 {
                        let entered = log.charge(&window, clock, cost);
                        prop_assert_eq!(entered, naive.charge(clock, cost));
                    }
                }
                Step::Back(by) => clock -= by.min(clock),
                Step::Refund(which) if !naive.events.is_empty() => {
                    let (at, cost) = naive.events.remove(which.index(naive.events.len()));
                    log.refund(&window, at, cost);
                }
                Step::Refund(_) => {}
            }
        }
    }

    #[test]
    fn with_a_larger_quantum_it_is_never_over_and_late_by_one_quantum_at_most(
        limit in 1..12u32,
        span_us in 10..200u64,
        quantum in any::<Index>(),
        steps in steps(false),
    ) {
        let quantum_us = 1 + quantum.index(span_us as usize) as u64;
        let window = Window { limit, span_us, quantum_us, cost: 1, mode: Mode::Enforce };
        let mut log = WindowLog::default();
        // All that was admitted and not given back, however old.
        let mut events: Vec<(u64, u32)> = Vec::new();
        let mut now = 1000;
        for step in steps {
            match step {
                Step::Take { wait, cost } => {
                    now += wait;
                    let state = log.state(&window, now, cost);
                    let true_free = i64::from(limit) - sum_within(&events, now, span_us) as i64;
                    prop_assert!(state.free <= true_free);
                    if state.retry_ms == 0 {
                        log.charge(&window, now, cost);
                        events.push((now, cost));
                        prop_assert!(sum_within(&events, now, span_us) <= u64::from(limit));
                    } else if cost <= limit {
                        let late = sum_within(&events, now, span_us + quantum_us);
                        prop_assert!(late + u64::from(cost) > u64::from(limit), "denied too long");
                    } else {
                        prop_assert_eq!(state.retry_ms, -1);
                    }
                }
                Step::Back(_) => {}
                Step::Refund(which) => {
                    let live = events.iter().filter(|(at, _)| now - at < span_us).count();
                    if live > 0 {
                        let index = events.len() - live + which.index(live);
                        let (at, cost) = events.remove(index);
                        log.refund(&window, at, cost);
                    }
                }
            }
        }
    }

    #[test]
    fn a_clock_that_steps_back_never_admits_more_in_real_time(
        limit in 1..6u32,
        span_us in 5..90u64,
        quantum_us in 1..30u64,
        steps in proptest::collection::vec((0..25u64, 0..12u64), 1..200),
    ) {
        let window = Window { limit, span_us, quantum_us, cost: 1, mode: Mode::Enforce };
        let mut log = WindowLog::default();
        let mut events: Vec<(u64, u32)> = Vec::new();
        let (mut real, mut behind) = (10_000, 0);
        for (wait, step) in steps {
            real += wait;
            // One step in four goes back.
            behind += if step < 9 { 0 } else { step * 3 };
            if log.state(&window, real - behind, 1).retry_ms == 0 {
                log.charge(&window, real - behind, 1);
                events.push((real, 1));
                prop_assert!(sum_within(&events, real, span_us) <= u64::from(limit));
            }
        }
    }

    #[test]
    fn a_denied_request_passes_when_it_was_told_to_and_not_a_millisecond_before(
        limit in 1..6u32,
        span_us in 1000..50_000u64,
        quantum_us in 1..9000u64,
        waits in proptest::collection::vec(0..9000u64, 1..60),
    ) {
        let window = Window { limit, span_us, quantum_us, cost: 1, mode: Mode::Enforce };
        let mut log = WindowLog::default();
        let mut now = 1_000_000;
        for wait in waits {
            now += wait;
            let state = log.state(&window, now, 1);
            if state.retry_ms > 0 {
                let early = now + (state.retry_ms as u64 - 1) * 1000;
                prop_assert!(log.state(&window, early, 1).retry_ms > 0);
                now += state.retry_ms as u64 * 1000;
                prop_assert_eq!(log.state(&window, now, 1).retry_ms, 0);
            }
            log.charge(&window, now, 1);
        }
    }
}

#[test]
fn a_refund_after_the_window_gives_nothing_back() {
    // A refund may wait in a stalled connection for longer than a short window. The charge that it
    // names is gone then, and a younger one must not be forgotten in its place.
    let window = Window { limit: 1, span_us: 100, quantum_us: 1, cost: 1, mode: Mode::Enforce };
    let mut log = WindowLog::default();
    log.state(&window, 1000, 1);
    let late = log.charge(&window, 1000, 1);
    assert_eq!(log.state(&window, 1100, 1).retry_ms, 0);
    log.charge(&window, 1100, 1);
    log.refund(&window, late, 1);
    assert_eq!(log.state(&window, 1150, 1).free, 0, "two in one window");
}

#[test]
fn an_idle_log_is_one_in_which_nothing_counts() {
    let window = Window { limit: 2, span_us: 100, quantum_us: 1, cost: 1, mode: Mode::Enforce };
    let mut log = WindowLog::default();
    assert!(log.is_idle(&window, 0));
    log.charge(&window, 1000, 1);
    assert!(!log.is_idle(&window, 1099));
    assert!(log.is_idle(&window, 1100));
}

#[test]
fn small_limits_are_counted_exactly_and_large_ones_in_64_cells() {
    let minute = Duration::from_secs(60);
    for (limit, quantum_us) in [(1, 1), (128, 1), (129, 937_500), (1_000_000, 937_500)] {
        let window = Window::new(limit, minute);
        assert_eq!(
            window,
            Window { limit, span_us: 60_000_000, quantum_us, cost: 1, mode: Mode::Enforce }
        );
    }
    let shortest = Window::new(1000, Duration::from_millis(1));
    assert_eq!(shortest.quantum_us, 15);
}

#[test]
fn a_set_is_encoded_as_the_script_reads_it() {
    let minute = Window::new(0x0102_0304, Duration::from_secs(60));
    let set = WindowSet::new(vec![minute, Window::new(5, Duration::from_millis(1))]);
    // u32 limit | u48 span | u48 quantum | u32 cost | u8 mode, little endian.
    let first = [
        &[4, 3, 2, 1][..],
        &[0x00, 0x87, 0x93, 0x03, 0, 0],
        &[0x1C, 0x4E, 0x0E, 0, 0, 0],
        &[1, 0, 0, 0, 0],
    ];
    let second = [&[5, 0, 0, 0][..], &[0xE8, 3, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0]];
    assert_eq!(set.records, [first.concat(), second.concat()].concat());
    assert_eq!(set.ttls, ["120000", "2"]);
}
