//! Judging stored answers: freshness at its edges, Vary, the request's own wishes, conditions.

use super::super::{Stored, Verdict, judge, lookup};
use super::{DATE, MINUTE_BEFORE, MINUTE_LATER, NOW, entry, fields};
use http::Method;

fn verdict(stored: &Stored, request: &str, later_ms: u64) -> Verdict {
    let request = fields(request);
    let intent = lookup(&Method::GET, &request, false);
    judge(stored, &request, &intent, NOW + later_ms)
}

#[test]
fn fresh_until_the_lifetime_and_not_at_it() {
    let stored = entry(200, "");
    assert_eq!(verdict(&stored, "", 0), Verdict::Hit { age: 0 });
    assert_eq!(verdict(&stored, "", 59_999), Verdict::Hit { age: 59 });
    assert_eq!(verdict(&stored, "", 60_000), Verdict::Stale);
    let forever = judge(&stored, &fields(""), &lookup(&Method::GET, &fields(""), false), u64::MAX);
    assert_eq!(forever, Verdict::Stale);
    let newborn = Stored { born_ms: NOW + 5_000, ..stored };
    assert_eq!(verdict(&newborn, "", 0), Verdict::Hit { age: 0 }, "a clock that stepped back");
    let huge = Stored { lifetime_s: u32::MAX, born_ms: 0, ..newborn };
    assert_eq!(verdict(&huge, "", 0), Verdict::Hit { age: NOW / 1000 });
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
            if is_hit { Verdict::Hit { age: later_ms / 1000 } } else { Verdict::RequestForbids };
        assert_eq!(verdict, expected, "{request} after {later_ms} ms");
    }
    let asks_for_stale = verdict(&entry(200, ""), "cache-control: max-stale=99", 60_000);
    assert_eq!(asks_for_stale, Verdict::Stale);
}

#[test]
fn every_selecting_field_must_be_the_same() {
    let value = |text: &'static str| Some(text.as_bytes().into());
    let mut stored = entry(200, "");
    stored.vary =
        vec![("accept".parse().unwrap(), value("a, b")), ("x-absent".parse().unwrap(), None)];
    let cases = [
        ("accept: a, b", true),
        ("accept: a\naccept: b", true),
        ("accept:   a, b  ", true),
        ("accept: a", false),
        ("accept: b\naccept: a", false),
        ("", false),
        ("accept: a, b\nx-absent:", false),
        ("accept: a, b\nx-absent: 1", false),
    ];
    for (request, is_same) in cases {
        let verdict = verdict(&stored, request, 0);
        let expected = if is_same { Verdict::Hit { age: 0 } } else { Verdict::VaryMiss };
        assert_eq!(verdict, expected, "{request:?}");
    }
}

#[test]
fn if_none_match_compares_weakly_and_decides_alone() {
    let cases = [
        ("etag: \"a\"", "if-none-match: \"a\"", true),
        ("etag: \"a\"", "if-none-match: W/\"a\"", true),
        ("etag: W/\"a\"", "if-none-match: \"a\"", true),
        ("etag: \"a\"", "if-none-match: \"b\", \"a\"", true),
        ("etag: \"a\"", "if-none-match: \"b\"\nif-none-match: \"a\"", true),
        ("etag: \"a,b\"", "if-none-match: \"x\",\"a,b\"", true),
        ("etag: \"a\"", "if-none-match: \"x, \"a\"", false),
        ("etag: \"a\"", "if-none-match: *", true),
        ("", "if-none-match: *", true),
        ("etag: \"a\"", "if-none-match: \"A\"", false),
        ("etag: \"a\"", "if-none-match: a", false),
        ("etag: a", "if-none-match: a", false),
        ("etag: \"a\"", "if-none-match: w/\"a\"", false),
        ("etag: \"a\"", "if-none-match: \"ab\"", false),
        ("", "if-none-match: \"\"", false),
    ];
    for (stored, request, is_same) in cases {
        let verdict = verdict(&entry(200, stored), request, 1_000);
        let expected =
            if is_same { Verdict::NotModified { age: 1 } } else { Verdict::Hit { age: 1 } };
        assert_eq!(verdict, expected, "{stored:?} {request:?}");
    }
    let both = format!("if-none-match: \"b\"\nif-modified-since: {MINUTE_LATER}");
    let stored = entry(200, &format!("etag: \"a\"\nlast-modified: {DATE}"));
    assert_eq!(verdict(&stored, &both, 0), Verdict::Hit { age: 0 });
}

#[test]
fn if_modified_since_uses_last_modified_and_else_the_date() {
    let (same, before) =
        (format!("last-modified: {DATE}"), format!("last-modified: {MINUTE_BEFORE}"));
    let since = |date: &str| format!("if-modified-since: {date}");
    let cases = [
        (same.clone(), since(DATE), true),
        (same.clone(), since(MINUTE_LATER), true),
        (same.clone(), since(MINUTE_BEFORE), false),
        (before, since(MINUTE_BEFORE), true),
        (format!("date: {DATE}"), since(DATE), true),
        (format!("date: {DATE}"), since(MINUTE_BEFORE), false),
        ("last-modified: yesterday".to_owned(), since(MINUTE_LATER), false),
        (same.clone(), since("yesterday"), false),
        (same, format!("{}\n{}", since(DATE), since(DATE)), false),
    ];
    for (stored, request, is_same) in cases {
        let verdict = verdict(&entry(200, &stored), &request, 0);
        let expected =
            if is_same { Verdict::NotModified { age: 0 } } else { Verdict::Hit { age: 0 } };
        assert_eq!(verdict, expected, "{stored:?} {request:?}");
    }
}

#[test]
fn only_a_success_can_be_not_modified() {
    for (status, is_304) in [(200, true), (203, true), (301, false), (404, false)] {
        let verdict = verdict(&entry(status, "etag: \"a\""), "if-none-match: \"a\"", 0);
        assert_eq!(matches!(verdict, Verdict::NotModified { .. }), is_304, "{status}");
    }
}

#[test]
fn stale_beats_the_condition() {
    let stored = entry(200, "etag: \"a\"");
    assert_eq!(verdict(&stored, "if-none-match: \"a\"", 60_000), Verdict::Stale);
}
