//! Tables of what ends of attempts mean, and laws that hold for any of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::config::{Queue, Statuses};

const SECOND: Duration = Duration::from_secs(1);

fn bounds(failures: u32, left: Duration) -> Bounds<'static> {
    Bounds { failures, attempts: 3, left, retry_on: &[] }
}

#[test]
fn every_end_of_an_attempt_has_its_meaning() {
    let counted = Verdict::Retry { is_counted: true };
    let refused = Verdict::Dead(Why::Refused);
    for (statuses, expected) in [
        (&[200, 201, 204, 299][..], Verdict::Done),
        (&[408, 409, 425, 429, 500, 502, 503, 504, 507, 599], counted),
        (&[301, 302, 304, 307, 400, 401, 403, 404, 405, 410, 413, 422, 501, 505], refused),
    ] {
        for status in statuses {
            let verdict = judge(Answered::Status(*status), bounds(0, SECOND));
            assert_eq!(verdict, expected, "{status}");
        }
    }
    assert_eq!(judge(Answered::InDoubt, bounds(0, SECOND)), counted);
    let uncounted = Verdict::Retry { is_counted: false };
    assert_eq!(judge(Answered::NotSent, bounds(0, SECOND)), uncounted);
    assert_eq!(judge(Answered::NoPlace, bounds(0, SECOND)), uncounted);
}

/// What is done stays done, and what always counts counts, whatever is written.
#[test]
fn a_queue_may_try_again_what_is_a_refusal_to_others() {
    let all = [Statuses::One(404), Statuses::Class(3), Statuses::One(501), Statuses::Class(2)];
    let of = |failures, status| {
        let bounds = Bounds { retry_on: &all, ..bounds(failures, SECOND) };
        judge(Answered::Status(status), bounds)
    };
    for status in [404, 300, 307, 399, 501, 500, 409] {
        assert_eq!(of(0, status), Verdict::Retry { is_counted: true }, "{status}");
        assert_eq!(of(2, status), Verdict::Dead(Why::Exhausted), "{status}");
    }
    for status in [400, 403, 405, 410, 505] {
        assert_eq!(of(0, status), Verdict::Dead(Why::Refused), "{status}");
    }
    assert_eq!((of(0, 200), of(2, 299)), (Verdict::Done, Verdict::Done));
}

#[test]
fn what_was_surely_not_executed_costs_no_attempt() {
    for failures in [0, 1, 2, 3, 99] {
        let verdict = judge(Answered::NotSent, bounds(failures, SECOND));
        assert_eq!(verdict, Verdict::Retry { is_counted: false }, "{failures}");
    }
    for (failures, expected) in [
        (0, Verdict::Retry { is_counted: true }),
        (1, Verdict::Retry { is_counted: true }),
        (2, Verdict::Dead(Why::Exhausted)),
    ] {
        assert_eq!(judge(Answered::Status(503), bounds(failures, SECOND)), expected, "{failures}");
    }
    let over = judge(Answered::NotSent, bounds(0, Duration::ZERO));
    assert_eq!(over, Verdict::Dead(Why::Expired));
}

#[test]
fn every_word_of_why_is_its_own() {
    let words: std::collections::BTreeSet<_> = Why::ALL.iter().map(|why| why.word()).collect();
    assert_eq!(words.len(), Why::ALL.len());
}

#[test]
fn a_pause_doubles_to_a_bound_and_half_of_it_is_sure() {
    let queue = Queue { backoff: SECOND, max_backoff: 10 * SECOND, ..Queue::default() };
    let ms = |failures, chance| Pauses::of(&queue).after(failures, None, chance).as_millis();
    assert_eq!([1, 2, 3, 4, 5, 99].map(|it| ms(it, 0.0)), [500, 1000, 2000, 4000, 5000, 5000]);
    assert_eq!([1, 2, 3, 4, 5, 99].map(|it| ms(it, 1.0)), [1000, 2000, 4000, 8000, 10_000, 10_000]);
}

