//! Entries as bytes and as responses: nothing is lost, and no damage gets through.

use super::super::{Shape, Stored};
use super::{DATE, MINUTE_BEFORE, entry, fields};
use aws_lc_rs::digest;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = HeaderName> {
    "[a-z][a-z0-9-]{0,12}".prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap())
}

fn stored() -> impl Strategy<Value = Stored> {
    let value = vec(prop_oneof![Just(b'\t'), 0x20_u8..=0x7E, 0x80_u8..=0xFF], 0..24);
    let header = (name(), value.prop_map(|value| HeaderValue::from_bytes(&value).unwrap()));
    let bytes = || vec(any::<u8>(), 0..64).prop_map(Bytes::from);
    let selecting = vec((name(), proptest::option::of(bytes())), 0..4);
    let times = (any::<u64>(), any::<u32>());
    (100_u16..1000, vec(header, 0..8), bytes(), times, selecting, ".{0,24}", bytes()).prop_map(
        |(status, lines, body, (born_ms, lifetime_s), vary, key, epochs)| {
            let status = StatusCode::from_u16(status).unwrap();
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, value);
            }
            Stored { status, headers, body, born_ms, lifetime_s, vary, key, epochs }
        },
    )
}

/// Makes length and checksum right again, so that damage reaches the parser behind them.
fn reseal(bytes: &mut [u8]) {
    seal_as(bytes, bytes.len() as u64);
}

fn seal_as(bytes: &mut [u8], total: u64) {
    bytes[4..12].copy_from_slice(&total.to_le_bytes());
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&bytes[..12]);
    context.update(&bytes[28..]);
    bytes[12..28].copy_from_slice(&context.finish().as_ref()[..16]);
}

