//! Epochs that a node knows of a Redis Cluster without asking: of each server what it tells of
//! itself, and nothing of a slot that is moving.

use portcullis::config::{self, CacheEpochs, StoreUrl};
use portcullis::store::{Epoch, Purge, Store};

use super::{open_as, runtime, words};
use crate::support::{PATIENCE, Redis, RedisCluster};

/// A store that follows the epochs of a cluster.
async fn following(cluster: &RedisCluster) -> Store {
    let seed = |server: &Redis| (server.address().ip().to_string(), server.address().port());
    let seeds = cluster.servers.iter().map(seed).collect();
    let store = open_as(config::Store {
        url: StoreUrl::Cluster { seeds },
        cache_epochs: CacheEpochs::Follow,
        ..config::Store::default()
    });
    let store = store.await;
    store.follow_epochs();
    store
}

/// An epoch that lies on that server.
fn epoch_on(cluster: &RedisCluster, server: usize) -> String {
    let mut keys = (0..).map(|number| format!("app:cache-epoch:{{shop/{number}}}"));
    keys.find(|key| cluster.owner(key) == server).expect("a key")
}

fn known(store: &Store, keys: &[&str]) -> Option<Vec<Epoch>> {
    let known = store.known_epochs(&words(keys))?;
    Some(known.into_iter().map(|it| it.epoch).collect())
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

/// Asks until the node knows the epochs; what it knows.
async fn learnt(store: &Store, keys: &[&str]) -> Vec<Epoch> {
    let learning = async {
        loop {
            // A server may be away, or about to be another one.
            let _ = store.epochs(&words(keys)).await;
            if let Some(known) = known(store, keys) {
                return known;
            }
        }
    };
    tokio::time::timeout(PATIENCE, learning).await.expect("epochs are known")
}

async fn purge(store: &Store, key: &str) {
    store.purge(&[Purge::hard(key.to_owned())]).await.expect("a purge");
}

/// Ends the connection on which this server tells of changes.
fn deafen(server: &Redis) {
    let list = server.cli(&["CLIENT", "LIST"]);
    let tracked = list.lines().find(|line| line.contains(" flags=tB ")).expect("an ear");
    let id = tracked.split([' ', '=']).nth(1).expect("an id");
    assert_eq!(server.cli(&["CLIENT", "KILL", "ID", id]), "1");
}

#[test]
fn purges_on_all_servers_are_told() {
    let cluster = RedisCluster::start(3);
    let keys = [0, 1, 2].map(|server| epoch_on(&cluster, server));
    let keys = keys.each_ref().map(String::as_str);
    runtime().block_on(async {
        let (one, two) = (following(&cluster).await, following(&cluster).await);
        assert_eq!(known(&one, &keys), None, "nothing was read yet");
        for (at, key) in keys.iter().enumerate() {
            let before = learnt(&one, &keys).await;
            assert_eq!(learnt(&two, &keys).await, before);
            purge(&one, key).await;
            assert_eq!(known(&one, &keys), None, "at once, where it was made");
            until("the other forgets it", || known(&two, &keys).is_none()).await;
            let other = keys[(at + 1) % 3];
            until("and nothing else", || known(&two, &[other]).is_some()).await;
            let after = learnt(&two, &keys).await;
            assert!((0..3).all(|it| (after[it] == before[it]) == (it != at)));
        }
        until("it says so", || two.followed_epochs().is_some_and(|it| it.0 >= 3 && it.1)).await;
    });
}

#[test]
fn a_server_that_is_not_heard_is_not_known_and_the_others_are() {
    let cluster = RedisCluster::start(3);
    let (here, there) = (epoch_on(&cluster, 0), epoch_on(&cluster, 1));
    let (here, there) = (&*here, &*there);
    runtime().block_on(async {
        let store = following(&cluster).await;
        for round in 0..3 {
            let before = learnt(&store, &[here, there]).await;
            deafen(&cluster.servers[0]);
            until("it is not known", || known(&store, &[here]).is_none()).await;
            until("what lies elsewhere is", || known(&store, &[there]).is_some()).await;
            let changed = format!("sixteen bytes {round:2}");
            assert_eq!(cluster.servers[0].cli(&["SET", here, &changed]), "OK");
            assert_ne!(learnt(&store, &[here, there]).await[0], before[0]);
        }
        cluster.servers[0].stop_signal();
        until("silence is not trusted", || known(&store, &[here]).is_none()).await;
        cluster.servers[0].cont_signal();
        learnt(&store, &[here, there]).await;
    });
}

#[test]
fn of_a_slot_that_moves_nothing_is_known_until_it_is_there() {
    let cluster = RedisCluster::start(3);
    let key = epoch_on(&cluster, 0);
    let key = &*key;
    let (from, to) = (&cluster.servers[0], &cluster.servers[1]);
    let slot = from.cli(&["CLUSTER", "KEYSLOT", key]);
    let (from_id, to_id) = (from.cli(&["CLUSTER", "MYID"]), to.cli(&["CLUSTER", "MYID"]));
    runtime().block_on(async {
        let (store, other) = (following(&cluster).await, following(&cluster).await);
        let absent = |epochs: Vec<Epoch>| {
            let mut epochs = epochs;
            store.mix_for_now(&words(&[key]), &mut epochs);
            epochs == [Epoch::default()]
        };
        assert!(absent(learnt(&store, &[key]).await), "there is none");
        assert_eq!(to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]), "OK");
        assert_eq!(from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]), "OK");
        until("it is known no more", || known(&store, &[key]).is_none()).await;
        // What is absent here comes to be there, and here nobody tells of it.
        purge(&other, key).await;
        let first = store.epochs(&words(&[key])).await.expect("an answer");
        assert!(!absent(first.clone()), "there is one on the other side");
        for _ in 0..20 {
            store.epochs(&words(&[key])).await.expect("an answer");
            assert_eq!(known(&store, &[key]), None);
        }
        for server in [to, from] {
            assert_eq!(server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]), "OK");
        }
        assert_eq!(learnt(&store, &[key]).await, first);
        purge(&other, key).await;
        until("the new server tells of it", || known(&store, &[key]).is_none()).await;
        assert_ne!(learnt(&store, &[key]).await, first);
    });
}

#[test]
fn who_is_cut_off_from_most_is_not_believed() {
    let cluster = RedisCluster::start(3);
    let key = epoch_on(&cluster, 0);
    runtime().block_on(async {
        let store = following(&cluster).await;
        learnt(&store, &[&key]).await;
        cluster.servers[1..].iter().for_each(Redis::stop_signal);
        until("the one that is left knows nothing", || known(&store, &[&key]).is_none()).await;
        cluster.servers[1..].iter().for_each(Redis::cont_signal);
        learnt(&store, &[&key]).await;
    });
}

#[test]
fn a_promoted_replica_tells_of_changes() {
    let mut cluster = RedisCluster::start_with_replicas(3);
    let key = epoch_on(&cluster, 0);
    let key = &*key;
    runtime().block_on(async {
        let (store, other) = (following(&cluster).await, following(&cluster).await);
        learnt(&store, &[key]).await;
        cluster.servers[0].kill();
        until("it is not known", || known(&store, &[key]).is_none()).await;
        let before = learnt(&store, &[key]).await;
        let purging = async { while other.purge(&[Purge::hard(key.to_owned())]).await.is_err() {} };
        tokio::time::timeout(PATIENCE, purging).await.expect("a purge");
        until("it tells of it", || known(&store, &[key]).is_none()).await;
        assert_ne!(learnt(&store, &[key]).await, before);
    });
}
