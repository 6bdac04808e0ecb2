//! Shares, ramps and roll-backs, with callers and clocks that are made up.

use std::collections::HashSet;
use std::time::Duration;

use super::bucket::{arm_of, bucket};
use super::canary::{Canary, Place};
use super::ramp::{self, Now};
use super::record::{Record, Stopped, Then};
use super::verdict::{Bad, judge};
use super::window::{Sum, Window};
use crate::config::{Arm, HashKey, OnBad, Rollback, Split, Step, WHOLE};
use crate::store::{MemoryStore, Store};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE_MS: u64 = 60_000;
const KEY: &str = "app:canary:shop";

fn arm(upstream: &str, share: u16) -> Arm {
    Arm { upstream: upstream.to_owned(), share }
}

fn step(share: u16, minutes: Option<u64>) -> Step {
    Step { share, time: minutes.map(|minutes| SECOND * 60 * minutes as u32) }
}

fn rule(on_bad: OnBad) -> Rollback {
    Rollback { failures: 200, latency: 150, answers: 100, window: SECOND * 60, on_bad }
}

/// From 1 % for ten minutes by 10 % for half an hour to 50 %.
fn ramped() -> Split {
    Split {
        arms: vec![arm("shop", WHOLE), arm("next", 0)],
        sticky: Some(HashKey::Address),
        ramp: vec![step(100, Some(10)), step(1_000, Some(30)), step(5_000, None)],
        rollback: Some(rule(OnBad::Stable)),
    }
}

fn weighted(share: u16, on_bad: OnBad) -> Split {
    Split {
        arms: vec![arm("shop", WHOLE - share), arm("next", share)],
        sticky: None,
        ramp: Vec::new(),
        rollback: Some(rule(on_bad)),
    }
}

fn store() -> Store {
    Store::Memory(Box::new(MemoryStore::new(100)))
}

fn place(store: &Store, now_ms: u64) -> Place<'_> {
    Place { store, key: KEY, now_ms }
}

/// The share is what it says, and whoever has moved once stays.
#[tokio::test(start_paused = true)]
async fn of_100_000_callers_a_share_moves_that_never_go_back() {
    let (store, canary) = (store(), Canary::new("shop", &ramped(), None));
    let callers: Vec<u16> =
        (0..100_000).map(|number| bucket("shop", format!("user-{number}").as_bytes())).collect();
    let mut moved = HashSet::new();
    let begin = 5_000 * MINUTE_MS;
    for (minutes, percent) in [(0, 1.0), (9, 1.0), (10, 10.0), (39, 10.0), (40, 50.0), (999, 50.0)]
    {
        canary.look(place(&store, begin + minutes * MINUTE_MS)).await;
        let now: HashSet<usize> =
            (0..callers.len()).filter(|at| canary.arm_of(callers[*at]) == 1).collect();
        let share = now.len() as f64 * 100.0 / callers.len() as f64;
        assert!((share - percent).abs() < 0.5, "after {minutes} minutes: {share} %");
        assert!(moved.is_subset(&now), "somebody went back after {minutes} minutes");
        moved = now;
    }
    // Not even where the clock goes back, nor at a gateway that comes later.
    canary.look(place(&store, begin)).await;
    assert_eq!(canary.share(), 5_000);
    let later = Canary::new("shop", &ramped(), None);
    assert_eq!(later.share(), 0, "the clock of the ramp is not known yet");
    later.look(place(&store, begin + 41 * MINUTE_MS)).await;
    assert_eq!(later.share(), 5_000);
}

#[test]
fn a_caller_has_the_same_number_everywhere_and_another_one_on_another_route() {
    assert_eq!(bucket("shop", b"ada"), bucket("shop", b"ada"));
    let callers = (0..1_000).map(|number| format!("user-{number}"));
    let same = callers.filter(|it| bucket("a", it.as_bytes()) == bucket("b", it.as_bytes()));
    assert!(same.count() < 10);
}

#[test]
fn several_arms_share_the_lowest_numbers_and_the_base_has_the_rest() {
    let arms = [arm("base", 7_000), arm("b", 2_000), arm("c", 1_000)];
    for (number, expected) in [(0, 1), (1_999, 1), (2_000, 2), (2_999, 2), (3_000, 0), (9_999, 0)] {
        assert_eq!(arm_of(&arms, number), expected, "{number}");
    }
}

