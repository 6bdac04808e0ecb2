//! One server of a Redis Cluster that is silent or gone takes its own share, and nothing of what
//! lies on the others.

use std::time::Duration;

use bytes::Bytes;
use portcullis::config::{self, CacheReads, StoreUrl};
use portcullis::store::{
    Cached, CachedEntry, Charges, HeldLock, Purge, Questions, RedisStore, Revocation, Store,
    StoreError, WantedLock,
};

use super::{MINUTE, charges, runtime, words};
use crate::support::{PATIENCE, Redis, RedisCluster, eventually};

/// What a silent server is waited for. Those that answer have all of it, on a busy machine too.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A store over the cluster, every server of which can be asked.
async fn open(cluster: &RedisCluster) -> Store {
    open_as(cluster, |settings| settings).await
}

async fn open_as(cluster: &RedisCluster, with: impl Fn(config::Store) -> config::Store) -> Store {
    let seed = |server: &Redis| (server.address().ip().to_string(), server.address().port());
    let url = StoreUrl::Cluster { seeds: cluster.servers.iter().map(seed).collect() };
    let settings = config::Store { url, timeout: TIMEOUT, ..config::Store::default() };
    let settings = with(config::Store { connect_timeout: PATIENCE, ..settings });
    let store = RedisStore::open(&settings);
    assert!(store.first_connection(PATIENCE).await, "no connection to the cluster");
    Store::Redis(Box::new(store))
}

/// A key that begins and ends so and lies on that server.
fn key_on(cluster: &RedisCluster, server: usize, begin: &str, end: &str) -> String {
    let mut keys = (0..).map(|number| format!("{begin}{{shop/{number}}}{end}"));
    keys.find(|key| cluster.owner(key) == server).expect("a key")
}

#[test]
fn a_purge_that_waits_for_a_silent_server_holds_up_nothing_else() {
    let cluster = RedisCluster::start(3);
    let epoch = |server| key_on(&cluster, server, "app:cache-epoch:", "");
    let (silent, awake) = (epoch(0), epoch(1));
    let limit = words(&[&key_on(&cluster, 1, "app:ratelimit:", ":x:1m")]);
    runtime().block_on(async {
        let store = open(&cluster).await;
        cluster.servers[0].stop_signal();
        let set = charges::set(&[3]);
        let epochs = words(&[&awake]);
        let answers = store
            .ask(&Questions {
                charges: Some(Charges { set: &set, keys: &limit }),
                cached: Some(Cached { epochs: &epochs, entry: None }),
                pending_purges: &[silent.clone(), awake.clone()],
                ..Questions::default()
            })
            .await;
        let charged = answers.charges.expect("an answer");
        assert!(charged.is_ok_and(|reply| reply.allowed), "it lies on another server");
        assert!(!answers.settled, "one purge was not carried out");
        assert!(matches!(answers.cached, Some(Err(_))), "what is older than a purge is not read");
        assert_eq!(cluster.servers[1].cli(&["EXISTS", &awake]), "1", "the other purge was not");
        cluster.servers[0].cont_signal();
    });
}

#[test]
fn a_lock_that_was_taken_beside_a_server_that_is_gone_is_given_back() {
    let mut cluster = RedisCluster::start(3);
    let gone = key_on(&cluster, 0, "app:cache-epoch:", "");
    let entry = key_on(&cluster, 1, "app:cache:", ":entry:r:");
    let key = key_on(&cluster, 1, "app:cache:", ":lock:r:");
    let lock = HeldLock { key: key.clone(), token: "me".to_owned() };
    runtime().block_on(async {
        let store = open(&cluster).await;
        cluster.servers[0].kill();
        let count = |what: &[&str]| cluster.servers[1].cli(what);
        assert_eq!(count(&["CONFIG", "RESETSTAT"]), "OK");
        let (epochs, variants) = (words(&[&gone]), words(&["-"]));
        let wanted = Some(WantedLock { lock: &lock, ttl: MINUTE });
        let asked = Some(CachedEntry { key: &entry, variants: &variants, lock: wanted });
        let cached = Some(Cached { epochs: &epochs, entry: asked });
        let answers = store.ask(&Questions { cached, ..Questions::default() }).await;
        assert!(matches!(answers.cached, Some(Err(error)) if error != StoreError::Timeout));
        let calls = || count(&["INFO", "commandstats"]);
        // Nothing else writes there: it was taken before it was given back.
        assert!(calls().contains("cmdstat_set:calls=1,"), "it was taken: {}", calls());
        eventually("the lock is given back", || calls().contains("cmdstat_del:calls=1,"));
        assert_eq!(count(&["EXISTS", &key]), "0");
    });
}

