//! The user who may only look at Redis: what is shown, what is measured, and what stays out of
//! reach.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    Client, Exposition, Folder, Gateway, PATIENCE, Redis, RedisCluster, Refused, Reply, Upstream,
    eventually, eventually_within, operate, response, run,
};

const PASSWORD: &str = "look-but-do-not-touch";
const SHOWN: [&str; 3] = ["info", "dbsize", "slowlog|get"];

/// What `portcullis acl` prints with these arguments.
fn acl(arguments: &[&str]) -> Refused {
    let folder = Folder::new();
    folder.write(
        "gateway.toml",
        "[upstreams.shop]\nservers = [\"http://127.0.0.1:3000\"]\n[routes.all]\npath = \"/*\"\n\
         upstream = \"shop\"\n",
    );
    run(&folder, &[&["acl"], arguments].concat())
}

/// Makes the operator's user by the command that is printed.
fn make_operator(redis: &Redis) {
    let command = acl(&["--operator"]).stdout.replace("PASSWORD", PASSWORD);
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK", "{command}");
}

fn start(store: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let gateway = Gateway::start(&format!(
        "{store}{}[limits.many]\nkey = [\"address\"]\nallow = [\"1000/1h\"]\n[routes.all]\n\
         path = \"/*\"\nupstream = \"shop\"\nlimits = [\"many\"]\n",
        upstream.table("shop")
    ));
    (upstream, gateway)
}

/// The tables of a store with an operator who asks this often.
fn looked_at(url: &str, info: &str) -> String {
    format!(
        "[store]\nurl = \"{url}\"\n[store.operator]\nusername = \"operator\"\n\
         password = \"{PASSWORD}\"\ninfo = \"{info}\"\n"
    )
}

fn show(gateway: &Gateway) -> Value {
    operate(gateway, "GET", "/v1/store", "").json()
}

fn scrape(gateway: &Gateway) -> Exposition {
    Exposition::text(&Client::get(gateway.admin, "/metrics").send().text())
}

/// A number of INFO.
fn info(redis: &Redis, name: &str) -> f64 {
    let all = redis.cli(&["INFO"]);
    let value = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.expect(name).trim().parse().expect("a number")
}

#[test]
fn an_operator_is_shown_redis_on_connections_that_no_request_uses() {
    let redis = Redis::start();
    make_operator(&redis);
    redis.cli(&["CONFIG", "SET", "maxmemory", "64mb"]);
    redis.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    redis.cli(&["SET", "app:session:very-secret-id", "very-secret-value"]);
    let (_upstream, gateway) = start(&looked_at(&redis.url(), "15s"));
    assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    let told = show(&gateway);
    assert_eq!(told["kind"], "redis");
    assert_eq!(told["node"], redis.address().to_string());
    assert!(told["ping_s"].as_f64().is_some_and(|ping| ping > 0.0), "{told}");
    assert_eq!(told["topology"], json!({ "role": "primary", "replicas": 0 }));
    let memory = &told["memory"];
    assert_eq!((&memory["max"], &memory["policy"]), (&json!(64 << 20), &json!("noeviction")));
    assert!(memory["used"].as_u64().is_some_and(|used| used > 0));
    assert_eq!(told["evicted"], 0);
    assert!(told["clients"].as_u64().is_some_and(|clients| clients > 1));
    let keys: u64 = redis.cli(&["DBSIZE"]).parse().expect("a number");
    assert_eq!(told["keys"], keys);
    assert_eq!(told["not_permitted"], json!([]));
    let slow = told["slowlog"].as_array().expect("a list");
    assert!(slow.iter().any(|it| it["keys"] == "limits"), "{told}");
    assert!(!told.to_string().contains("very-secret"), "{told}");
    let clients = redis.cli(&["CLIENT", "LIST"]);
    let own = clients.lines().filter(|line| line.contains("user=operator "));
    let own: Vec<&str> = own.collect();
    assert_eq!(own.len(), 1, "{clients}");
    assert!(own[0].contains("name=portcullis:") && own[0].contains(":operator "), "{}", own[0]);
    let pid = gateway.pid().to_string();
    assert!(own[0].contains(&pid), "it is this gateway's: {}", own[0]);
}

