//! Charges, refunds and what only Redis can do to them: lose its scripts, and serve many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis::store::{
    ChargeReply, Charges, HeldLock, Purge, Questions, Remembered, Reply, SessionKey, Store,
    StoreError, Window, WindowSet,
};
use tokio::time::Instant;

use super::caching::entry;
use super::{Subject, over_all_stores, over_redis, words};
use crate::support::PATIENCE;

/// Windows of an hour with these limits: nothing leaves them while a test runs.
pub(super) fn set(limits: &[u32]) -> WindowSet {
    let hour = Duration::from_secs(3600);
    WindowSet::new(limits.iter().map(|limit| Window::new(*limit, hour)).collect())
}

/// Charges one unit on each key.
pub(super) async fn take(store: &Store, set: &WindowSet, keys: &[String]) -> Reply<ChargeReply> {
    let charges = Some(Charges { set, keys });
    store.ask(&Questions { charges, ..Questions::default() }).await.charges.expect("an answer")
}

fn frees(reply: &ChargeReply) -> Vec<i64> {
    reply.windows.iter().map(|window| window.free).collect()
}

over_all_stores![
    all_windows_are_charged_or_none,
    a_refund_gives_back_exactly_one_charge,
    a_refund_after_the_window_gives_nothing_back,
    concurrent_tasks_get_exactly_the_limit,
    concurrent_tasks_never_get_more_in_any_window,
];

async fn all_windows_are_charged_or_none(it: Subject) {
    let set = set(&[2, 5, 1000]);
    let keys = words(&["{p}:narrow", "{p}:wide", "{p}:coarse"]);
    for free in [[2, 5, 1000], [1, 4, 999]] {
        let reply = take(&it.store, &set, &keys).await.unwrap();
        assert_eq!((reply.allowed, frees(&reply)), (true, free.to_vec()));
    }
    for _ in 0..20 {
        let reply = take(&it.store, &set, &keys).await.unwrap();
        assert_eq!((reply.allowed, frees(&reply)), (false, vec![0, 3, 998]));
        assert!(reply.windows[0].retry_ms > 0, "{reply:?}");
        assert_eq!((reply.windows[1].retry_ms, reply.windows[2].retry_ms), (0, 0));
    }
    // The wide window was not touched by the refusals.
    let wide = WindowSet::new(vec![set.windows[1]]);
    let reply = take(&it.store, &wide, &keys[1..2]).await.unwrap();
    assert_eq!((reply.allowed, frees(&reply)), (true, vec![3]));
}

async fn a_refund_gives_back_exactly_one_charge(it: Subject) {
    let (set, keys) = (set(&[3, 200]), words(&["{p}:a", "{p}:b"]));
    let first = take(&it.store, &set, &keys).await.unwrap();
    let second = take(&it.store, &set, &keys).await.unwrap();
    take(&it.store, &set, &keys).await.unwrap();
    it.store.refund(Charges { set: &set, keys: &keys }, &second.at).await.unwrap();
    let reply = take(&it.store, &set, &keys).await.unwrap();
    assert_eq!((reply.allowed, frees(&reply)), (true, vec![1, 198]));
    assert!(!take(&it.store, &set, &keys).await.unwrap().allowed);
    it.store.refund(Charges { set: &set, keys: &keys }, &first.at).await.unwrap();
    let reply = take(&it.store, &set, &keys).await.unwrap();
    assert_eq!((reply.allowed, frees(&reply)), (true, vec![1, 198]));
    it.store.refund(Charges { set: &set, keys: &words(&["{p}:nobody"]) }, &first.at).await.unwrap();
    assert!(!take(&it.store, &set, &keys).await.unwrap().allowed);
}

/// A refund may wait in a stalled connection for longer than a short window. The charge that it
/// names is gone then, and a younger one must not be forgotten in its place.
async fn a_refund_after_the_window_gives_nothing_back(it: Subject) {
    let span = Duration::from_millis(300);
    let set = WindowSet::new(vec![Window::new(1, span)]);
    let keys = words(&["{p}:a"]);
    let patience_ends = Instant::now() + PATIENCE;
    loop {
        let first = take(&it.store, &set, &keys).await.unwrap();
        if !first.allowed {
            continue;
        }
        let second = loop {
            let second = take(&it.store, &set, &keys).await.unwrap();
            if second.allowed {
                break second;
            }
        };
        it.store.refund(Charges { set: &set, keys: &keys }, &first.at).await.unwrap();
        let third = take(&it.store, &set, &keys).await.unwrap();
        let apart = Duration::from_micros(third.at.micros() - second.at.micros());
        if apart < span {
            assert!(!third.allowed, "two charges {apart:?} apart in a window of {span:?}");
            return;
        }
        assert!(Instant::now() < patience_ends, "the machine is too slow to tell");
    }
}

