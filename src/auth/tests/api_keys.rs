//! API keys: what one looks like, what its record may say, and how long it is remembered.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::auth::api_key::is_mistyped;
use crate::auth::carrier::Raw;
use crate::auth::key_verifier::Unrecalled;
use crate::auth::memory::KeyMemory;
use crate::auth::{
    Denied, KeyFault, KeyVerifier, RECORD_BYTES_MAX, RECORD_FRESH, RECORD_KEPT, Record, generate,
};
use crate::store::StoreError;
use crate::store::keys::Keys;

const SECOND: Duration = Duration::from_secs(1);

fn verifier(change: impl FnOnce(&mut config::Verifier)) -> KeyVerifier {
    let mut config = settings(&[], KeySource::ApiKeys);
    change(&mut config);
    KeyVerifier::compile("partners", &config, &Keys::new("app"), false).unwrap()
}

/// A moment that is so much later than all tests' beginning, on both clocks.
fn at(start: Instant, later: Duration) -> (i64, Instant) {
    (NOW + i64::try_from(later.as_secs()).unwrap(), start + later)
}

/// Who presents `key`, where the store, if it is asked, gives `reply`. Whether it was asked.
fn present(
    verifier: &KeyVerifier,
    memory: &KeyMemory,
    (now, at): (i64, Instant),
    reply: Result<Option<&Value>, StoreError>,
) -> (Result<Arc<Identity>, Denied>, bool) {
    let key = Raw::new(b"legacy-key");
    match verifier.recall(&key, memory, now, at) {
        Ok(identity) => (Ok(identity), false),
        Err(Unrecalled::Denied(denied)) => (Err(denied), false),
        Err(Unrecalled::Unread(unread)) => {
            let digest = crate::auth::key_digest(b"legacy-key");
            assert_eq!(unread.record_key(), format!("app:auth:key:{digest}"));
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(now.unsigned_abs());
            let reply = reply.map(|record| record.map(|it| Bytes::from(it.to_string())));
            (unread.judge(reply, memory, wall, at), true)
        }
    }
}

#[test]
fn a_key_that_was_made_is_one_and_no_two_are_the_same() {
    let (a, b) = (generate().unwrap(), generate().unwrap());
    assert_ne!((&a.key, &a.id), (&b.key, &b.id));
    assert!(!is_mistyped(a.key.as_bytes()) && a.key.len() == 51 && a.id.len() == 16);
    assert!(!format!("{a:?}").contains(&a.key));
    for imported in ["", "x", "PCK_1", "0123"] {
        assert!(!is_mistyped(imported.as_bytes()), "{imported} may be a key of an application");
    }
}

proptest! {
    #[test]
    fn a_mistyped_key_is_not_looked_up(
        place in 4_usize..51,
        byte in prop::sample::select(b"ABCdef019-_ ~\xFF".to_vec()),
    ) {
        let mut key = generate().unwrap().key.into_bytes();
        let changed = key[place] != byte;
        key[place] = byte;
        prop_assert_eq!(is_mistyped(&key), changed);
        key.truncate(place);
        prop_assert!(is_mistyped(&key));
    }

    #[test]
    fn no_record_makes_the_reader_panic(bytes: Vec<u8>, text in "\\PC{0,200}") {
        let _ = Record::read(&bytes);
        let record = json!({"id": text, "owner": text, "tier": text}).to_string();
        let _ = Record::read(record.as_bytes());
    }
}

#[test]
fn a_record_is_read_strictly() {
    let good = json!({"id": "k", "owner": "o"});
    for (change, is_good) in [
        (json!({}), true),
        (json!({"unknown": 1, "scopes": ["a", "b:c"], "claims": {"x": [1]}}), true),
        (json!({"expires": 1, "created": 0, "tier": "gold", "auth": "v"}), true),
        (json!({"id": ""}), false),
        (json!({"id": null}), false),
        (json!({"owner": "o\n"}), false),
        (json!({"owner": "o".repeat(257)}), false),
        (json!({"tier": ""}), false),
        (json!({"scopes": "a b"}), false),
        (json!({"scopes": ["a b"]}), false),
        (json!({"scopes": ["\""]}), false),
        (json!({"expires": 1.5}), false),
        (json!({"expires": "1"}), false),
        (json!({"expires": 1e30}), false),
        (json!({"claims": []}), false),
        (json!({"claims": {"tier": "gold"}}), false),
        (json!({"claims": {"x": "y".repeat(RECORD_BYTES_MAX)}}), false),
    ] {
        let mut record = good.clone();
        record.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let read = Record::read(record.to_string().as_bytes());
        assert_eq!(read.is_ok(), is_good, "{change}: {read:?}");
    }
    let twice = br#"{"id": "k", "owner": "o", "owner": "p"}"#;
    assert!(Record::read(twice).is_err(), "which owner would another reader see?");
}

