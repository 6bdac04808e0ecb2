//! Marks of callers who have written lately: whoever asks sees them, by any of his names.

use std::time::Duration;

use portcullis::store::keys::Keys;
use portcullis::store::{Mark, MarkKeys, MarksReply, POSITION_BYTES_MAX, Questions};

use super::{MINUTE, Subject, over_all_stores};
use crate::support::PATIENCE;

over_all_stores![
    a_mark_is_seen_by_any_name_of_its_writer,
    of_two_positions_the_later_one_stays,
    a_key_that_holds_no_mark_is_no_answer,
];

/// Keys that a Redis Cluster keeps in different places.
fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| Keys::new("app").wrote(&["shop", name])).collect()
}

async fn mark(it: &Subject, names: &[&str], mark: &Mark, ttl: Duration) {
    let marks: Vec<_> = keys(names).into_iter().map(|key| (key, mark.clone())).collect();
    it.store.mark(&marks, ttl).await.unwrap();
}

async fn asked(it: &Subject, caller: &[&str], anybody: Option<&str>) -> MarksReply {
    let (caller, anybody) = (keys(caller), anybody.map(|name| keys(&[name]).remove(0)));
    let marks = Some(MarkKeys { caller: &caller, anybody: anybody.as_deref() });
    it.store.ask(&Questions { marks, ..Questions::default() }).await.marks.unwrap().unwrap()
}

async fn a_mark_is_seen_by_any_name_of_its_writer(it: Subject) {
    let names = ["sub", "session", "address", "anybody"];
    let seen = async |caller: &[&str]| asked(&it, caller, Some("anybody")).await;
    assert_eq!(seen(&names[..3]).await, MarksReply::default());
    mark(&it, &names[1..], &Mark::Wrote, MINUTE).await;
    let (caller, anybody) = (Mark::Wrote, true);
    assert_eq!(seen(&names[..3]).await, MarksReply { caller, anybody });
    assert_eq!(seen(&names[..1]).await, MarksReply { caller: Mark::None, anybody });
    assert_eq!(asked(&it, &names[1..2], None).await.caller, Mark::Wrote);
    for key in keys(&names[1..]) {
        let ttl = it.ttl(&key).await.expect("an expiry");
        assert!(ttl <= MINUTE && ttl > MINUTE - PATIENCE, "{ttl:?}");
    }
    // A mark ends with its life, and each write begins it anew.
    mark(&it, &["sub"], &Mark::Wrote, 2 * MINUTE).await;
    assert!(it.ttl(&keys(&["sub"])[0]).await.is_some_and(|ttl| ttl > MINUTE));
    for key in keys(&names) {
        assert!(it.store.delete(&key).await.unwrap());
    }
    assert_eq!(seen(&names[..3]).await, MarksReply::default());
}

async fn of_two_positions_the_later_one_stays(it: Subject) {
    let longest = "9".repeat(POSITION_BYTES_MAX);
    for (number, (first, second, both)) in [
        ("7", "9", "9"),
        ("9", "7", "9"),
        ("9", "10", "10"),
        ("10", "9", "10"),
        ("7", "7", "7"),
        ("09", "10", "10"),
        ("09", "9", ""),
        ("a-2", "aa1", "aa1"),
        ("1/FFFFFFF", "10/FFFFFF", "10/FFFFFF"),
        ("0/FFFFFFF", "0/10000000", ""),
        ("7", "", ""),
        ("", "7", ""),
        (&*longest, "1", &*longest),
    ]
    .into_iter()
    .enumerate()
    {
        let (name, beside) = (format!("writer {number}"), format!("beside {number}"));
        let of_write = |text: &str| Mark::of_write(Some(text.as_bytes()));
        for position in [first, second] {
            mark(&it, &[&name], &of_write(position), MINUTE).await;
        }
        let expected = of_write(both);
        assert_eq!(asked(&it, &[&name], None).await.caller, expected, "{first}, {second}");
        // What lies under several names adds up to the same.
        mark(&it, &[&beside], &of_write(first), MINUTE).await;
        let told = asked(&it, &[&name, &beside], None).await.caller;
        assert_eq!(told, expected.clone().and(of_write(first)), "{first}, {second}");
        assert!(it.ttl(&keys(&[&name])[0]).await.is_some(), "a mark has an end");
    }
}

async fn a_key_that_holds_no_mark_is_no_answer(it: Subject) {
    // What somebody else wrote there may mean anything: he has written.
    it.write(&keys(&["long"])[0], &"x".repeat(5_000));
    assert_eq!(asked(&it, &["long"], None).await.caller, Mark::Wrote);
    if it.redis.is_some() {
        it.write_fields(&keys(&["hash"])[0], &[("a", "b")]);
        let caller = keys(&["hash", "none"]);
        let marks = Some(MarkKeys { caller: &caller, anybody: None });
        let told = it.store.ask(&Questions { marks, ..Questions::default() }).await.marks;
        assert!(told.expect("it was asked").is_err());
    }
}
