//! Entries as bytes and as responses: nothing is lost, and no damage gets through.

use super::super::{
    Chunked, Epochs, Flags, INLINE_BYTES_MAX, Stored, StoredBody, WhyNot, compress, may_replace,
    outdates,
};
use super::{NOW, entry, fields};
use crate::config;
use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

fn name() -> impl Strategy<Value = HeaderName> {
    "[a-z][a-z0-9-]{0,12}".prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap())
}

fn stored() -> impl Strategy<Value = Stored> {
    let value = vec(prop_oneof![Just(b'\t'), 0x20_u8..=0x7E, 0x80_u8..=0xFF], 0..24);
    let header = (name(), value.prop_map(|value| HeaderValue::from_bytes(&value).unwrap()));
    let bytes = || vec(any::<u8>(), 0..64).prop_map(Bytes::from);
    let selecting = vec((name(), proptest::option::of(bytes())), 0..4);
    let times = (any::<[u64; 2]>(), any::<[u32; 3]>(), any::<[bool; 3]>());
    let names = (vec(".{0,9}", 0..3), vec(".{0,9}", 0..3));
    let head = (100_u16..1000, vec(header, 0..8));
    let whose = (selecting, ".{0,24}", (bytes(), bytes()), names);
    (head, body(), times, whose).prop_map(
        |((status, lines), body, (at, spans, flags), (vary, key, (hard, soft), names))| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, value);
            }
            Stored {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body,
                born_ms: at[0],
                answered_ms: at[1],
                lifetime_s: spans[0],
                swr_s: spans[1],
                sie_s: spans[2],
                flags: Flags { no_cache: flags[0], never_stale: flags[1], immutable: flags[2] },
                vary,
                key,
                epochs: Epochs { hard, soft },
                tags: names.0,
                groups: names.1,
            }
        },
    )
}

fn body() -> impl Strategy<Value = StoredBody> {
    let chunked = (any::<[u8; 16]>(), any::<u64>(), 1_u32..);
    prop_oneof![
        vec(any::<u8>(), 0..64).prop_map(|bytes| StoredBody::Inline(bytes.into())),
        chunked.prop_map(|(object, len, chunk_bytes)| {
            StoredBody::Chunked(Chunked { object, len, chunk_bytes })
        }),
    ]
}

/// Makes length and checksum right again, so that damage reaches the parser behind them.
fn reseal(bytes: &mut [u8]) {
    seal_as(bytes, bytes.len() as u64);
}

fn seal_as(bytes: &mut [u8], total: u64) {
    bytes[4..12].copy_from_slice(&total.to_le_bytes());
    let sum = xxh3_128(&bytes[28..]).to_le_bytes();
    bytes[12..28].copy_from_slice(&sum);
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
        let mut sealed = [&b"PCE\x03"[..], &[0; 24], &bytes].concat();
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
            // What is accepted is worth no more than what was there, or than any entry may be.
            let most = bytes.len().max(INLINE_BYTES_MAX);
            prop_assert!(read.body.inline().is_none_or(|body| body.len() <= most));
        }
    }

    #[test]
    fn a_compressed_entry_survives_the_store_and_no_damage(
        stored in stored(),
        text in vec(b'a'..=b'h', 2000..3000),
        at in any::<prop::sample::Index>(),
        change in 1_u8..,
        length in any::<u32>(),
    ) {
        let compressed = compress(&text).unwrap();
        let stored = Stored { body: StoredBody::Inline(text.clone().into()), ..stored };
        let bytes = stored.encode_with(Some(&compressed));
        prop_assert!(bytes.len() < stored.encode().len());
        prop_assert_eq!(Stored::decode(&bytes.clone().into()), Some(stored));
        let mut changed = bytes.clone();
        changed[at.index(bytes.len())] ^= change;
        prop_assert_eq!(Stored::decode(&changed.into()), None);
        prop_assert_eq!(Stored::decode(&bytes[..at.index(bytes.len())].to_vec().into()), None);
        // A length that is not the one, under a right checksum: no short body, and no longer one.
        let mut claimed = bytes;
        let place = claimed.len() - compressed.len() - 4;
        claimed[place..][..4].copy_from_slice(&length.to_le_bytes());
        reseal(&mut claimed);
        if length as usize != text.len() {
            prop_assert_eq!(Stored::decode(&claimed.into()), None);
        }
    }
}

