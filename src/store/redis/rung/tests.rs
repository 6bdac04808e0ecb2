//! The ladder step by step, and its laws.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn counts(asked: u64, missed: u64, late: u64) -> Counts {
    Counts { asked, missed, late }
}

/// A server that was reached at once.
fn healthy() -> Ladder {
    let mut ladder = Ladder::default();
    let change = ladder.probe(ms(0)).expect("the first probe is enough");
    assert_eq!(change.to_string(), "new -> healthy (connected)");
    ladder
}

/// The same that has failed since.
fn open(at: Duration) -> Ladder {
    let mut ladder = healthy();
    let change = ladder.fail(at, Cause::Silent).expect("a change");
    assert_eq!(change.to_string(), "healthy -> open (5 silent answers)");
    ladder
}

#[test]
fn an_open_server_is_asked_after_three_good_probes_with_pauses() {
    let mut ladder = open(ms(1000));
    assert_eq!(ladder.fail(ms(1001), Cause::Lost), None, "it is open already");
    assert_eq!(ladder.count(ms(1002), counts(0, 0, 0)), None);
    // Those of several connections, all at once, are one.
    for at in [1003, 1004, 1052, 1053, 1102] {
        assert_eq!(ladder.probe(ms(at)), None, "at {at}");
    }
    let change = ladder.probe(ms(1103)).expect("the third");
    assert_eq!(change.to_string(), "open -> recovering (3 good probes)");
    assert_eq!(ladder.reached(), (ms(1103), Cause::Probed(3)));

    let mut ladder = open(ms(1000));
    for at in [1050, 1100] {
        assert_eq!(ladder.probe(ms(at)), None);
    }
    ladder.fail_probe();
    for at in [1150, 1200] {
        assert_eq!(ladder.probe(ms(at)), None, "it is counted from the start");
    }
    assert!(ladder.probe(ms(1250)).is_some());
}

#[test]
fn a_recovering_server_is_healthy_when_it_was_clean_for_a_while_or_served_for_long() {
    let recovering = || {
        let mut ladder = open(ms(0));
        for at in [50, 100, 150] {
            ladder.probe(ms(at));
        }
        assert_eq!(ladder.rung(), Rung::Recovering);
        assert_eq!(ladder.count(ms(150), counts(9, 9, 0)), None, "all of it before");
        ladder
    };
    let mut ladder = recovering();
    assert_eq!(ladder.count(ms(1900), counts(100, 1, 0)), None, "one miss is no reason to open");
    assert_eq!(ladder.count(ms(3899), counts(100, 0, 99)), None);
    let change = ladder.count(ms(3900), counts(0, 0, 0)).expect("2 s");
    assert_eq!(change.to_string(), "recovering -> healthy (2 s without a fault)");

    let mut ladder = recovering();
    for at in (250..10_150).step_by(100) {
        assert_eq!(ladder.count(ms(at), counts(100, 1, 0)), None, "at {at}");
    }
    let change = ladder.count(ms(10_150), counts(100, 1, 0)).expect("10 s");
    assert_eq!(change.to_string(), "recovering -> healthy (10 s of service)");

    let mut ladder = recovering();
    let change = ladder.fail(ms(151), Cause::Lost).expect("a change");
    assert_eq!(change.to_string(), "recovering -> open (connections lost)");
}

#[test]
fn a_share_of_a_second_makes_a_server_slow_or_open() {
    for (each, expected) in [
        (counts(12, 1, 0), None),
        (counts(100, 0, 1), Some("healthy -> slow (3 of 300 answers late in 1 s)")),
        (counts(13, 1, 0), Some("healthy -> slow (4 of 52 unanswered in 1 s)")),
        (counts(13, 0, 1), Some("healthy -> slow (4 of 52 answers late in 1 s)")),
        (counts(4, 2, 0), None),
        (counts(5, 3, 0), Some("healthy -> open (12 of 20 unanswered in 1 s)")),
        (counts(1000, 9, 0), None),
        (counts(1000, 0, 9), None),
        (counts(1000, 5, 5), Some("healthy -> slow (10 of 1000 answers late in 1 s)")),
        (counts(1000, 10, 0), Some("healthy -> slow (10 of 1000 unanswered in 1 s)")),
        (counts(1000, 500, 0), Some("healthy -> open (500 of 1000 unanswered in 1 s)")),
        (counts(0, 0, 0), None),
    ] {
        let mut ladder = healthy();
        let changes = (1..=4).filter_map(|n| ladder.count(n * COUNT_PAUSE, each));
        let change = changes.map(|change| change.to_string()).next();
        assert_eq!(change.as_deref(), expected, "{each:?}");
    }
}

