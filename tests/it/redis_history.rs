//! A Redis that comes back with other data, or has a successor that did not receive it all: nothing
//! of what was acknowledged before is undone for callers.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::redis_sentinel::{impostor, sentinel_saying};
use crate::support::{
    AUTH, Client, Gateway, Redis, RedisCluster, Reply, Upstream, WATCHED, claims, eventually,
    eventually_within, operate, response, token,
};

/// Answers of which each is another one.
fn versioned() -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::with(move |_, connection| {
        let version = count.fetch_add(1, Ordering::SeqCst);
        let _ = connection.write_all(response("200 OK", &version.to_string()).as_bytes());
    })
}

const CACHED: &str = r#"
[routes.shop]
path = "/*"
upstream = "shop"
cache = { ttl = "1h" }
"#;

const FOLLOWED: &str = "cache_epochs = \"follow\"\n";

fn start(url: &str, upstream: &Upstream, more: &str) -> Gateway {
    // Deadlines are not the matter here, and the machine may be busy.
    let store = format!("[store]\nurl = \"{url}\"\ntimeout = \"2s\"\nconnect_timeout = \"2s\"\n");
    Gateway::start(&(store + more + &upstream.table("shop")))
}

fn caching(url: &str, upstream: &Upstream, more: &str) -> [Gateway; 2] {
    [0, 1].map(|_| start(url, upstream, &format!("{more}{CACHED}")))
}

fn get(gateway: &Gateway) -> Reply {
    Client::get(gateway.public, "/p").send()
}

fn is_hit(gateway: &Gateway) -> bool {
    get(gateway).header("cache-status").is_some_and(|status| status.contains("hit"))
}

/// What is stored at all of them.
fn stored(gateways: &[Gateway]) -> String {
    gateways.iter().for_each(|gateway| eventually("it is stored", || is_hit(gateway)));
    get(&gateways[0]).text()
}

fn purge(gateway: &Gateway) {
    let purged = operate(gateway, "POST", "/v1/cache/purge", r#"{"path":"/p"}"#);
    assert_eq!(purged.status, 200, "{}", purged.text());
}

/// Nobody answers with what was purged before, and the cache works.
fn stays_purged(gateways: &[Gateway], before: &str) {
    for gateway in gateways {
        eventually("it is stored anew", || {
            assert_ne!(get(gateway).text(), before, "what was purged is back");
            is_hit(gateway)
        });
    }
}

/// How many changes of each kind were counted, and said in the log.
fn changes(gateway: &Gateway) -> [(u64, usize); 2] {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let said = gateway.stderr();
    [("failover", "goes on with the data of Redis"), ("data_lost", "Redis has lost its data")].map(
        |(kind, words)| {
            let name = format!("portcullis_store_lineage_changes_total{{kind=\"{kind}\"}} ");
            let count = text.lines().find_map(|line| line.strip_prefix(&name));
            (count.expect("the series").parse().expect("a number"), said.matches(words).count())
        },
    )
}

const ONE_FAIL_OVER: [(u64, usize); 2] = [(1, 1), (0, 0)];
const DATA_LOST_ONCE: [(u64, usize); 2] = [(0, 0), (1, 1)];

#[test]
fn no_purge_is_undone_by_an_old_file() {
    for more in ["", FOLLOWED] {
        let (mut redis, upstream) = (Redis::start(), versioned());
        let gateways = caching(&redis.url(), &upstream, more);
        let before = stored(&gateways);
        assert_eq!(redis.cli(&["SAVE"]), "OK");
        purge(&gateways[0]);
        redis.restart();
        stays_purged(&gateways, &before);
        for gateway in &gateways {
            assert_eq!(changes(gateway), DATA_LOST_ONCE, "{}", gateway.stderr());
        }
        let status = operate(&gateways[0], "GET", "/v1/status", "").json();
        assert_eq!(status["store"]["lineage"], "replication_id");
    }
}

#[test]
fn what_is_stored_stays_while_redis_has_its_history() {
    let (redis, upstream) = (Redis::start(), versioned());
    let gateways = caching(&redis.url(), &upstream, "");
    let before = stored(&gateways);
    assert_ne!(redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]), "0");
    for gateway in &gateways {
        eventually("it is connected again", || is_hit(gateway));
        assert_eq!(get(gateway).text(), before);
        assert_eq!(changes(gateway), [(0, 0); 2]);
    }
}

