//! `portcullis check --store`: whether a Redis can do all that is asked of it, before anybody needs
//! it.

use crate::support::{
    Client, Exposition, Folder, Gateway, Redis, RedisCluster, Refused, Upstream, eventually,
    operate, response, run,
};

/// What it says of this Redis, with more of `[store]`.
fn check(redis: &Redis, more: &str) -> Refused {
    check_at(&redis.url(), more)
}

/// The same of what is at `url`.
fn check_at(url: &str, more: &str) -> Refused {
    let folder = Folder::new();
    folder.write(
        "gateway.toml",
        format!(
            "[store]\nurl = \"{url}\"\nconnect_timeout = \"5s\"\n{more}\n[upstreams.shop]\n\
             servers = [\"http://127.0.0.1:3000\"]\n[routes.all]\npath = \"/*\"\n\
             upstream = \"shop\"\n",
        ),
    );
    run(&folder, &["check", "--store"])
}

/// It is usable all the same, and this is said.
fn warns(redis: &Redis, more: &str, words: &[&str]) {
    let ran = check(redis, more);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    for word in words {
        assert!(ran.stdout.contains(word), "{word:?} is not in\n{}", ran.stdout);
    }
    assert_eq!(ran.stdout.matches("store: warning").count(), 1, "{}", ran.stdout);
}

/// Nothing can be right, and this is said.
fn refuses(ran: &Refused, words: &[&str]) {
    assert_eq!(ran.code, Some(3), "{}{}", ran.stdout, ran.stderr);
    for word in words {
        assert!(ran.stdout.contains(word), "{word:?} is not in\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("store: ok"));
}

const AS_USER: &str = "username = \"gateway\"\npassword = \"correct-horse\"";

fn make_user(redis: &Redis, more: &str) {
    make_user_of(redis, false, more);
}

fn make_user_of(redis: &Redis, cluster: bool, more: &str) {
    let line = portcullis::store::acl("gateway", "app", false, cluster)
        .replace("PASSWORD", "correct-horse");
    let line = format!("{line} {more}");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK");
}

#[test]
fn a_good_redis_is_ok_and_left_as_it_was() {
    let redis = Redis::start();
    make_user(&redis, "");
    for more in [AS_USER, "cache_epochs = \"follow\""] {
        let ran = check(&redis, more);
        assert_eq!((ran.code, &*ran.stdout), (Some(0), "ok: 1 route\nstore: ok\n"));
    }
    for key in redis.cli(&["KEYS", "*"]).lines() {
        let left: i64 = redis.cli(&["PTTL", key]).parse().unwrap();
        assert!((0..=10_000).contains(&left), "{key} stays for {left} ms");
    }
}

#[test]
fn a_missing_right_is_named_with_what_suffers() {
    let redis = Redis::start();
    make_user(&redis, "-hrandfield");
    warns(&redis, AS_USER, &["lacks the right to `hrandfield`", "the cache", "+hrandfield"]);
    make_user(&redis, "-exec");
    warns(&redis, AS_USER, &["lacks the right to `exec`", "revocation"]);
    let follow = format!("{AS_USER}\ncache_epochs = \"follow\"");
    make_user(&redis, "");
    warns(&redis, &follow, &["CLIENT TRACKING does not work", "+client|tracking"]);
    make_user(&redis, "-eval");
    refuses(&check(&redis, AS_USER), &["lacks the right to `eval`", "limits"]);
}

#[test]
fn how_redis_is_set_up_is_looked_at() {
    let redis = Redis::start();
    let set = |name: &str, value: &str| {
        assert_eq!(redis.cli(&["CONFIG", "SET", name, value]), "OK");
    };
    set("maxmemory-policy", "allkeys-lru");
    warns(&redis, "", &["maxmemory-policy is allkeys-lru", "limits, revocation", "noeviction"]);
    set("maxmemory-policy", "noeviction");
    let used = redis.cli(&["INFO", "memory"]);
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim();
    let used: u64 = used.parse().unwrap();
    // More than nine tenths of it are used, and it is not full.
    set("maxmemory", &(used + used / 20).to_string());
    warns(&redis, "", &["bytes of maxmemory", "raise maxmemory"]);
}

#[test]
fn what_cannot_serve_is_refused_with_what_to_do() {
    let mut redis = Redis::start();
    let primary = Redis::start();
    let port = primary.address().port().to_string();
    assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    refuses(&check(&redis, ""), &["is a replica", "name the primary"]);
    assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    assert_eq!(redis.cli(&["ACL", "SETUSER", "gateway", "on", ">other"]), "OK");
    let ran = check(&redis, AS_USER);
    refuses(&ran, &["does not know this user or password (WRONGPASS)", "store.password"]);
    assert!(!ran.stdout.contains("horse"), "no password is told");
    redis.kill();
    refuses(&check(&redis, ""), &["Connection refused", "see to it that Redis runs"]);
}

#[test]
fn a_gateway_looks_at_redis_when_it_is_reached_and_at_each_new_server() {
    let mut redis = Redis::start();
    let evict = ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"];
    assert_eq!(redis.cli(&evict), "OK");
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let store = format!("[store]\nurl = \"{}\"\nconnect_timeout = \"5s\"\n", redis.url());
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";
    let gateway = Gateway::start(&format!("{store}{}{route}", upstream.table("shop")));
    let found = || -> Vec<String> {
        let status = operate(&gateway, "GET", "/v1/status", "").json();
        let all = status["store"]["selftest"].as_array().expect("a list").clone();
        all.iter().map(|it| it["check"].as_str().expect("a word").to_owned()).collect()
    };
    let is_ok = |check: &str| {
        let metrics = Client::get(gateway.admin, "/metrics").send().text();
        let labels = [("store", "main"), ("check", check)];
        Exposition::text(&metrics).value("portcullis_store_selftest_ok", &labels)
    };
    let said = |what: &str| gateway.stderr().matches(what).count();
    eventually("it is found", || found() == ["eviction"]);
    // The policy is looked at by itself, too, which may be done sooner.
    eventually("all is looked at", || is_ok("scripts").is_some());
    assert_eq!((is_ok("eviction"), is_ok("scripts")), (Some(0.0), Some(1.0)));
    let line = "Redis is not as it should be: maxmemory-policy is allkeys-lru";
    assert_eq!(said(line), 1, "{}", gateway.stderr());
    assert_eq!(said("CONFIG SET maxmemory-policy noeviction"), 1);
    // Another process, with settings of its own.
    redis.kill();
    redis.restart();
    eventually("it is looked at anew", || found().is_empty());
    assert_eq!((is_ok("eviction"), is_ok("scripts")), (Some(1.0), Some(1.0)));
    assert_eq!(said(line), 1, "{}", gateway.stderr());
}

#[test]
fn each_server_of_a_cluster_is_looked_at() {
    let cluster = RedisCluster::start_with_replicas(3);
    let at = |server: usize| cluster.servers[server].address().to_string();
    let says = |more: &str, words: &[&str]| {
        let ran = check_at(&cluster.url(), more);
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.stdout.matches("store: warning").count(), 1, "{}", ran.stdout);
        for word in words {
            assert!(ran.stdout.contains(word), "{word:?} is not in\n{}", ran.stdout);
        }
    };
    cluster.servers.iter().for_each(|redis| make_user_of(redis, true, ""));
    for more in ["", AS_USER, "cache_epochs = \"follow\"\ncache_reads = \"replica\""] {
        let ran = check_at(&cluster.url(), more);
        assert_eq!((ran.code, &*ran.stdout), (Some(0), "ok: 1 route\nstore: ok\n"));
    }
    // What two of them show is said once, with where.
    for server in [1, 2] {
        make_user_of(&cluster.servers[server], true, "-hrandfield");
    }
    let both = format!("at: {}, {}\n", at(1), at(2));
    says(AS_USER, &["lacks the right to `hrandfield`", "the cache", &both]);
    cluster.servers.iter().for_each(|redis| make_user_of(redis, true, ""));
    let evict = ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"];
    assert_eq!(cluster.servers[2].cli(&evict), "OK");
    says("", &["maxmemory-policy is allkeys-lru", &format!("at: {}\n", at(2))]);
    assert_eq!(cluster.servers[2].cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]), "OK");
    // A replica counts where it is read from. It is told of once it has something.
    eventually("the cluster tells of its replicas", || {
        let told = cluster.servers[0].cli(&["CLUSTER", "SLOTS"]);
        cluster.servers.iter().all(|it| told.contains(&it.address().port().to_string()))
    });
    make_user_of(&cluster.servers[4], true, "-readonly");
    let ran = check_at(&cluster.url(), AS_USER);
    assert_eq!((ran.code, &*ran.stdout), (Some(0), "ok: 1 route\nstore: ok\n"));
    let reads = format!("{AS_USER}\ncache_reads = \"replica\"");
    says(&reads, &["lacks the right to `readonly`", &format!("at: {}\n", at(4))]);
}

