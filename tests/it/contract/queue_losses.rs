//! What becomes of queues when Redis loses a part of them, or may not keep them at all.

use std::time::Duration;

use bytes::Bytes;
use portcullis::config::{self, StoreUrl};
use portcullis::store::RedisStore;
use portcullis::store::Store;
use portcullis::store::queue::{
    Accept, Accepted, Cancelled, DeliveryId, Durability, ItemState, Outcome, QUEUE_PAGE,
    QueueBounds, QueueSafety, Take, Taken,
};

use super::queue_hands::{BLINK, HOUR, Of, Queue, ROOMY, WRITTEN, ids, one};
use super::{Subject, open, over_all_stores, over_redis, runtime};
use crate::support::{PATIENCE, Redis};

const ANY: Take<'static> = Take { node: "n1", most: 99, in_flight: 999, lease: HOUR, sweep: true };

fn redis(it: &Subject) -> &Redis {
    it.redis.as_deref().expect("a Redis")
}

#[test]
fn a_group_that_was_destroyed_is_made_again_from_the_beginning() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        let [claimed, waiting] = [queue.put(Of::default()).await, queue.put(Of::default()).await];
        let claim = queue.take(1).await.remove(0);
        assert_eq!(redis(&it).cli(&["XGROUP", "DESTROY", &queue.keys.ready, "g"]), "1");
        // Nobody else has it meanwhile.
        assert!(it.store.queue_renew(&queue.keys, &[&claim.hold]).await == Ok(vec![true]));
        assert!(matches!(queue.try_take(ANY).await, Taken::Reset { .. }));
        let claims = queue.take(9).await;
        let mut ids: Vec<_> = claims.iter().map(|claim| claim.hold.id).collect();
        ids.sort_unstable();
        let mut expected = vec![claimed, waiting];
        expected.sort_unstable();
        assert_eq!(ids, expected);
        assert_ne!(queue.settle(&claim.hold, Outcome::Done).await, WRITTEN, "its claim is old");
        for claim in &claims {
            assert_eq!(queue.settle(&claim.hold, Outcome::Done).await, WRITTEN);
        }
        assert_eq!(queue.counts().await, [0; 6]);
        assert_eq!(queue.take(9).await, []);
    });
}

#[test]
fn a_claim_that_nobody_took_since_is_settled_though_the_stream_was_lost() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        let [first, second] = [queue.put(Of::default()).await, queue.put(Of::default()).await];
        let claims = queue.take(9).await;
        assert_eq!(redis(&it).cli(&["DEL", &queue.keys.ready]), "1");
        assert_eq!(queue.settle(&claims[0].hold, Outcome::Done).await, WRITTEN);
        // The other one is put back, and yet its holder is the only one so far.
        assert_eq!(queue.try_take(ANY).await, Taken::Reset { put_back: 1 });
        assert_eq!(queue.settle(&claims[1].hold, Outcome::Done).await, WRITTEN);
        assert_eq!(queue.take(9).await, []);
        for id in [first, second] {
            assert_eq!(queue.state(&id).await, ItemState::Done);
        }
        assert_eq!(queue.counts().await, [0; 6]);
    });
}

#[test]
fn a_lost_stream_is_put_back_with_all_that_waited_in_it() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        let mut put = Vec::new();
        for _ in 0..250 {
            put.push(queue.put(Of::default()).await);
        }
        let late = queue.put(Of { delay: HOUR, ..Of::default() }).await;
        let ordered = Of { order: Some("0f"), ..Of::default() };
        let [head, behind] = [queue.put(ordered).await, queue.put(ordered).await];
        assert_eq!(queue.take(1).await.len(), 1);
        assert_eq!(redis(&it).cli(&["DEL", &queue.keys.ready]), "1");
        assert_eq!(queue.try_take(ANY).await, Taken::Reset { put_back: 251 });
        assert_eq!(
            it.store.queue_repair(&queue.keys, Duration::ZERO).await,
            Ok(0),
            "nothing is put back twice"
        );
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.extend(queue.take_by(ANY).await.into_iter().map(|claim| claim.hold.id));
        }
        taken.sort_unstable();
        let mut expected = put;
        expected.push(head);
        expected.sort_unstable();
        assert_eq!(taken, expected);
        assert_eq!(queue.state(&behind).await, ItemState::Behind);
        assert_eq!(queue.counts().await, [0, 1, 1, 251, 0, 253]);
        assert!(queue.find(&late).await.is_some());
    });
}

