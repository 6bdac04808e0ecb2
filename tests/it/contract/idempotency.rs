//! Idempotency keys: one asker gets each, and changes it while it is his.

use std::time::Duration;

use bytes::Bytes;
use portcullis::store::keys::Keys;
use portcullis::store::{ClaimKey, Questions, Swap};

use super::{MINUTE, Subject, over_all_stores};
use crate::support::PATIENCE;

over_all_stores![
    a_key_is_the_first_askers_until_he_frees_it,
    only_its_owner_changes_a_key,
    a_key_ends_with_its_life,
];

fn key(name: &str) -> String {
    Keys::new("app").idempotency(name)
}

/// What the key held; nothing where it is the asker's now.
async fn claim(it: &Subject, key: &str, value: &[u8], ttl: Duration) -> Option<Bytes> {
    let claim = Some(ClaimKey { key, value, ttl });
    it.store.ask(&Questions { claim, ..Questions::default() }).await.claim.unwrap().unwrap()
}

async fn swap(it: &Subject, key: &str, begins: &[u8], value: &[u8]) -> bool {
    it.store.swap(Swap { key, begins, value, ttl: 2 * MINUTE }).await.unwrap()
}

async fn a_key_is_the_first_askers_until_he_frees_it(it: Subject) {
    let (one, other) = (key("first"), key("other"));
    assert_eq!(claim(&it, &one, b"p a 1", MINUTE).await, None);
    assert_eq!(claim(&it, &one, b"p b 2", MINUTE).await.as_deref(), Some(&b"p a 1"[..]));
    assert_eq!(claim(&it, &one, b"p c 3", MINUTE).await.as_deref(), Some(&b"p a 1"[..]));
    assert_eq!(claim(&it, &other, b"p b 2", MINUTE).await, None);
    assert!(swap(&it, &one, b"p a ", b"").await);
    assert!(!swap(&it, &one, b"p a ", b"").await, "it is free already");
    assert_eq!(claim(&it, &one, b"p b 2", MINUTE).await, None);
}

async fn only_its_owner_changes_a_key(it: Subject) {
    let key = key("owned");
    assert!(!swap(&it, &key, b"", b"x").await, "there is none");
    assert_eq!(claim(&it, &key, b"p a 1", MINUTE).await, None);
    for other in ["p b ", "p a 1 ", "d"] {
        assert!(!swap(&it, &key, other.as_bytes(), b"x").await, "{other}");
    }
    // Any bytes, and many of them.
    let answer: Vec<u8> = (0..100_000_usize).map(|at| (at % 256) as u8).collect();
    assert!(swap(&it, &key, b"p a ", &answer).await);
    assert_eq!(claim(&it, &key, b"p b 2", MINUTE).await.as_deref(), Some(&answer[..]));
    assert!(!swap(&it, &key, b"p a ", b"y").await, "who has answered owns it no more");
}

async fn a_key_ends_with_its_life(it: Subject) {
    let key = key("short");
    let left = || {
        let redis = it.redis.as_ref()?;
        let left = redis.cli(&["PTTL", &key]).parse().expect("milliseconds");
        Some(Duration::from_millis(left))
    };
    assert_eq!(claim(&it, &key, b"p a 1", MINUTE).await, None);
    assert!(left().is_none_or(|left| left <= MINUTE && left > MINUTE - PATIENCE));
    claim(&it, &key, b"p b 1", 9 * MINUTE).await;
    assert!(left().is_none_or(|left| left <= MINUTE), "who asks in vain does not prolong it");
    assert!(swap(&it, &key, b"p a ", b"end").await);
    assert!(left().is_none_or(|left| left > MINUTE));
}