#[test]
fn a_ramp_is_at_one_step_at_a_time() {
    let steps = ramped().ramp;
    let at = |seconds| ramp::at(&steps, SECOND * seconds);
    let now =
        |share, step, left: Option<u32>| Now { share, step, left: left.map(|it| SECOND * it) };
    assert_eq!(at(0), now(100, 1, Some(600)));
    assert_eq!(at(599), now(100, 1, Some(1)));
    assert_eq!(at(600), now(1_000, 2, Some(1_800)));
    assert_eq!(at(2_400), now(5_000, 3, None));
    assert_eq!(ramp::at(&steps, Duration::MAX), now(5_000, 3, None));
}

#[test]
fn a_window_knows_what_was_of_late_and_nothing_else() {
    let mut window = Window::new(SECOND * 60);
    window.note(SECOND * 7, true, Some(SECOND));
    window.note(SECOND * 11, false, Some(SECOND));
    let counts = |window: &Window, at| {
        let sum = window.sum(SECOND * at);
        (sum.answers, sum.failures)
    };
    assert_eq!(counts(&window, 11), (2, 1));
    assert_eq!(counts(&window, 64), (2, 1));
    assert_eq!(counts(&window, 65), (1, 0), "an answer of the second part");
    assert_eq!(counts(&window, 70), (0, 0));
    window.note(SECOND * 71, false, Some(SECOND));
    assert_eq!(counts(&window, 71), (1, 0), "in the place of an old one");
    window.clear();
    assert_eq!(counts(&window, 71), (0, 0));
}

/// So many answers, the first of which are failures, and the last take so many milliseconds.
fn sum(answers: u32, failures: u32, (usual, slow, slow_ms): (u64, u32, u64)) -> Sum {
    let mut window = Window::new(SECOND * 60);
    for number in 0..answers {
        let ms = if number >= answers - slow { slow_ms } else { usual };
        window.note(SECOND, number < failures, Some(Duration::from_millis(ms)));
    }
    window.sum(SECOND)
}

#[test]
fn the_95th_percentile_is_known_to_an_eighth() {
    for (slow, expected) in [(0, 20), (4, 20), (5, 20), (6, 300), (100, 300)] {
        let p95 = sum(100, 0, (20, slow, 300)).p95().unwrap().as_secs_f64() * 1_000.0;
        let expected = f64::from(expected);
        assert!((expected..=expected * 1.125).contains(&p95), "{slow} slow: {p95} ms");
    }
    assert_eq!(Sum::default().p95(), None);
    let odd = [0, 7, 8, 9, 1_000, u64::from(u32::MAX), u64::MAX].map(Duration::from_micros);
    for took in odd {
        let mut window = Window::new(SECOND);
        window.note(Duration::ZERO, false, Some(took));
        let sum = window.sum(Duration::ZERO);
        assert!(sum.p95().unwrap() > took.min(SECOND * 1_000), "{took:?}");
        assert_eq!(sum.slower_than(Duration::ZERO), 1, "{took:?}");
    }
}

