//! What every store promises, shown over the embedded store and over a real Redis: by TCP, by a
//! Unix socket, by TLS as the user with the least rights, by Sentinel, over a Redis Cluster, and
//! where cache, limits and queues have a Redis of their own.

mod access;
mod api_keys;
mod caching;
mod certificates;
mod charges;
mod cluster_away;
mod idempotency;
mod leases;
mod logins;
mod marks;
mod model;
mod proofs;
mod queue;
mod queue_follow;
mod queue_hands;
mod queue_lines;
mod queue_losses;
mod queue_model;
mod queue_reported;
mod queue_shards;
mod sessions;
mod tellings;
mod tracking;
mod tracking_cluster;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis::base::units::Secret;
use portcullis::config::{self, StoreTls, StoreUrl, StoreUse};
use portcullis::store::{
    Cached, CachedEntry, ClaimKey, MarkKeys, MarksReply, MemoryStore, Questions, RedisStore, Reply,
    Revocation, RevocationKeys, RevocationStatus, SessionKey, SessionReply, SessionValue, Store,
};

use crate::support::{
    Authority, PATIENCE, Redis, RedisCluster, RedisSentinels, TLS_NAMES, WATCHED,
};

/// A store under test, and the hands of an application that writes into it.
pub(crate) struct Subject {
    pub(crate) store: Arc<Store>,
    /// A Redis, or one server of a cluster, which sends on.
    pub(crate) redis: Option<Arc<Redis>>,
}

/// Makes of each law one test over the embedded store and one over Redis, and of all of them one
/// for each other way to reach Redis: what differs there is the connection, so one server does.
macro_rules! over_all_stores {
    ($($law:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $law() { $crate::contract::over_memory(super::$law); })*
        }
        mod redis {
            $(#[test] fn $law() { $crate::contract::over_redis(super::$law); })*
        }
        #[test]
        fn all_over_a_unix_socket() {
            let reached = $crate::contract::Reached::by_socket();
            $(reached.over($law);)*
        }
        #[test]
        fn all_over_tls_with_the_least_rights() {
            let reached = $crate::contract::Reached::by_tls();
            $(reached.over($law);)*
        }
        #[test]
        fn all_over_sentinel() {
            let reached = $crate::contract::Reached::by_sentinel();
            $(reached.over($law);)*
        }
        #[test]
        fn all_over_separate_stores() {
            let reached = $crate::contract::Reached::separate();
            $(reached.over($law);)*
        }
        #[test]
        fn a_redis_cluster_keeps_all_of_this() {
            let cluster = $crate::contract::Cluster::start();
            $(cluster.keeps($law);)*
        }
        #[test]
        fn a_redis_cluster_keeps_it_over_tls_with_the_least_rights() {
            let cluster = $crate::contract::Cluster::start_with_tls();
            $(cluster.keeps($law);)*
        }
    };
}
pub(crate) use over_all_stores;

pub(crate) fn over_memory(law: impl AsyncFnOnce(Subject)) {
    runtime().block_on(async {
        let store = Arc::new(Store::Memory(Box::new(MemoryStore::new(100_000))));
        law(Subject { store, redis: None }).await;
    });
}

pub(crate) fn over_redis(law: impl AsyncFnOnce(Subject)) {
    let redis = Redis::start();
    runtime().block_on(async {
        let store = open(redis.address(), config::Store::default()).await;
        law(Subject { store: Arc::new(store), redis: Some(Arc::new(redis)) }).await;
    });
}

/// A Redis that is reached in another way than by TCP.
pub(crate) struct Reached {
    redis: Arc<Redis>,
    settings: config::Store,
    /// Beside it, for some of its uses.
    apart: Vec<Arc<Redis>>,
    _sentinels: Vec<Redis>,
}

impl Reached {
    pub(crate) fn by_socket() -> Self {
        let redis = Redis::with_socket();
        let url = StoreUrl::Unix { path: redis.socket() };
        Self {
            redis: Arc::new(redis),
            settings: config::Store { url, ..config::Store::default() },
            apart: vec![],
            _sentinels: vec![],
        }
    }