/// Others got nothing in their place, or an error for ever: redis#10227, #7021, #10198.
#[test]
fn claimed_entries_that_were_deleted_or_trimmed_are_put_back() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        for _ in 0..4 {
            queue.put(Of::default()).await;
        }
        let claims = queue.take(9).await;
        let cli = |command: &[&str]| redis(&it).cli(command);
        let ready = &*queue.keys.ready;
        assert_eq!(cli(&["XDEL", ready, &claims[0].hold.entry]), "1");
        assert_eq!(cli(&["XTRIM", ready, "MAXLEN", "1"]), "2");
        let sweep = Take { lease: BLINK, ..ANY };
        // What is left is taken over, and what is not is no item.
        let mut over = Vec::new();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while over.is_empty() && tokio::time::Instant::now() < deadline {
            over = queue.take_by(sweep).await;
        }
        assert_eq!(over.len(), 1, "{over:?}");
        assert_eq!(it.store.queue_repair(&queue.keys, Duration::ZERO).await, Ok(3));
        assert_eq!(queue.take(9).await.len(), 3);
        assert_eq!(queue.counts().await, [0, 0, 0, 4, 0, 4]);
    });
}

#[test]
fn every_key_ends_and_lives_as_long_as_its_items() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        let of = Of { key: Some("0f"), order: Some("0f"), body: "one", ..Of::default() };
        let id = queue.put(of).await;
        queue.put(Of { key: None, ..of }).await;
        queue.put(Of { delay: HOUR, order: None, key: Some("1f"), ..of }).await;
        let [day, hour] = [86_400_000, 3_600_000];
        let ttl = |key: &str| redis(&it).cli(&["PTTL", key]).parse::<i64>().expect("a number");
        let check = |stage: &str| {
            let all = redis(&it).cli(&["KEYS", "app:queue:*"]);
            for key in all.lines() {
                let left = ttl(key);
                assert!(left > 0, "{stage}: {key} has no end");
            }
            all.lines().count()
        };
        // Three records and bodies, two keys; ready, later, open, bytes and a line.
        assert_eq!(check("accepted"), 13);
        let slack = i64::try_from(PATIENCE.as_millis()).expect("a small number");
        for key in [&queue.keys.open, &queue.keys.bytes, &queue.keys.item(&id)] {
            assert!(ttl(key) > day - slack, "{key}");
        }
        // With its delay on top.
        assert!(ttl(&queue.keys.later) > day + hour - slack);
        let claim = queue.take(1).await.remove(0);
        let retry = Outcome::Retry { delay: HOUR };
        assert_eq!(queue.settle(&claim.hold, retry).await, WRITTEN);
        check("failed");
        assert_eq!(redis(&it).cli(&["ZADD", &queue.keys.later, "1", id.as_str()]), "0");
        let claim = queue.take(1).await.remove(0);
        assert_eq!(queue.settle(&claim.hold, Outcome::Dead).await, WRITTEN);
        check("dead");
        assert!(ttl(&queue.keys.item(&id)) <= hour && ttl(&queue.keys.body(&id)) <= hour);
        queue.requeue(&id).await;
        check("requeued");
        assert!(ttl(&queue.keys.item(&id)) > day - slack);
        assert!(ttl(&queue.keys.body(&id)) > day - slack);
    });
}

over_all_stores![a_list_goes_on_by_the_clock_of_the_store];

/// An id of a node whose clock is an hour ahead.
fn ahead() -> DeliveryId {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a time after 1970") + HOUR;
    DeliveryId::new(0, now.as_millis() as u64).expect("random bytes")
}

async fn a_list_goes_on_by_the_clock_of_the_store(it: Subject) {
    let queue = Queue::of(&it);
    for _ in 0..QUEUE_PAGE + 9 {
        queue.put(Of { id: Some(ahead()), ..Of::default() }).await;
    }
    let first = it.store.queue_list(&queue.keys, None, None).await.expect("a page");
    let last = first.next.expect("more");
    assert_eq!(queue.cancel(&last).await, Cancelled::Cancelled);
    let rest = it.store.queue_list(&queue.keys, None, Some(&last)).await.expect("a page");
    let mut seen: Vec<_> = first.items.iter().chain(&rest.items).map(|item| item.id).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), QUEUE_PAGE + 9, "some were passed over");
}

