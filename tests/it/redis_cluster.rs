//! A gateway on a Redis Cluster: what lies on several servers is one answer, and whatever becomes
//! of a server touches nothing but its share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{
    AUTH, Client, Folder, Gateway, RedisCluster, Upstream, claims, eventually, operate, response,
    token,
};

/// Limits by a field, so that a test chooses where a caller's counter lies.
const BY_USER: &str = r#"
[limits.user]
key = ["header:x-user"]
allow = ["3/1h"]
[routes.all]
path = "/*"
upstream = "shop"
limits = ["user"]
"#;

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "hello"))
}

fn start(cluster: &RedisCluster, upstream: &Upstream, more: &str) -> Gateway {
    // Deadlines are not the matter here, and the machine may be busy.
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", cluster.url());
    Gateway::start(&(store + &upstream.table("shop") + more))
}

/// The status of a request of this user.
fn ask(gateway: &Gateway, user: &str) -> u16 {
    Client::get(gateway.public, "/").header("X-User", user).send().status
}

fn counter(user: &str) -> String {
    format!("app:ratelimit:{{header:x-user={user}}}:user:1h")
}

/// A user whose counter lies on that server.
fn user_on(cluster: &RedisCluster, server: usize) -> String {
    let mut users = (0..).map(|number| format!("user-{number}"));
    users.find(|user| cluster.owner(&counter(user)) == server).expect("some user")
}

#[test]
fn everything_works_across_servers() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let routes = r#"
        [session]
        id_from = ["claim:sid"]
        header = "x-session"
        [limits.user]
        key = ["claim:sub"]
        allow = ["100/1h"]
        [limits.address]
        key = ["address"]
        allow = ["100/1h"]
        [routes.api]
        path = "/api"
        upstream = "shop"
        auth = "users"
        session = true
        limits = ["user", "address"]
        [routes.list]
        path = "/list/*"
        upstream = "shop"
        auth = "users"
        cache = { ttl = "1h", shared = true }
    "#;
    let gateway = start(&cluster, &upstream, &(AUTH.to_owned() + routes));
    let redis = &cluster.servers[0];
    for number in 0..9 {
        let (user, session) = (format!("u{number}"), format!("s{number}"));
        redis.cli(&["SET", &format!("app:session:{session}"), "{\"a\":1}", "EX", "60"]);
        let mut claims = claims(&user);
        claims["sid"] = session.into();
        claims["jti"] = format!("j{number}").into();
        let bearer = token(claims);
        let ask = |path: &str| Client::get(gateway.public, path).bearer(&bearer).send();
        assert_eq!(ask("/api").status, 200);
        let seen = upstream.recorded().pop().expect("a request");
        assert!(seen.header("x-session").is_some(), "the session of {user}");
        let path = format!("/list/{number}");
        let cached = |expected: &str| {
            let reply = ask(&path);
            let status = reply.header("cache-status").expect("Cache-Status").to_owned();
            assert!(status.contains(expected), "{path}: {status}");
        };
        cached("stored");
        cached("hit");
        let write = Client::request(gateway.public, "POST", &path).bearer(&bearer).body("x").send();
        assert_eq!(write.status, 200);
        cached("stored");
        let revoked =
            operate(&gateway, "POST", "/v1/revocations", &format!("{{\"sub\":\"{user}\"}}"));
        assert_eq!(revoked.status, 201, "{}", revoked.text());
        assert_eq!(ask("/api").status, 401);
    }
    let status = operate(&gateway, "GET", "/v1/status", "").json();
    assert_eq!(status["store"]["connected"], true);
    assert!(status["store"]["epoch"].is_u64(), "{status}");
    let nodes = status["store"]["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), cluster.servers.len(), "{status}");
    assert!(nodes.iter().all(|node| node["rung"] != "open"), "{status}");
}