#[test]
fn the_operator_may_neither_read_values_nor_write_kill_or_configure() {
    let redis = Redis::start();
    make_operator(&redis);
    let dry = |words: &[&str]| {
        redis.cli(&[&["ACL", "DRYRUN", "operator"], words].concat()).starts_with("OK")
    };
    for allowed in [
        &["INFO"][..],
        &["SLOWLOG", "GET"],
        &["SCAN", "0"],
        &["TYPE", "app:session:a"],
        &["MEMORY", "USAGE", "app:session:a"],
        &["CLIENT", "LIST"],
        &["LATENCY", "LATEST"],
        &["XINFO", "STREAM", "app:auth:revocations"],
    ] {
        assert!(dry(allowed), "{allowed:?}");
    }
    for refused in [
        &["GET", "app:session:a"][..],
        &["HGETALL", "app:session:a"],
        &["SET", "app:session:a", "1"],
        &["DEL", "app:session:a"],
        &["CONFIG", "GET", "maxmemory"],
        &["CONFIG", "SET", "maxmemory", "1"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["EVAL", "return 1", "0"],
        &["FLUSHALL"],
        &["KEYS", "*"],
        &["SLOWLOG", "RESET"],
        &["ACL", "LIST"],
        &["TYPE", "other:a"],
    ] {
        assert!(!dry(refused), "{refused:?}");
    }
}

#[test]
fn metrics_tell_what_redis_says_of_itself() {
    let redis = Redis::start();
    make_operator(&redis);
    redis.cli(&["CONFIG", "SET", "maxmemory", "64mb"]);
    redis.cli(&["CONFIG", "SET", "hash-max-listpack-entries", "7"]);
    let (_upstream, gateway) = start(&looked_at(&redis.url(), "50ms"));
    let node = redis.address().to_string();
    let at = [("store", "main"), ("node", &*node)];
    let value = |name: &str| scrape(&gateway).value(name, &at);
    eventually("it is asked", || value("portcullis_redis_memory_used_bytes").is_some());
    assert_eq!(value("portcullis_redis_memory_max_bytes"), Some(f64::from(64 << 20)));
    assert_eq!(value("portcullis_redis_evicted_keys_total"), Some(0.0));
    assert!(value("portcullis_redis_clients") >= Some(2.0));
    assert!(value("portcullis_redis_fragmentation_ratio") > Some(0.0));
    redis.cli(&["SET", "app:a", "1", "PX", "1"]);
    for (name, own) in [
        ("portcullis_redis_expired_keys_total", "expired_keys"),
        ("portcullis_redis_keyspace_hits_total", "keyspace_hits"),
        ("portcullis_redis_keyspace_misses_total", "keyspace_misses"),
    ] {
        eventually("it has ended", || redis.cli(&["GET", "app:a"]).is_empty());
        redis.cli(&["GET", "app:auth:none"]);
        eventually(name, || value(name) == Some(info(&redis, own)));
    }
    let read = scrape(&gateway);
    for (role, one) in [("primary", 1.0), ("replica", 0.0)] {
        let labels = [at[0], at[1], ("role", role)];
        assert_eq!(read.value("portcullis_redis_role", &labels), Some(one));
    }
    let version = redis.cli(&["INFO", "server"]);
    let version = version.lines().find_map(|line| line.strip_prefix("redis_version:"));
    let labels = [
        at[0],
        at[1],
        ("version", version.expect("a version").trim()),
        ("policy", "noeviction"),
        ("mode", "standalone"),
    ];
    assert_eq!(read.value("portcullis_redis_info", &labels), Some(1.0));
    redis.stop_signal();
    eventually("nothing is told of who says nothing", || {
        value("portcullis_redis_memory_used_bytes").is_none()
    });
    redis.cont_signal();
    eventually("it is told again", || value("portcullis_redis_memory_used_bytes").is_some());
}

/// Whether the gateway says that Redis evicts keys: as a finding, and by its metric.
fn says_that_it_evicts(gateway: &Gateway) -> bool {
    let status = operate(gateway, "GET", "/v1/status", "").json();
    let findings = status["store"]["selftest"].as_array().cloned().unwrap_or_default();
    let is_told = findings.iter().any(|it| it["check"] == "eviction");
    let labels = [("store", "main"), ("check", "eviction")];
    let is_ok = scrape(gateway).value("portcullis_store_selftest_ok", &labels);
    is_told && is_ok == Some(0.0)
}

#[test]
fn a_policy_that_changes_under_a_running_gateway_is_found() {
    let redis = Redis::start();
    make_operator(&redis);
    let (_one, looking) = start(&looked_at(&redis.url(), "50ms"));
    let (_other, without) = start(&format!("[store]\nurl = \"{}\"\n", redis.url()));
    let gateways = [&looking, &without];
    let labels = [("store", "main"), ("check", "eviction")];
    for gateway in gateways {
        eventually("it was looked at", || {
            scrape(gateway).value("portcullis_store_selftest_ok", &labels) == Some(1.0)
        });
    }
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    eventually("the operator sees it", || says_that_it_evicts(&looking));
    // The gateway itself looks four times a minute.
    let longest = Duration::from_secs(15) + PATIENCE;
    eventually_within(longest, "it is seen", || says_that_it_evicts(&without));
    for gateway in gateways {
        let said = gateway.stderr();
        assert!(said.contains("maxmemory-policy is allkeys-lru"), "{said}");
    }
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    eventually("it is over", || !says_that_it_evicts(&looking));
}

#[test]
fn without_an_operator_the_missing_rights_are_named() {
    let redis = Redis::start();
    let (_upstream, gateway) = start(&format!("[store]\nurl = \"{}\"\n", redis.url()));
    let told = show(&gateway);
    assert_eq!((&told["kind"], &told["not_permitted"]), (&json!("redis"), &json!(SHOWN)));
    let help = told["help"].as_str().expect("text");
    assert!(help.contains("portcullis acl --operator") && help.contains("[store.operator]"));
    let of_redis = |(name, _): &(String, _)| name.starts_with("portcullis_redis_");
    assert_eq!(scrape(&gateway).series.keys().filter(|it| of_redis(it)).count(), 0);
    let (_upstream, gateway) = start("");
    assert_eq!(show(&gateway), json!({ "kind": "memory" }));
}

#[test]
fn a_right_that_is_missing_is_named_and_the_rest_is_shown() {
    let redis = Redis::start();
    make_operator(&redis);
    redis.cli(&["ACL", "SETUSER", "operator", "-slowlog|get", "-info"]);
    let (_upstream, gateway) = start(&looked_at(&redis.url(), "50ms"));
    let told = show(&gateway);
    assert_eq!(told["not_permitted"], json!(["info", "slowlog|get"]), "{told}");
    assert_eq!(told["help"], "ACL SETUSER operator +info +slowlog|get");
    assert!(told["ping_s"].is_f64() && told["keys"].is_u64() && told["memory"].is_null());
    eventually("the log says why there are no metrics", || {
        gateway.stderr().contains("Redis tells its operator nothing")
    });
    redis.cli(&["ACL", "SETUSER", "operator", "+info", "+slowlog|get"]);
    assert_eq!(show(&gateway)["not_permitted"], json!([]));
}

#[test]
fn a_wrong_password_is_told_and_concerns_no_request() {
    let redis = Redis::start();
    make_operator(&redis);
    let store = looked_at(&redis.url(), "50ms").replace(PASSWORD, "wrong-horse");
    let (_upstream, gateway) = start(&store);
    let told = show(&gateway);
    assert!(told["failure"].as_str().is_some_and(|why| why.contains("WRONGPASS")), "{told}");
    assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    let status = operate(&gateway, "GET", "/v1/status", "").json();
    assert_eq!(status["store"]["nodes"][0]["rung"], "healthy");
    eventually("the log says it", || gateway.stderr().contains("Redis tells its operator nothing"));
    let said = gateway.stderr();
    assert_eq!(said.matches("Redis tells its operator nothing").count(), 1, "once");
    assert!(!said.contains("wrong-horse") && !told.to_string().contains("wrong-horse"));
    let command = ["ACL", "SETUSER", "operator", "resetpass", ">wrong-horse"];
    assert_eq!(redis.cli(&command), "OK");
    assert!(show(&gateway)["failure"].is_null(), "it is tried again");
}

#[test]
fn each_primary_of_a_cluster_is_shown() {
    let cluster = RedisCluster::start(3);
    cluster.servers.iter().for_each(make_operator);
    let seed = cluster.servers[0].address();
    let (_upstream, gateway) = start(&looked_at(&format!("redis-cluster://{seed}"), "50ms"));
    let mut expected: Vec<String> =
        cluster.servers.iter().map(|server| server.address().to_string()).collect();
    expected.sort();
    let shown = || {
        let told = show(&gateway);
        assert_eq!(told["kind"], "cluster");
        let servers = told["servers"].as_array().expect("a list").clone();
        let named = servers.iter().filter(|it| it["memory"]["used"].is_u64());
        let mut nodes: Vec<String> =
            named.map(|it| it["node"].as_str().expect("text").to_owned()).collect();
        nodes.sort();
        nodes
    };
    eventually("all of them", || shown() == expected);
    for node in &expected {
        let at = [("store", "main"), ("node", &**node)];
        eventually("its metrics", || {
            scrape(&gateway).value("portcullis_redis_memory_used_bytes", &at).is_some()
        });
    }
}

/// A gateway whose routes cache, with what is asked of it stored in Redis.
fn caching(store: &str, paths: &[String]) -> (Upstream, Gateway) {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let table = upstream.table("shop");
    let gateway = Gateway::start(&format!(
        "{store}timeout = \"5s\"\n{table}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n\
         cache = {{ ttl = \"1h\" }}\n"
    ));
    for path in paths {
        let request = Client::get(gateway.public, path).header("Host", "shop.test");
        assert_eq!(request.send().status, 200);
    }
    (upstream, gateway)
}

fn walk(gateway: &Gateway, body: &Value) -> Reply {
    operate(gateway, "POST", "/v1/cache/walk", &body.to_string())
}

/// All that a walk finds, in the order of the URLs, and how many answers it took.
fn walked(gateway: &Gateway, matching: &str) -> (Vec<Value>, usize) {
    let (mut cursor, mut all, mut answers) = (json!("0"), Vec::new(), 0);
    while !cursor.is_null() {
        let reply = walk(gateway, &json!({ "cursor": cursor, "match": matching, "steps": 20 }));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let mut answer = reply.json();
        assert!(
            answer["seen"].as_u64() >= Some(answer["entries"].as_array().unwrap().len() as u64)
        );
        all.append(answer["entries"].as_array_mut().unwrap());
        cursor = answer["cursor"].clone();
        answers += 1;
    }
    all.sort_by_key(|entry| entry["url"].to_string());
    (all, answers)
}

/// The tables of a store with an operator, of which the first is to be gone on with.
fn operated(url: &str) -> String {
    format!(
        "[store.operator]\nusername = \"operator\"\npassword = \"{PASSWORD}\"\n[store]\n\
         url = \"{url}\"\n"
    )
}

fn problem(reply: &Reply) -> (u16, String) {
    let kind = reply.json()["type"].as_str().expect("a type").to_owned();
    (reply.status, kind.replace("urn:portcullis:problem:", ""))
}

#[test]
fn a_walk_shows_what_is_stored_and_no_value() {
    let redis = Redis::start();
    make_operator(&redis);
    let paths: Vec<String> =
        (10..40).map(|number| format!("/p/{number}?token=s3cret")).chain(["/q".into()]).collect();
    // This one looks like another.
    let paths: Vec<String> = paths.into_iter().chain(["/p/39?token=s3cre2".into()]).collect();
    let (_upstream, gateway) = caching(&operated(&redis.url()), &paths);
    redis.cli(&["SET", "app:cache:{h/p}:entry:r", "an application's"]);
    let found = || walked(&gateway, "");
    eventually("all are in Redis", || found().0.len() == paths.len());
    let (all, _) = found();
    let url = |number: usize| format!("http://shop.test/p/{number}?token=…");
    let urls = (10..40).chain([39]).map(url).chain(["http://shop.test/q".into()]);
    let urls: Vec<String> = urls.collect();
    let ids: BTreeSet<&str> = all.iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), urls.len(), "each has a name of its own");
    let again = found().0;
    assert!(again.iter().all(|it| ids.contains(it["id"].as_str().unwrap())), "and keeps it");
    assert_eq!(all.iter().map(|it| it["url"].as_str().unwrap()).collect::<Vec<_>>(), urls);
    assert!(!json!(all).to_string().contains("s3cret"));
    for entry in &all {
        assert_eq!((&entry["route"], &entry["parted"]), (&json!("all"), &json!(false)));
        assert!(entry["ttl_s"].as_u64() > Some(3000) && entry["bytes"].as_u64() > Some(4));
    }
    assert_eq!(walked(&gateway, "shop.test/q").0.len(), 1);
    for body in [
        json!({ "cursor": "x" }),
        json!({ "cursor": "0@nowhere:1" }),
        json!({ "steps": 0 }),
        json!({ "steps": 21 }),
        json!({ "match": "x".repeat(513) }),
        json!({ "pattern": "*" }),
    ] {
        assert_eq!(problem(&walk(&gateway, &body)), (400, "request_invalid".to_owned()), "{body}");
    }
    let reply = walk(&gateway, &json!({}));
    assert_eq!(reply.status, 200, "where nothing is said, it begins: {}", reply.text());
    redis.cli(&["ACL", "SETUSER", "operator", "-pttl"]);
    let refused = walk(&gateway, &json!({}));
    assert_eq!(problem(&refused), (409, "walk_not_permitted".to_owned()));
    let detail = refused.json()["detail"].to_string();
    assert!(detail.contains("ACL SETUSER operator +scan +pttl +memory|usage"), "{detail}");
}

