//! Judging stored answers: freshness at its edges, Vary, the request's own wishes, failures.

use super::super::{Failure, Flags, Forward, Intent, Stored, Verdict, judge, lookup, usable_after};
use super::{NOW, entry, fields};
use crate::config;
use http::{Method, StatusCode};
use std::time::Duration;

fn verdict(stored: &Stored, request: &str, later_ms: u64) -> Verdict {
    judged(stored, request, false, later_ms)
}

fn judged(stored: &Stored, request: &str, purged: bool, later_ms: u64) -> Verdict {
    judge(stored, &fields(request), &intent(request), purged, NOW + later_ms)
}

fn intent(request: &str) -> Intent {
    lookup(&config::Cache::default(), &Method::GET, &fields(request), false)
}

#[test]
fn fresh_until_the_lifetime_and_not_at_it() {
    let stored = entry(200, "");
    assert_eq!(verdict(&stored, "", 0), Verdict::Fresh { age: 0 });
    assert_eq!(verdict(&stored, "", 59_999), Verdict::Fresh { age: 59 });
    assert_eq!(verdict(&stored, "", 60_000), Verdict::Revalidate);
    let forever = judge(&stored, &fields(""), &intent(""), false, u64::MAX);
    assert_eq!(forever, Verdict::Revalidate);
    let newborn = Stored { born_ms: NOW + 5_000, ..stored };
    assert_eq!(verdict(&newborn, "", 0), Verdict::Fresh { age: 0 }, "a clock that stepped back");
    let huge = Stored { lifetime_s: u32::MAX, born_ms: 0, ..newborn };
    assert_eq!(verdict(&huge, "", 0), Verdict::Fresh { age: NOW / 1000 });
}

#[test]
fn the_request_may_ask_for_more_than_fresh() {
    let cases = [
        ("cache-control: max-age=10", 10_000, true),
        ("cache-control: max-age=10", 10_001, false),
        ("cache-control: max-age=0", 1, false),
        ("cache-control: max-age=x", 1, false),
        ("cache-control: min-fresh=20", 40_000, true),
        ("cache-control: min-fresh=20", 40_001, false),
        ("cache-control: min-fresh=x", 0, false),
        ("cache-control: no-cache", 0, false),
        ("pragma: no-cache", 0, false),
        ("cache-control: no-store", 0, true),
        ("cache-control: only-if-cached", 0, true),
    ];
    for (request, later_ms, is_hit) in cases {
        let verdict = verdict(&entry(200, ""), request, later_ms);
        let expected =
            if is_hit { Verdict::Fresh { age: later_ms / 1000 } } else { Verdict::RequestForbids };
        assert_eq!(verdict, expected, "{request} after {later_ms} ms");
    }
}

#[test]
fn a_client_may_take_a_stale_answer_unless_the_origin_forbids_it() {
    let with = |flags| Stored { flags, ..entry(200, "") };
    let plain = with(Flags::default());
    let cases = [
        ("max-stale", 1_000_000, true),
        ("max-stale=30", 90_000, true),
        ("max-stale=30", 90_001, false),
        ("max-stale=0", 60_000, true),
        ("max-stale=x", 61_000, false),
        ("max-stale, max-age=80", 80_000, true),
        ("max-stale, max-age=80", 80_001, false),
        ("max-stale, min-fresh=1", 60_000, false),
        ("max-stale, no-cache", 60_000, false),
    ];
    for (control, later, is_taken) in cases {
        let request = format!("cache-control: {control}");
        let expected =
            if is_taken { Verdict::Fresh { age: later / 1000 } } else { Verdict::Revalidate };
        assert_eq!(verdict(&plain, &request, later), expected, "{control} after {later} ms");
        for flags in [
            Flags { never_stale: true, ..Flags::default() },
            Flags { no_cache: true, never_stale: true, ..Flags::default() },
        ] {
            assert_eq!(verdict(&with(flags), &request, later), Verdict::Revalidate, "{control}");
        }
        assert_eq!(
            judged(&plain, &request, true, later),
            Verdict::Revalidate,
            "nobody knows since when"
        );
    }
}

#[test]
fn a_stale_answer_serves_while_it_is_renewed() {
    let stored = Stored { swr_s: 30, ..entry(200, "") };
    let serve = |later: u64| Verdict::StaleWhileRevalidate { age: later / 1000 };
    assert_eq!(verdict(&stored, "", 59_999), Verdict::Fresh { age: 59 });
    assert_eq!(verdict(&stored, "", 60_000), serve(60_000));
    assert_eq!(verdict(&stored, "", 89_999), serve(89_999));
    assert_eq!(verdict(&stored, "", 90_000), Verdict::Revalidate);
    for request in ["no-cache", "max-age=10", "min-fresh=0"] {
        let request = format!("cache-control: {request}");
        assert_eq!(verdict(&stored, &request, 60_000), Verdict::Revalidate, "{request}");
    }
    assert_eq!(judged(&stored, "", true, 0), serve(0), "a soft purge");
    assert_eq!(judged(&stored, "", true, 90_000), Verdict::Revalidate);
    assert_eq!(judged(&entry(200, ""), "", true, 0), Verdict::Revalidate);
}

