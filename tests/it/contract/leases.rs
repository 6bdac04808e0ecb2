//! Places among the requests in flight: all or none, until they are given back or their time ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use portcullis::store::{ConcurrencyLimit, LeaseReply, Leases, Mode, Release, Store};

use super::{Subject, over_all_stores, words};
use crate::support::PATIENCE;

over_all_stores![
    slots_are_taken_in_all_limits_or_none,
    a_place_of_the_dead_is_free_when_its_lease_ends,
    a_renewal_keeps_a_place_and_a_look_takes_none,
    a_holder_that_left_in_doubt_gets_no_place_when_its_question_comes_late,
    concurrent_tasks_never_hold_more_places_than_there_are,
];

const HOUR: Duration = Duration::from_secs(3600);

fn limit(most: u32) -> ConcurrencyLimit {
    ConcurrencyLimit { most, lease: HOUR, mode: Mode::Enforce }
}

async fn lease(
    store: &Store,
    limits: &[ConcurrencyLimit],
    keys: &[String],
    holder: &str,
) -> LeaseReply {
    store.lease(Leases { limits, keys, holder }).await.unwrap()
}

async fn release(store: &Store, keys: &[String], holder: &str, in_doubt: bool) {
    let (keys, holder) = (keys.to_vec(), holder.to_owned());
    let limits = vec![limit(1); keys.len()];
    store.release(&[Release { keys, limits, holder, in_doubt }]).await.unwrap();
}

fn reply(allowed: bool, held: &[u32]) -> LeaseReply {
    LeaseReply { allowed, held: held.to_vec() }
}

async fn slots_are_taken_in_all_limits_or_none(it: Subject) {
    let (limits, keys) = ([limit(1), limit(3)], words(&["{p}:narrow", "{p}:wide"]));
    assert_eq!(lease(&it.store, &limits, &keys, "a").await, reply(true, &[0, 0]));
    for _ in 0..5 {
        assert_eq!(lease(&it.store, &limits, &keys, "b").await, reply(false, &[1, 1]));
    }
    // One that refuses nobody takes a place where there is room.
    let observed = [ConcurrencyLimit { mode: Mode::Observe, ..limits[0] }, limits[1]];
    assert_eq!(lease(&it.store, &observed, &keys, "c").await, reply(true, &[1, 1]));
    assert_eq!(lease(&it.store, &limits, &keys, "d").await, reply(false, &[1, 2]));
    release(&it.store, &keys, "a", false).await;
    release(&it.store, &keys, "nobody", false).await;
    assert_eq!(lease(&it.store, &limits, &keys, "d").await, reply(true, &[0, 1]));
}

async fn a_place_of_the_dead_is_free_when_its_lease_ends(it: Subject) {
    let short = ConcurrencyLimit { lease: Duration::from_millis(80), ..limit(1) };
    let keys = words(&["{p}:a"]);
    assert!(lease(&it.store, &[short], &keys, "dead").await.allowed);
    let patience_ends = tokio::time::Instant::now() + PATIENCE;
    while !lease(&it.store, &[limit(1)], &keys, "next").await.allowed {
        assert!(tokio::time::Instant::now() < patience_ends, "the lease does not end");
    }
    if let Some(redis) = &it.redis {
        let ttl: i64 = redis.cli(&["PTTL", &keys[0]]).parse().unwrap();
        assert!(ttl > 0, "the key has no expiry");
    }
}

async fn a_renewal_keeps_a_place_and_a_look_takes_none(it: Subject) {
    let keys = words(&["{p}:a"]);
    let short = ConcurrencyLimit { lease: Duration::from_millis(40), ..limit(1) };
    assert!(lease(&it.store, &[short], &keys, "a").await.allowed);
    let renewal = ConcurrencyLimit { mode: Mode::Force, ..limit(1) };
    assert!(lease(&it.store, &[renewal], &keys, "a").await.allowed);
    let look = ConcurrencyLimit { mode: Mode::Peek, ..limit(2) };
    // For longer than the first lease.
    let end = tokio::time::Instant::now() + 2 * short.lease;
    while tokio::time::Instant::now() < end {
        assert_eq!(lease(&it.store, &[look], &keys, "b").await, reply(true, &[1]));
    }
    assert!(!lease(&it.store, &[limit(1)], &keys, "b").await.allowed);
    release(&it.store, &keys, "a", false).await;
    assert_eq!(lease(&it.store, &[look], &keys, "b").await, reply(true, &[0]));
    assert_eq!(lease(&it.store, &[look], &keys, "b").await, reply(true, &[0]));
}

async fn a_holder_that_left_in_doubt_gets_no_place_when_its_question_comes_late(it: Subject) {
    let keys = words(&["{p}:a", "{p}:b"]);
    let limits = [limit(1), limit(1)];
    let renewal = limits.map(|limit| ConcurrencyLimit { mode: Mode::Force, ..limit });
    // The question after the release, a renewal after both, and the release once more.
    release(&it.store, &keys, "late", true).await;
    lease(&it.store, &limits, &keys, "late").await;
    lease(&it.store, &renewal, &keys, "late").await;
    release(&it.store, &keys, "late", true).await;
    assert_eq!(lease(&it.store, &limits, &keys, "a").await, reply(true, &[0, 0]));
    // One that has its places loses them.
    release(&it.store, &keys, "a", true).await;
    lease(&it.store, &renewal, &keys, "a").await;
    assert_eq!(lease(&it.store, &limits, &keys, "b").await, reply(true, &[0, 0]));
    release(&it.store, &keys, "b", false).await;
    if let Some(redis) = &it.redis {
        let ttl: i64 = redis.cli(&["PTTL", "{p}:a"]).parse().unwrap();
        assert!(ttl > 0, "the key has no expiry");
        // The next that is kept out takes those away whose time is over.
        redis.cli(&["ZADD", "{p}:a", "1000000000000001", "old"]);
        release(&it.store, &words(&["{p}:a"]), "c", true).await;
        assert_eq!(redis.cli(&["ZSCORE", "{p}:a", "old"]), "");
    }
}

async fn concurrent_tasks_never_hold_more_places_than_there_are(it: Subject) {
    const MOST: u32 = 3;
    let (keys, inside) = (Arc::new(words(&["{p}:a"])), Arc::new(AtomicU32::new(0)));
    let admitted = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..12)
        .map(|task| {
            let (store, keys) = (it.store.clone(), keys.clone());
            let (inside, admitted) = (inside.clone(), admitted.clone());
            tokio::spawn(async move {
                for turn in 0..60 {
                    let holder = format!("{task}-{turn}");
                    if lease(&store, &[limit(MOST)], &keys, &holder).await.allowed {
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < MOST, "too many inside");
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        admitted.fetch_add(1, Ordering::SeqCst);
                        release(&store, &keys, &holder, false).await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(admitted.load(Ordering::SeqCst) >= 60, "hardly anybody was admitted");
    assert_eq!(lease(&it.store, &[limit(MOST)], &keys, "last").await, reply(true, &[0]));
}
