//! Who the gateway is to Redis: the least-privilege user of docs/redis.md suffices, and a password
//! is never shown.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis::base::units::Secret;
use portcullis::config::{self, StoreUrl, StoreUse};
use portcullis::store::keys::Keys;
use portcullis::store::{
    ApiKeyWrite, Cached, CachedEntry, Charges, ClaimKey, ConcurrencyLimit, Ending, Entry,
    EventStream, HeldLock, Leases, Mark, MarkKeys, Mode, Purge, Questions, RedisStore, Release,
    Remembered, Renewal, Revocation, RevocationKeys, SessionKey, SessionWrite, Store, Swap, Unread,
    VARIANTS_MAX, WantedLock, Window, WindowSet,
};

use super::{runtime, words};
use crate::support::{
    Client, Folder, Gateway, PATIENCE, Redis, RedisCluster, Upstream, eventually, response, run,
};

/// Makes the gateway's user, with this password, by the command that `portcullis acl` prints.
pub(super) fn make_user(redis: &Redis, password: &str) {
    make_user_for("redis://127.0.0.1", redis, password);
}

/// The same for one of four stores.
pub(super) fn make_separate_user(redis: &Redis, usage: StoreUse, password: &str) {
    let store = "redis://127.0.0.1\"\n[store.cache]\nurl = \"redis://127.0.0.2\"\n\
                 [store.limits]\nurl = \"redis://127.0.0.3\"\n\
                 [store.queue]\nurl = \"redis://127.0.0.4";
    match usage {
        StoreUse::Main => make_user_by(store, redis, password, &[]),
        own => make_user_by(store, redis, password, &["--for", own.word()]),
    }
}

/// The same for one of a cluster's servers.
pub(super) fn make_user_of_cluster(redis: &Redis, password: &str) {
    make_user_for("redis-cluster://127.0.0.1:7000", redis, password);
}

fn make_user_for(url: &str, redis: &Redis, password: &str) {
    make_user_by(url, redis, password, &[]);
}

fn make_user_by(url: &str, redis: &Redis, password: &str, more: &[&str]) {
    let folder = Folder::new();
    folder.write(
        "gateway.toml",
        format!(
            "[store]\nurl = \"{url}\"\n[upstreams.shop]\nservers = [\"http://127.0.0.1:3000\"]\n\
             [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n"
        ),
    );
    let printed = run(&folder, &[&["acl", "--follow"], more].concat());
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let command = printed.stdout.replace("PASSWORD", password);
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK", "{command}");
}

#[test]
fn the_page_shows_the_user_that_is_printed() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md"));
    let page = page.expect("docs/redis.md").replace("\\\n", "");
    let lines: Vec<&str> =
        page.lines().filter(|line| line.contains("ACL SETUSER gateway on")).collect();
    let [line] = lines[..] else { panic!("not exactly one in docs/redis.md: {lines:?}") };
    let shown = line[line.find("ACL").unwrap()..].replace('\'', "");
    let shown: Vec<&str> = shown.split_whitespace().collect();
    let printed = portcullis::store::acl("gateway", "app", true, false);
    assert_eq!(shown.join(" "), printed);
}

async fn open(url: StoreUrl, password: &str) -> Store {
    let store = RedisStore::open(&config::Store {
        url,
        username: Some("gateway".to_owned()),
        password: Some(Secret::new(password)),
        timeout: PATIENCE,
        connect_timeout: PATIENCE,
        cache_epochs: config::CacheEpochs::Follow,
        ..config::Store::default()
    });
    assert!(store.first_connection(PATIENCE).await, "the user cannot connect");
    Store::Redis(Box::new(store))
}

#[test]
fn the_documented_user_may_do_all_that_the_gateway_does() {
    let redis = Redis::start();
    make_user(&redis, "correct-horse");
    let port = redis.address().port();
    do_everything(&[redis], StoreUrl::Redis { host: "127.0.0.1".to_owned(), port, db: 0 });
}