proptest! {
    #[test]
    fn an_entry_survives_the_store(stored in stored()) {
        let bytes = Bytes::from(stored.encode());
        let read = Stored::decode(&bytes);
        prop_assert_eq!(read.as_ref(), Some(&stored));
        prop_assert_eq!(Bytes::from(stored.encode()), bytes, "the encoding is deterministic");
    }

    #[test]
    fn any_damage_makes_it_none(
        stored in stored(), at in any::<prop::sample::Index>(), change in 1_u8..,
    ) {
        let bytes = stored.encode();
        let mut changed = bytes.clone();
        changed[at.index(bytes.len())] ^= change;
        prop_assert_eq!(Stored::decode(&changed.into()), None);
        let cut = bytes[..at.index(bytes.len())].to_vec();
        prop_assert_eq!(Stored::decode(&cut.into()), None);
        prop_assert_eq!(Stored::decode(&[&bytes[..], &[change]].concat().into()), None);
    }

    #[test]
    fn bytes_never_make_it_panic(bytes in vec(any::<u8>(), 0..256)) {
        prop_assert_eq!(Stored::decode(&bytes.clone().into()), None);
        let mut sealed = [&b"PCE\x01"[..], &[0; 24], &bytes].concat();
        reseal(&mut sealed);
        let _ = Stored::decode(&sealed.into());
    }

    #[test]
    fn damage_with_a_right_checksum_never_makes_it_panic(
        stored in stored(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = stored.encode();
        for (at, value) in changes {
            let at = 4 + at.index(bytes.len() - 4);
            bytes[at] = value;
        }
        reseal(&mut bytes);
        let bytes = Bytes::from(bytes);
        if let Some(read) = Stored::decode(&bytes) {
            // What is accepted is worth no more than what was there.
            prop_assert!(read.body.len() <= bytes.len());
        }
    }
}

#[test]
fn another_version_is_none() {
    let mut bytes = entry(200, "").encode();
    bytes[3] = 2;
    reseal(&mut bytes);
    assert_eq!(Stored::decode(&bytes.into()), None);
}

#[test]
fn another_length_is_none() {
    let mut bytes = entry(200, "").encode();
    let length = bytes.len() as u64;
    for (total, is_some) in [(length, true), (length - 1, false), (length + 1, false)] {
        seal_as(&mut bytes, total);
        assert_eq!(Stored::decode(&bytes.clone().into()).is_some(), is_some, "{total}");
    }
}

#[test]
fn a_count_that_promises_too_much_is_none() {
    // The key's length is the first part after the times and the status.
    for claimed in [u32::MAX, 1 << 31, 1 << 20] {
        let mut bytes = entry(200, "").encode();
        bytes[42..46].copy_from_slice(&claimed.to_le_bytes());
        reseal(&mut bytes);
        assert_eq!(Stored::decode(&bytes.into()), None);
    }
}

#[test]
fn the_body_is_a_view_into_the_input() {
    let bytes = Bytes::from(entry(200, "etag: \"a\"").encode());
    let body = Stored::decode(&bytes).unwrap().body;
    assert_eq!(body, "body");
    assert!(bytes.as_ptr_range().contains(&body.as_ptr()));
}

#[test]
fn a_hit_carries_age_length_and_the_first_date() {
    let link = "link: <a>\nlink: <b>\ncontent-type: text/plain";
    let stored = entry(404, &format!("date: {MINUTE_BEFORE}\n{link}"));
    let response = stored.respond(7, Shape::Full);
    assert_eq!(response.status(), 404);
    let expected = fields(&format!("date: {MINUTE_BEFORE}\n{link}\ncontent-length: 4\nage: 7"));
    assert_eq!(*response.headers(), expected);
    assert_eq!(response.body(), "body");

    let head = stored.respond(7, Shape::Head);
    assert_eq!(*head.headers(), expected);
    assert!(head.body().is_empty());

    let dated = entry(200, "").respond(0, Shape::Full);
    assert_eq!(dated.headers()["date"], DATE, "an answer without a date gets that of arrival");
    let empty = entry(204, "").respond(0, Shape::Full);
    assert!(!empty.headers().contains_key("content-length"));
}

#[test]
fn a_304_carries_what_guides_a_cache_and_no_more() {
    let kept = format!(
        "cache-control: max-age=60\ncontent-location: /a\ndate: {DATE}\netag: \"a\"\n\
         expires: 0\nvary: accept\nvary: x"
    );
    let stored = entry(200, &format!("{kept}\ncontent-type: text/plain\nlink: <a>"));
    let response = stored.respond(3, Shape::NotModified);
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(*response.headers(), fields(&format!("{kept}\nage: 3")));
    assert!(response.body().is_empty());
}

#[test]
fn weight_counts_everything_that_can_grow() {
    let base = entry(200, "");
    let headers = fields("x-long: 0123456789012345678901234567890123456789");
    let vary = vec![(HeaderName::from_static("x"), Some(Bytes::from_static(b"value")))];
    let grown = [
        Stored { body: Bytes::from(vec![0; 1_000]), ..base.clone() },
        Stored { key: "k".repeat(1_000), ..base.clone() },
        Stored { epochs: Bytes::from(vec![0; 1_000]), ..base.clone() },
        Stored { vary, ..base.clone() },
        Stored { headers, ..entry(200, "") },
    ];
    for (at, stored) in grown.iter().take(4).enumerate() {
        assert!(stored.weight() > base.weight(), "{at}");
    }
    let bare = Stored { headers: HeaderMap::new(), ..base };
    assert!(grown[4].weight() > bare.weight());
}

#[test]
fn unsafe_methods_withdraw_unless_they_are_known_to_have_failed() {
    let cases = [
        ("GET", Some(200), false),
        ("HEAD", None, false),
        ("OPTIONS", Some(200), false),
        ("TRACE", Some(200), false),
        ("POST", Some(200), true),
        ("PUT", Some(204), true),
        ("DELETE", Some(303), true),
        ("PATCH", Some(399), true),
        ("POST", Some(400), false),
        ("POST", Some(500), false),
        ("POST", None, true),
        ("BREW", Some(200), true),
        ("get", Some(200), true),
    ];
    for (method, status, expected) in cases {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(super::super::invalidates(&method, status), expected, "{method} {status:?}");
    }
}