#[test]
fn a_cluster_that_is_not_whole_is_refused_with_where() {
    let mut cluster = RedisCluster::start(3);
    let (url, lost) = (cluster.url(), cluster.servers[1].address());
    cluster.servers[1].kill();
    let ran = check_at(&url, "");
    refuses(&ran, &["store: error", "Connection refused", &format!("at: {lost}\n")]);
    let alone = Redis::start();
    let ran = check_at(&format!("redis-cluster://{}", alone.address()), "");
    refuses(&ran, &["does not say how its Redis Cluster is", "portcullis acl --cluster"]);
}

#[test]
fn a_gateway_looks_at_each_server_of_a_cluster() {
    let cluster = RedisCluster::start_with_replicas(3);
    cluster.servers.iter().for_each(|redis| make_user_of(redis, true, ""));
    make_user_of(&cluster.servers[2], true, "-hrandfield");
    make_user_of(&cluster.servers[3], true, "-mget");
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let store = format!(
        "[store]\nurl = \"{}\"\nconnect_timeout = \"5s\"\ncache_reads = \"replica\"\n{AS_USER}\n",
        cluster.url()
    );
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";
    let gateway = Gateway::start(&format!("{store}{}{route}", upstream.table("shop")));
    let found = || -> Vec<(String, String)> {
        let status = operate(&gateway, "GET", "/v1/status", "").json();
        let all = status["store"]["selftest"].as_array().expect("a list").clone();
        let text = |it: &serde_json::Value, name: &str| it[name].as_str().expect("text").to_owned();
        all.iter().map(|it| (text(it, "node"), text(it, "seen"))).collect()
    };
    let lacks = |server: usize, right: &str| {
        let seen = format!("the user gateway lacks the right to `{right}`");
        (cluster.servers[server].address().to_string(), seen)
    };
    let mut expected = vec![lacks(2, "hrandfield"), lacks(3, "mget")];
    expected.sort();
    eventually("all of them are looked at", || found() == expected);
}
