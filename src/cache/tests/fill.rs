//! Bodies in the making: the bound, the announced length, giving up; and the reports of it all.

use super::super::{CacheStatus, Fill, Forward, Verdict};
use bytes::Bytes;

fn filled(max_bytes: usize, pieces: &[&'static str]) -> (bool, Fill) {
    let mut fill = Fill::new(max_bytes);
    let took =
        pieces.iter().fold(true, |_, piece| fill.push(&Bytes::from_static(piece.as_bytes())));
    (took, fill)
}

#[test]
fn a_body_is_kept_up_to_its_bound_and_not_a_byte_more() {
    let (took, fill) = filled(5, &["ab", "", "cde"]);
    assert!(took);
    assert_eq!(fill.finish(Some(5)).as_deref(), Some(&b"abcde"[..]));

    let (took, mut fill) = filled(5, &["ab", "cdef"]);
    assert!(!took);
    assert!(!fill.push(&Bytes::new()), "what was given up stays given up");
    assert_eq!(fill.finish(None), None);
}

#[test]
fn a_body_that_ends_early_or_late_is_not_kept() {
    for (announced, kept) in [(None, true), (Some(3), true), (Some(2), false), (Some(4), false)] {
        assert_eq!(filled(9, &["abc"]).1.finish(announced).is_some(), kept, "{announced:?}");
    }
    assert_eq!(filled(9, &[]).1.finish(Some(0)), Some(Bytes::new()));
}

#[test]
fn trailers_and_failures_end_a_fill() {
    let (_, mut fill) = filled(9, &["abc"]);
    fill.give_up();
    assert_eq!(fill.finish(Some(3)), None);
}

#[test]
fn cache_status_is_written_as_rfc_9211_says() {
    let forwarded = |why, stored| CacheStatus::Forwarded { why, stored };
    let cases = [
        (CacheStatus::Hit { ttl: 12 }, "portcullis; hit; ttl=12"),
        (CacheStatus::Hit { ttl: u64::MAX }, "portcullis; hit; ttl=999999999999999"),
        (forwarded(Forward::UriMiss, true), "portcullis; fwd=uri-miss; stored"),
        (forwarded(Forward::UriMiss, false), "portcullis; fwd=uri-miss"),
        (forwarded(Forward::VaryMiss, true), "portcullis; fwd=vary-miss; stored"),
        (forwarded(Forward::Stale, true), "portcullis; fwd=stale; stored"),
        (forwarded(Forward::Request, false), "portcullis; fwd=request"),
        (forwarded(Forward::Bypass, false), "portcullis; fwd=bypass"),
        (forwarded(Forward::Method, false), "portcullis; fwd=method"),
    ];
    for (status, expected) in cases {
        assert_eq!(status.header(), expected);
    }
}

#[test]
fn a_verdict_knows_what_to_report() {
    assert_eq!(Verdict::Hit { age: 0 }.forward(), None);
    assert_eq!(Verdict::NotModified { age: 0 }.forward(), None);
    assert_eq!(Verdict::VaryMiss.forward(), Some(Forward::VaryMiss));
    assert_eq!(Verdict::Stale.forward(), Some(Forward::Stale));
    assert_eq!(Verdict::RequestForbids.forward(), Some(Forward::Request));
}