#[test]
fn one_walks_at_a_time_and_in_small_steps() {
    let redis = Redis::start();
    make_operator(&redis);
    let many = "for i = 1, 3000 do redis.call('SET', 'app:other:' .. i, i) end";
    redis.cli(&["EVAL", many, "0"]);
    let (_upstream, gateway) = caching(&operated(&redis.url()), &["/p".to_owned()]);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        // Whoever comes second is refused, and this may be that one.
        let whole = scope.spawn(|| {
            eventually("it may walk", || walk(&gateway, &json!({ "steps": 10 })).status == 200);
        });
        let mut refused = None;
        eventually("somebody walks", || {
            // Free to walk, it says that this is no cursor.
            let reply = walk(&gateway, &json!({ "cursor": "x" }));
            refused = (reply.status == 409).then(|| problem(&reply).1);
            refused.is_some() || whole.is_finished()
        });
        assert_eq!(refused.as_deref(), Some("walk_busy"));
        whole.join().expect("a walk");
    });
    assert!(begun.elapsed() >= Duration::from_millis(9 * 200), "five steps a second");
}

#[test]
fn a_walk_without_a_user_says_who_is_missing() {
    let redis = Redis::start();
    let store = format!("[store]\nurl = \"{}\"\n", redis.url());
    for (store, part) in [
        (&*store, "acl --operator"),
        ("[store]\nurl = \"memory:\"\n", "the memory of this process"),
    ] {
        let (_upstream, gateway) = caching(store, &[]);
        let refused = walk(&gateway, &json!({}));
        assert_eq!(problem(&refused), (409, "walk_unavailable".to_owned()));
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains(part), "{detail}");
    }
}