#[test]
fn only_what_is_surely_worse_than_the_base_is_bad() {
    let rule = rule(OnBad::Stable);
    let quick = |answers, failures| sum(answers, failures, (20, 0, 0));
    let is_bad = |base: &Sum, own: &Sum| judge(&rule, base, own).is_some();
    for (base, own, expected, why) in [
        (quick(1_000, 0), quick(100, 20), true, "a fifth fails"),
        (quick(1_000, 0), quick(99, 99), false, "too few answers to judge by"),
        (quick(99, 0), quick(1_000, 999), false, "too few answers to compare with"),
        (quick(1_000, 0), quick(100, 3), true, "3 points more, which is no chance"),
        (quick(100, 2), quick(100, 6), false, "4 points more, which may be chance"),
        (quick(9_000, 0), quick(9_000, 150), false, "less than 2 points more, however sure"),
        (quick(1_000, 500), quick(1_000, 500), false, "the base is as bad"),
        (quick(1_000, 1_000), quick(1_000, 1_000), false, "nothing answers"),
        (quick(1_000, 0), quick(1_000, 0), false, "alike"),
        (quick(1_000, 500), quick(100, 0), false, "better"),
    ] {
        assert_eq!(is_bad(&base, &own), expected, "{why}");
    }
    let base = quick(1_000, 0);
    for (own, expected, why) in [
        (sum(200, 0, (60, 0, 0)), true, "all take three times as long"),
        (sum(1_000, 0, (20, 100, 60)), true, "a tenth takes three times as long"),
        (sum(100, 0, (20, 7, 60)), false, "7 of 100 do, which may be chance"),
        (sum(1_000, 0, (25, 0, 0)), false, "not by half longer"),
        (sum(1_000, 0, (5, 0, 0)), false, "quicker"),
    ] {
        assert_eq!(is_bad(&base, &own), expected, "{why}");
    }
    let tiny = (sum(1_000, 0, (1, 0, 0)), sum(1_000, 0, (3, 0, 0)));
    assert!(!is_bad(&tiny.0, &tiny.1), "2 ms are no harm");
    let bad = judge(&rule, &quick(1_000, 10), &quick(100, 20)).unwrap();
    assert_eq!(bad, Bad::Failures(0.2, 0.01));
    assert_eq!(bad.to_string(), "20.0% of its answers failed, and 1.0% of the base's");
}

#[test]
fn of_two_records_the_newer_one_counts() {
    let record = |at, about: &str, share: Option<u16>| Record {
        at,
        began: at,
        about: about.to_owned(),
        stopped: share.map(|share| Stopped { share, why: String::new() }),
    };
    let settle = |own: Option<Record>, found: Option<Record>| {
        let mut own = own;
        let then = Record::settle(&mut own, found, "a", 50);
        (own.unwrap(), then)
    };
    let (old, new) = (record(10, "a", None), record(20, "a", Some(0)));
    assert_eq!(settle(None, None), (record(50, "a", None), Then::WriteNew));
    assert_eq!(settle(None, Some(old.clone())), (old.clone(), Then::Nothing));
    assert_eq!(settle(Some(old.clone()), None), (old.clone(), Then::WriteNew));
    assert_eq!(settle(Some(old.clone()), Some(new.clone())), (new.clone(), Then::Nothing));
    assert_eq!(settle(Some(new.clone()), Some(old.clone())), (new.clone(), Then::Write));
    // Another ramp begins anew, unless it was stopped.
    assert_eq!(settle(None, Some(record(10, "b", None))), (record(50, "a", None), Then::Write));
    let stopped = record(10, "b", Some(0));
    assert_eq!(settle(None, Some(stopped.clone())), (stopped, Then::Nothing));
    // While a fleet is reloaded, its ramps go on beside each other, and stop together.
    let foreign = settle(Some(old.clone()), Some(record(20, "b", None)));
    assert_eq!(foreign, (Record { at: 20, ..old.clone() }, Then::Nothing));
    let (own, _) = settle(Some(old.clone()), Some(record(20, "b", Some(0))));
    assert_eq!((own.began, own.stopped), (10, new.stopped));
}