#[test]
fn a_slow_server_is_healthy_after_two_seconds_below_half_of_that() {
    let mut ladder = healthy();
    assert!(ladder.count(ms(250), counts(100, 1, 0)).is_some());
    for n in 2..=8 {
        assert_eq!(ladder.count(n * COUNT_PAUSE, counts(200, 1, 0)), None, "still half of it");
    }
    for n in 9..=15 {
        assert_eq!(ladder.count(n * COUNT_PAUSE, counts(1000, 0, 4)), None);
    }
    let change = ladder.count(ms(4000), counts(1000, 0, 4)).expect("a change");
    assert_eq!(change.to_string(), "slow -> healthy (2 s without a fault)");
}

#[test]
fn what_went_unanswered_before_says_nothing_of_a_server_that_is_back() {
    let mut ladder = healthy();
    ladder.count(ms(250), counts(30, 0, 0));
    ladder.fail(ms(400), Cause::Silent);
    for at in [450, 500, 550] {
        ladder.probe(ms(at));
    }
    assert_eq!(ladder.rung(), Rung::Recovering);
    assert_eq!(ladder.count(ms(600), counts(40, 30, 0)), None, "they were missed before");
    let change = ladder.count(ms(850), counts(40, 30, 0)).expect("and these were not");
    assert_eq!(change.to_string(), "recovering -> open (30 of 40 unanswered in 1 s)");
}

/// Good probes until the server is asked: how many, and when that was.
fn come_back(ladder: &mut Ladder, from: Duration) -> (u32, Duration) {
    let mut at = from;
    for count in 1..=100 {
        at += PROBE_PAUSE;
        if ladder.probe(at).is_some() {
            return (count, at);
        }
    }
    panic!("it never comes back");
}

#[test]
fn who_answers_probes_and_no_questions_is_asked_later_and_later() {
    let (mut ladder, mut at) = (open(ms(20_000)), ms(20_000));
    let mut probes = Vec::new();
    for _ in 0..6 {
        let (count, back) = come_back(&mut ladder, at);
        probes.push(count);
        at = back + ms(9_999);
        // It may have been healthy in between.
        ladder.count(at - COUNT_PAUSE, counts(9, 0, 0));
        ladder.fail(at, Cause::Silent);
    }
    assert_eq!(probes, [3, 6, 12, 24, 24, 24]);
    // A loss says itself what it is, and is none of these.
    at = come_back(&mut ladder, at).1;
    ladder.fail(at + ms(1), Cause::Lost);
    let (count, back) = come_back(&mut ladder, at + ms(1));
    assert_eq!(count, 24);
    ladder.fail(back + AFFAIR_OVER, Cause::Silent);
    assert_eq!(come_back(&mut ladder, back + AFFAIR_OVER).0, 3, "it served for long");
}