#[test]
fn a_walk_goes_through_each_server_of_a_cluster() {
    let cluster = RedisCluster::start(3);
    cluster.servers.iter().for_each(make_operator);
    let paths: Vec<String> = (10..40).map(|number| format!("/p/{number}")).collect();
    let (_upstream, gateway) = caching(&operated(&cluster.url()), &paths);
    eventually("all are found", || walked(&gateway, "").0.len() == paths.len());
    let first = walk(&gateway, &json!({ "steps": 1 })).json();
    let cursor = first["cursor"].as_str().expect("there is more");
    let name = cursor.split_once('@').expect("a server").1;
    assert!(cluster.servers.iter().any(|it| it.address().to_string() == name), "{cursor}");
    let lost = walk(&gateway, &json!({ "cursor": "17" }));
    assert_eq!(problem(&lost), (400, "request_invalid".to_owned()), "a number of which server?");
}

#[test]
fn users_are_printed_as_redis_and_kubernetes_take_them() {
    let (operator, gateway) = (acl(&["--operator"]).stdout, acl(&[]).stdout);
    let begin = "ACL SETUSER operator on >PASSWORD resetkeys %R~app:* resetchannels -@all +hello";
    assert!(operator.starts_with(begin), "{operator}");
    let other = acl(&["--operator", "--user", "eve", "--prefix", "shop"]).stdout;
    assert_eq!(other, operator.replace("operator", "eve").replace("app:", "shop:"));
    let line = |command: &str| command.replacen("ACL SETUSER ", "user ", 1);
    for (arguments, command) in [(&["--operator"][..], &operator), (&[], &gateway)] {
        let printed = |format: &str| acl(&[arguments, &["--format", format]].concat()).stdout;
        assert_eq!(&printed("setuser"), command);
        assert_eq!(printed("file"), line(command));
        let secret = printed("secret");
        assert!(secret.starts_with("apiVersion: v1\nkind: Secret\n"), "{secret}");
        // It is the whole file: without a word on it, `default` may do all.
        let file = format!("  users.acl: |\n    user default off\n    {}", line(command));
        assert!(secret.ends_with(&file), "{secret}");
    }
    for prefix in ["a b", "", "a:b"] {
        let refused = acl(&["--prefix", prefix]);
        assert_eq!(refused.code, Some(1), "{prefix:?}");
    }
    // Redis reads the file, and lets the user in.
    let folder = Folder::new();
    let users = [line(&gateway), line(&operator), "user default on nopass ~* +@all\n".to_owned()];
    let file = folder.write("users.acl", users.concat().replace("PASSWORD", PASSWORD));
    let file = file.display().to_string();
    let redis = Redis::start_with(&["--aclfile".to_owned(), file]);
    let users = redis.cli(&["ACL", "USERS"]);
    assert!(users.contains("operator") && users.contains("gateway"), "{users}");
    let (_upstream, gateway) = start(&looked_at(&redis.url(), "0s"));
    assert_eq!(show(&gateway)["not_permitted"], json!([]));
    let asked = redis.cli(&["INFO", "commandstats"]);
    assert!(asked.contains("cmdstat_dbsize"), "{asked}");
}

#[test]
fn mistakes_in_the_table_are_told() {
    let check = |tables: &str| {
        let folder = Folder::new();
        folder.write(
            "gateway.toml",
            format!(
                "{tables}[upstreams.shop]\nservers = [\"http://127.0.0.1:3000\"]\n[routes.all]\n\
                 path = \"/*\"\nupstream = \"shop\"\n"
            ),
        );
        run(&folder, &["check"]).stderr
    };
    let user = "[store.operator]\nusername = \"operator\"\npassword = \"a\"\n";
    let redis = "[store]\nurl = \"redis://127.0.0.1\"\n";
    assert_eq!(check(&format!("{redis}{user}")), "");
    assert!(check(user).contains("store.operator: is of no use where url is memory:"));
    let nobody = check(&format!("{redis}[store.operator]\ninfo = \"1s\"\n"));
    assert!(nobody.contains("store.operator.username: is missing"), "{nobody}");
    assert!(nobody.contains("store.operator.password: is missing"), "{nobody}");
}