    /// As the user that `portcullis acl` prints.
    pub(crate) fn by_tls() -> Self {
        let authority = Authority::new();
        let redis = Redis::with_tls(&authority.certificate(&TLS_NAMES), &authority, false);
        access::make_user(&redis, "correct-horse");
        let ca_file =
            config::PemFile { path: "ca.pem".into(), content: Secret::new(authority.pem()) };
        let settings = config::Store {
            url: StoreUrl::Redis { host: "localhost".to_owned(), port: redis.tls_port(), db: 0 },
            username: Some("gateway".to_owned()),
            password: Some(Secret::new("correct-horse")),
            tls: Some(StoreTls { ca_file: Some(ca_file), ..StoreTls::default() }),
            ..config::Store::default()
        };
        Self { redis: Arc::new(redis), settings, apart: vec![], _sentinels: vec![] }
    }

    /// Four of them, each with the user that `portcullis acl` prints for it.
    pub(crate) fn separate() -> Self {
        let [cache, limits, queue] = [(); 3].map(|()| Arc::new(Redis::start()));
        let redis = Redis::start()
            .beside(&cache, "app:cache")
            .beside(&limits, "app:ratelimit:")
            .beside(&queue, "app:queue:");
        let of = |redis: &Redis, usage: StoreUse| {
            access::make_separate_user(redis, usage, "correct-horse");
            config::Store {
                url: StoreUrl::Redis {
                    host: redis.address().ip().to_string(),
                    port: redis.address().port(),
                    db: 0,
                },
                username: Some("gateway".to_owned()),
                password: Some(Secret::new("correct-horse")),
                timeout: PATIENCE,
                connect_timeout: PATIENCE,
                usage,
                ..config::Store::default()
            }
        };
        let settings = config::Store {
            cache: Some(Box::new(of(&cache, StoreUse::Cache))),
            limits: Some(Box::new(of(&limits, StoreUse::Limits))),
            queue: Some(Box::new(of(&queue, StoreUse::Queue))),
            ..of(&redis, StoreUse::Main)
        };
        let apart = vec![cache, limits, queue];
        Self { redis: Arc::new(redis), settings, apart, _sentinels: vec![] }
    }

    /// Where a sentinel says that it is.
    pub(crate) fn by_sentinel() -> Self {
        let RedisSentinels { mut servers, sentinels } = RedisSentinels::start_small();
        let at = |it: &Redis| (it.address().ip().to_string(), it.address().port());
        let (sentinels_at, primary) = (sentinels.iter().map(at).collect(), WATCHED.to_owned());
        let url = StoreUrl::Sentinel { sentinels: sentinels_at, primary };
        let settings = config::Store { url, ..config::Store::default() };
        let redis = Arc::new(servers.remove(0));
        Self { redis, settings, apart: vec![], _sentinels: sentinels }
    }

    /// Shows a law on it, empty.
    pub(crate) fn over(&self, law: impl AsyncFnOnce(Subject)) {
        assert_eq!(self.redis.cli(&["FLUSHALL"]), "OK");
        runtime().block_on(async {
            let store = open_as(self.settings.clone()).await;
            law(Subject { store: Arc::new(store), redis: Some(Arc::clone(&self.redis)) }).await;
        });
        for redis in self.apart.iter().chain([&self.redis]) {
            assert_eq!(redis.cli(&["ACL", "LOG"]), "", "rights are missing");
        }
    }
}