#[test]
fn callers_on_two_servers_are_charged_both_or_neither() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let routes = r#"
        [limits.user]
        key = ["header:x-user"]
        allow = ["2/1h"]
        [limits.all]
        key = ["header:x-all"]
        allow = ["3/1h"]
        [routes.all]
        path = "/*"
        upstream = "shop"
        limits = ["all", "user"]
    "#;
    let gateway = start(&cluster, &upstream, routes);
    let here = cluster.owner("{header:x-all=a}");
    let user = user_on(&cluster, (here + 1) % 3);
    let other = user_on(&cluster, (here + 2) % 3);
    let ask = |user: &str| {
        let request = Client::get(gateway.public, "/").header("X-User", user);
        request.header("X-All", "a").send().status
    };
    assert_eq!([ask(&user), ask(&user), ask(&user), ask(&user)], [200, 200, 429, 429]);
    // What was refused there was given back here.
    assert_eq!([ask(&other), ask(&other)], [200, 429]);
}

#[test]
fn a_server_that_dies_takes_its_share_alone() {
    let (mut cluster, upstream) = (RedisCluster::start(3), upstream());
    let strict = "[store.on_outage]\nlimits = \"refuse\"\n";
    let gateway = start(&cluster, &upstream, &(strict.to_owned() + BY_USER));
    let users: Vec<String> = (0..3).map(|server| user_on(&cluster, server)).collect();
    let all = |gateway: &Gateway| users.iter().map(|it| ask(gateway, it)).collect::<Vec<_>>();
    assert_eq!(all(&gateway), [200, 200, 200]);
    cluster.servers[1].kill();
    eventually("its loss is known", || ask(&gateway, &users[1]) == 503);
    assert_eq!(all(&gateway), [200, 503, 200]);
    assert_eq!(all(&gateway), [200, 503, 200]);
    assert_eq!(all(&gateway), [429, 503, 429], "the others count on");
    cluster.servers[1].restart();
    eventually("it serves again", || ask(&gateway, &users[1]) == 200);
}

#[test]
fn a_planned_fail_over_costs_no_request() {
    let (cluster, upstream) = (RedisCluster::start_with_replicas(3), upstream());
    let routes = BY_USER.replace("3/1h", "1000000/1h");
    let gateway = start(&cluster, &upstream, &routes);
    let users: Vec<String> = (0..3).map(|server| user_on(&cluster, server)).collect();
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for user in &users {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(ask(&gateway, user), 200);
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let promote = |replica: usize| {
            let server = &cluster.servers[replica];
            assert_eq!(server.cli(&["CLUSTER", "FAILOVER"]), "OK");
            eventually("it is promoted", || server.cli(&["ROLE"]).starts_with("master"));
            let before = asked.load(Ordering::SeqCst);
            eventually("requests go on", || asked.load(Ordering::SeqCst) > before + 30);
        };
        promote(3);
        promote(4);
        over.store(true, Ordering::SeqCst);
    });
    let lost = gateway.stderr();
    assert!(!lost.contains("-> open ("), "{lost}");
}