#[test]
fn a_record_makes_the_identity() {
    let verifier = verifier(|config| {
        config.claims_to_headers.insert("x-scope".to_owned(), "scope".to_owned());
    });
    let record = json!({
        "id": "0f", "owner": "acme", "scopes": ["a", "b"], "tier": "gold", "created": 7,
        "claims": {"region": "eu"},
    });
    let (found, _) = present(
        &verifier,
        &KeyMemory::new(),
        at(Instant::now(), Duration::ZERO),
        Ok(Some(&record)),
    );
    let identity = found.unwrap();
    let claims =
        json!({"sub": "acme", "key_id": "0f", "tier": "gold", "scope": "a b", "region": "eu"});
    assert_eq!(Value::Object(identity.claims.clone()), claims);
    assert_eq!(identity.blacklist_keys, ["app:auth:blacklist:key:0f"]);
    assert_eq!(identity.not_before_key, None, "a log-out everywhere is about tokens");
    assert_eq!((identity.subject.as_deref(), identity.expires_at), (Some("acme"), i64::MAX));
    assert_eq!(identity.headers[0].1, "a b");
}

#[test]
fn a_record_is_remembered_for_a_while_and_serves_longer_while_the_store_is_away() {
    let (verifier, memory, start) = (verifier(|_| {}), KeyMemory::new(), Instant::now());
    let record = json!({"id": "k", "owner": "o", "expires": NOW + 7000});
    let away = || Err(StoreError::Timeout);
    let unread = Err(Denied::KeyUnread(StoreError::Timeout));
    let present = |later, reply| {
        let (found, asked) = present(&verifier, &memory, at(start, later), reply);
        (found.map(|identity| identity.subject.clone().unwrap()), asked)
    };
    assert_eq!(present(Duration::ZERO, away()), (unread.clone(), true));
    assert_eq!(present(Duration::ZERO, Ok(Some(&record))), (Ok("o".to_owned()), true));
    assert_eq!(present(RECORD_FRESH - SECOND, away()), (Ok("o".to_owned()), false));
    assert_eq!(present(RECORD_FRESH, away()), (Ok("o".to_owned()), true));
    let other = json!({"id": "k", "owner": "p", "expires": NOW + 7000});
    assert_eq!(present(RECORD_FRESH, Ok(Some(&other))), (Ok("p".to_owned()), true));
    let last = RECORD_FRESH + RECORD_KEPT;
    assert_eq!(present(last - SECOND, away()), (Ok("p".to_owned()), true));
    assert_eq!(present(last, away()), (unread.clone(), true));
    // An answer that cannot be used is no outage.
    let refused = StoreError::Refused("WRONGTYPE".to_owned());
    let expected = (Err(Denied::KeyUnread(refused.clone())), true);
    assert_eq!(present(RECORD_FRESH * 2, Err(refused)), expected);
    // What the store does not have is forgotten.
    let unknown = Err(Denied::ApiKey(KeyFault::Unknown));
    assert_eq!(present(RECORD_FRESH * 2, Ok(None)), (unknown, true));
    assert_eq!(present(RECORD_FRESH * 2, away()), (unread, true));
}

#[test]
fn a_key_ends_at_its_time_also_in_memory() {
    let (verifier, memory, start) = (verifier(|_| {}), KeyMemory::new(), Instant::now());
    let record = json!({"id": "k", "owner": "o", "expires": NOW + 2});
    let expired = Err(Denied::ApiKey(KeyFault::Expired));
    for (later, is_good, asks) in [(0, true, true), (1, true, false), (2, false, false)] {
        let (found, asked) =
            present(&verifier, &memory, at(start, later * SECOND), Ok(Some(&record)));
        assert_eq!(asked, asks, "{later}");
        if is_good {
            assert!(found.is_ok(), "{later}");
        } else {
            assert_eq!(found.map(|_| ()), expired, "{later}");
        }
    }
}

#[test]
fn a_verifier_bounds_keys_keeps_to_its_own_and_may_leave_revocation_out() {
    let start = at(Instant::now(), Duration::ZERO);
    let record = json!({"id": "k", "owner": "o", "auth": "others"});
    let (found, _) = present(&verifier(|_| {}), &KeyMemory::new(), start, Ok(Some(&record)));
    assert_eq!(found.map(|_| ()), Err(Denied::ApiKey(KeyFault::Unknown)));
    let small = verifier(|config| config.token_bytes = 9);
    let (found, asked) = present(&small, &KeyMemory::new(), start, Ok(Some(&record)));
    assert_eq!((found.map(|_| ()), asked), (Err(Denied::ApiKey(KeyFault::TooLarge)), false));
    let record = json!({"id": "k", "owner": "o", "auth": "partners"});
    let unasked = verifier(|config| config.revocation = false);
    let (found, _) = present(&unasked, &KeyMemory::new(), start, Ok(Some(&record)));
    assert!(!found.unwrap().is_revocable());
}