#[test]
fn a_server_that_is_not_back_is_not_said_to_be() {
    let said = |ladder: &mut Ladder, at: Duration| ladder.news(at).map(|it| it.to_string());
    let mut ladder = Ladder::default();
    assert_eq!(said(&mut ladder, ms(0)), None, "it was not reached yet");
    ladder.probe(ms(0));
    assert_eq!(said(&mut ladder, ms(0)).as_deref(), Some("new -> healthy (connected)"));
    ladder.fail(ms(1000), Cause::Silent);
    let opened = "healthy -> open (5 silent answers)";
    assert_eq!(said(&mut ladder, ms(1000)).as_deref(), Some(opened));
    let mut at = ms(1000);
    for _ in 0..5 {
        at = come_back(&mut ladder, at).1 + ms(999);
        assert_eq!(said(&mut ladder, at), None, "not yet");
        ladder.fail(at, Cause::Missed(20, 30));
        assert_eq!(said(&mut ladder, at), None, "it was never back");
    }
    at = come_back(&mut ladder, at).1;
    at += SAID_AFTER;
    let back = "open -> recovering (24 good probes)";
    assert_eq!(said(&mut ladder, at).as_deref(), Some(back));
    assert_eq!(said(&mut ladder, at), None, "once");
    ladder.fail(at, Cause::Lost);
    assert_eq!(said(&mut ladder, at).as_deref(), Some("recovering -> open (connections lost)"));
}

/// What happens to a server in a moment.
#[derive(Debug, Clone, Copy)]
enum Event {
    Answered,
    Late,
    Missed,
    GoodProbe,
    BadProbe,
    Lost,
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        8 => Just(Event::Answered),
        2 => Just(Event::Late),
        3 => Just(Event::Missed),
        4 => Just(Event::GoodProbe),
        1 => Just(Event::BadProbe),
        1 => Just(Event::Lost),
    ];
    vec((0..40_u64, event), 0..600)
}

/// A server, and what its node counts of it.
struct Course {
    ladder: Ladder,
    now: Duration,
    counted: Duration,
    counts: Counts,
    row: u32,
    changes: Vec<(Duration, Change)>,
}

impl Course {
    fn new() -> Self {
        Self {
            ladder: Ladder::default(),
            now: Duration::ZERO,
            counted: Duration::ZERO,
            counts: Counts::default(),
            row: 0,
            changes: Vec::new(),
        }
    }

    fn take(&mut self, change: Option<Change>) {
        self.changes.extend(change.map(|change| (self.now, change)));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.now - self.counted >= COUNT_PAUSE {
            self.counted = self.now;
            let change = self.ladder.count(self.now, std::mem::take(&mut self.counts));
            self.take(change);
        }
    }

    fn meet(&mut self, event: Event) {
        let is_asked = self.ladder.rung() != Rung::Open;
        match event {
            Event::Answered | Event::Late if is_asked => {
                self.counts.asked += 1;
                self.counts.late += u64::from(matches!(event, Event::Late));
                self.row = 0;
            }
            Event::Missed if is_asked => {
                self.counts.asked += 1;
                self.counts.missed += 1;
                self.row += 1;
                if self.row == 5 {
                    self.row = 0;
                    let change = self.ladder.fail(self.now, Cause::Silent);
                    self.take(change);
                }
            }
            Event::Answered | Event::Late | Event::Missed => {}
            Event::GoodProbe => {
                let change = self.ladder.probe(self.now);
                self.take(change);
            }
            Event::BadProbe => self.ladder.fail_probe(),
            Event::Lost => {
                let change = self.ladder.fail(self.now, Cause::Lost);
                self.take(change);
            }
        }
    }
}