#[test]
fn no_purge_is_undone_by_a_fail_over() {
    for more in ["", FOLLOWED] {
        let (mut former, next, upstream) = (Redis::start(), Redis::start(), versioned());
        let is_over = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&is_over);
        let [says_former, says_next] = [(&former, 5), (&next, 6)]
            .map(|(server, epoch)| sentinel_saying(server.address().port(), epoch));
        let sentinel = impostor(move |command| match tell.load(Ordering::SeqCst) {
            false => says_former(command),
            true => says_next(command),
        });
        let url = format!("redis-sentinel://{}/{WATCHED}", sentinel.address);
        let gateways = caching(&url, &upstream, more);
        let before = stored(&gateways);
        next.follow(&former);
        former.stop_replication();
        purge(&gateways[0]);
        former.kill();
        assert_eq!(next.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        is_over.store(true, Ordering::SeqCst);
        stays_purged(&gateways, &before);
        for gateway in &gateways {
            assert_eq!(changes(gateway), ONE_FAIL_OVER, "{}", gateway.stderr());
        }
    }
}

#[test]
fn a_primary_that_was_a_replica_meanwhile_revives_nothing() {
    for more in ["", FOLLOWED] {
        let (redis, other, upstream) = (Redis::start(), Redis::start(), versioned());
        let gateways = caching(&redis.url(), &upstream, more);
        let before = stored(&gateways);
        other.follow(&redis);
        assert_eq!(other.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        purge(&gateways[0]);
        // It gets the data of before the purge, while all its connections stand.
        redis.follow(&other);
        assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        let id = |server: &Redis| {
            let info = server.cli(&["INFO", "replication"]);
            info.lines().find(|line| line.starts_with("master_replid:")).map(str::to_owned)
        };
        assert_ne!(id(&redis), id(&other));
        for gateway in &gateways {
            eventually("the change is seen", || changes(gateway) != [(0, 0); 2]);
        }
        stays_purged(&gateways, &before);
    }
}

#[test]
fn no_purge_is_undone_by_a_fail_over_in_a_cluster() {
    let (mut cluster, upstream) = (RedisCluster::start_with_replicas(3), versioned());
    let gateways = caching(&cluster.url(), &upstream, "");
    let before = stored(&gateways);
    let at = cluster.owner("app:cache-epoch:{/p}");
    cluster.servers[at].stop_replication();
    purge(&gateways[0]);
    cluster.servers[at].kill();
    let promoted = &cluster.servers[at + 3];
    assert_eq!(promoted.cli(&["CLUSTER", "FAILOVER", "TAKEOVER"]), "OK");
    stays_purged(&gateways, &before);
    for gateway in &gateways {
        assert_eq!(changes(gateway), ONE_FAIL_OVER, "{}", gateway.stderr());
    }
}

const PRIVATE: &str = r#"
[store.on_outage]
revocation_max_stale = "1h"
[routes.private]
path = "/*"
upstream = "shop"
auth = "users"
"#;

/// A gateway that follows revocations, and has heard of none.
fn private(url: &str, upstream: &Upstream) -> Gateway {
    let gateway = start(url, upstream, &format!("{PRIVATE}{AUTH}"));
    knows(&gateway, 0);
    gateway
}

/// Waits until it knows so many revocations.
fn knows(gateway: &Gateway, count: u64) {
    eventually("revocations are followed", || {
        let state = &operate(gateway, "GET", "/v1/status", "").json()["revocations"];
        state["connected"] == true && state["known"] == count
    });
}

/// A token of this user, whose id is the user's name.
fn bearer(user: &str) -> String {
    let mut claims = claims(user);
    claims["jti"] = user.into();
    token(claims)
}

fn status(gateway: &Gateway, bearer: &str) -> u16 {
    Client::get(gateway.public, "/").bearer(bearer).send().status
}

fn revoke(gateway: &Gateway, what: &str) {
    let revoked = operate(gateway, "POST", "/v1/revocations", what);
    assert_eq!(revoked.status, 201, "{}", revoked.text());
}

fn republished(gateways: &[&Gateway]) -> u64 {
    let count = |gateway: &&Gateway| -> u64 {
        let text = Client::get(gateway.admin, "/metrics").send().text();
        let name = "portcullis_revocations_republished_total ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.expect("the series").parse().expect("a number")
    };
    gateways.iter().map(count).sum()
}

#[test]
fn who_is_known_to_be_revoked_is_refused_whatever_redis_says() {
    let (redis, upstream) = (Redis::start(), versioned());
    let gateways = [0, 1].map(|_| private(&redis.url(), &upstream));
    let (ada, bob, eve) = (bearer("ada"), bearer("bob"), bearer("eve"));
    revoke(&gateways[0], r#"{"jti":"ada"}"#);
    revoke(&gateways[0], r#"{"sub":"bob"}"#);
    gateways.iter().for_each(|gateway| knows(gateway, 2));
    // It goes on with its history, so nobody sees that it has lost anything.
    assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
    for gateway in &gateways {
        let all = [&ada, &bob, &eve].map(|bearer| status(gateway, bearer));
        assert_eq!(all, [401, 401, 200]);
    }
}

#[test]
fn revocations_that_redis_has_lost_are_written_again() {
    let (mut redis, upstream) = (Redis::start(), versioned());
    let [one, other] = [0, 1].map(|_| private(&redis.url(), &upstream));
    revoke(&one, r#"{"jti":"ada"}"#);
    revoke(&one, r#"{"sub":"bob"}"#);
    [&one, &other].iter().for_each(|gateway| knows(gateway, 2));
    let not_before = redis.cli(&["GET", "app:auth:not-before:bob"]);
    redis.restart();
    eventually("all is there again", || {
        redis.cli(&["EXISTS", "app:auth:blacklist:ada"]) == "1"
            && redis.cli(&["GET", "app:auth:not-before:bob"]) == not_before
            && redis.cli(&["XLEN", "app:auth:revocations"]) == "2"
    });
    for key in ["app:auth:blacklist:ada", "app:auth:not-before:bob", "app:auth:revocations"] {
        assert!(redis.cli(&["PTTL", key]).parse::<i64>().expect("a time") > 0, "{key}");
    }
    eventually("each was written by one of them", || republished(&[&one, &other]) == 2);
    // Who comes later learns of them.
    let late = start(&redis.url(), &upstream, &format!("{PRIVATE}{AUTH}"));
    knows(&late, 2);
    assert_eq!(status(&late, &bearer("ada")), 401);
}

#[test]
fn what_was_taken_back_before_it_was_written_again_goes_again() {
    let (mut redis, upstream) = (Redis::start(), versioned());
    let gateway = private(&redis.url(), &upstream);
    ["ada", "bob"].iter().for_each(|it| revoke(&gateway, &format!("{{\"jti\":\"{it}\"}}")));
    knows(&gateway, 2);
    redis.restart();
    // The gateway is to hear late of what another one takes back.
    let may_read = |rule: &str| assert_eq!(redis.cli(&["ACL", "SETUSER", "default", rule]), "OK");
    may_read("-xread");
    let [ada, bob] = ["ada", "bob"].map(|it| format!("app:auth:blacklist:{it}"));
    let stream = "app:auth:revocations";
    redis.cli(&["XADD", stream, "*", "key", &ada, "until", "0"]);
    eventually("both are written", || redis.cli(&["EXISTS", &ada, &bob]) == "2");
    may_read("+xread");
    eventually("one of them goes again", || redis.cli(&["EXISTS", &ada]) == "0");
    eventually("the other one is told of", || {
        let told = redis.cli(&["XRANGE", stream, "-", "+"]);
        told.matches(&bob).count() == 1 && told.matches(&ada).count() == 1
    });
    assert_eq!(redis.cli(&["EXISTS", &bob]), "1");
    assert_eq!(["ada", "bob"].map(|it| status(&gateway, &bearer(it))), [200, 401]);
}

#[test]
fn what_stands_in_redis_is_not_put_back() {
    let (mut redis, upstream) = (Redis::start(), versioned());
    let gateway = private(&redis.url(), &upstream);
    revoke(&gateway, r#"{"sub":"bob"}"#);
    revoke(&gateway, r#"{"sub":"dan"}"#);
    revoke(&gateway, r#"{"jti":"ada"}"#);
    knows(&gateway, 3);
    // What an application has written since, without a word in the stream.
    let [bob, dan] = ["bob", "dan"].map(|user| format!("app:auth:not-before:{user}"));
    assert_eq!(redis.cli(&["SET", &bob, "9000000000", "EX", "9000000"]), "OK");
    assert_eq!(redis.cli(&["SET", &dan, "1000"]), "OK");
    assert_eq!(redis.cli(&["DEL", "app:auth:blacklist:ada"]), "1");
    assert_eq!(redis.cli(&["SAVE"]), "OK");
    redis.restart();
    eventually("what is lost is there again", || {
        redis.cli(&["EXISTS", "app:auth:blacklist:ada"]) == "1"
            && redis.cli(&["GET", &dan]) != "1000"
    });
    assert_eq!(redis.cli(&["GET", &bob]), "9000000000", "a later one stays");
    assert_eq!(redis.cli(&["PTTL", &dan]), "-1", "and so does a longer life");
}

#[test]
fn what_one_server_of_a_cluster_has_lost_is_written_again() {
    let (mut cluster, upstream) = (RedisCluster::start(3), versioned());
    let gateway = private(&cluster.url(), &upstream);
    let stream = cluster.owner("app:auth:revocations");
    let mut users = (0..).map(|number| format!("u{number}"));
    let key = |user: &str| format!("app:auth:blacklist:{user}");
    let user = users.find(|user| cluster.owner(&key(user)) != stream).expect("some user");
    revoke(&gateway, &format!("{{\"jti\":\"{user}\"}}"));
    knows(&gateway, 1);
    let at = cluster.owner(&key(&user));
    cluster.servers[at].restart();
    eventually("the key is there again", || {
        cluster.servers[at].cli(&["EXISTS", &key(&user)]) == "1"
    });
    eventually("it is counted", || republished(&[&gateway]) == 1);
    cluster.servers[stream].restart();
    // Only then are those who are gone known to be.
    eventually_within(Duration::from_secs(60), "the stream tells of it again", || {
        cluster.servers[stream].cli(&["XLEN", "app:auth:revocations"]) == "1"
    });
}

/// What a metric without labels says.
fn metric(gateway: &Gateway, name: &str) -> u64 {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("portcullis_{name} ")));
    line.expect("the series").parse().expect("a number")
}

#[test]
fn limits_that_redis_has_lost_are_counted_on() {
    let (mut redis, upstream) = (Redis::start(), versioned());
    let limited = r#"
        [limits.user]
        key = ["header:x-user"]
        allow = ["10/1h"]
        [routes.all]
        path = "/*"
        upstream = "shop"
        limits = ["user"]
    "#;
    let [one, other] = [0, 1].map(|_| start(&redis.url(), &upstream, limited));
    let ask = |gateway: &Gateway| Client::get(gateway.public, "/").header("X-User", "u").send();
    (0..4).for_each(|_| assert_eq!(ask(&one).status, 200));
    (0..3).for_each(|_| assert_eq!(ask(&other).status, 200));
    redis.restart();
    for (gateway, units) in [(&one, 4), (&other, 3)] {
        eventually("Redis is told what it had granted", || {
            metric(gateway, "limit_reconciled_units_total") == units
        });
    }
    let statuses: Vec<u16> = (0..4).map(|_| ask(&one).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
}

/// What an operation answers, and whether it says that replicas have what it did.
fn confirmed(gateway: &Gateway, method: &str, path: &str, body: &str) -> Option<bool> {
    let reply = operate(gateway, method, path, body);
    assert!(matches!(reply.status, 200 | 201), "{path}: {}", reply.text());
    reply.json()["confirmed"].as_bool()
}

#[test]
fn an_operator_is_told_whether_replicas_have_it() {
    told_whether_replicas_have_it(Redis::start);
}

/// For a newer server a wait on a connection that wrote nothing is over at once, in vain.
#[test]
fn an_operator_is_told_whether_replicas_of_a_newer_server_have_it() {
    told_whether_replicas_have_it(|| Redis::start_newer(&[]));
}

/// Each server is asked by a key that lies there.
#[test]
fn an_operator_is_told_whether_the_replicas_of_a_cluster_have_it() {
    let (cluster, upstream) = (RedisCluster::start_with_replicas(3), versioned());
    let gateway = start(&cluster.url(), &upstream, &format!("{PRIVATE}{AUTH}"));
    let revoke = || confirmed(&gateway, "POST", "/v1/revocations", r#"{"jti":"j"}"#);
    eventually("the replicas are known", || revoke() == Some(true));
    for number in 0..20 {
        let body = format!(r#"{{"jti":"j{number}"}}"#);
        // On a busy machine they may be late for once.
        eventually("the replicas have it", || {
            confirmed(&gateway, "POST", "/v1/revocations", &body) == Some(true)
        });
    }
    let purge = || confirmed(&gateway, "POST", "/v1/cache/purge", r#"{"path":"/p"}"#);
    eventually("the replicas have the purge", || purge() == Some(true));
    for replica in &cluster.servers[3..] {
        replica.stop_signal();
    }
    assert_eq!((revoke(), purge()), (Some(false), Some(false)));
    cluster.servers[3..].iter().for_each(Redis::cont_signal);
}

fn told_whether_replicas_have_it(begin: fn() -> Redis) {
    let (redis, mut replica, upstream) = (begin(), begin(), versioned());
    let session = "[session]\nid_from = [\"cookie:sid\"]\nheader = \"x-session\"\n";
    let gateway = start(&redis.url(), &upstream, &format!("{PRIVATE}{session}{AUTH}"));
    let revoke = || confirmed(&gateway, "POST", "/v1/revocations", r#"{"jti":"j"}"#);
    let all = || {
        redis.cli(&["SET", "app:session:s1", "{}"]);
        [
            revoke(),
            confirmed(&gateway, "POST", "/v1/cache/purge", r#"{"path":"/p"}"#),
            confirmed(&gateway, "DELETE", "/v1/sessions/s1", ""),
            confirmed(&gateway, "DELETE", "/v1/users/ada/sessions", ""),
        ]
    };
    assert_eq!(all(), [None; 4], "there is none");
    replica.follow(&redis);
    eventually("the replica is known", || revoke() == Some(true));
    assert_eq!(all(), [Some(true); 4]);
    // A replica that does not have all yet was one, too.
    let before = metric(&gateway, "store_unconfirmed_total");
    replica.stop_signal();
    assert_eq!(all(), [Some(false); 4]);
    assert_eq!(metric(&gateway, "store_unconfirmed_total"), before + 4);
    replica.cont_signal();
    eventually("it has all again", || revoke() == Some(true));
    replica.kill();
    eventually("there is none again", || revoke().is_none());
}

#[test]
fn gateways_are_told_later_of_what_is_in_force() {
    let (mut cluster, upstream) = (RedisCluster::start(3), versioned());
    let gateway = private(&cluster.url(), &upstream);
    let stream = cluster.owner("app:auth:revocations");
    let mut users = (0..).map(|number| format!("u{number}"));
    let key = |user: &str| format!("app:auth:blacklist:{user}");
    let user = users.find(|user| cluster.owner(&key(user)) != stream).expect("some user");
    let at = cluster.owner(&key(&user));
    cluster.servers[stream].kill();
    let body = format!("{{\"jti\":\"{user}\"}}");
    let said = operate(&gateway, "POST", "/v1/revocations", &body);
    assert_eq!(said.status, 503, "{}", said.text());
    assert_eq!(cluster.servers[at].cli(&["EXISTS", &key(&user)]), "1", "it is in force");
    cluster.servers[stream].restart();
    eventually_within(Duration::from_secs(60), "it is told", || {
        metric(&gateway, "revocations_told_later_total") == 1
    });
    assert_eq!(cluster.servers[stream].cli(&["XLEN", "app:auth:revocations"]), "1");
    knows(&gateway, 1);
}

#[test]
fn nobody_is_told_later_of_what_was_taken_back_meanwhile() {
    let (mut cluster, upstream) = (RedisCluster::start(3), versioned());
    let gateway = private(&cluster.url(), &upstream);
    let stream = cluster.owner("app:auth:revocations");
    let key = |user: &str| format!("app:auth:blacklist:{user}");
    let users = (0..).map(|number| format!("u{number}"));
    let mut users = users.filter(|user| cluster.owner(&key(user)) != stream);
    let [back, stays] = [0, 1].map(|_| users.next().expect("some user"));
    let at = cluster.owner(&key(&back));
    drop(users);
    cluster.servers[stream].kill();
    for user in [&back, &stays] {
        let body = format!("{{\"jti\":\"{user}\"}}");
        assert_eq!(operate(&gateway, "POST", "/v1/revocations", &body).status, 503);
    }
    // As another gateway does it.
    assert_eq!(cluster.servers[at].cli(&["DEL", &key(&back)]), "1");
    cluster.servers[stream].restart();
    eventually_within(Duration::from_secs(60), "one of them is told", || {
        metric(&gateway, "revocations_told_later_total") == 1
    });
    let told = cluster.servers[stream].cli(&["XRANGE", "app:auth:revocations", "-", "+"]);
    assert!(told.contains(&key(&stays)) && !told.contains(&key(&back)), "{told}");
    knows(&gateway, 1);
}
