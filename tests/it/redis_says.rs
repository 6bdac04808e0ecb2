//! What is the matter with Redis is said by name, once, with what to do; and whether it answers is
//! one question for all threads.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use portcullis::config::{self, StoreUrl, StoreUse};
use portcullis::store::{Questions, RedisStore, RevocationKeys, Store, StoreError};

use crate::support::{
    AUTH, Client, Gateway, PATIENCE, Redis, Session, TcpProxy, Upstream, claims, eventually,
    response, token,
};

const CONFIG: &str = r#"
[limits.api]
key = ["address"]
allow = ["1000000/1h"]
[routes.limited]
path = "/limited"
upstream = "shop"
limits = ["api"]
[routes.auth]
path = "/auth"
upstream = "shop"
auth = "users"
"#;

struct House {
    redis: Redis,
    gateway: Gateway,
    _upstream: Upstream,
}

impl House {
    fn start() -> Self {
        Self::on(Redis::start())
    }

    fn on(redis: Redis) -> Self {
        let upstream = Upstream::replying(response("200 OK", "hello"));
        // Nothing here is about deadlines, and the machine may be busy.
        let store = format!("[store]\nurl = \"{}\"\ntimeout = \"2s\"\n", redis.url());
        let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + CONFIG));
        Self { redis, gateway, _upstream: upstream }
    }

    fn set(&self, name: &str, value: &str) {
        assert_eq!(self.redis.cli(&["CONFIG", "SET", name, value]), "OK");
    }

    /// Some requests on several threads; limits may be counted by this node alone.
    fn requests(&self) {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut session = Session::open(self.gateway.public);
                    for _ in 0..10 {
                        assert_eq!(session.get("/limited").send().status, 200);
                    }
                });
            }
        });
    }

    /// Whether the requests of now are counted in Redis.
    fn counts(&self) -> bool {
        self.redis.cli(&["FLUSHALL"]);
        assert_eq!(Client::get(self.gateway.public, "/limited").send().status, 200);
        !self.redis.cli(&["KEYS", "app:ratelimit:*"]).is_empty()
    }

    /// How often something was said.
    fn said(&self, what: &str) -> usize {
        self.gateway.stderr().matches(what).count()
    }

    fn assert_said_once(&self, what: &str, remedy: &str) {
        eventually(what, || {
            self.requests();
            self.said(what) > 0
        });
        self.requests();
        assert_eq!(self.said(what), 1, "{}", self.gateway.stderr());
        assert_eq!(self.said(remedy), 1, "{}", self.gateway.stderr());
    }
}