/// A server refuses a command whose keys lie in several slots, and a script that reaches for a key
/// of another server.
#[test]
fn nothing_that_the_gateway_does_names_keys_of_two_slots() {
    let cluster = RedisCluster::start(3);
    for server in &cluster.servers {
        make_user_of_cluster(server, "correct-horse");
    }
    let seed = |server: &Redis| (server.address().ip().to_string(), server.address().port());
    let seeds = cluster.servers.iter().map(seed).collect();
    do_everything(&cluster.servers, StoreUrl::Cluster { seeds });
}

#[expect(clippy::too_many_lines, reason = "each right is used in turn")]
fn do_everything(servers: &[Redis], url: StoreUrl) {
    for server in servers {
        server.cli(&["CONFIG", "RESETSTAT"]);
    }
    servers[0].cli(&["HSET", "app:session:hash", "a", "b"]);
    servers[0].cli(&["SET", "app:session:text", "{}"]);
    runtime().block_on(async {
        let store = open(url, "correct-horse").await;
        // One that is counted exactly, and one in cells, which are written in place.
        let minute = Duration::from_secs(60);
        let set = WindowSet::new(vec![Window::new(9, minute), Window::new(900, minute)]);
        let keys = words(&["app:ratelimit:{a}:p:1m", "app:ratelimit:{a}:q:1m"]);
        let limits = [ConcurrencyLimit { most: 99, lease: minute, mode: Mode::Enforce }];
        let places = words(&["app:ratelimit:{a}:p:in-flight"]);
        let leases = Leases { limits: &limits, keys: &places, holder: "h" };
        let epochs = words(&["app:cache-epoch:{*}", "app:cache-epoch:{h/p}"]);
        let blacklist = words(&["app:auth:blacklist:t"]);
        let marks = words(&["app:wrote:0f", "app:wrote:1f"]);
        let variants = words(&["-"]);
        let claim = ClaimKey { key: "app:idempotency:0f", value: b"p a 1", ttl: minute };
        let held = held_lock("app:cache:{h/p}:lock:r:0");
        let lock = Some(WantedLock { lock: &held, ttl: minute });
        let entry = CachedEntry { key: "app:cache:{h/p}:entry:r:", variants: &variants, lock };
        for session in ["app:session:hash", "app:session:text", "app:session:none"] {
            let end = format!("app:session-end:{{{session}}}");
            let questions = Questions {
                revocation: Some(RevocationKeys {
                    blacklist: &blacklist,
                    not_before: Some("app:auth:not-before:u"),
                    record: Some("app:auth:key:ab"),
                    proof: None,
                }),
                charges: Some(Charges { set: &set, keys: &keys }),
                leases: Some(leases),
                session: Some(SessionKey {
                    key: session,
                    ttl: true,
                    bytes_max: 1024,
                    end: Some(&end),
                }),
                cached: Some(Cached { epochs: &epochs, entry: Some(entry) }),
                marks: Some(MarkKeys { caller: &marks, anybody: Some(&marks[0]) }),
                claim: Some(claim),
                pending_purges: &epochs,
            };
            // The second round finds no scripts.
            for _ in 0..2 {
                let answers = store.ask(&questions).await;
                assert!(answers.revocation.unwrap().is_ok() && answers.settled);
                let taken = answers.charges.unwrap().expect("a charge");
                assert!(answers.leases.unwrap().expect("a lease").allowed);
                for in_doubt in [false, true] {
                    let (keys, holder) = (places.clone(), "h".to_owned());
                    let release = Release { keys, limits: limits.to_vec(), holder, in_doubt };
                    store.release(&[release]).await.expect("a release");
                }
                store.take(Charges { set: &set, keys: &keys }).await.expect("another charge");
                assert!(answers.session.unwrap().is_ok() && answers.cached.unwrap().is_ok());
                assert!(answers.marks.unwrap().is_ok() && answers.claim.unwrap().is_ok());
                for value in [&b"end"[..], b""] {
                    let (key, begins) = (claim.key, &b""[..]);
                    let swap = Swap { key, begins, value, ttl: minute };
                    assert!(store.swap(swap).await.expect("a swap"));
                }
                store.exchange_epochs(&epochs).await.expect("an exchange");
                for mark in [Mark::Wrote, Mark::of_write(Some(b"7"))] {
                    let marks = marks.iter().map(|key| (key.clone(), mark.clone()));
                    let marks: Vec<_> = marks.collect();
                    store.mark(&marks, minute).await.expect("a mark");
                }
                store
                    .refund(Charges { set: &set, keys: &keys }, &taken.at)
                    .await
                    .expect("a refund");
                for server in servers {
                    server.cli(&["SCRIPT", "FLUSH"]);
                }
            }
        }
        caching(&store).await;
        sessions(&store).await;
        api_keys(&store).await;
        super::queue_hands::everything(&store).await;
        events(&store).await;
        revoke_and_follow(&store, &blacklist[0]).await;
        let outside = store.put("other:key", b"1", Duration::from_secs(60)).await;
        assert!(outside.is_err(), "the user reaches beyond its prefix");
    });
    for server in servers {
        let refused = server.cli(&["ACL", "LOG"]);
        assert!(!refused.contains("command"), "commands were refused: {refused}");
    }
    used_and_allowed_are_the_same(servers, servers.len() > 1);
}