#[test]
fn what_needs_validation_is_never_fresh() {
    let flags = Flags { no_cache: true, never_stale: true, immutable: true };
    let stored = Stored { flags, swr_s: 30, ..entry(200, "") };
    for request in ["", "cache-control: max-stale", "cache-control: only-if-cached"] {
        assert_eq!(verdict(&stored, request, 0), Verdict::Revalidate, "{request}");
    }
}

#[test]
fn a_reload_of_what_never_changes_is_a_hit() {
    let flags = Flags { immutable: true, ..Flags::default() };
    let stored = Stored { flags, ..entry(200, "") };
    let cases = [
        ("cache-control: max-age=0", 1_000, Verdict::Fresh { age: 1 }),
        ("cache-control: max-age=0", 60_000, Verdict::Revalidate),
        ("cache-control: no-cache", 1_000, Verdict::RequestForbids),
        ("pragma: no-cache", 1_000, Verdict::RequestForbids),
        ("cache-control: min-fresh=60", 1_000, Verdict::RequestForbids),
    ];
    for (request, later, expected) in cases {
        assert_eq!(verdict(&stored, request, later), expected, "{request} {later}");
    }
}

#[test]
fn a_failure_is_hidden_within_bounds() {
    let seconds = Duration::from_secs;
    let status = |code: u16| Failure::Status(StatusCode::from_u16(code).unwrap());
    let policy = |disconnected| config::Cache {
        stale_when_disconnected: seconds(disconnected),
        ..config::Cache::default()
    };
    let usable = |failure, stored: &Stored, request: &str, disconnected, later_ms| {
        usable_after(
            failure,
            (stored, false),
            &intent(request),
            &policy(disconnected),
            NOW + later_ms,
        )
    };
    let plain = entry(200, "");
    let lasting = Stored { sie_s: 30, ..entry(200, "") };
    let cases = [
        (Failure::NoAnswer, &plain, 20, 60_000, true),
        (Failure::NoAnswer, &plain, 20, 79_999, true),
        (Failure::NoAnswer, &plain, 20, 80_000, false),
        (Failure::NoAnswer, &plain, 0, 60_000, false),
        (Failure::NoAnswer, &lasting, 0, 89_999, true),
        (status(503), &plain, 20, 60_000, false),
        (status(500), &lasting, 0, 89_999, true),
        (status(502), &lasting, 0, 89_999, true),
        (status(503), &lasting, 0, 89_999, true),
        (status(504), &lasting, 0, 90_000, false),
        (status(501), &lasting, 0, 60_000, false),
        (status(404), &lasting, 0, 60_000, false),
        (status(503), &plain, 0, 59_999, true),
    ];
    for (failure, stored, disconnected, later, expected) in cases {
        let found = usable(failure, stored, "", disconnected, later);
        assert_eq!(found, expected, "{failure:?} {disconnected} after {later} ms");
        assert!(!usable(failure, stored, "cache-control: no-cache", disconnected, later));
        let flags = Flags { never_stale: true, ..Flags::default() };
        let strict = Stored { flags, ..stored.clone() };
        let found = usable(failure, &strict, "", disconnected, later);
        assert_eq!(found, expected && later < 60_000, "{failure:?}, forbidden");
        let flags = Flags { no_cache: true, never_stale: true, ..Flags::default() };
        assert!(!usable(failure, &Stored { flags, ..stored.clone() }, "", disconnected, later));
    }
    let asks = "cache-control: stale-if-error=30";
    assert!(usable(status(503), &plain, asks, 0, 89_999));
    assert!(!usable(status(503), &plain, asks, 0, 90_000));
}

#[test]
fn a_verdict_knows_what_to_report() {
    assert_eq!(Verdict::Fresh { age: 0 }.forward(), None);
    assert_eq!(Verdict::StaleWhileRevalidate { age: 0 }.forward(), None);
    assert_eq!(Verdict::VaryMiss.forward(), Some(Forward::VaryMiss));
    assert_eq!(Verdict::Revalidate.forward(), Some(Forward::Stale));
    assert_eq!(Verdict::RequestForbids.forward(), Some(Forward::Request));
}

#[test]
fn every_selecting_field_must_be_the_same() {
    let value = |text: &'static str| Some(text.as_bytes().into());
    let mut stored = entry(200, "");
    stored.vary =
        vec![("accept".parse().unwrap(), value("a,b")), ("x-absent".parse().unwrap(), None)];
    let cases = [
        ("accept: a, b", true),
        ("accept: a\naccept: b", true),
        ("accept:   a, b  ", true),
        ("accept: a,b", true),
        ("accept: a", false),
        ("accept: b\naccept: a", false),
        ("", false),
        ("accept: a, b\nx-absent:", false),
        ("accept: a, b\nx-absent: 1", false),
    ];
    for (request, is_same) in cases {
        let verdict = verdict(&stored, request, 0);
        let expected = if is_same { Verdict::Fresh { age: 0 } } else { Verdict::VaryMiss };
        assert_eq!(verdict, expected, "{request:?}");
    }
}