async fn concurrent_tasks_get_exactly_the_limit(it: Subject) {
    for limit in [50, 150] {
        let set = Arc::new(set(&[limit, 1000]));
        let keys = Arc::new(vec![format!("{{p}}:{limit}"), format!("{{p}}:{limit}:wide")]);
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (store, set, keys) = (it.store.clone(), set.clone(), keys.clone());
                tokio::spawn(async move {
                    let mut admitted = 0;
                    for _ in 0..25 {
                        let reply = take(&store, &set, &keys).await.unwrap();
                        admitted += u32::from(reply.allowed);
                    }
                    admitted
                })
            })
            .collect();
        let mut admitted = 0;
        for task in tasks {
            admitted += task.await.unwrap();
        }
        assert_eq!(admitted, limit);
        let reply = take(&it.store, &set, &keys).await.unwrap();
        assert_eq!(frees(&reply), [0, 1000 - i64::from(limit)]);
    }
}

async fn concurrent_tasks_never_get_more_in_any_window(it: Subject) {
    const LIMIT: usize = 40;
    let span = Duration::from_millis(150);
    let set = Arc::new(WindowSet::new(vec![Window::new(LIMIT as u32, span)]));
    let keys = Arc::new(words(&["{p}:a"]));
    let patience_ends = Instant::now() + PATIENCE;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, set, keys) = (it.store.clone(), set.clone(), keys.clone());
            tokio::spawn(async move {
                let mut admitted = Vec::new();
                // Enough for all tasks together to need four windows.
                while admitted.len() < 4 * LIMIT / 8 && Instant::now() < patience_ends {
                    let asked = Instant::now();
                    if take(&store, &set, &keys).await.unwrap().allowed {
                        admitted.push((asked, Instant::now()));
                    }
                }
                admitted
            })
        })
        .collect();
    let mut admitted = Vec::new();
    for task in tasks {
        admitted.extend(task.await.unwrap());
    }
    assert_eq!(admitted.len(), 4 * LIMIT, "the window did not slide");
    // Each charge happened between its question and its answer, so whatever was asked after one
    // moment and answered before another happened between the two.
    for (from, _) in &admitted {
        let later = admitted.iter().filter(|(asked, _)| asked >= from);
        let within = later.filter(|(_, answered)| *answered - *from < span).count();
        assert!(within <= LIMIT, "{within} charges within {span:?}");
    }
}

#[test]
fn a_script_flush_loses_no_answer_and_charges_nobody_twice() {
    over_redis(async |it| {
        let redis = it.redis.as_ref().unwrap();
        let (set, keys) = (set(&[10, 20]), words(&["{p}:a", "{p}:b"]));
        it.write("app:session:s", "{}");
        for charged in 0..15 {
            assert_eq!(redis.cli(&["SCRIPT", "FLUSH"]), "OK");
            let reply = take(&it.store, &set, &keys).await.unwrap();
            assert_eq!(
                (reply.allowed, reply.windows[0].free),
                (charged < 10, 10 - charged.min(10))
            );
            assert_eq!(reply.windows[1].free, 20 - charged.min(10));
        }
        redis.cli(&["SCRIPT", "FLUSH"]);
        // Both scripts of one question are missing.
        let charges = Some(Charges { set: &set, keys: &keys[1..] });
        let wide = WindowSet::new(vec![set.windows[1]]);
        let charges = charges.map(|charges| Charges { set: &wide, ..charges });
        let both = Questions {
            charges,
            session: Some(SessionKey {
                key: "app:session:s",
                ttl: true,
                bytes_max: 1024,
                end: None,
            }),
            ..Questions::default()
        };
        let answers = it.store.ask(&both).await;
        assert_eq!(answers.charges.unwrap().unwrap().windows[0].free, 10);
        assert!(answers.session.unwrap().unwrap().is_some());
        redis.cli(&["SCRIPT", "FLUSH"]);
        let taken = take(&it.store, &wide, &keys[1..]).await.unwrap();
        redis.cli(&["SCRIPT", "FLUSH"]);
        it.store.refund(Charges { set: &wide, keys: &keys[1..] }, &taken.at).await.unwrap();
        assert_eq!(take(&it.store, &wide, &keys[1..]).await.unwrap().windows[0].free, 9);
        redis.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(it.store.remember(&entry("-", "", "kept")).await, Ok(Remembered::Stored));
    });
}

