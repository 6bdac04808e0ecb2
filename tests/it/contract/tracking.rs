//! Epochs that a node knows without asking: whatever happens to them, or to the connection that
//! tells of it, no node keeps an old one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis::config::{self, CacheEpochs, StoreUse};
use portcullis::store::{Cached, CachedReply, Epoch, Purge, Questions, Store, StoreError};

use super::{BASE, MINUTE, PATH, open, runtime, words};
use crate::support::{PATIENCE, Redis, TcpProxy};

const EPOCHS: [&str; 2] = [BASE, PATH];

/// A store that follows the epochs of the server at `address`.
async fn following(address: std::net::SocketAddr) -> Store {
    let store =
        open(address, config::Store { cache_epochs: CacheEpochs::Follow, ..Default::default() });
    let store = store.await;
    store.follow_epochs();
    store
}

/// Waits until `holds`.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "in vain waited until {what}");
}

fn known(store: &Store) -> Option<Vec<Epoch>> {
    let known = store.known_epochs(&words(&EPOCHS))?;
    Some(known.into_iter().map(|it| it.epoch).collect())
}

/// Asks as a request does; what the store said.
async fn ask(store: &Store) -> Vec<Epoch> {
    asked(store).await.expect("no failure")
}

/// Asks as a request does; what the store said, or how it failed.
async fn asked(store: &Store) -> Result<Vec<Epoch>, StoreError> {
    let epochs = words(&EPOCHS);
    let cached = Some(Cached { epochs: &epochs, entry: None });
    let answers = store.ask(&Questions { cached, ..Questions::default() }).await;
    Ok(answers.cached.expect("an answer")?.epochs)
}

/// Asks until the node knows the epochs; what it knows. A question that fails says nothing: the
/// store may just have lost its connection, or not have it back yet.
async fn learnt(store: &Store) -> Vec<Epoch> {
    let learning = async {
        loop {
            let _failed = asked(store).await;
            if let Some(known) = known(store) {
                return known;
            }
        }
    };
    tokio::time::timeout(PATIENCE, learning).await.expect("epochs are known")
}

async fn purge(store: &Store, key: &str, soft: bool) {
    store.purge(&[Purge { key: key.to_owned(), soft }]).await.expect("a purge");
}

#[test]
fn a_purge_through_one_node_is_known_to_the_other() {
    let redis = Redis::start();
    runtime().block_on(async {
        let (one, two) = (following(redis.address()).await, following(redis.address()).await);
        assert_eq!(known(&one), None, "nothing was read yet");
        one.found(BASE).await.unwrap();
        let first = learnt(&one).await;
        assert_eq!(learnt(&two).await, first);
        for soft in [false, true] {
            let before = learnt(&two).await;
            learnt(&one).await;
            purge(&one, PATH, soft).await;
            assert_eq!(known(&one), None, "at once, where it was made");
            until("the other forgets it", || known(&two).is_none()).await;
            let after = learnt(&two).await;
            assert_eq!(after[0], before[0]);
            assert_ne!(after[1].soft, before[1].soft);
            assert_eq!(after[1].hard == before[1].hard, soft);
        }
        learnt(&one).await;
        one.put("app:cache:{shop/p}:entry:r:", b"x", MINUTE).await.unwrap();
        assert!(known(&one).is_some(), "an entry is no epoch");
    });
}

