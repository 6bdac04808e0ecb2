//! One request waits for the store once, however often it asks.

use std::time::Duration;

use portcullis::config::{self, StoreUrl, StoreUse};
use portcullis::store::{
    Cached, CachedEntry, HeldLock, Purge, Questions, RedisStore, RevocationKeys, Store, StoreError,
    budget,
};
use tokio::time::Instant;

use crate::support::{PATIENCE, Redis, RedisCluster};

/// Keys in slots of all servers.
fn keys() -> Vec<String> {
    (0..20).map(|at| format!("app:auth:blacklist:{at}")).collect()
}

/// Asks for all of these, and for an entry: what came of the first and of the second.
async fn ask(store: &Store, keys: &[String]) -> [Result<(), StoreError>; 2] {
    let revocation = Some(RevocationKeys { blacklist: keys, ..RevocationKeys::default() });
    let entry = Some(CachedEntry { key: "app:cache:entry", variants: &[], lock: None });
    let cached = Some(Cached { epochs: &keys[..2], entry });
    let questions = Questions { revocation, cached, ..Questions::default() };
    let answers = store.ask(&questions).await;
    let revocation = answers.revocation.expect("it was asked").map(|_| ());
    [revocation, answers.cached.expect("it was asked").map(|_| ())]
}

/// All servers fall silent between two questions of a request: what it asks later is not asked.
fn waits_once(url: StoreUrl, servers: &[Redis]) {
    let settings = config::Store {
        url,
        timeout: Duration::from_millis(500),
        connect_timeout: PATIENCE,
        ..config::Store::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let redis = RedisStore::open(&settings);
        assert!(redis.first_connection(PATIENCE).await);
        let (store, keys) = (Store::Redis(Box::new(redis)), keys());
        let deadline = Instant::now() + PATIENCE;
        while ask(&store, &keys).await != [Ok(()), Ok(())] {
            assert!(Instant::now() < deadline, "all servers answer");
        }
        servers.iter().for_each(Redis::stop_signal);
        let later = || [Err(StoreError::NotAsked), Err(StoreError::NotAsked)];
        budget::scope(async {
            let silent = [Err(StoreError::Timeout), Err(StoreError::Timeout)];
            assert_eq!(ask(&store, &keys).await, silent);
            assert_eq!(ask(&store, &keys).await, later());
            let not_asked = Some(StoreError::NotAsked);
            assert_eq!(store.get(&keys[0]).await.err(), not_asked);
            assert_eq!(store.epochs(&keys).await.err(), not_asked);
            assert_eq!(store.chunks(&keys[..1]).await.err(), not_asked);
            assert_eq!(store.variants("app:cache:entry", &keys[..1]).await.err(), not_asked);
            let lock = HeldLock { key: keys[0].clone(), token: "t".to_owned() };
            assert_eq!(store.lock(&lock, PATIENCE).await.err(), not_asked);
            let purge = Purge { key: keys[0].clone(), soft: false };
            assert_eq!(store.purge(&[purge]).await.err(), not_asked);
            // What must be asked all the same is.
            budget::keep(settings.timeout);
            assert_eq!(store.get(&keys[0]).await.err(), Some(StoreError::Timeout));
        })
        .await;
        // Each question has its own time where no request waits.
        assert_eq!(store.get(&keys[0]).await.err(), Some(StoreError::Timeout));
        budget::scope(async {
            assert_ne!(ask(&store, &keys).await, later(), "the next request asks");
        })
        .await;
    });
}

#[test]
fn a_request_waits_for_a_redis_once() {
    let redis = Redis::start();
    let address = redis.address();
    let url = StoreUrl::Redis { host: address.ip().to_string(), port: address.port(), db: 0 };
    waits_once(url, std::slice::from_ref(&redis));
}

/// What others took of a request's time says nothing of the server that is asked last.
#[test]
fn who_is_given_little_time_has_not_been_silent() {
    let redis = Redis::start();
    let (address, timeout) = (redis.address(), Duration::from_secs(1));
    let url = StoreUrl::Redis { host: address.ip().to_string(), port: address.port(), db: 0 };
    let settings =
        config::Store { url, timeout, connect_timeout: PATIENCE, ..config::Store::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = RedisStore::open(&settings);
        assert!(store.first_connection(PATIENCE).await);
        let store = Store::Redis(Box::new(store));
        redis.stop_signal();
        let missed = || store.state(StoreUse::Main).expect("a state").asked.missed;
        for (taken, expected) in [(timeout * 3 / 4, 0), (timeout / 4, 1)] {
            let asked = budget::scope_from(taken, store.get("app:auth:key:a"));
            assert_eq!(asked.await.err(), Some(StoreError::Timeout));
            assert_eq!(missed(), expected, "{taken:?} were taken before");
        }
        redis.cont_signal();
    });
}

#[test]
fn a_request_waits_for_all_servers_of_a_cluster_once() {
    let cluster = RedisCluster::start(3);
    let of = |redis: &Redis| (redis.address().ip().to_string(), redis.address().port());
    let seeds = cluster.servers.iter().map(of).collect();
    waits_once(StoreUrl::Cluster { seeds }, &cluster.servers);
}