#[test]
fn a_compressed_body_is_no_longer_than_any_other_in_an_entry() {
    for (length, is_some) in [(INLINE_BYTES_MAX, true), (INLINE_BYTES_MAX + 1, false)] {
        let body = Bytes::from(vec![b'a'; length]);
        let compressed = compress(&body).unwrap();
        let stored = Stored { body: StoredBody::Inline(body), ..entry(200, "") };
        let bytes = stored.encode_with(Some(&compressed));
        assert_eq!(Stored::decode(&bytes.into()).is_some(), is_some, "{length}");
    }
}

#[test]
fn the_end_of_a_life_is_near_in_its_last_part_here() {
    // A minute of freshness, of which an answer of this age had so much left when it came.
    for (age_s, percent, at_s, near) in [
        (0, 10, 0, false),
        (0, 10, 54, false),
        (0, 10, 55, true),
        (0, 10, 59, true),
        (0, 10, 60, false),
        (0, 10, 600, false),
        (0, 50, 30, false),
        (0, 50, 31, true),
        (0, 99, 0, false),
        (0, 99, 1, true),
        (50, 10, 0, false),
        (50, 10, 9, false),
        (50, 20, 9, true),
        (60, 99, 0, false),
        (90, 99, 0, false),
    ] {
        let mut stored = entry(200, "");
        stored.answered_ms = stored.born_ms + age_s * 1000;
        let now_ms = stored.answered_ms + at_s * 1000;
        let case = (age_s, percent, at_s);
        assert_eq!(stored.ends_soon(percent, now_ms), near, "{case:?}");
    }
}

#[test]
fn another_version_is_none() {
    let mut bytes = entry(200, "").encode();
    bytes[3] = 1;
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
        bytes[59..63].copy_from_slice(&claimed.to_le_bytes());
        reseal(&mut bytes);
        assert_eq!(Stored::decode(&bytes.into()), None);
    }
}

#[test]
fn the_body_is_a_view_into_the_input() {
    let bytes = Bytes::from(entry(200, "etag: \"a\"").encode());
    let stored = Stored::decode(&bytes).unwrap();
    let body = stored.body.inline().unwrap();
    assert_eq!(body, "body");
    assert!(bytes.as_ptr_range().contains(&body.as_ptr()));
}

#[test]
fn a_body_in_chunks_knows_its_pieces() {
    let chunked = |len, chunk_bytes| Chunked { object: [0; 16], len, chunk_bytes };
    for (len, size, count) in [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (u64::MAX, 1, u64::MAX)]
    {
        assert_eq!(chunked(len, size).count(), count, "{len} in {size}");
    }
}

#[test]
fn an_entry_is_kept_as_long_as_it_is_of_any_use() {
    let policy = config::Cache::default();
    let with = |change: &dyn Fn(&mut Stored)| {
        let mut stored = entry(200, "");
        change(&mut stored);
        stored
    };
    let week = 7 * 24 * 3600;
    let cases = [
        (with(&|_| ()), 60 + 60),
        (with(&|e| e.flags.never_stale = true), 60),
        (with(&|e| e.swr_s = 100), 60 + 100),
        (with(&|e| e.sie_s = 200), 60 + 200),
        (entry(200, "etag: \"a\""), 60 + 3600),
        (with(&|e| e.lifetime_s = u32::MAX), week),
    ];
    for (stored, seconds) in cases {
        assert_eq!(stored.keep_ms(&policy, NOW), seconds * 1000, "{stored:?}");
        assert_eq!(stored.keep_ms(&policy, NOW + 30_000), (seconds - 30) * 1000);
        assert_eq!(stored.keep_ms(&policy, u64::MAX), 0);
    }
}