/// What was done needs no right that the user lacks, and the user has none that nothing needs.
fn used_and_allowed_are_the_same(servers: &[Redis], is_cluster: bool) {
    // What this file itself does, and what a cluster's servers do among themselves.
    const OWN: [&str; 4] = ["config|resetstat", "script|flush", "acl|log", "hset"];
    // Needed for a new password, for another database, where there are replicas, and while slots
    // move: others show these.
    const ELSEWHERE: [&str; 6] = ["auth", "select", "role", "wait", "asking", "readonly"];
    let mut used = BTreeSet::new();
    for server in servers {
        let stats = server.cli(&["INFO", "commandstats"]);
        let of = |line: &str| {
            let (command, counts) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            (!counts.starts_with("calls=0,")).then(|| command.to_owned())
        };
        used.extend(stats.lines().filter_map(of));
    }
    let line = portcullis::store::acl("gateway", "app", true, is_cluster);
    let allowed: BTreeSet<&str> = line.split(" +").skip(1).collect();
    let beyond = used.iter().filter(|it| !allowed.contains(&***it) && !OWN.contains(&&***it));
    assert_eq!(beyond.collect::<Vec<_>>(), Vec::<&String>::new(), "used without a right");
    let unused = allowed.iter().filter(|it| !used.contains(**it) && !ELSEWHERE.contains(it));
    assert_eq!(unused.collect::<Vec<_>>(), Vec::<&&str>::new(), "rights that nothing needs");
}

#[test]
fn the_page_shows_the_operator_that_is_printed() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md"));
    let page = page.expect("docs/redis.md").replace("\\\n", "");
    let line = page.lines().find(|line| line.contains("ACL SETUSER operator on"));
    let shown = line.expect("a line").replace('\'', "");
    let shown: Vec<&str> = shown.split_whitespace().skip(1).collect();
    assert_eq!(shown.join(" "), portcullis::store::operator_acl("operator", "app"));
}

fn held_lock(key: &str) -> HeldLock {
    HeldLock { key: key.to_owned(), token: "me".to_owned() }
}

