//! API keys: their record, their id and their owner's index change together.

use std::time::Duration;

use bytes::Bytes;
use portcullis::store::keys::Keys;
use portcullis::store::{ApiKeyWrite, Questions, Revocation, RevocationKeys};

use super::{MINUTE, Subject, over_all_stores};
use crate::support::PATIENCE;

over_all_stores![
    a_key_is_found_by_its_id_and_listed_newest_first,
    a_key_ends_with_its_id_its_place_and_a_revocation,
    an_index_lives_as_long_as_the_longest_key,
    a_record_that_is_gone_is_told_of,
    of_a_record_that_is_too_long_no_more_than_shows_it_is_read,
];

fn write(id: &str, ttl: Option<Duration>, created_s: u64) -> ApiKeyWrite {
    let keys = Keys::new("app");
    let digest = format!("d-{id}");
    ApiKeyWrite {
        keys: keys.api_key_keys(&digest, id, "acme"),
        families: keys.api_key_families(),
        digest,
        record: Bytes::copy_from_slice(id.as_bytes()),
        created_s,
        ttl,
    }
}

async fn listed(it: &Subject) -> (Vec<Bytes>, usize) {
    let write = write("x", None, 0);
    let list = it.store.list_api_keys(&write.keys.index, &write.families).await.unwrap();
    (list.records, list.count)
}

async fn a_key_is_found_by_its_id_and_listed_newest_first(it: Subject) {
    for number in 0..120 {
        let write = write(&format!("k{number}"), Some(MINUTE), number);
        it.store.write_api_key(&write).await.unwrap();
    }
    let (records, count) = listed(&it).await;
    assert_eq!((records.len(), count), (100, 120));
    assert_eq!((&records[0][..], &records[99][..]), (&b"k119"[..], &b"k20"[..]));
    let one = write("k7", None, 0);
    let found = it.store.find_api_key(&one.keys.id, &one.families).await.unwrap();
    assert_eq!(found, Some(("d-k7".to_owned(), Bytes::from_static(b"k7"))));
    assert_eq!(it.store.get(&one.keys.record).await, Ok(Some(Bytes::from_static(b"k7"))));
    let none = write("none", None, 0);
    assert_eq!(it.store.find_api_key(&none.keys.id, &none.families).await, Ok(None));
    assert_eq!(it.store.get(&none.keys.record).await, Ok(None));
    it.write_fields("app:auth:key:hash", &[("a", "b")]);
    assert!(it.store.get("app:auth:key:hash").await.is_err(), "that is no record");
    // A record that the application deleted is out of the list too.
    assert!(it.store.delete(&write("k119", None, 0).keys.record).await.unwrap());
    let (records, count) = listed(&it).await;
    assert_eq!((&records[0][..], count), (&b"k118"[..], 119));
}

async fn a_key_ends_with_its_id_its_place_and_a_revocation(it: Subject) {
    let one = write("k1", None, 1);
    it.store.write_api_key(&one).await.unwrap();
    it.store.write_api_key(&write("k2", None, 2)).await.unwrap();
    let key = "app:auth:blacklist:key:k1";
    let revocation = Revocation { key, not_before: None, ttl: MINUTE, stream_ttl: MINUTE };
    assert_eq!(it.store.end_api_key(&one.keys, revocation).await, Ok(true));
    assert!(it.revocation(&[key], None).await.unwrap().listed);
    assert_eq!(it.store.find_api_key(&one.keys.id, &one.families).await, Ok(None));
    assert_eq!(it.store.get(&one.keys.record).await, Ok(None));
    assert_eq!(listed(&it).await, (vec![Bytes::from_static(b"k2")], 1));
    assert_eq!(it.store.end_api_key(&one.keys, revocation).await, Ok(false));
}

async fn an_index_lives_as_long_as_the_longest_key(it: Subject) {
    let life = async |at: &str| match &it.redis {
        Some(redis) => redis.cli(&["PTTL", at]).parse::<i64>().unwrap(),
        // The embedded store tells no life of an index; what is listed shows that it has not ended.
        None => i64::from(listed(&it).await.1 > 0),
    };
    let short = write("k1", Some(MINUTE), 1);
    it.store.write_api_key(&short).await.unwrap();
    let index = &short.keys.index;
    assert!(life(index).await > 0, "every key of it ends, so it ends");
    it.store.write_api_key(&write("k2", Some(2 * MINUTE), 2)).await.unwrap();
    it.store.write_api_key(&write("k3", Some(MINUTE), 3)).await.unwrap();
    if it.redis.is_some() {
        assert!(life(index).await > 2 * 60_000 - PATIENCE.as_millis() as i64);
    }
    it.store.write_api_key(&write("k4", None, 4)).await.unwrap();
    it.store.write_api_key(&write("k5", Some(MINUTE), 5)).await.unwrap();
    if it.redis.is_some() {
        assert_eq!(life(index).await, -1, "one of it does not end");
        assert_eq!(life(&write("k4", None, 4).keys.record).await, -1);
    }
    assert_eq!(listed(&it).await.1, 5);
}

async fn a_record_that_is_gone_is_told_of(it: Subject) {
    let one = write("k1", Some(MINUTE), 1);
    let blacklist = ["app:auth:blacklist:key:k1".to_owned()];
    let revocation = async |record: Option<&str>| {
        let revocation =
            Some(RevocationKeys { blacklist: &blacklist, record, ..RevocationKeys::default() });
        let questions = Questions { revocation, ..Questions::default() };
        it.store.ask(&questions).await.revocation.unwrap().unwrap()
    };
    assert!(revocation(Some(&one.keys.record)).await.gone);
    assert!(!revocation(None).await.gone, "nothing was asked");
    it.store.write_api_key(&one).await.unwrap();
    let reply = revocation(Some(&one.keys.record)).await;
    assert!(!reply.gone && !reply.listed);
}

async fn of_a_record_that_is_too_long_no_more_than_shows_it_is_read(it: Subject) {
    let long = "x".repeat(20_000);
    let length = async |key: &str| it.store.get(key).await.unwrap().map(|value| value.len());
    for (bytes, read) in
        [(1, Some(1)), (8192, Some(8192)), (8193, Some(8193)), (20_000, Some(8193))]
    {
        it.write("app:auth:key:long", &long[..bytes]);
        assert_eq!(length("app:auth:key:long").await, read, "{bytes}");
    }
    it.write("app:auth:key:empty", "");
    assert_eq!(length("app:auth:key:empty").await, None, "an empty one is none");
}