#[test]
fn the_ttl_that_is_told_goes_below_zero() {
    let stored = entry(200, "");
    for (later, ttl) in [(0, 60), (59_001, 0), (60_000, 0), (61_000, -1), (90_999, -30)] {
        assert_eq!(stored.ttl_s(NOW + later), ttl, "{later}");
    }
    assert!(stored.ttl_s(u64::MAX) < 0);
}

#[test]
fn an_error_never_displaces_what_is_good() {
    let (good, error) = (entry(200, ""), entry(404, ""));
    let cases = [
        (404, Some(&good), 0, false),
        (503, Some(&good), 59_999, false),
        (404, Some(&good), 60_000, true),
        (404, Some(&error), 0, true),
        (404, None, 0, true),
        (200, Some(&good), 0, true),
        (301, Some(&good), 0, true),
    ];
    for (status, stored, later, expected) in cases {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(may_replace(status, stored, NOW + later), expected, "{status} {later}");
    }
}

#[test]
fn what_cannot_be_kept_may_end_what_is_stored() {
    use WhyNot::{Expired, NoFreshness, NoStore, Partial, Private, Request, SetCookie, Vary};
    let stored = entry(200, "");
    for (status, why, while_fresh, once_stale) in [
        (200, NoStore, true, true),
        (200, NoFreshness, false, true),
        (200, Expired, false, true),
        (200, Vary, false, true),
        (301, NoFreshness, false, true),
        (404, NoStore, false, true),
        (404, NoFreshness, false, true),
        (410, NoFreshness, false, true),
        // It is for one caller, or a part, or somebody provoked it, or the origin is not well.
        (200, Private, false, false),
        (200, SetCookie, false, false),
        (200, WhyNot::Authenticated, false, false),
        (200, Request, false, false),
        (206, Partial, false, false),
        (400, NoStore, false, false),
        (403, NoFreshness, false, false),
        (500, NoStore, false, false),
        (503, NoFreshness, false, false),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        for (later, expected) in [(59_999, while_fresh), (60_000, once_stale)] {
            assert_eq!(outdates(status, why, &stored, NOW + later), expected, "{status} {why:?}");
        }
    }
}

#[test]
fn weight_counts_everything_that_can_grow() {
    let base = entry(200, "");
    let headers = fields("x-long: 0123456789012345678901234567890123456789");
    let vary = vec![(HeaderName::from_static("x"), Some(Bytes::from_static(b"value")))];
    let grown = [
        Stored { body: StoredBody::Inline(vec![0; 1_000].into()), ..base.clone() },
        Stored { key: "k".repeat(1_000), ..base.clone() },
        Stored {
            epochs: Epochs { hard: vec![0; 1_000].into(), soft: Bytes::new() },
            ..base.clone()
        },
        Stored { tags: vec!["t".to_owned()], ..base.clone() },
        Stored { vary, ..base.clone() },
        Stored { headers, ..entry(200, "") },
    ];
    for (at, stored) in grown.iter().take(5).enumerate() {
        assert!(stored.weight() > base.weight(), "{at}");
    }
    let bare = Stored { headers: HeaderMap::new(), ..base };
    assert!(grown[5].weight() > bare.weight());
}

#[test]
fn what_must_be_confirmed_each_time_is_not_shared_with_those_who_wait() {
    let now_ms = entry(200, "").answered_ms;
    let shareable = |change: fn(&mut Stored)| {
        let mut stored = entry(200, "");
        change(&mut stored);
        stored.is_shareable(now_ms)
    };
    assert!(shareable(|_| {}));
    assert!(!shareable(|stored| stored.lifetime_s = 0));
    assert!(!shareable(|stored| stored.flags.no_cache = true));
    assert!(shareable(|stored| (stored.lifetime_s, stored.swr_s) = (0, 10)));
}
