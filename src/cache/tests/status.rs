//! Reports: what Cache-Status looks like.

use super::super::{CacheStatus, Forward};

#[test]
fn cache_status_is_written_as_rfc_9211_says() {
    let forwarded = CacheStatus::forwarded;
    let stale = forwarded(Forward::Stale, true);
    let cases = [
        (CacheStatus::hit(12), "portcullis; hit; ttl=12"),
        (CacheStatus::hit(-3), "portcullis; hit; ttl=-3"),
        (CacheStatus::hit(i64::MAX), "portcullis; hit; ttl=999999999999999"),
        (CacheStatus::hit(i64::MIN), "portcullis; hit; ttl=-999999999999999"),
        (forwarded(Forward::UriMiss, true), "portcullis; fwd=uri-miss; stored"),
        (forwarded(Forward::UriMiss, false), "portcullis; fwd=uri-miss"),
        (forwarded(Forward::VaryMiss, true), "portcullis; fwd=vary-miss; stored"),
        (forwarded(Forward::Miss, false), "portcullis; fwd=miss"),
        (stale, "portcullis; fwd=stale; stored"),
        (forwarded(Forward::Request, false), "portcullis; fwd=request"),
        (forwarded(Forward::Bypass, false), "portcullis; fwd=bypass"),
        (forwarded(Forward::Method, false), "portcullis; fwd=method"),
        (
            CacheStatus { forward_status: Some(304), ttl: Some(60), ..stale },
            "portcullis; fwd=stale; fwd-status=304; ttl=60; stored",
        ),
        (
            CacheStatus { collapsed: Some(true), ..stale },
            "portcullis; fwd=stale; stored; collapsed",
        ),
        (
            CacheStatus { collapsed: Some(false), stored: false, ..stale },
            "portcullis; fwd=stale; collapsed=?0",
        ),
        (
            CacheStatus { key: Some("a\"\\b"), detail: Some("x y"), ..CacheStatus::hit(1) },
            "portcullis; hit; ttl=1; key=\"a\\\"\\\\b\"; detail=\"x y\"",
        ),
        (CacheStatus { key: Some("\u{e9}"), ..CacheStatus::hit(1) }, "portcullis; hit; ttl=1"),
        // Neither of these belongs to a hit.
        (
            CacheStatus {
                stored: true,
                collapsed: Some(true),
                forward_status: Some(1),
                ..CacheStatus::hit(1)
            },
            "portcullis; hit; ttl=1",
        ),
    ];
    for (status, expected) in cases {
        assert_eq!(status.header(), expected);
        let text = status.header();
        assert!(sfv::Parser::new(text.as_bytes()).parse::<sfv::List>().is_ok(), "{expected}");
    }
}