/// Everything that is done with the cache beside reading it.
async fn caching(store: &Store) {
    let minute = Duration::from_secs(60);
    let key = "app:cache:{h/q}:entry:r:".to_owned();
    let lock = held_lock(&Keys::cache_lock(&key, 1));
    assert_eq!(store.lock(&lock, minute).await, Ok(true));
    assert_eq!(store.extend_lock(&lock, minute).await, Ok(true));
    let chunks = [(Keys::cache_body(&key, &[1; 16], 0), bytes::Bytes::from_static(b"part"))];
    store.write_chunks(&chunks, minute).await.expect("a chunk");
    assert_eq!(store.extend_chunks(&[chunks[0].0.clone()], minute * 2).await, Ok(true));
    let parts = store.chunks(&[chunks[0].0.clone()]).await.expect("the chunk");
    assert_eq!(parts[0].as_deref(), Some(&b"part"[..]));
    store.drop_chunks(&[chunks[0].0.clone()]).await.expect("a chunk dropped");
    // One more than fit.
    for number in 0..=VARIANTS_MAX {
        let entry = Entry {
            key: key.clone(),
            variant: number.to_string(),
            vary: "accept".to_owned(),
            value: bytes::Bytes::from_static(b"kept"),
            ttl: minute,
            path_epoch_key: "app:cache-epoch:{h/q}".to_owned(),
            path_epoch: bytes::Bytes::new(),
            lock: (number == 0).then(|| lock.clone()),
        };
        assert_eq!(store.remember(&entry).await, Ok(Remembered::Stored));
    }
    assert_eq!(store.unlock(&lock).await, Ok(false), "it was released with the response");
    assert!(store.variants(&key, &words(&["64"])).await.expect("a variant")[0].is_some());
    let keys = Keys::new("app");
    store.found(&keys.cache_base()).await.expect("a base");
    for soft in [true, false] {
        let purge = Purge { key: keys.cache_base(), soft };
        store.purge(&[purge]).await.expect("a purge");
        tagged(store, &keys).await;
    }
    store.follow_epochs();
    let base = [keys.cache_base()];
    let known = async {
        while store.known_epochs(&base).is_none() {
            store.epochs(&base).await.expect("the base");
        }
    };
    tokio::time::timeout(PATIENCE, known).await.expect("changes of epochs are followed");
}

/// Everything that is done with sessions beside reading them.
async fn sessions(store: &Store) {
    let keys = Keys::new("app");
    let minute = Duration::from_secs(60);
    let (index, families) = (keys.sessions_of("42"), keys.session_families());
    for part in ["one", "two"] {
        let write = SessionWrite {
            part: part.to_owned(),
            keys: keys.session_keys(part),
            families: families.clone(),
            index: Some(index.clone()),
            value: bytes::Bytes::from_static(b"{}"),
            ttl: minute,
            why: Ending::Idle,
            kept: minute,
            most: Some(1),
            only_over: false,
        };
        store.write_session(&write).await.expect("a session");
    }
    let renewal = Renewal { ttl: 2 * minute, until_ms: None, kept: minute };
    store.renew(&keys.session_keys("two"), renewal).await.expect("a renewal");
    assert_eq!(store.list_sessions(&index, &families).await.expect("a list").sessions.len(), 1);
    assert_eq!(store.end_sessions(&index, &families).await, Ok(1));
    assert_eq!(store.end_session(&keys.session_keys("two"), "two").await, Ok(false));
}

/// Everything that is done with API keys.
async fn api_keys(store: &Store) {
    let (keys, day) = (Keys::new("app"), Duration::from_secs(24 * 3600));
    let at = keys.api_key_keys("ab", "k1", "acme");
    for ttl in [Some(day), Some(2 * day), None] {
        let write = ApiKeyWrite {
            keys: at.clone(),
            families: keys.api_key_families(),
            digest: "ab".to_owned(),
            record: bytes::Bytes::from_static(b"{}"),
            created_s: 1,
            ttl,
        };
        store.write_api_key(&write).await.expect("an API key");
    }
    let families = keys.api_key_families();
    assert!(store.get(&at.record).await.expect("an answer").is_some());
    assert!(store.find_api_key(&at.id, &families).await.expect("an answer").is_some());
    assert_eq!(store.list_api_keys(&at.index, &families).await.expect("a list").count, 1);
    let key = "app:auth:blacklist:key:k1";
    let revocation = Revocation { key, not_before: None, ttl: day, stream_ttl: day };
    assert_eq!(store.end_api_key(&at, revocation).await, Ok(true));
}