/// Two servers take turns: the one that was the primary is so again before its word of being a
/// replica has gone round.
#[test]
fn fail_overs_to_and_fro_cost_no_purge() {
    let (cluster, upstream) = (RedisCluster::start_with_replicas(3), upstream());
    let gateway = start(&cluster, &upstream, "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n");
    let purge = || {
        let purged = operate(&gateway, "POST", "/v1/cache/purge", r#"{"path":"/p"}"#);
        let said = purged.text();
        // A server that takes over unasked may not have the last write, which is seen and told.
        assert!(purged.status == 200 || said.contains("purge_not_kept"), "{said}");
        purged
    };
    let key = purge().json()["epochs"][0].as_str().expect("a key").to_owned();
    let at = cluster.owner(&key);
    let purged = AtomicUsize::new(0);
    let take_turns = || {
        // The primaries vote for a replica of one server from time to time only.
        for (turn, how) in ["FAILOVER", "FAILOVER TAKEOVER"].iter().enumerate() {
            let (to, from) = (at + 3 * ((turn + 1) % 2), at + 3 * (turn % 2));
            let server = &cluster.servers[to];
            let how: Vec<&str> = std::iter::once("CLUSTER").chain(how.split(' ')).collect();
            assert_eq!(server.cli(&how), "OK");
            eventually("it is promoted", || server.cli(&["ROLE"]).starts_with("master"));
            let follows = || cluster.servers[from].cli(&["ROLE"]).contains("connected");
            eventually("the other one follows", follows);
            let before = purged.load(Ordering::SeqCst);
            eventually("purges go on", || purged.load(Ordering::SeqCst) > before + 5);
        }
    };
    std::thread::scope(|scope| {
        let turns = scope.spawn(take_turns);
        while !turns.is_finished() {
            purge();
            purged.fetch_add(1, Ordering::SeqCst);
        }
    });
}

#[test]
fn a_promoted_replica_takes_over_from_the_dead() {
    let (mut cluster, upstream) = (RedisCluster::start_with_replicas(3), upstream());
    let strict = "[store.on_outage]\nlimits = \"refuse\"\n";
    let routes = strict.to_owned() + &BY_USER.replace("3/1h", "1000000/1h");
    let gateway = start(&cluster, &upstream, &routes);
    let users: Vec<String> = (0..3).map(|server| user_on(&cluster, server)).collect();
    users.iter().for_each(|user| assert_eq!(ask(&gateway, user), 200));
    cluster.servers[0].kill();
    eventually("the replica serves", || {
        assert_eq!([ask(&gateway, &users[1]), ask(&gateway, &users[2])], [200, 200]);
        ask(&gateway, &users[0]) == 200
    });
}

#[test]
fn a_slot_that_moves_loses_no_count() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let gateway = start(&cluster, &upstream, BY_USER);
    let user = user_on(&cluster, 0);
    let key = counter(&user);
    let (from, to) = (&cluster.servers[0], &cluster.servers[1]);
    let slot = from.cli(&["CLUSTER", "KEYSLOT", &key]);
    let (from_id, to_id) = (from.cli(&["CLUSTER", "MYID"]), to.cli(&["CLUSTER", "MYID"]));
    assert_eq!(ask(&gateway, &user), 200);
    assert_eq!(to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]), "OK");
    assert_eq!(from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]), "OK");
    let port = to.address().port().to_string();
    assert_eq!(from.cli(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]), "OK");
    assert_eq!(ask(&gateway, &user), 200, "asked for there, before the slot is there");
    for server in [to, from] {
        assert_eq!(server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]), "OK");
    }
    assert_eq!(ask(&gateway, &user), 200, "sent on");
    assert_eq!(ask(&gateway, &user), 429, "and nothing was forgotten");
}

/// Two limits that no request may pass both of: by a user, and by what `X-All` says.
const BY_TWO: &str = r#"
[limits.user]
key = ["header:x-user"]
allow = ["2/1h"]
[limits.all]
key = ["header:x-all"]
allow = ["100/1h"]
[routes.all]
path = "/*"
upstream = "shop"
limits = ["all", "user"]
"#;

/// The status of a request that both limits count.
fn ask_both(gateway: &Gateway, user: &str) -> u16 {
    let request = Client::get(gateway.public, "/").header("X-User", user);
    request.header("X-All", "a").send().status
}

#[test]
fn one_limit_that_refuses_is_enough_while_another_ones_server_is_dead() {
    let (mut cluster, upstream) = (RedisCluster::start(3), upstream());
    let open = "[store.on_outage]\nlimits = \"allow\"\n";
    let gateway = start(&cluster, &upstream, &(open.to_owned() + BY_TWO));
    let dead = cluster.owner("{header:x-all=a}");
    let user = user_on(&cluster, (dead + 1) % 3);
    cluster.servers[dead].kill();
    assert_eq!([ask_both(&gateway, &user), ask_both(&gateway, &user)], [200, 200]);
    assert_eq!(ask_both(&gateway, &user), 429, "what answers is not overruled by what does not");
}