#[test]
fn an_upstream_that_asks_for_time_gets_it_up_to_a_bound() {
    let queue = Queue { retry_after_max: 60 * SECOND, ..Queue::default() };
    let after = |asked: u64| Pauses::of(&queue).after(1, Some(Duration::from_secs(asked)), 0.0);
    assert_eq!(after(30), 30 * SECOND);
    assert_eq!(after(3600), 60 * SECOND);
    // Never earlier than it would be without.
    assert_eq!(after(0), SECOND / 2);
    let spread = Pauses::of(&queue).after(1, Some(30 * SECOND), 1.0);
    assert_eq!(spread, 33 * SECOND);
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
    let read = |text| retry_after(&HeaderValue::from_static(text), now);
    assert_eq!(read("120"), Some(120 * SECOND));
    assert_eq!(read("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10 * SECOND));
    assert_eq!(read("Sun, 06 Nov 1994 08:49:27 GMT"), Some(Duration::ZERO));
    assert_eq!(read("99999999999999999999"), Some(Duration::from_secs(u32::MAX.into())));
    for bad in ["", "-1", "1.5", "soon"] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn a_request_says_when_it_is_due() {
    let name = HeaderName::from_static("x-deliver-after");
    let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
    let due = |lines: &[&'static str]| {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(&name, HeaderValue::from_static(line));
        }
        due_in(Some(&name), &fields, 100 * SECOND, now)
    };
    for (lines, expected) in [
        (&[][..], Ok(Duration::ZERO)),
        (&["0"], Ok(Duration::ZERO)),
        (&["100"], Ok(100 * SECOND)),
        (&["101"], Err(DueFault::TooFar)),
        (&["1994-11-06T08:49:47Z"], Ok(10 * SECOND)),
        (&["1994-11-06T10:49:47+02:00"], Ok(10 * SECOND)),
        (&["Sun, 06 Nov 1994 08:49:47 GMT"], Ok(10 * SECOND)),
        (&["1990-01-01T00:00:00Z"], Ok(Duration::ZERO)),
        (&["tomorrow"], Err(DueFault::Malformed)),
        (&["1", "2"], Err(DueFault::Malformed)),
    ] {
        assert_eq!(due(lines), expected, "{lines:?}");
    }
    assert_eq!(due_in(None, &HeaderMap::new(), SECOND, SystemTime::now()), Ok(Duration::ZERO));
}

#[test]
fn a_client_may_wait_for_the_answer_as_long_as_it_is_allowed_to() {
    let wait = |line: &'static str, most| {
        let mut fields = HeaderMap::new();
        fields.insert(PREFER, HeaderValue::from_static(line));
        wait_of(&fields, most)
    };
    let most = 10 * SECOND;
    assert_eq!(wait("respond-async, wait=5", most), Some(5 * SECOND));
    assert_eq!(wait("Wait = \"5\"", most), Some(5 * SECOND));
    assert_eq!(wait("wait=500", most), Some(most));
    for (line, most) in [("wait=5", Duration::ZERO), ("wait=0", most), ("wait=x", most)] {
        assert_eq!(wait(line, most), None, "{line}");
    }
    assert_eq!(wait("respond-async", most), None);
}

fn head(fields: HeaderMap) -> Head {
    Head {
        route: "mail".into(),
        upstream: "mailer".into(),
        method: Method::POST,
        target: "/mail?x=%2F".parse().expect("a target"),
        fields,
        key: Some("k-1".into()),
        client: "2001:db8::1".parse().expect("an address"),
        trace: HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        stale: Vec::new(),
        accepted_ms: 1,
        due_ms: 2,
    }
}

#[test]
fn the_upstream_is_told_of_the_delivery_and_of_the_key() {
    let with_key = head(HeaderMap::new()).request("the-id", 3);
    let fields = with_key.headers();
    assert_eq!(fields["x-delivery-id"], "the-id");
    assert_eq!(fields["x-delivery-attempt"], "3");
    assert_eq!(fields["idempotency-key"], "k-1");
    assert_eq!(
        (with_key.method(), with_key.uri().to_string()),
        (&Method::POST, "/mail?x=%2F".into())
    );
    let without = Head { key: None, ..head(HeaderMap::new()) }.request("the-id", 1);
    assert_eq!(without.headers()["idempotency-key"], "the-id");
}

#[test]
fn a_queue_pauses_after_failures_in_a_row_and_comes_back_slowly() {
    let mut streak = Streak::default();
    let mut note = |answered| streak.note(answered, None, 0.0);
    for _ in 0..4 {
        assert_eq!(note(Answered::NotSent), None);
    }
    assert_eq!(note(Answered::Status(200)), None);
    for _ in 0..4 {
        assert_eq!(note(Answered::Status(503)), None);
    }
    // Places that are taken here are none of its failures.
    assert_eq!(note(Answered::NoPlace), None);
    assert_eq!(note(Answered::Status(429)), Some(SECOND / 2));
    // From here on one is asked at a time, and each that fails pauses twice as long.
    assert_eq!(streak.grant(16, 0), 1);
    assert_eq!(streak.grant(16, 1), 0);
    assert_eq!(streak.note(Answered::NotSent, None, 0.0), Some(SECOND));
    assert_eq!(streak.note(Answered::NotSent, None, 1.0), Some(4 * SECOND));
    let asked = Some(50 * SECOND);
    assert_eq!(streak.note(Answered::Status(503), asked, 0.0), Some(50 * SECOND));
    for _ in 0..9 {
        streak.note(Answered::NotSent, None, 1.0);
    }
    assert_eq!(streak.note(Answered::NotSent, Some(3600 * SECOND), 1.0), Some(60 * SECOND));
    for expected in [2, 4, 8] {
        assert_eq!(streak.note(Answered::Status(204), None, 0.0), None);
        assert_eq!(streak.grant(16, 0), expected);
    }
    for _ in 0..9 {
        streak.note(Answered::Status(204), None, 0.0);
    }
    assert_eq!(streak.grant(500, 0), 500);
}

#[test]
fn an_answer_is_kept_without_what_was_meant_for_one_connection() {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("content-type", "text/plain"),
        ("set-cookie", "sid=1"),
        ("connection", "close"),
        ("content-length", "3"),
        ("x-request-id", "other"),
    ] {
        fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let body = Bytes::from_static(b"yes");
    let kept = Kept::new(StatusCode::CREATED, &fields, Some(body.clone()));
    let again = Kept::unpack(&kept.pack().into(), body).expect("what was packed");
    assert_eq!(again, kept);
    let response = again.response();
    assert_eq!((response.status(), response.body().as_ref()), (StatusCode::CREATED, &b"yes"[..]));
    assert_eq!(response.headers().len(), 1);
    let lost = Kept::new(StatusCode::OK, &fields, None);
    assert_eq!(Kept::unpack(&lost.pack().into(), Bytes::new()), Some(lost));
}

#[test]
fn owners_and_lines_are_told_apart() {
    let all = [
        owner_of(Some(("a", "bc")), "x"),
        owner_of(Some(("ab", "c")), "x"),
        owner_of(None, "a"),
        owner_of(None, "b"),
        line_of("a", b"bc"),
        line_of("ab", b"c"),
    ];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(owner_of(Some(("a", "b")), "x"), owner_of(Some(("a", "b")), "y"));
}

proptest! {
    #[test]
    fn whatever_is_kept_of_a_request_comes_back(
        key in proptest::option::of("[!-~]{1,40}"),
        values in proptest::collection::vec("[ -~]{0,20}", 0..8),
        stale in proptest::collection::vec("[ -~]{0,20}", 0..4),
        (accepted_ms, due_ms) in any::<(u64, u64)>(),
    ) {
        let mut fields = HeaderMap::new();
        for value in &values {
            fields.append("x-a", HeaderValue::from_str(value).expect("visible"));
        }
        let head = Head { key, stale, accepted_ms, due_ms, ..head(fields) };
        prop_assert_eq!(Head::unpack(&head.pack().into()), Some(head));
    }

    #[test]
    fn nothing_else_is_taken_for_a_request(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assert_eq!(Head::unpack(&bytes.into()), None);
    }

    #[test]
    fn a_pause_is_within_its_bounds(
        failures in any::<u32>(),
        asked in proptest::option::of(0_u64..100_000_000),
        chance in 0.0..=1.0_f64,
    ) {
        let queue = Queue::default();
        let pause = Pauses::of(&queue).after(failures, asked.map(Duration::from_secs), chance);
        prop_assert!(pause >= queue.backoff / 2);
        prop_assert!(pause <= queue.max_backoff.max(queue.retry_after_max.mul_f64(1.1)));
    }

    #[test]
    fn an_attempt_never_ends_a_delivery_that_may_still_succeed(
        status in 100_u16..=599,
        failures in 0_u32..50,
        left_ms in 0_u64..10,
    ) {
        let left = Duration::from_millis(left_ms);
        let bounds = Bounds { failures, attempts: 25, left, retry_on: &[] };
        match judge(Answered::Status(status), bounds) {
            Verdict::Done => prop_assert!((200..300).contains(&status)),
            Verdict::Retry { .. } => prop_assert!(left_ms > 0 && failures + 1 < 25),
            Verdict::Dead(Why::Refused) => {
                prop_assert!(![408, 409, 425, 429, 500, 503].contains(&status));
            }
            Verdict::Dead(Why::Expired) => prop_assert_eq!(left_ms, 0),
            Verdict::Dead(Why::Exhausted) => prop_assert!(failures + 1 >= 25),
            Verdict::Dead(why) => prop_assert!(false, "{:?}", why),
        }
    }
}
