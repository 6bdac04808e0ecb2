//! Validation: what is asked, which answers count, and what an entry is afterwards.

use super::super::{
    Freshened, HeadUpdate, RequestContext, Stored, WhyNot, conditions, confirms, freshened,
    head_update, lookup,
};
use super::{DATE, MINUTE_BEFORE, MINUTE_LATER, NOW, entry, fields};
use crate::config;
use http::{HeaderMap, Method, StatusCode};

fn with_request<T>(
    request: &str,
    use_it: impl FnOnce(&config::Cache, &RequestContext<'_>) -> T,
) -> T {
    let (policy, headers) = (config::Cache::default(), fields(request));
    let intent = lookup(&policy, &Method::GET, &headers, false);
    let context = RequestContext {
        intent: &intent,
        headers: &headers,
        authenticated: false,
        per_user: false,
        ends_identity: false,
        sent_ms: NOW + 90_000,
    };
    use_it(&policy, &context)
}

/// The entry after a 304 a minute and a half later.
fn after(stored: &Stored, request: &str, headers: &str) -> Freshened {
    with_request(request, |policy, request| {
        freshened(stored, &fields(headers), policy, request, NOW + 90_000)
    })
}

#[test]
fn both_validators_are_asked_with_and_no_others() {
    let asked = |headers: &str| conditions(&entry(200, headers)).into_iter().collect::<HeaderMap>();
    let both = format!("etag: W/\"a\"\nlast-modified: {DATE}");
    assert_eq!(asked(&both), fields(&format!("if-none-match: W/\"a\"\nif-modified-since: {DATE}")));
    let old = "Thursday, 01-Jan-26 00:00:00 GMT";
    let verbatim = fields(&format!("if-modified-since: {old}"));
    assert_eq!(asked(&format!("last-modified: {old}")), verbatim);
    for none in ["", "etag: a", "last-modified: today", "etag: \"a\"\netag: \"b\""] {
        assert_eq!(asked(none), HeaderMap::new(), "{none:?}");
        assert!(!entry(200, none).can_validate(), "{none:?}");
    }
}

#[test]
fn a_304_counts_for_the_entry_it_names() {
    let (old, new) = (format!("last-modified: {DATE}"), format!("last-modified: {MINUTE_LATER}"));
    let cases = [
        ("etag: \"a\"", "etag: \"a\"", true),
        ("etag: \"a\"", "etag: \"b\"", false),
        ("etag: \"a\"", "etag: W/\"a\"", true),
        ("etag: W/\"a\"", "etag: W/\"a\"", true),
        ("etag: W/\"a\"", "etag: \"a\"", false),
        ("etag: \"a\"", "etag: a", false),
        ("etag: \"a\"", "", true),
        ("etag: \"a\"", "cache-control: max-age=9", true),
        (&old, &old, true),
        (&old, &new, false),
        (&old, "last-modified: x", false),
        (&old, "", true),
        (&old, "etag: \"a\"", false),
        ("", "", false),
        ("", "etag: \"a\"", false),
    ];
    for (stored, answer, expected) in cases {
        assert_eq!(confirms(&entry(200, stored), &fields(answer)), expected, "{stored} {answer}");
    }
    let both = entry(200, &format!("etag: \"a\"\n{old}"));
    assert!(confirms(&both, &fields(&format!("etag: \"a\"\n{new}"))), "the tag decides");
}

#[test]
fn a_304_replaces_the_head_but_not_what_describes_the_body() {
    let stored = entry(
        200,
        "cache-control: max-age=60\netag: \"a\"\ncontent-encoding: gzip\ncontent-type: a/b\n\
         x-old: 1\nx-both: 1\nx-both: 2",
    );
    let answer = "cache-control: max-age=90\netag: \"a\"\ncontent-encoding: br\ncontent-length: 0\n\
        content-range: x\ncontent-type: a/c\nx-both: 3\nx-new: 1\nx-new: 2\nage: 5\n\
        connection: x-hop\nx-hop: 1\nkeep-alive: 1\ntransfer-encoding: chunked";
    let after = after(&stored, "", answer);
    let expected = "cache-control: max-age=90\netag: \"a\"\ncontent-encoding: gzip\n\
        content-type: a/c\nx-old: 1\nx-both: 3\nx-new: 1\nx-new: 2\n\
        date: Thu, 01 Jan 2026 00:01:30 GMT";
    assert_eq!(after.stored.headers, fields(expected));
    assert_eq!(after.keep, Ok(()));
    assert_eq!(after.stored.born_ms, NOW + 85_000, "the new age alone counts");
    assert_eq!(after.stored.answered_ms, NOW + 90_000);
    assert_eq!(after.stored.lifetime_s, 90);
    assert_eq!(after.stored.body, stored.body);
    assert_eq!((&after.stored.key, &after.stored.epochs), (&stored.key, &stored.epochs));
    assert!(after.stored.remaining_ms(NOW + 90_000) > 0);
}

#[test]
fn the_old_date_is_not_held_against_a_new_answer() {
    let old = format!("cache-control: max-age=60\netag: \"a\"\ndate: {MINUTE_BEFORE}");
    let stored = entry(200, &old);
    assert_eq!(after(&stored, "", "").stored.age_ms(NOW + 90_000), 0);
    let dated = after(&stored, "", &format!("date: {MINUTE_LATER}")).stored;
    assert_eq!(dated.age_ms(NOW + 90_000), 30_000);
}

#[test]
fn a_304_may_end_it() {
    let stored = entry(200, "cache-control: max-age=60\netag: \"a\"\nx: 1");
    let cases = [
        ("", "cache-control: no-store", Err(WhyNot::NoStore)),
        ("", "cache-control: private, max-age=60", Err(WhyNot::Private)),
        ("", "vary: *", Err(WhyNot::Vary)),
        ("", "set-cookie: a=1", Err(WhyNot::SetCookie)),
        ("", "cache-control: x=\"", Err(WhyNot::NoStore)),
        ("cache-control: no-store", "", Err(WhyNot::Request)),
        ("authorization: x", "", Err(WhyNot::Authenticated)),
        ("", "cache-control: max-age=0", Ok(())),
        ("cache-control: no-cache", "", Ok(())),
    ];
    for (request, answer, keep) in cases {
        let after = after(&stored, request, answer);
        assert_eq!(after.keep, keep, "{request:?} {answer:?}");
        assert_eq!(after.stored.headers["x"], "1", "it answers this request all the same");
        assert_eq!(after.stored.body, stored.body);
    }
}

#[test]
fn a_304_may_change_what_selects() {
    let stored = entry(200, "cache-control: max-age=60\netag: \"a\"");
    let moved = after(&stored, "accept: b", "vary: accept").stored;
    assert_eq!(moved.vary, [("accept".parse().unwrap(), Some("b".into()))]);
    let again = after(&moved, "accept: b", "vary: x").stored;
    assert_eq!(again.vary, [("x".parse().unwrap(), None)]);
}

#[test]
fn tags_stay_unless_they_are_told_anew() {
    let mut stored = entry(200, "cache-control: max-age=60\netag: \"a\"\ncache-groups: \"g\"");
    stored.tags = vec!["t".to_owned()];
    let kept = after(&stored, "", "").stored;
    assert_eq!((kept.tags, kept.groups), (vec!["t".to_owned()], vec!["g".to_owned()]));
    let told = after(&stored, "", "xkey: u\ncache-groups: \"h\"").stored;
    assert_eq!((told.tags, told.groups), (vec!["u".to_owned()], vec!["h".to_owned()]));
    assert!(!told.headers.contains_key("xkey"));
}

#[test]
fn a_head_confirms_or_outdates() {
    let stored =
        entry(200, &format!("cache-control: max-age=60\netag: \"a\"\nlast-modified: {DATE}"));
    let learned = |status: u16, headers: &str| {
        with_request("", |policy, request| {
            let status = StatusCode::from_u16(status).unwrap();
            head_update(&stored, status, &fields(headers), policy, (request, NOW + 90_000))
        })
    };
    let good = format!("etag: \"a\"\nlast-modified: {DATE}\ncontent-length: 4\nx: 1");
    let HeadUpdate::Confirmed(fresh) = learned(200, &good) else {
        panic!("{:?}", learned(200, &good))
    };
    assert_eq!(fresh.stored.headers["x"], "1");
    assert_eq!(fresh.stored.answered_ms, NOW + 90_000);
    for other in [
        "etag: \"b\"",
        "content-length: 5",
        "content-length: 4\ncontent-length: 4",
        "etag: \"a\"\ncontent-length: 3",
        &format!("etag: \"a\"\nlast-modified: {MINUTE_LATER}"),
    ] {
        assert_eq!(learned(200, other), HeadUpdate::Outdated, "{other}");
    }
    for status in [304, 404, 500, 301] {
        assert_eq!(learned(status, "etag: \"b\""), HeadUpdate::None, "{status}");
    }
}