#[test]
fn what_an_outage_refuses_is_given_back() {
    let (mut cluster, upstream) = (RedisCluster::start(3), upstream());
    let strict = "[store.on_outage]\nlimits = \"refuse\"\n";
    let gateway = start(&cluster, &upstream, &(strict.to_owned() + BY_TWO));
    let dead = cluster.owner("{header:x-all=a}");
    let user = user_on(&cluster, (dead + 1) % 3);
    cluster.servers[dead].kill();
    for _ in 0..5 {
        assert_eq!(ask_both(&gateway, &user), 503);
    }
    cluster.servers[dead].restart();
    eventually("it serves again", || match ask_both(&gateway, &user) {
        503 => false,
        status => {
            assert_eq!(status, 200, "refused requests were charged");
            true
        }
    });
    assert_eq!([ask_both(&gateway, &user), ask_both(&gateway, &user)], [200, 429]);
}

#[test]
fn what_is_sent_on_to_a_dead_server_costs_its_share_alone() {
    let (mut cluster, upstream) = (RedisCluster::start(3), upstream());
    let open = "[store.on_outage]\nlimits = \"allow\"\n";
    let gateway = start(&cluster, &upstream, &(open.to_owned() + BY_TWO));
    let here = cluster.owner("{header:x-all=a}");
    let user = user_on(&cluster, here);
    let gone = (here + 1) % 3;
    let id = cluster.servers[gone].cli(&["CLUSTER", "MYID"]);
    let all = "app:ratelimit:{header:x-all=a}:all:1h";
    let (server, slot) =
        (&cluster.servers[here], cluster.servers[here].cli(&["CLUSTER", "KEYSLOT", all]));
    assert_eq!(server.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id]), "OK");
    cluster.servers[gone].kill();
    eventually("its loss is known", || gateway.stderr().contains("-> open ("));
    // Of the same exchange, the user's charge is an answer.
    assert_eq!([ask_both(&gateway, &user), ask_both(&gateway, &user)], [200, 200]);
    assert_eq!(ask_both(&gateway, &user), 429);
}

#[test]
fn a_revocation_reaches_a_slot_that_is_moving() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n";
    let gateway = start(&cluster, &upstream, &(AUTH.to_owned() + route));
    let mut claims = claims("ada");
    claims["jti"] = "j1".into();
    let bearer = token(claims);
    let status = || Client::get(gateway.public, "/").bearer(&bearer).send().status;
    assert_eq!(status(), 200);
    let key = "app:auth:blacklist:j1";
    let from = cluster.owner(key);
    let (from, to) = (&cluster.servers[from], &cluster.servers[(from + 1) % 3]);
    let (from_id, to_id) = (from.cli(&["CLUSTER", "MYID"]), to.cli(&["CLUSTER", "MYID"]));
    let slot = from.cli(&["CLUSTER", "KEYSLOT", key]);
    assert_eq!(to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]), "OK");
    assert_eq!(from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]), "OK");
    let revoked = operate(&gateway, "POST", "/v1/revocations", r#"{"jti":"j1"}"#);
    assert_eq!(revoked.status, 201, "{}", revoked.text());
    assert_eq!(status(), 401);
    for server in [to, from] {
        assert_eq!(server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]), "OK");
    }
    assert_eq!(status(), 401);
}