/// A cluster that one law after another is tried on.
pub(crate) struct Cluster {
    settings: config::Store,
    servers: Vec<Arc<Redis>>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let RedisCluster { servers, .. } = RedisCluster::start(3);
        let seed = |server: &Redis| (server.address().ip().to_string(), server.address().port());
        Self::of(servers.iter().map(seed).collect(), servers, config::Store::default())
    }

    /// As the user that `portcullis acl` prints. The certificate is for a name, which redirects do
    /// not say.
    pub(crate) fn start_with_tls() -> Self {
        let authority = Authority::new();
        let certificate = authority.certificate(&["localhost"]);
        let RedisCluster { servers, .. } = RedisCluster::start_with_tls(&certificate, &authority);
        for server in &servers {
            access::make_user_of_cluster(server, "correct-horse");
        }
        let ca_file =
            config::PemFile { path: "ca.pem".into(), content: Secret::new(authority.pem()) };
        let settings = config::Store {
            username: Some("gateway".to_owned()),
            password: Some(Secret::new("correct-horse")),
            tls: Some(StoreTls { ca_file: Some(ca_file), ..StoreTls::default() }),
            ..config::Store::default()
        };
        let seed = |server: &Redis| ("localhost".to_owned(), server.tls_port());
        Self::of(servers.iter().map(seed).collect(), servers, settings)
    }

    fn of(seeds: Vec<(String, u16)>, servers: Vec<Redis>, settings: config::Store) -> Self {
        let url = StoreUrl::Cluster { seeds };
        let settings = config::Store { url, ..settings };
        Self { settings, servers: servers.into_iter().map(Arc::new).collect() }
    }

    pub(crate) fn keeps(&self, law: impl AsyncFnOnce(Subject)) {
        for server in &self.servers {
            assert_eq!(server.cli(&["FLUSHALL"]), "OK");
        }
        runtime().block_on(async {
            let store = open_as(self.settings.clone()).await;
            let redis = Some(Arc::clone(&self.servers[0]));
            law(Subject { store: Arc::new(store), redis }).await;
        });
        for server in &self.servers {
            assert_eq!(server.cli(&["ACL", "LOG"]), "", "rights are missing");
        }
    }
}

/// A store on the server at `address`, with `settings` for the rest.
async fn open(address: SocketAddr, settings: config::Store) -> Store {
    let url = StoreUrl::Redis { host: address.ip().to_string(), port: address.port(), db: 0 };
    open_as(config::Store { url, ..settings }).await
}