proptest! {
    /// Changes follow each other, each from the rung of the one before to another one, over the
    /// ladder's own ways.
    #[test]
    fn every_change_is_a_step_of_the_ladder(events in events()) {
        use Rung::{Healthy, Open, Recovering, Slow};
        let mut course = Course::new();
        for (pause, event) in events {
            course.pass(ms(pause));
            course.meet(event);
        }
        let mut at = None;
        for (_, change) in &course.changes {
            prop_assert_eq!(change.from, at);
            let is_way = matches!(
                (at, change.to),
                (None | Some(Slow | Recovering), Healthy)
                    | (Some(Healthy), Slow)
                    | (Some(Healthy | Slow | Recovering), Open)
                    | (Some(Open), Recovering)
            );
            prop_assert!(is_way, "{change}");
            at = Some(change.to);
        }
        prop_assert_eq!(course.ladder.rung(), at.unwrap_or(Open));
    }

    /// Who answers in time, and keeps his connections, is asked: whatever was before.
    #[test]
    fn a_server_that_answers_is_never_open(events in events(), pauses in vec(0..40_u64, 1..600)) {
        let mut course = Course::new();
        for (pause, event) in events {
            course.pass(ms(pause));
            course.meet(event);
        }
        // What was missed before is judged within a second.
        for _ in 0..=COUNTS_MAX {
            course.pass(COUNT_PAUSE);
        }
        for _ in 0..PROBES_MIN << DOUBLINGS_MAX {
            course.pass(PROBE_PAUSE);
            course.meet(Event::GoodProbe);
        }
        prop_assert_ne!(course.ladder.rung(), Rung::Open, "it is back after its probes");
        let before = course.changes.len();
        for pause in pauses {
            course.pass(ms(pause));
            course.meet(Event::Answered);
        }
        let later = course.changes.get(before..).unwrap_or_default();
        prop_assert!(later.iter().all(|(_, change)| change.to == Rung::Healthy), "{later:?}");
    }

    /// Good answers alone lead back to healthy, in bounded time.
    #[test]
    fn a_server_without_a_fault_is_healthy_again_in_bounded_time(events in events()) {
        let mut course = Course::new();
        for (pause, event) in events {
            course.pass(ms(pause));
            course.meet(event);
        }
        let begin = course.now;
        while course.ladder.rung() != Rung::Healthy {
            course.pass(PROBE_PAUSE);
            course.meet(Event::GoodProbe);
            course.meet(Event::Answered);
            let probes = PROBES_MIN << DOUBLINGS_MAX;
            let bound = probes * PROBE_PAUSE + CLEAN_FOR + (COUNTS_MAX as u32 + 2) * COUNT_PAUSE;
            prop_assert!(course.now - begin <= 2 * bound, "{:?}", course.changes);
        }
    }

    /// What is said is a way of its own: each step from where the one before ended, and never twice
    /// the same; and what is said last is so, or the server is asked only since a moment ago.
    #[test]
    fn what_is_said_is_in_order_and_true(events in events()) {
        let mut course = Course::new();
        let mut said: Vec<Change> = Vec::new();
        for (pause, event) in events {
            course.pass(ms(pause));
            course.meet(event);
            said.extend(course.ladder.news(course.now));
            let last = said.last().map(|it| it.to);
            let (since, cause) = course.ladder.reached();
            if cause != Cause::New && last != Some(course.ladder.rung()) {
                prop_assert_eq!((last, course.ladder.rung()), (Some(Rung::Open), Rung::Recovering));
                prop_assert!(course.now - since < SAID_AFTER);
            }
        }
        for (one, next) in said.iter().zip(said.iter().skip(1)) {
            prop_assert!(next.from == Some(one.to) && next.to != one.to, "{one} {next}");
        }
    }

    /// Only a row of misses, a share of them, or a loss opens.
    #[test]
    fn nothing_opens_without_its_cause(events in events()) {
        let mut course = Course::new();
        let (mut missed, mut lost) = (Vec::new(), Vec::new());
        for (pause, event) in events {
            course.pass(ms(pause));
            let is_asked = course.ladder.rung() != Rung::Open;
            match event {
                Event::Missed if is_asked => missed.push(course.now),
                Event::Lost => lost.push(course.now),
                _ => {}
            }
            course.meet(event);
        }
        for (at, change) in course.changes.iter().filter(|(_, it)| it.to == Rung::Open) {
            let recent = missed.iter().filter(|it| **it <= *at && *at - **it <= ms(1500)).count();
            let all = missed.iter().filter(|it| **it <= *at).count();
            match change.cause {
                Cause::Lost => prop_assert!(lost.contains(at)),
                Cause::Silent => prop_assert!(all >= 5),
                Cause::Missed(some, of) => {
                    prop_assert!(recent as u64 >= some && of >= 20 && 2 * some >= of);
                }
                cause => prop_assert!(false, "{cause}"),
            }
        }
    }
}