#[test]
fn a_changed_password_is_used_while_the_server_of_the_first_slot_is_dead() {
    let (mut cluster, upstream) = (RedisCluster::start(3), upstream());
    let set_user = |cluster: &RedisCluster, servers: std::ops::Range<usize>, password: &str| {
        for server in &cluster.servers[servers] {
            let words = ["ACL", "SETUSER", "gateway", "on", "resetpass", "+@all", "~*", password];
            assert_eq!(server.cli(&words), "OK");
        }
    };
    set_user(&cluster, 0..3, ">former-horse");
    let folder = Folder::new();
    folder.write("password", "former-horse");
    let store = format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\nusername = \"gateway\"\n\
         password = \"file:password\"\n[store.on_outage]\nlimits = \"refuse\"\n",
        cluster.url()
    );
    let gateway = Gateway::start_in(folder, &(store + &upstream.table("shop") + BY_USER));
    let user = user_on(&cluster, 2);
    assert_eq!(ask(&gateway, &user), 200);
    cluster.servers[0].kill();
    eventually("its loss is known", || gateway.stderr().contains("-> open ("));
    set_user(&cluster, 1..3, ">next-horse");
    std::fs::write(gateway.folder().join("password"), "next-horse").unwrap();
    gateway.signal("HUP");
    eventually("it is used", || gateway.stderr().contains("are used for Redis"));
}

#[test]
fn a_server_has_no_more_connections_than_are_configured() {
    let (cluster, upstream) = (RedisCluster::start_with_replicas(3), upstream());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(16);
    for (connections, expected) in [("1", 1), ("\"auto\"", threads)] {
        let store = format!(
            "[store]\nurl = \"{}\"\ntimeout = \"5s\"\nconnections = {connections}\n",
            cluster.url()
        );
        let routes = BY_USER.replace("3/1h", "1000000/1h");
        let gateway = Gateway::start(&(store + &upstream.table("shop") + &routes));
        let users: Vec<String> = (0..3).map(|server| user_on(&cluster, server)).collect();
        std::thread::scope(|scope| {
            for user in users.iter().cycle().take(4 * threads) {
                scope.spawn(|| (0..20).for_each(|_| assert_eq!(ask(&gateway, user), 200)));
            }
        });
        let ours = format!("-{}:requests ", gateway.pid());
        let count = |at: usize| cluster.servers[at].cli(&["CLIENT", "LIST"]).matches(&ours).count();
        // Beside them there is one in reserve, and one that knows the scripts at each replica.
        eventually("replicas are known", || (3..6).all(|at| count(at) == 1));
        let all: Vec<usize> = (0..3).map(count).collect();
        assert_eq!(all, [expected + 1; 3], "{connections}");
    }
}

#[test]
fn long_bodies_are_read_from_replicas_by_choice() {
    let mut cluster = RedisCluster::start_with_replicas(3);
    let body = "x".repeat(700_000);
    let upstream = Upstream::replying(response("200 OK", &body));
    let store = format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\ncache_reads = \"replica\"\n\
         near_cache_bytes = \"0B\"\n",
        cluster.url()
    );
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\ncache = { ttl = \"1h\" }\n";
    let gateway = Gateway::start(&(store + &upstream.table("shop") + route));
    let ask = || {
        let reply = Client::get(gateway.public, "/a").send();
        let is_hit = reply.header("cache-status").is_some_and(|it| it.contains("hit"));
        (is_hit, reply.text().len())
    };
    let read = |cluster: &RedisCluster, servers: std::ops::Range<usize>| -> usize {
        let of = |server: usize| {
            let stats = cluster.servers[server].cli(&["INFO", "commandstats"]);
            let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_mget:calls="));
            line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
        };
        servers.map(of).sum()
    };
    eventually("it is stored", || ask() == (true, body.len()));
    eventually("replicas are read from", || {
        let before = read(&cluster, 3..6);
        assert_eq!(ask(), (true, body.len()));
        // Three pieces, all of them.
        read(&cluster, 3..6) == before + 3
    });
    for replica in 3..6 {
        cluster.servers[replica].kill();
    }
    for _ in 0..5 {
        assert_eq!(ask(), (true, body.len()), "what no replica answers is read from its primary");
    }
}