fn answer(canary: &Canary, arm: usize, answers: u32, failures: u32) {
    for number in 0..answers {
        canary.note(arm, number < failures, Some(Duration::from_millis(20)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_canary_is_taken_back_by_the_fleet_until_it_is_reset() {
    let (store, split) = (store(), weighted(500, OnBad::Stable));
    let nodes = [(); 2].map(|()| Canary::new("shop", &split, None));
    for node in &nodes {
        node.look(place(&store, 1)).await;
        assert_eq!(node.share(), 500);
    }
    answer(&nodes[0], 0, 1_000, 0);
    answer(&nodes[0], 1, 99, 99);
    nodes[0].look(place(&store, 2)).await;
    assert_eq!(nodes[0].share(), 500, "99 answers");
    answer(&nodes[0], 1, 1, 1);
    nodes[0].look(place(&store, 3)).await;
    nodes[1].look(place(&store, 3)).await;
    assert_eq!(nodes.each_ref().map(Canary::share), [0, 0]);
    let told = nodes[1].now(3);
    assert!(told.stopped.unwrap().contains("100.0%"));
    assert_eq!(nodes.each_ref().map(|it| it.now(3).rollbacks), [1, 0]);
    // Neither time nor a gateway that starts anew, nor a store that has lost all, nor another ramp
    // brings it back.
    tokio::time::advance(SECOND * 3_600).await;
    let another = Canary::new("shop", &ramped(), Some(&nodes[1]));
    assert_eq!(another.share(), 0);
    store.delete(KEY).await.unwrap();
    nodes[1].look(place(&store, 4)).await;
    let later = Canary::new("shop", &split, None);
    for node in nodes.iter().chain([&later, &another]) {
        node.look(place(&store, 5)).await;
        assert_eq!(node.share(), 0);
    }
    later.order(place(&store, 6), None).await.unwrap();
    for node in nodes.iter().chain([&later]) {
        node.look(place(&store, 7)).await;
        assert_eq!((node.share(), node.now(7).stopped), (500, None));
    }
    // What was answered before is no reason any more.
    tokio::time::advance(SECOND).await;
    nodes[0].look(place(&store, 8)).await;
    assert_eq!(nodes[0].share(), 500);
}

/// Whoever takes ramp and roll-back out of the file has not seen yet why it was stopped.
#[tokio::test(start_paused = true)]
async fn a_stopped_canary_is_reset_also_where_nothing_leads_it_any_more() {
    let store = store();
    let canary = Canary::new("shop", &weighted(500, OnBad::Stable), None);
    canary.order(place(&store, 1), Some("by hand".to_owned())).await.unwrap();
    let plain = Split { rollback: None, ..weighted(500, OnBad::Stable) };
    let (kept, later) =
        (Canary::new("shop", &plain, Some(&canary)), Canary::new("shop", &plain, None));
    for node in [&kept, &later] {
        assert!(node.is_led());
        node.look(place(&store, 2)).await;
        assert_eq!((node.share(), node.now(2).stopped.as_deref()), (0, Some("by hand")));
    }
    later.order(place(&store, 3), None).await.unwrap();
    kept.look(place(&store, 4)).await;
    assert_eq!([kept.share(), later.share()], [500, 500]);
    // Of several nobody is stopped, and what was is of no matter to them.
    canary.order(place(&store, 5), Some("by hand".to_owned())).await.unwrap();
    let arms = vec![arm("shop", 9_000), arm("next", 500), arm("other", 500)];
    let several = Canary::new("shop", &Split { arms, ..plain }, Some(&canary));
    several.look(place(&store, 6)).await;
    assert!(!several.is_led());
    assert_eq!((several.arm_of(499), several.now(6).stopped), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_is_frozen_keeps_its_share() {
    let split = Split {
        ramp: vec![step(100, Some(1)), step(1_000, Some(1)), step(WHOLE, None)],
        rollback: Some(rule(OnBad::Freeze)),
        ..ramped()
    };
    let (store, canary) = (store(), Canary::new("shop", &split, None));
    canary.look(place(&store, MINUTE_MS)).await;
    canary.look(place(&store, 2 * MINUTE_MS)).await;
    answer(&canary, 0, 1_000, 0);
    answer(&canary, 1, 200, 100);
    for minute in [2, 3, 60] {
        canary.look(place(&store, minute * MINUTE_MS)).await;
        assert_eq!(canary.share(), 1_000, "{minute}");
    }
    canary.order(place(&store, 61 * MINUTE_MS), None).await.unwrap();
    assert_eq!(
        (canary.share(), canary.now(61 * MINUTE_MS).step),
        (100, Some((1, Some(SECOND * 60))))
    );
    canary.look(place(&store, 63 * MINUTE_MS)).await;
    assert_eq!(canary.share(), WHOLE);
    canary.order(place(&store, 64 * MINUTE_MS), Some("by hand".to_owned())).await.unwrap();
    assert_eq!((canary.share(), canary.now(0).stopped.as_deref()), (0, Some("by hand")));
}

/// The base gets nothing to be compared by any more, but did a moment ago.
#[tokio::test(start_paused = true)]
async fn a_canary_that_has_all_is_judged_by_what_the_base_did_before() {
    let split = Split {
        ramp: vec![step(5_000, Some(1)), step(WHOLE, None)],
        rollback: Some(rule(OnBad::Stable)),
        ..ramped()
    };
    for (minutes, expected) in [(2, 0), (10, 0), (12, WHOLE)] {
        let (store, canary) = (store(), Canary::new("shop", &split, None));
        canary.look(place(&store, MINUTE_MS)).await;
        answer(&canary, 0, 1_000, 0);
        answer(&canary, 1, 1_000, 0);
        canary.look(place(&store, MINUTE_MS)).await;
        let mut now = MINUTE_MS;
        for _ in 0..minutes {
            tokio::time::advance(SECOND * 60).await;
            now += MINUTE_MS;
            // Too few say nothing of the base, and take nothing away.
            answer(&canary, 0, 10, 10);
            canary.look(place(&store, now)).await;
        }
        assert_eq!(canary.share(), WHOLE);
        answer(&canary, 1, 1_000, 100);
        canary.look(place(&store, now)).await;
        assert_eq!(canary.share(), expected, "{minutes} minutes later");
    }
}

/// One gateway steps on while another one finds the canary bad.
#[tokio::test(start_paused = true)]
async fn a_freeze_sends_nobody_back() {
    let split = Split { rollback: Some(rule(OnBad::Freeze)), ..ramped() };
    let store = store();
    let nodes = [(); 2].map(|()| Canary::new("shop", &split, None));
    for node in &nodes {
        node.look(place(&store, MINUTE_MS)).await;
    }
    // Their clocks differ by a moment.
    let (early, late) = (11 * MINUTE_MS - 1, 11 * MINUTE_MS);
    nodes[1].look(place(&store, late)).await;
    answer(&nodes[0], 0, 1_000, 0);
    answer(&nodes[0], 1, 1_000, 100);
    nodes[0].look(place(&store, early)).await;
    assert_eq!(nodes.each_ref().map(Canary::share), [100, 1_000]);
    for node in [&nodes[1], &nodes[0], &nodes[1]] {
        node.look(place(&store, late)).await;
        assert_eq!(node.share(), 1_000);
    }
    // One that was given back stays so, whatever it had come to.
    nodes[0].order(place(&store, late + 1), Some("by hand".to_owned())).await.unwrap();
    nodes[1].look(place(&store, late + 2)).await;
    assert_eq!(nodes.each_ref().map(Canary::share), [0, 0]);
    // What steps on in the moment in which it is judged has stepped on.
    let canary = Canary::new("other", &split, None);
    let place = |now_ms| Place { store: &store, key: "app:canary:other", now_ms };
    canary.look(place(MINUTE_MS)).await;
    answer(&canary, 0, 1_000, 0);
    answer(&canary, 1, 1_000, 100);
    canary.look(place(late)).await;
    assert_eq!(canary.share(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_clock_of_the_same_ramp_and_what_was_counted() {
    let (store, canary) = (store(), Canary::new("shop", &ramped(), None));
    canary.look(place(&store, MINUTE_MS)).await;
    canary.look(place(&store, 11 * MINUTE_MS)).await;
    answer(&canary, 1, 3, 1);
    let stricter = Split { rollback: Some(rule(OnBad::Freeze)), ..ramped() };
    assert!(canary.is_described_by(&ramped()) && !canary.is_described_by(&stricter));
    let kept = Canary::new("shop", &stricter, Some(&canary));
    assert_eq!(kept.share(), 1_000, "before its first look");
    kept.look(place(&store, 12 * MINUTE_MS)).await;
    assert_eq!(kept.share(), 1_000);
    let now = kept.now(12 * MINUTE_MS);
    assert_eq!((now.arms[1].answers, now.arms[1].failures), (3, 1));
    let other = Split { ramp: vec![step(200, Some(10)), step(WHOLE, None)], ..ramped() };
    let anew = Canary::new("shop", &other, Some(&kept));
    assert_eq!(anew.share(), 0);
    anew.look(place(&store, 13 * MINUTE_MS)).await;
    assert_eq!(anew.share(), 200);
}