/// What is read of an application's stream of events.
async fn events(store: &Store) {
    let stream = EventStream { key: "app:told", group: "app:events:told" };
    for unread in [Unread::New, Unread::Gone(0)] {
        store.begin_events(stream, unread).await.expect("a group");
        let page = store.read_events(stream).await.expect("a look");
        assert_eq!((page.unread, page.entries), (None, vec![]));
    }
}

/// Tells of a revocation and reads of it.
async fn revoke_and_follow(store: &Store, key: &str) {
    store.put(key, b"1", Duration::from_secs(60)).await.expect("a value");
    assert_eq!(store.delete(key).await, Ok(true));
    let day = Duration::from_secs(24 * 3600);
    let revocation = Revocation { key, not_before: None, ttl: day, stream_ttl: day };
    store.revoke(revocation).await.expect("a revocation");
    let mut config = config::Config::default();
    config.store.on_outage.revocation_max_stale = day;
    store.follow_revocations(&config);
    let blacklist = words(&[key]);
    let revocation = RevocationKeys { blacklist: &blacklist, ..RevocationKeys::default() };
    let followed = async {
        while store.recall(revocation, day).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, followed).await.expect("the stream is read");
    assert!(store.recall(revocation, day).is_some_and(|reply| reply.listed));
    assert_eq!(store.unrevoke(key, day).await, Ok(true));
}

/// Starts a gateway as this user, whose password the configuration names by environment or file.
fn start(redis: &Redis, password: &str) -> Gateway {
    let upstream = Upstream::replying(response("200 OK", "ok"));
    let folder = Folder::new();
    folder.write("redis-password", password);
    let config = format!(
        "[store]\nurl = \"{}\"\nusername = \"gateway\"\npassword = \"file:redis-password\"\n\
         [store.on_outage]\nlimits = \"refuse\"\n[limits.api]\nkey = [\"address\"]\n\
         allow = [\"1000000/1h\"]\n{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n\
         limits = [\"api\"]\n[log]\nlevel = \"debug\"\n",
        redis.url(),
        upstream.table("shop"),
    );
    let gateway = Gateway::start_in(folder, &config);
    eventually("the request is decided", || {
        matches!(Client::get(gateway.public, "/").send().status, 502 | 200 | 503)
    });
    gateway
}

#[test]
fn a_wrong_password_is_an_outage_that_names_no_password() {
    let redis = Redis::start();
    make_user(&redis, "correct-horse");
    let gateway = start(&redis, "wrong-horse");
    assert_eq!(Client::get(gateway.public, "/").send().status, 503);
    let diagnostics = gateway.stderr();
    assert!(diagnostics.contains("WRONGPASS"), "the operator must see why: {diagnostics}");
    assert!(!diagnostics.contains("horse"), "{diagnostics}");
    // Once the server has that password, the gateway is let in without a restart.
    make_user(&redis, "wrong-horse");
    eventually("it works", || Client::get(gateway.public, "/").send().status != 503);
}

/// A purge of a tag, and what is to be known of it.
async fn tagged(store: &Store, keys: &Keys) {
    let (clock, tag) = (keys.cache_tags_clock(), keys.cache_tag("shop", b"t"));
    store.found(&clock).await.expect("a clock");
    let tags = [tag.clone()];
    let since = store.epochs(std::slice::from_ref(&clock)).await.expect("the clock")[0];
    for _ in 0..30 {
        let purges = [clock.clone(), tag.clone()].map(Purge::hard);
        store.purge(&purges).await.expect("a purge of a tag");
    }
    let told = store.tags(&tags, &clock, since).await.expect("what was purged");
    assert_eq!(told, None);
    store.withdraw_all(&clock).await.expect("a withdrawal");
}