#[test]
fn where_the_clock_of_tags_is_silent_paths_are_purged_all_the_same() {
    let cluster = RedisCluster::start(3);
    let clock = "app:cache-epoch:{*}tags-clock".to_owned();
    let silent = cluster.owner(&clock);
    let awake = (silent + 1) % 3;
    let path = key_on(&cluster, awake, "app:cache-epoch:", "");
    let mut tags = (0..).map(|number| format!("app:cache-epoch:{{tag=h={number}}}"));
    let tag = tags.find(|tag| cluster.owner(tag) == awake).expect("a tag");
    runtime().block_on(async {
        let store = open(&cluster).await;
        let purges = || [&clock, &tag, &path].map(|key| Purge::hard(key.clone()));
        let is_there = |key: &str| cluster.servers[awake].cli(&["EXISTS", key]) == "1";
        cluster.servers[silent].stop_signal();
        assert!(store.purge(&purges()).await.is_err(), "not all was carried out");
        assert!(is_there(&path), "it waits for no clock");
        assert!(!is_there(&tag), "a fetch that began before would not hear of it");
        cluster.servers[silent].cont_signal();
        assert_eq!(store.purge(&purges()).await, Ok(()));
        assert!(is_there(&tag));
    });
}

#[test]
fn what_is_in_force_is_told_though_its_caller_has_left() {
    let cluster = RedisCluster::start(3);
    let stream = cluster.owner("app:auth:revocations");
    let mut keys = (0..).map(|number| format!("app:auth:blacklist:{number}"));
    let key = keys.find(|key| cluster.owner(key) != stream).expect("a key");
    let at = cluster.owner(&key);
    runtime().block_on(async {
        let store = open(&cluster).await;
        cluster.servers[stream].stop_signal();
        {
            let revocation =
                Revocation { key: &key, not_before: None, ttl: MINUTE, stream_ttl: MINUTE };
            let mut revoked = std::pin::pin!(store.revoke(revocation));
            // He leaves once the key is there.
            while cluster.servers[at].cli(&["EXISTS", &key]) != "1" {
                tokio::select! {
                    biased;
                    ended = &mut revoked => panic!("the stream is silent: {ended:?}"),
                    () = tokio::task::yield_now() => {}
                }
            }
        }
        cluster.servers[stream].cont_signal();
        let told = || cluster.servers[stream].cli(&["XLEN", "app:auth:revocations"]);
        eventually("everybody is told", || told() == "1");
    });
}

#[test]
fn pieces_of_a_body_are_read_of_the_primary_where_its_replica_is_silent() {
    let cluster = RedisCluster::start_with_replicas(3);
    let keys = [0, 1].map(|piece| key_on(&cluster, 0, "app:cache:", &format!(":body:{piece}")));
    let replica = &cluster.servers[3];
    runtime().block_on(async {
        let by_replica = |settings| config::Store { cache_reads: CacheReads::Replica, ..settings };
        let store = open_as(&cluster, by_replica).await;
        let chunks = keys.clone().map(|key| (key, Bytes::from_static(b"piece")));
        store.write_chunks(&chunks, MINUTE).await.expect("they are written");
        let expected = Ok(vec![Some(Bytes::from_static(b"piece")); 2]);
        let reads = || {
            let stats = replica.cli(&["INFO", "commandstats"]);
            let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_mget:calls="));
            line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        // Others read there, too, but not as often.
        while reads() < 20 {
            assert_eq!(store.chunks(&keys).await, expected);
            assert!(tokio::time::Instant::now() < deadline, "no replica is read from");
        }
        replica.stop_signal();
        assert_eq!(store.chunks(&keys).await, expected);
        replica.cont_signal();
    });
}
