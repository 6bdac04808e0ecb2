//! What gateways tell each other: each has one field, and all are read.

use std::time::Duration;

use portcullis::store::keys::Keys;
use portcullis::store::{Heard, Reply, TELLERS_MAX, TELLING_BYTES_MAX, Telling};

use super::{MINUTE, Subject, over_all_stores};
use crate::support::PATIENCE;

over_all_stores![
    each_gateway_says_one_thing_and_hears_all,
    what_is_old_or_was_not_said_like_this_is_not_heard,
    of_too_many_nobody_hears_anything,
    what_is_said_at_once_is_heard_apart,
];

/// What is said, by anybody, where things may be as long as they can be.
fn telling<'a>(key: &'a str, from: &'a str, value: &'a str, kept: Duration) -> Telling<'a> {
    Telling { key, from, value: value.as_bytes(), bytes_max: TELLING_BYTES_MAX, kept }
}

async fn alone(it: &Subject, telling: Telling<'_>) -> Reply<Heard> {
    let [heard] = it.store.tell(&[telling]).await.try_into().expect("one reply");
    heard
}

/// What is heard by the gateway that says this, in order.
async fn tell(it: &Subject, from: &str, value: &str, kept: Duration) -> Vec<(String, String)> {
    let key = Keys::new("app").fleet("shop");
    let heard = alone(it, telling(&key, from, value, kept)).await.unwrap().into_iter();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut heard: Vec<_> = heard.map(|(from, value)| (text(&from), text(&value))).collect();
    heard.sort();
    heard
}

fn said(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(from, value)| ((*from).to_owned(), (*value).to_owned())).collect()
}

async fn each_gateway_says_one_thing_and_hears_all(it: Subject) {
    assert_eq!(tell(&it, "edge-1", "one\n two", MINUTE).await, said(&[("edge-1", "one\n two")]));
    let both = said(&[("edge-1", "one\n two"), ("edge-2", "")]);
    assert_eq!(tell(&it, "edge-2", "", MINUTE).await, both);
    let both = said(&[("edge-1", "three"), ("edge-2", "")]);
    assert_eq!(tell(&it, "edge-1", "three", MINUTE).await, both);
    // Other upstreams are another matter.
    let key = Keys::new("app").fleet("orders");
    let said = telling(&key, "edge-3", "x", MINUTE);
    assert_eq!(alone(&it, said).await.unwrap().len(), 1);
    let ttl = it.ttl(&key).await.expect("an end");
    assert!(ttl <= MINUTE && ttl > MINUTE - PATIENCE, "{ttl:?}");
}

async fn what_is_old_or_was_not_said_like_this_is_not_heard(it: Subject) {
    let key = Keys::new("app").fleet("shop");
    let long: &'static str = format!("1 {}", "x".repeat(TELLING_BYTES_MAX + 1)).leak();
    it.write_fields(
        &key,
        &[
            ("liar-1", "no time"),
            ("liar-2", "99999999999999999999999999 later"),
            ("long-gone", "1 before"),
            ("liar-4", "-1 before"),
            ("liar-5", ""),
            ("liar-6", long),
        ],
    );
    let own = said(&[("edge-1", "one")]);
    assert_eq!(tell(&it, "edge-1", "one", MINUTE).await, own);
    let longest = "x".repeat(TELLING_BYTES_MAX);
    assert_eq!(tell(&it, "edge-1", &longest, MINUTE).await, said(&[("edge-1", &longest)]));
    assert_eq!(tell(&it, "edge-1", &format!("{longest}x"), MINUTE).await, said(&[]));
    // Where things are shorter, what is as long is not one of them.
    tell(&it, "edge-2", "1234", MINUTE).await;
    let short = Telling { bytes_max: 3, ..telling(&key, "edge-1", "one", MINUTE) };
    let heard = alone(&it, short).await.unwrap();
    assert_eq!(heard, [("edge-1".into(), "one".into())]);
    let more = Telling { bytes_max: usize::MAX, ..telling(&key, "edge-1", &longest, MINUTE) };
    assert_eq!(alone(&it, more).await.unwrap().len(), 1);
    it.write(&key, "a string");
    assert!(alone(&it, telling(&key, "edge-1", "one", MINUTE)).await.is_err());
}

async fn of_too_many_nobody_hears_anything(it: Subject) {
    for number in 0..TELLERS_MAX {
        let heard = tell(&it, &format!("edge-{number}"), "x", MINUTE).await;
        assert_eq!(heard.len(), number + 1);
    }
    assert_eq!(tell(&it, "one-more", "x", MINUTE).await, said(&[]));
}

/// Of many things at once each has its own answer, also where one of them is refused.
async fn what_is_said_at_once_is_heard_apart(it: Subject) {
    let keys: Vec<String> =
        (0..9).map(|at| Keys::new("app").fleet(&format!("shop-{at}"))).collect();
    it.write(&keys[4], "a string");
    let values: Vec<String> = (0..9).map(|at| format!("said of {at}")).collect();
    let tellings: Vec<_> = keys
        .iter()
        .zip(&values)
        .map(|(key, value)| telling(key, "edge-1", value, MINUTE))
        .collect();
    let heard = it.store.tell(&tellings).await;
    assert_eq!(heard.len(), 9);
    for (at, heard) in heard.into_iter().enumerate() {
        let own = vec![("edge-1".into(), values[at].clone().into())];
        assert_eq!(heard.ok(), (at != 4).then_some(own), "{at}");
    }
    assert!(it.store.tell(&[]).await.is_empty());
}