#[test]
fn script_flushes_under_load_admit_exactly_the_limit() {
    over_redis(async |it| {
        let (set, keys) = (Arc::new(set(&[300])), Arc::new(words(&["{p}:a"])));
        let flushing = Arc::new(AtomicBool::new(true));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (store, set, keys) = (it.store.clone(), set.clone(), keys.clone());
                tokio::spawn(async move {
                    let mut admitted = 0;
                    for _ in 0..100 {
                        admitted += u32::from(take(&store, &set, &keys).await.unwrap().allowed);
                    }
                    admitted
                })
            })
            .collect();
        let flusher = {
            let (flushing, address) = (flushing.clone(), it.redis.unwrap());
            std::thread::spawn(move || {
                while flushing.load(Ordering::SeqCst) {
                    address.cli(&["SCRIPT", "FLUSH"]);
                }
                address
            })
        };
        let mut admitted = 0;
        for task in tasks {
            admitted += task.await.unwrap();
        }
        flushing.store(false, Ordering::SeqCst);
        flusher.join().unwrap();
        assert_eq!(admitted, 300);
    });
}

#[test]
fn every_key_that_is_written_has_a_ttl() {
    over_redis(async |it| {
        let redis = it.redis.as_ref().unwrap();
        let (set, keys) = (set(&[10, 200]), words(&["{p}:a", "{p}:b"]));
        for _ in 0..3 {
            let taken = take(&it.store, &set, &keys).await.unwrap();
            take(&it.store, &set, &keys).await.unwrap();
            it.store.refund(Charges { set: &set, keys: &keys }, &taken.at).await.unwrap();
        }
        it.store.found("base").await.unwrap();
        let [hard, soft] = [false, true].map(|soft| Purge { key: format!("epoch-{soft}"), soft });
        it.store.purge(&[hard, soft]).await.unwrap();
        it.store.put("mark", b"1", Duration::from_secs(60)).await.unwrap();
        let lock = HeldLock { key: "lock".to_owned(), token: "me".to_owned() };
        assert!(it.store.lock(&lock, Duration::from_secs(60)).await.unwrap());
        let chunk = ("chunk".to_owned(), bytes::Bytes::from_static(b"part"));
        it.store.write_chunks(&[chunk], Duration::from_secs(60)).await.unwrap();
        assert_eq!(it.store.remember(&entry("-", "", "kept")).await, Ok(Remembered::Stored));
        let all = redis.cli(&["KEYS", "*"]);
        assert_eq!(all.lines().count(), 9, "{all}");
        for key in all.lines() {
            let ttl: i64 = redis.cli(&["PTTL", key]).parse().unwrap();
            assert!(ttl > 0, "{key} has no expiry");
        }
    });
}

#[test]
fn a_key_of_any_limit_fits_in_a_kibibyte() {
    over_redis(async |it| {
        let span = Duration::from_millis(500);
        let set = WindowSet::new(vec![Window::new(100_000, span)]);
        let keys = words(&["{p}:a"]);
        let patience_ends = Instant::now() + PATIENCE;
        let mut begin = None;
        loop {
            let reply = take(&it.store, &set, &keys).await.unwrap();
            let size: u32 = it.redis.as_ref().unwrap().cli(&["STRLEN", "{p}:a"]).parse().unwrap();
            assert!(size <= 1024, "{size} bytes");
            let begin = *begin.get_or_insert(reply.at.micros());
            if Duration::from_micros(reply.at.micros() - begin) > 3 * span {
                return;
            }
            assert!(Instant::now() < patience_ends, "no charges over three windows");
        }
    });
}

#[test]
fn what_is_no_limiter_state_is_an_error_and_no_admission() {
    over_redis(async |it| {
        let redis = it.redis.as_ref().unwrap();
        redis.cli(&["LPUSH", "{p}:a", "poison"]);
        let reply = take(&it.store, &set(&[1]), &words(&["{p}:a"])).await;
        assert!(matches!(reply, Err(StoreError::Refused(_))), "{reply:?}");
        redis.cli(&["LPUSH", "app:session:s", "poison"]);
        let reply = it.session("app:session:s").await;
        assert!(matches!(reply, Err(StoreError::Refused(_))), "{reply:?}");
    });
}