async fn open_as(settings: config::Store) -> Store {
    if settings.is_one_of_several() {
        let store = Store::open(&config::Config { store: settings, ..Default::default() }).await;
        for usage in StoreUse::ALL {
            assert!(store.has(usage) && store.is_connected(usage), "no connection for {usage:?}");
        }
        return store;
    }
    let store = RedisStore::open(&config::Store {
        // Nothing here is about deadlines, and the machine may be busy.
        timeout: PATIENCE,
        connect_timeout: PATIENCE,
        ..settings
    });
    assert!(store.first_connection(PATIENCE).await, "no connection to redis-server");
    Store::Redis(Box::new(store))
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

impl Subject {
    fn memory(&self) -> &MemoryStore {
        let Store::Memory(store) = &*self.store else { panic!("not the embedded store") };
        store
    }

    /// Writes a string without an expiry.
    fn write(&self, key: &str, value: &str) {
        match &self.redis {
            Some(redis) => assert_eq!(redis.cli(&["SET", key, value]), "OK"),
            None => self.memory().put(key, Bytes::copy_from_slice(value.as_bytes()), None).unwrap(),
        }
    }

    /// Writes a hash without an expiry.
    fn write_fields(&self, key: &str, fields: &[(&'static str, &'static str)]) {
        for (name, value) in fields {
            if let Some(redis) = &self.redis {
                assert_eq!(redis.cli(&["HSET", key, name, value]), "1");
            }
        }
        if self.redis.is_none() {
            let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
            let fields = fields.iter().map(|(name, value)| (bytes(name), bytes(value)));
            self.memory().put_fields(key, fields.collect()).unwrap();
        }
    }

    async fn revocation(
        &self,
        blacklist: &[&str],
        not_before: Option<&str>,
    ) -> Reply<RevocationStatus> {
        let revocation = RevocationKeys {
            blacklist: &words(blacklist),
            not_before,
            ..RevocationKeys::default()
        };
        let questions = Questions { revocation: Some(revocation), ..Questions::default() };
        self.store.ask(&questions).await.revocation.expect("an answer")
    }

    async fn session(&self, key: &str) -> Reply<Option<SessionReply>> {
        let questions = Questions {
            session: Some(SessionKey { key, ttl: true, bytes_max: 1024, end: None }),
            ..Questions::default()
        };
        self.store.ask(&questions).await.session.expect("an answer")
    }

    /// What is left of a session's life; nothing when it has no expiry.
    async fn ttl(&self, key: &str) -> Option<Duration> {
        self.session(key).await.expect("no failure").expect("a session").ttl
    }
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

const BASE: &str = "app:cache-epoch:{*}";
const PATH: &str = "app:cache-epoch:{shop/p}";
const ENTRY: &str = "app:cache:{shop/p}:entry:r:";
const MINUTE: Duration = Duration::from_secs(60);

over_all_stores![
    a_token_is_listed_when_any_of_its_keys_exists,
    a_not_before_time_is_read_and_garbage_is_not_taken_for_none,
    a_revocation_lives_as_long_as_it_was_given,
    more_of_a_revocation_neither_lowers_nor_shortens_it,
    a_session_may_be_a_string_or_a_hash,
    of_a_session_that_is_too_long_no_more_than_shows_it_is_sent,
    all_questions_are_answered_at_once,
];

async fn a_token_is_listed_when_any_of_its_keys_exists(it: Subject) {
    it.write("app:auth:blacklist:sid:s1", "1");
    let listed = async |keys: &[&str]| it.revocation(keys, None).await.unwrap().listed;
    assert!(!listed(&["app:auth:blacklist:t1"]).await);
    assert!(listed(&["app:auth:blacklist:t1", "app:auth:blacklist:sid:s1"]).await);
    assert!(listed(&["app:auth:blacklist:sid:s1"]).await);
    assert!(it.store.delete("app:auth:blacklist:sid:s1").await.unwrap());
    assert!(!it.store.delete("app:auth:blacklist:sid:s1").await.unwrap());
    assert!(!listed(&["app:auth:blacklist:sid:s1"]).await);
}

async fn a_not_before_time_is_read_and_garbage_is_not_taken_for_none(it: Subject) {
    let key = "app:auth:not-before:42";
    assert_eq!(it.revocation(&["app:auth:t"], Some(key)).await.unwrap().not_before, None);
    it.write(key, "1700000000");
    let expected =
        RevocationStatus { not_before: Some(1_700_000_000), ..RevocationStatus::default() };
    assert_eq!(it.revocation(&["app:auth:t"], Some(key)).await, Ok(expected));
    assert_eq!(it.revocation(&[], Some(key)).await, Ok(expected));
    it.write(key, "yesterday");
    let reply = it.revocation(&["app:auth:t"], Some(key)).await;
    assert!(reply.is_err(), "whoever wrote that meant to revoke: {reply:?}");
}

async fn a_revocation_lives_as_long_as_it_was_given(it: Subject) {
    it.store.put("app:auth:mark", b"1", MINUTE).await.unwrap();
    assert!(it.revocation(&["app:auth:mark"], None).await.unwrap().listed);
    let ttl = it.ttl("app:auth:mark").await.expect("an expiry");
    assert!(ttl <= MINUTE && ttl > MINUTE - PATIENCE, "{ttl:?}");
}

async fn more_of_a_revocation_neither_lowers_nor_shortens_it(it: Subject) {
    let (key, hour) = ("app:auth:not-before:42", 60 * MINUTE);
    let known = async || it.revocation(&[], Some(key)).await.unwrap().not_before;
    for (at, ttl, expected) in [
        (1_700_000_100, hour, 1_700_000_100),
        (1_700_000_000, MINUTE, 1_700_000_100),
        (1_700_000_200, MINUTE, 1_700_000_200),
    ] {
        let revocation = Revocation { key, not_before: Some(at), ttl, stream_ttl: MINUTE };
        assert_eq!(it.store.revoke_more(revocation).await, Ok(()));
        assert_eq!(known().await, Some(expected));
        assert!(it.ttl(key).await.expect("an expiry") > MINUTE, "it is as long as it was");
    }
}

async fn a_session_may_be_a_string_or_a_hash(it: Subject) {
    assert_eq!(it.session("app:session:a").await, Ok(None));
    it.write("app:session:a", r#"{"n":1}"#);
    let text = SessionValue::Text(Bytes::from_static(br#"{"n":1}"#));
    let expected = SessionReply { value: text, ttl: None };
    assert_eq!(it.session("app:session:a").await, Ok(Some(expected)));
    it.write_fields("app:session:b", &[("n", "1"), ("é", "")]);
    let Ok(Some(SessionReply { value: SessionValue::Fields(mut fields), ttl: None })) =
        it.session("app:session:b").await
    else {
        panic!("not a hash without an expiry");
    };
    fields.sort();
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert_eq!(fields, [(bytes("n"), bytes("1")), (bytes("é"), bytes(""))]);
}

async fn of_a_session_that_is_too_long_no_more_than_shows_it_is_sent(it: Subject) {
    let long: &'static str = "x".repeat(5000).leak();
    it.write("app:session:text", long);
    it.write("app:session:just", &long[..1024]);
    it.write_fields("app:session:hash", &[("name", long)]);
    let length = async |key: &str| match it.session(key).await.unwrap().unwrap().value {
        SessionValue::Text(text) => text.len(),
        SessionValue::Fields(fields) => fields.iter().map(|(n, v)| n.len() + v.len()).sum(),
    };
    // The embedded store sends nothing anywhere.
    let (text, hash) = if it.redis.is_some() { (1025, 1025) } else { (5000, 5004) };
    for _ in 0..2 {
        assert_eq!(length("app:session:text").await, text);
        assert_eq!(length("app:session:just").await, 1024);
        // From here on sessions are read by the script.
        assert_eq!(length("app:session:hash").await, hash);
    }
    it.write("app:session:empty", "");
    for key in ["app:session:none", "app:session:empty"] {
        assert!(it.session(key).await.unwrap().is_none(), "{key}");
    }
}

async fn all_questions_are_answered_at_once(it: Subject) {
    it.store.found(BASE).await.unwrap();
    it.write("app:auth:listed", "1");
    it.write("app:session:a", "{}");
    let set = charges::set(&[3, 7]);
    let keys = words(&["app:ratelimit:{a}:x:1m", "app:ratelimit:{a}:y:1m"]);
    let (blacklist, epochs) = (words(&["app:auth:free", "app:auth:listed"]), words(&[BASE, PATH]));
    let variants = words(&["-"]);
    let entry = CachedEntry { key: ENTRY, variants: &variants, lock: None };
    let questions = Questions {
        revocation: Some(RevocationKeys {
            blacklist: &blacklist,
            not_before: Some("app:auth:since"),
            ..RevocationKeys::default()
        }),
        charges: Some(portcullis::store::Charges { set: &set, keys: &keys }),
        leases: None,
        session: Some(SessionKey { key: "app:session:a", ttl: true, bytes_max: 1024, end: None }),
        cached: Some(Cached { epochs: &epochs, entry: Some(entry) }),
        marks: Some(MarkKeys { caller: &words(&["app:wrote:0f"]), anybody: None }),
        claim: Some(ClaimKey { key: "app:idempotency:0f", value: b"p a 1", ttl: MINUTE }),
        pending_purges: &words(&[PATH]),
    };
    assert!(!questions.is_empty());
    let answers = it.store.ask(&questions).await;
    assert!(answers.revocation.unwrap().unwrap().listed);
    let charged = answers.charges.unwrap().unwrap();
    assert!(charged.allowed);
    assert_eq!(charged.windows.iter().map(|w| w.free).collect::<Vec<_>>(), [3, 7]);
    assert!(answers.session.unwrap().unwrap().is_some());
    assert!(answers.cached.unwrap().unwrap().based);
    assert_eq!(answers.marks, Some(Ok(MarksReply::default())));
    assert_eq!(answers.claim, Some(Ok(None)));
    assert!(answers.settled);
}