#[test]
fn a_repair_goes_on_where_the_last_record_it_saw_has_ended() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        for _ in 0..250 {
            queue.put(Of { id: Some(ahead()), ..Of::default() }).await;
        }
        let last = redis(&it).cli(&["ZRANGE", &queue.keys.open, "99", "99"]);
        assert_eq!(redis(&it).cli(&["DEL", &[&*queue.keys.items, last.trim()].concat()]), "1");
        assert_eq!(redis(&it).cli(&["DEL", &queue.keys.ready]), "1");
        assert_eq!(it.store.queue_repair(&queue.keys, Duration::ZERO).await, Ok(249));
        assert_eq!(queue.counts().await, [249, 0, 0, 0, 0, 249]);
    });
}

#[test]
fn a_record_that_ended_while_it_was_open_leaves_nothing_behind() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        let end = |id: &DeliveryId| {
            assert_eq!(redis(&it).cli(&["DEL", &queue.keys.item(id)]), "1");
        };
        assert_eq!(queue.take(9).await, [], "the group is there");
        // One whose turn has come, one that is due now, and one that only a repair sees.
        end(&queue.put(Of { body: "one", ..Of::default() }).await);
        assert_eq!(queue.take(9).await, []);
        assert_eq!((queue.counts().await, queue.bytes().await), ([0; 6], 0));
        let late = queue.put(Of { delay: HOUR, ..Of::default() }).await;
        end(&late);
        assert_eq!(redis(&it).cli(&["ZADD", &queue.keys.later, "1", late.as_str()]), "0");
        assert_eq!(queue.take(9).await, []);
        assert_eq!((queue.counts().await, queue.bytes().await), ([0; 6], 0));
        let ordered = Of { order: Some("0f"), ..Of::default() };
        let [first, second] = [queue.put(ordered).await, queue.put(ordered).await];
        end(&first);
        assert_eq!(queue.take(9).await, []);
        // Whoever stood behind it may go.
        assert_eq!(it.store.queue_repair(&queue.keys, Duration::ZERO).await, Ok(1));
        let claim = queue.take(9).await.remove(0);
        assert_eq!(claim.hold.id, second);
        // Its bytes are gone with it when nothing is open any more.
        assert_eq!(queue.settle(&claim.hold, Outcome::Done).await, WRITTEN);
        assert_eq!((queue.counts().await, queue.bytes().await), ([0; 6], 0));
        end(&queue.put(Of { body: "one", ..Of::default() }).await);
        assert_eq!(it.store.queue_repair(&queue.keys, Duration::ZERO).await, Ok(0));
        assert_eq!((queue.counts().await[5], queue.bytes().await), (0, 0));
    });
}

#[test]
fn what_is_open_lives_on_by_a_repair() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        let of = Of { order: Some("0f"), body: "one", ..Of::default() };
        let [id, _] = [queue.put(of).await, queue.put(of).await];
        assert_eq!(it.store.queue_repair(&queue.keys, Duration::ZERO).await, Ok(0));
        let keys = &queue.keys;
        let (item, body, line) = (keys.item(&id), keys.body(&id), keys.line("0f"));
        for key in [&item, &body, &line, &keys.ready, &keys.open, &keys.bytes] {
            let left: i64 = redis(&it).cli(&["PTTL", key]).parse().expect("a number");
            assert!(left > 29 * 86_400_000, "{key}: {left}");
        }
    });
}