#[test]
fn a_replica_is_told_by_name_and_not_used() {
    let (primary, house) = (Redis::start(), House::start());
    eventually("requests are counted", || house.counts());
    let port = primary.address().port().to_string();
    for time in 1..=2 {
        assert_eq!(house.redis.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
        let auth = || {
            let request = Client::get(house.gateway.public, "/auth");
            request.bearer(token(claims("42"))).send().status
        };
        let what = "Redis is a replica and takes no writes (READONLY)";
        eventually("the replica is not used", || {
            house.requests();
            auth() == 503 && house.said(what) == time
        });
        house.requests();
        assert_eq!(house.said(what), time, "{}", house.gateway.stderr());
        assert_eq!(house.redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        eventually("requests are counted again", || auth() == 200 && house.counts());
    }
}

#[test]
fn a_redis_without_memory_is_told_once() {
    let house = House::start();
    house.set("maxmemory", "1");
    house.assert_said_once("no memory for writes (OOM)", "raise its maxmemory");
    house.set("maxmemory", "0");
    eventually("requests are counted again", || house.counts());
}

#[test]
fn too_few_replicas_are_told_once() {
    let house = House::start();
    house.set("min-replicas-to-write", "3");
    house.assert_said_once("(NOREPLICAS)", "lower min-replicas-to-write");
    house.set("min-replicas-to-write", "0");
    eventually("requests are counted again", || house.counts());
}

#[test]
fn a_missing_right_is_told_once_and_names_the_command() {
    let house = House::start();
    eventually("requests are counted", || house.counts());
    assert_eq!(house.redis.cli(&["ACL", "SETUSER", "default", "-evalsha"]), "OK");
    house.assert_said_once("lacks a right (NOPERM)", "\"evalsha\"");
    assert_eq!(house.redis.cli(&["ACL", "SETUSER", "default", "+evalsha"]), "OK");
    eventually("requests are counted again", || house.counts());
}

#[test]
fn a_script_that_holds_redis_up_is_told_once() {
    let house = House::start();
    house.set("busy-reply-threshold", "1");
    std::thread::scope(|scope| {
        scope.spawn(|| house.redis.cli(&["EVAL", "while true do end", "0"]));
        house.assert_said_once("(BUSY)", "SCRIPT KILL");
        assert_eq!(house.redis.cli(&["SCRIPT", "KILL"]), "OK");
    });
    eventually("requests are counted again", || house.counts());
}

#[test]
fn a_redis_that_evicts_is_told_once_with_its_policy() {
    let redis = Redis::start();
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
    let house = House::on(redis);
    house.assert_said_once("maxmemory-policy allkeys-lru", "set maxmemory-policy noeviction");
}

#[test]
fn a_user_who_may_not_see_the_policy_is_told_how_once() {
    let redis = Redis::start();
    assert_eq!(redis.cli(&["ACL", "SETUSER", "default", "-info"]), "OK");
    let house = House::on(redis);
    house.assert_said_once("goes unnoticed", "add +info");
    assert_eq!(house.said("NOPERM"), 0, "nothing else is missing");
    assert!(house.counts());
}

#[test]
fn five_misses_of_five_threads_open_the_breaker_for_all() {
    const THREADS: usize = 5;
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let address: std::net::SocketAddr = proxy.url()["redis://".len()..].parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(async {
        let store = RedisStore::open(&config::Store {
            url: StoreUrl::Redis { host: address.ip().to_string(), port: address.port(), db: 0 },
            timeout: Duration::from_millis(300),
            connect_timeout: PATIENCE,
            ..config::Store::default()
        });
        assert!(store.first_connection(PATIENCE).await);
        Arc::new(Store::Redis(Box::new(store)))
    });
    let step = Barrier::new(THREADS + 1);
    let ask = async || {
        let blacklist = ["app:auth:blacklist:x".to_owned()];
        let revocation =
            Some(RevocationKeys { blacklist: &blacklist, ..RevocationKeys::default() });
        let questions = Questions { revocation, ..Questions::default() };
        store.ask(&questions).await.revocation.expect("an answer")
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let own = tokio::runtime::Builder::new_current_thread().enable_all().build();
                own.unwrap().block_on(async {
                    store.join().await;
                    assert!(ask().await.is_ok());
                    step.wait();
                    step.wait();
                    assert_eq!(ask().await, Err(StoreError::Timeout));
                    step.wait();
                    assert_eq!(ask().await, Err(StoreError::Unavailable), "nobody waits again");
                });
            });
        }
        step.wait();
        proxy.swallow();
        step.wait();
        step.wait();
    });
    assert!(
        !store.is_connected(StoreUse::Main),
        "the connection of those without a thread is given up too"
    );
    proxy.hang_up();
    proxy.pass();
    eventually("it is found again", || store.is_connected(StoreUse::Main));
}

#[test]
fn a_redis_that_only_seems_well_is_not_asked_without_end() {
    const ATTEMPTS_MAX: u64 = 60;
    let redis = Redis::start();
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let store = format!("[store]\nurl = \"{}\"\nreconnect_backoff = \"10s\"\n", redis.url());
    let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + CONFIG));
    let connections = || -> u64 {
        let stats = redis.cli(&["INFO", "stats"]);
        let made = stats.lines().find_map(|it| it.strip_prefix("total_connections_received:"));
        made.unwrap().trim().parse().unwrap()
    };
    assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    eventually("it is seen", || {
        Client::get(gateway.public, "/limited").send();
        gateway.stderr().contains("READONLY")
    });
    let before = connections();
    for _ in 0..500 {
        Client::get(gateway.public, "/limited").send();
    }
    let made = connections() - before;
    assert!(made <= ATTEMPTS_MAX, "{made} connections were made to it");
}
