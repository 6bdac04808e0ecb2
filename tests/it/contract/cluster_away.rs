//! One server of a Redis Cluster that is silent or gone takes its own share, and nothing of what
//! lies on the others.

use std::time::Duration;

use portcullis::config::{self, StoreUrl};
use portcullis::store::{
    Cached, CachedEntry, Charges, HeldLock, Questions, RedisStore, Store, StoreError, WantedLock,
};

use super::{MINUTE, charges, runtime, words};
use crate::support::{PATIENCE, Redis, RedisCluster, eventually};

/// What a silent server is waited for. Those that answer have all of it, on a busy machine too.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A store over the cluster, every server of which can be asked.
async fn open(cluster: &RedisCluster) -> Store {
    let seed = |server: &Redis| (server.address().ip().to_string(), server.address().port());
    let url = StoreUrl::Cluster { seeds: cluster.servers.iter().map(seed).collect() };
    let settings = config::Store { url, timeout: TIMEOUT, ..config::Store::default() };
    let store = RedisStore::open(&config::Store { connect_timeout: PATIENCE, ..settings });
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
        let (epochs, variants) = (words(&[&gone]), words(&["-"]));
        let wanted = Some(WantedLock { lock: &lock, ttl: MINUTE });
        let asked = Some(CachedEntry { key: &entry, variants: &variants, lock: wanted });
        let cached = Some(Cached { epochs: &epochs, entry: asked });
        let answers = store.ask(&Questions { cached, ..Questions::default() }).await;
        assert!(matches!(answers.cached, Some(Err(error)) if error != StoreError::Timeout));
        let calls = cluster.servers[1].cli(&["INFO", "commandstats"]);
        assert!(calls.contains("cmdstat_set:"), "it was taken: {calls}");
        eventually("the lock is given back", || cluster.servers[1].cli(&["EXISTS", &key]) == "0");
    });
}