/// One that is too long for a reply ends the connection each time.
#[test]
fn what_cannot_be_read_is_given_back_and_keeps_nobody() {
    over_redis(async |it: Subject| {
        let roomy = QueueBounds { bytes: 8 << 20, ..ROOMY };
        let queue = Queue { bounds: roomy, ..Queue::of(&it) };
        let long: &'static str = "x".repeat(2 << 20).leak();
        let short = queue.put(Of { body: "one", ..Of::default() }).await;
        let long = queue.put(Of { body: long, ..Of::default() }).await;
        let behind = queue.put(Of { body: "two", ..Of::default() }).await;
        let settings = config::Store { reply_bytes: 1 << 20, ..config::Store::default() };
        let narrow = open(redis(&it).address(), settings).await;
        let take = async || match narrow.queue_take(&queue.keys, ANY).await {
            Ok(Taken::Items { claims, .. }) => ids(&claims),
            other => panic!("{other:?}"),
        };
        assert_eq!(take().await, [short]);
        let item = queue.find(&long).await.expect("a record");
        assert_eq!((item.state, item.failures, item.stalls), (ItemState::Waiting, 0, 0));
        assert_eq!(take().await, [behind]);
        assert_eq!(redis(&it).cli(&["ZADD", &queue.keys.later, "1", long.as_str()]), "0");
        let claim = queue.take(1).await.remove(0);
        assert_eq!(claim.body.map(|body| body.len()), Some(2 << 20));
    });
}

fn safety(settings: &[&str]) -> QueueSafety {
    let settings: Vec<String> = settings.iter().map(|it| (*it).to_owned()).collect();
    let redis = Redis::start_with(&settings);
    runtime().block_on(async {
        let (host, port) = (redis.address().ip().to_string(), redis.address().port());
        let store = Store::Redis(Box::new(RedisStore::open(&config::Store {
            url: StoreUrl::Redis { host, port, db: 0 },
            timeout: PATIENCE,
            connect_timeout: PATIENCE,
            has_queues: true,
            ..config::Store::default()
        })));
        // What is asked meanwhile gives the look its time.
        let looked = async {
            while store.queue_safety() == QueueSafety::Unknown {
                let _ = store.get("none").await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looked).await.expect("somebody has looked");
        store.queue_safety()
    })
}

#[test]
fn what_replicas_lack_is_in_doubt() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        let accept = async |durability, key: &'static str| {
            let body = Bytes::from_static(b"one");
            let accept = Accept { key: Some(key), ..one(&body) };
            let accepted = it.store.queue_accept_durably(&queue.keys, &accept, durability);
            accepted.await.expect("an answer")
        };
        let is_new = |accepted: &Accepted| matches!(accepted, Accepted::New { .. });
        assert!(is_new(&accept(Durability::Memory, "0f").await));
        assert_eq!(accept(Durability::Replicas(1), "1f").await, Accepted::InDoubt);
        let replica = Redis::start();
        replica.follow(redis(&it));
        // The same key finds it, and it is known to be there by now.
        let again = async || accept(Durability::Replicas(1), "1f").await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut found = again().await;
        while found == Accepted::InDoubt && tokio::time::Instant::now() < deadline {
            found = again().await;
        }
        assert!(matches!(found, Accepted::Again { .. }), "{found:?}");
        // Many wait together.
        let names: Vec<&'static str> = (0..40).map(|number| &*format!("{number}").leak()).collect();
        let all = names.iter().map(|name| accept(Durability::Replicas(1), name));
        let all = futures_util::future::join_all(all).await;
        assert!(all.iter().all(is_new), "{all:?}");
        assert_eq!(queue.counts().await, [42, 0, 0, 0, 0, 42]);
        assert_eq!(replica.cli(&["ZCARD", &queue.keys.open]), "42");
        assert_eq!(accept(Durability::Replicas(2), "2f").await, Accepted::InDoubt);
    });
}

/// Volatile policies too: all keys of queues have an end.
#[test]
fn a_redis_that_evicts_keeps_no_work() {
    let evicting = |policy: &str| QueueSafety::Evicting { policy: policy.to_owned() };
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let found = safety(&["--maxmemory", "100mb", "--maxmemory-policy", policy]);
        assert_eq!(found, evicting(policy));
    }
    let found = safety(&["--maxmemory", "100mb", "--appendonly", "yes"]);
    assert_eq!(found, QueueSafety::Safe { appends: Some(true), fsyncs: Some(false) });
    let found = safety(&["--maxmemory-policy", "allkeys-lru"]);
    assert_eq!(found, QueueSafety::Safe { appends: Some(false), fsyncs: Some(false) });
}