#[test]
fn epochs_read_alone_are_known_too_and_what_nobody_follows_is_not() {
    let redis = Redis::start();
    runtime().block_on(async {
        let store = following(redis.address()).await;
        let tag = words(&["app:cache-epoch:{tag=shop=x}"]);
        let learning = async {
            while store.known_epochs(&tag).is_none() {
                store.epochs(&tag).await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, learning).await.expect("a tag is known");
        let reply = CachedReply::known(&store.known_epochs(&tag).expect("a known epoch"));
        assert_eq!((reply.epochs, reply.based), (store.epochs(&tag).await.unwrap(), false));
        let asking = open(redis.address(), config::Store::default()).await;
        asking.follow_epochs();
        asking.found(BASE).await.unwrap();
        ask(&asking).await;
        assert_eq!(known(&asking), None);
        let offset = asking.clock_offset_ms(StoreUse::Cache);
        assert!(offset.unsigned_abs() < PATIENCE.as_millis() as u64);
    });
}

#[test]
fn without_a_base_nothing_is_known() {
    let redis = Redis::start();
    runtime().block_on(async {
        let store = following(redis.address()).await;
        store.found(BASE).await.unwrap();
        learnt(&store).await;
        redis.cli(&["FLUSHALL"]);
        until("all is forgotten", || known(&store).is_none()).await;
        for _ in 0..3 {
            ask(&store).await;
            assert_eq!(known(&store), None, "the next request must learn that it is gone");
        }
        store.found(BASE).await.unwrap();
        learnt(&store).await;
    });
}

#[test]
fn a_lost_connection_is_trusted_no_more_and_again_once_it_is_back() {
    let redis = Redis::start();
    runtime().block_on(async {
        let store = following(redis.address()).await;
        store.found(BASE).await.unwrap();
        for round in 0..3 {
            let before = learnt(&store).await;
            // The only one that is tracked.
            let list = redis.cli(&["CLIENT", "LIST"]);
            let tracked = list.lines().find(|line| line.contains(" flags=tB ")).expect(&list);
            let id = tracked.split([' ', '=']).nth(1).expect("an id");
            assert_eq!(redis.cli(&["CLIENT", "KILL", "ID", id]), "1");
            until("nothing is known", || known(&store).is_none()).await;
            redis.cli(&["DEL", PATH]);
            redis.cli(&["SET", PATH, &format!("sixteen bytes {round:2}")]);
            let after = learnt(&store).await;
            assert_ne!(after[1], before[1]);
        }
    });
}

#[test]
fn a_silent_connection_is_trusted_no_more() {
    let redis = Redis::start();
    runtime().block_on(async {
        let store = following(redis.address()).await;
        store.found(BASE).await.unwrap();
        learnt(&store).await;
        redis.stop_signal();
        until("nothing is known", || known(&store).is_none()).await;
        redis.cont_signal();
        learnt(&store).await;
    });
}

#[test]
fn a_server_that_is_cut_off_is_trusted_no_more() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let address: std::net::SocketAddr = proxy.url()["redis://".len()..].parse().unwrap();
    runtime().block_on(async {
        let store = following(address).await;
        store.found(BASE).await.unwrap();
        learnt(&store).await;
        proxy.refuse();
        until("nothing is known", || known(&store).is_none()).await;
        redis.cli(&["SET", PATH, "sixteen bytes ab"]);
        proxy.pass();
        let mut after = learnt(&store).await;
        store.mix_for_now(&words(&EPOCHS), &mut after);
        assert_eq!(after[1].hard, *b"sixteen ");
    });
}

#[test]
fn a_read_that_races_with_a_purge_leaves_no_old_epoch() {
    const PURGES: usize = 300;
    let redis = Redis::start();
    runtime().block_on(async {
        let writer = open(redis.address(), config::Store::default()).await;
        writer.found(BASE).await.unwrap();
        let reader = Arc::new(following(redis.address()).await);
        learnt(&reader).await;
        let over = Arc::new(AtomicBool::new(false));
        let asking = (0..4).map(|_| {
            let (reader, over) = (Arc::clone(&reader), Arc::clone(&over));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    ask(&reader).await;
                }
            })
        });
        let asking: Vec<_> = asking.collect();
        for _ in 0..PURGES {
            purge(&writer, PATH, false).await;
            let truth = writer.epochs(&words(&EPOCHS)).await.unwrap();
            // Behind by the push at most: an old epoch that was put back would stay.
            until("the new epoch is known", || known(&reader).is_some_and(|k| k == truth)).await;
        }
        over.store(true, Ordering::Relaxed);
        for task in asking {
            task.await.unwrap();
        }
    });
}
