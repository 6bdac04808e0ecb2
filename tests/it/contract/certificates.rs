//! What a lease guards: who was held up past its end writes nothing.

use bytes::Bytes;
use portcullis::store::keys::Keys;
use portcullis::store::{FencedWrite, HeldLock};

use super::{MINUTE, Subject, over_all_stores};

over_all_stores![
    only_who_has_the_lease_writes,
    a_value_is_read_whole_or_not_at_all,
    a_life_begins_anew_and_the_value_stays,
    who_comes_first_writes,
];

fn lease(token: &str) -> HeldLock {
    HeldLock { key: Keys::new("app").tls_lease("a.test"), token: token.to_owned() }
}

async fn only_who_has_the_lease_writes(it: Subject) {
    let keys = Keys::new("app");
    let (certificate, version) = (keys.tls_certificate("a.test"), keys.tls_version());
    let write = async |lease: &HeldLock, value: &str| {
        let values = [
            (certificate.clone(), value.as_bytes().to_vec(), MINUTE),
            (version.clone(), value.as_bytes().to_vec(), MINUTE),
        ];
        it.store.write_fenced(&FencedWrite { lease, values: &values }).await.unwrap()
    };
    let read = async |key: &str| it.store.read(key, 100).await.unwrap();
    let (first, second) = (lease("one"), lease("two"));
    assert!(!write(&first, "without").await);
    assert!(it.store.lock(&first, MINUTE).await.unwrap());
    assert!(!it.store.lock(&second, MINUTE).await.unwrap());
    assert!(write(&first, "its own").await && !write(&second, "another's").await);
    // The first was held up, its lease has ended, and the second one has it.
    assert!(it.store.delete(&first.key).await.unwrap());
    assert!(it.store.lock(&second, MINUTE).await.unwrap());
    assert!(write(&second, "its successor's").await);
    assert!(!write(&first, "late").await);
    for key in [&certificate, &version] {
        assert_eq!(read(key).await, Some(Bytes::from_static(b"its successor's")));
        let ttl = it.ttl(key).await.unwrap();
        assert!(ttl <= MINUTE && ttl > MINUTE / 2, "{ttl:?}");
    }
}

async fn a_value_is_read_whole_or_not_at_all(it: Subject) {
    let key = Keys::new("app").tls_certificate("a.test");
    assert_eq!(it.store.read(&key, 10).await, Ok(None));
    it.store.put(&key, &[b'x'; 10], MINUTE).await.unwrap();
    assert_eq!(it.store.read(&key, 10).await, Ok(Some(Bytes::from_static(&[b'x'; 10]))));
    assert!(it.store.read(&key, 9).await.is_err());
    let hash = Keys::new("app").tls_certificate("hash.test");
    it.write_fields(&hash, &[("a", "b")]);
    assert!(it.store.read(&hash, 10).await.is_err(), "that is no value");
}

async fn a_life_begins_anew_and_the_value_stays(it: Subject) {
    let key = Keys::new("app").tls_account();
    assert_eq!(it.store.expire(&key, MINUTE).await, Ok(false), "there is none");
    it.store.put(&key, b"value", MINUTE).await.unwrap();
    assert_eq!(it.store.expire(&key, 10 * MINUTE).await, Ok(true));
    assert_eq!(it.store.read(&key, 10).await, Ok(Some(Bytes::from_static(b"value"))));
    let ttl = it.ttl(&key).await.unwrap();
    assert!(ttl <= 10 * MINUTE && ttl > 5 * MINUTE, "{ttl:?}");
}

async fn who_comes_first_writes(it: Subject) {
    let key = Keys::new("app").tls_tickets(1);
    assert_eq!(it.store.put_new(&key, b"first", MINUTE).await, Ok(true));
    assert_eq!(it.store.put_new(&key, b"second", 10 * MINUTE).await, Ok(false));
    assert_eq!(it.store.read(&key, 10).await, Ok(Some(Bytes::from_static(b"first"))));
    let ttl = it.ttl(&key).await.unwrap();
    assert!(ttl <= MINUTE && ttl > MINUTE / 2, "{ttl:?}");
}
