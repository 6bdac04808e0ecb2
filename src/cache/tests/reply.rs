//! Answers made of stored ones: conditions, parts, heads.

use super::super::{Chunked, Piece, Reply, Stored, StoredBody, reply};
use super::{DATE, MINUTE_BEFORE, MINUTE_LATER, entry, fields};
use bytes::Bytes;
use http::{Method, StatusCode};
use proptest::prelude::*;

fn get(stored: &Stored, request: &str) -> Reply {
    reply(stored, &Method::GET, &fields(request), 7)
}

fn text(stored: &Stored, reply: &Reply) -> String {
    let body = reply.gather(stored.body.inline().unwrap()).unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

fn statuses(stored: &Stored, cases: &[(&str, u16)]) {
    for (request, status) in cases {
        assert_eq!(get(stored, request).status, *status, "{request:?}");
    }
}

#[test]
fn a_hit_carries_age_length_and_the_first_date() {
    let link = "link: <a>\nlink: <b>\ncontent-type: text/plain";
    let stored = entry(404, &format!("date: {MINUTE_BEFORE}\n{link}"));
    let whole = get(&stored, "");
    assert_eq!(whole.status, 404);
    let expected = fields(&format!("date: {MINUTE_BEFORE}\n{link}\ncontent-length: 4\nage: 7"));
    assert_eq!(whole.headers, expected);
    assert_eq!(text(&stored, &whole), "body");

    let head = reply(&stored, &Method::HEAD, &fields(""), 7);
    assert_eq!(head.headers, expected);
    assert!(head.body.is_empty());

    let dated = get(&entry(200, ""), "");
    assert_eq!(dated.headers["date"], DATE, "an answer without a date gets that of arrival");
    assert!(!get(&entry(204, ""), "").headers.contains_key("content-length"));
}

#[test]
fn a_304_carries_what_guides_a_cache_and_no_more() {
    let kept = format!(
        "cache-control: max-age=60\ncontent-location: /a\ndate: {DATE}\netag: \"a\"\n\
         expires: 0\nvary: accept\nvary: x\ncdn-cache-control: max-age=9"
    );
    let dropped = format!("content-type: text/plain\nlink: <a>\nlast-modified: {DATE}");
    let stored = entry(200, &format!("{kept}\n{dropped}"));
    for method in [Method::GET, Method::HEAD] {
        let reply = reply(&stored, &method, &fields("if-none-match: \"a\""), 3);
        assert_eq!(reply.status, StatusCode::NOT_MODIFIED);
        assert_eq!(reply.headers, fields(&format!("{kept}\nage: 3")));
        assert!(reply.body.is_empty());
    }
    let untagged = entry(200, &format!("last-modified: {DATE}\nx-a: 1"));
    let reply = get(&untagged, &format!("if-modified-since: {DATE}"));
    let expected = fields(&format!("last-modified: {DATE}\ndate: {DATE}\nage: 7"));
    assert_eq!(reply.headers, expected, "the date is all that the client has to go by");
}

#[test]
fn if_none_match_compares_weakly_and_decides_alone() {
    let cases = [
        ("etag: \"a\"", "\"a\"", 304),
        ("etag: \"a\"", "W/\"a\"", 304),
        ("etag: W/\"a\"", "\"a\"", 304),
        ("etag: \"a\"", "\"b\", \"a\"", 304),
        ("etag: \"a\"", ", \"b\",,\"a\",", 304),
        ("etag: \"a\"", "\"b\"\nif-none-match: \"a\"", 304),
        ("etag: \"a,b\"", "\"x\",\"a,b\"", 304),
        ("etag: \"a\"", "\"x, \"a\"", 200),
        ("etag: \"a\"", "\"a\"x", 200),
        ("etag: \"a\"", "*", 304),
        ("", "*", 304),
        ("etag: \"a\"", "\"A\"", 200),
        ("etag: \"a\"", "a", 200),
        ("etag: a", "a", 200),
        ("etag: \"a\"\netag: \"b\"", "\"a\"", 200),
        ("etag: \"a\"", "w/\"a\"", 200),
        ("etag: \"a\"", "\"ab\"", 200),
        ("", "\"\"", 200),
    ];
    for (stored, tags, status) in cases {
        statuses(&entry(200, stored), &[(&format!("if-none-match: {tags}"), status)]);
    }
    let both = format!("if-none-match: \"b\"\nif-modified-since: {MINUTE_LATER}");
    statuses(&entry(200, &format!("etag: \"a\"\nlast-modified: {DATE}")), &[(&both, 200)]);
}

#[test]
fn if_modified_since_uses_last_modified_and_else_the_date() {
    let (same, before) =
        (format!("last-modified: {DATE}"), format!("last-modified: {MINUTE_BEFORE}"));
    let cases = [
        (same.clone(), DATE.to_owned(), 304),
        (same.clone(), MINUTE_LATER.to_owned(), 304),
        (same.clone(), "Thursday, 01-Jan-26 00:00:00 GMT".to_owned(), 304),
        (same.clone(), "Thu Jan  1 00:00:00 2026".to_owned(), 304),
        (same.clone(), MINUTE_BEFORE.to_owned(), 200),
        (before, MINUTE_BEFORE.to_owned(), 304),
        (format!("date: {DATE}"), DATE.to_owned(), 304),
        (format!("date: {DATE}"), MINUTE_BEFORE.to_owned(), 200),
        ("last-modified: yesterday".to_owned(), MINUTE_LATER.to_owned(), 200),
        (same.clone(), "yesterday".to_owned(), 200),
        (same, format!("{DATE}\nif-modified-since: {DATE}"), 200),
    ];
    for (stored, since, status) in cases {
        statuses(&entry(200, &stored), &[(&format!("if-modified-since: {since}"), status)]);
    }
}

#[test]
fn only_a_success_has_conditions_and_only_a_200_has_parts() {
    for (status, conditional, ranged) in
        [(200, 304, 206), (203, 304, 203), (301, 301, 301), (404, 404, 404), (204, 304, 204)]
    {
        let stored = entry(status, "etag: \"a\"");
        statuses(
            &stored,
            &[
                ("if-none-match: \"a\"", conditional),
                ("range: bytes=0-1", ranged),
                ("if-none-match: \"a\"\nrange: bytes=0-1", conditional),
            ],
        );
        let head = reply(&stored, &Method::HEAD, &fields("range: bytes=0-1"), 0);
        assert_eq!(head.status, status, "a HEAD has no parts");
    }
}

#[test]
fn one_part_is_sent_as_it_is() {
    let stored = entry(200, "etag: \"a\"\ncontent-type: text/plain\nvary: x");
    let part = get(&stored, "range: bytes=1-2");
    let expected = format!(
        "etag: \"a\"\ncontent-type: text/plain\nvary: x\ndate: {DATE}\n\
         content-range: bytes 1-2/4\ncontent-length: 2\nage: 7"
    );
    assert_eq!((part.status.as_u16(), &part.headers), (206, &fields(&expected)));
    assert_eq!(part.body, [Piece::Slice { start: 1, len: 2 }]);
    assert_eq!(text(&stored, &part), "od");

    let none = get(&stored, "range: bytes=4-");
    let expected = "vary: x\naccept-ranges: bytes\ncontent-range: bytes */4\ncontent-length: 0";
    let expected = format!("{expected}\ndate: {DATE}\nage: 7");
    assert_eq!((none.status.as_u16(), &none.headers), (416, &fields(&expected)));
    assert!(none.body.is_empty());
}

#[test]
fn several_parts_are_wrapped_each_with_its_place() {
    // The stored Content-Range has no meaning: it came with a 200.
    let stored = entry(200, "content-type: text/plain\ncontent-range: bytes 0-1/2");
    let parts = get(&stored, "range: bytes=0-0,-2");
    assert_eq!(parts.status, 206);
    let kind = parts.headers["content-type"].to_str().unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert_eq!(boundary.len(), 32);
    let expected = format!(
        "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-0/4\r\n\r\nb\r\n\
         --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 2-3/4\r\n\r\ndy\r\n\
         --{boundary}--\r\n"
    );
    let body = text(&stored, &parts);
    assert_eq!(body, expected);
    assert_eq!(parts.headers["content-length"], body.len().to_string());
    assert!(!parts.headers.contains_key("content-range"));
    let mut other = stored.clone();
    other.epochs.hard = Bytes::from_static(b"other");
    let other = get(&other, "range: bytes=0-0,-2");
    assert_ne!(other.headers["content-type"], parts.headers["content-type"]);
}

#[test]
fn a_part_is_cut_only_from_what_the_client_has_the_rest_of() {
    let strong = entry(200, &format!("etag: \"a\"\nlast-modified: {MINUTE_BEFORE}"));
    let weak = entry(200, &format!("etag: W/\"a\"\ndate: {DATE}\nlast-modified: {DATE}"));
    let if_range = |value: &str| format!("range: bytes=0-1\nif-range: {value}");
    for (stored, value, status) in [
        (&strong, "\"a\"", 206),
        (&strong, MINUTE_BEFORE, 206),
        (&strong, "W/\"a\"", 200),
        (&strong, "\"b\"", 200),
        (&strong, "a", 200),
        (&strong, "\"a\", \"b\"", 200),
        (&strong, "*", 200),
        (&strong, DATE, 200),
        (&strong, "\"a\"\nif-range: \"a\"", 200),
        (&weak, "W/\"a\"", 200),
        (&weak, "\"a\"", 200),
        (&weak, DATE, 200),
    ] {
        statuses(stored, &[(&if_range(value), status)]);
    }
    statuses(&strong, &[("range: bytes=9-\nif-range: \"b\"", 200), ("if-range: \"b\"", 200)]);
}

#[test]
fn a_body_elsewhere_is_named_by_its_parts() {
    let chunked = Chunked { object: [1; 16], len: 1 << 40, chunk_bytes: 1 << 18 };
    let stored = Stored { body: StoredBody::Chunked(chunked), ..entry(200, "") };
    let whole = get(&stored, "");
    assert_eq!(whole.body, [Piece::Slice { start: 0, len: 1 << 40 }]);
    assert_eq!(whole.headers["content-length"], "1099511627776");
    let end = get(&stored, "range: bytes=-5");
    assert_eq!(end.body, [Piece::Slice { start: (1 << 40) - 5, len: 5 }]);
    assert_eq!(end.gather(&Bytes::from_static(b"short")), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_length_that_is_told_is_the_length_that_comes(
        body in proptest::collection::vec(any::<u8>(), 0..60),
        ranges in proptest::collection::vec((0_u64..70, 0_u64..70), 0..5),
    ) {
        let mut stored = entry(200, "content-type: a/b");
        stored.body = StoredBody::Inline(body.clone().into());
        let specs: Vec<String> = ranges.iter().map(|(a, b)| format!("{a}-{}", a + b)).collect();
        let reply = get(&stored, &format!("range: bytes={}", specs.join(",")));
        let sent = reply.gather(&body.clone().into()).unwrap();
        prop_assert_eq!(reply.headers["content-length"].to_str().unwrap(), sent.len().to_string());
        if reply.status == 200 {
            prop_assert_eq!(&sent[..], &body[..]);
        }
        for piece in &reply.body {
            if let Piece::Slice { start, len } = piece {
                prop_assert!(*len > 0 && start + len <= body.len() as u64);
            }
        }
    }
}
