//! Slots of a Redis Cluster that move, or never get to an end of it, and servers that cannot agree:
//! requests are answered all the same, or as an outage of their share.

use crate::support::{
    AUTH, Client, Gateway, Redis, RedisCluster, Upstream, claims, eventually, operate, response,
    token,
};

fn start(cluster: &RedisCluster, upstream: &Upstream, more: &str) -> Gateway {
    // Deadlines are not the matter here, and the machine may be busy.
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", cluster.url());
    let strict = "[store.on_outage]\nlimits = \"refuse\"\n";
    Gateway::start(&(store + strict + &upstream.table("shop") + more))
}

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "hello"))
}

/// Two limits by the same user, whose counters lie in one slot, and routes that ask for both or for
/// the larger one.
const BY_USER: &str = r#"
[limits.few]
key = ["header:x-user"]
allow = ["2/1h"]
[limits.many]
key = ["header:x-user"]
allow = ["5/1h"]
[routes.both]
path = "/both"
upstream = "shop"
limits = ["many", "few"]
[routes.many]
path = "/many"
upstream = "shop"
limits = ["many"]
"#;

fn ask(gateway: &Gateway, path: &str, user: &str) -> u16 {
    Client::get(gateway.public, path).header("X-User", user).send().status
}

fn counter(user: &str, limit: &str) -> String {
    format!("app:ratelimit:{{header:x-user={user}}}:{limit}:1h")
}

/// A slot that is on its way from one server to another.
struct Move<'a> {
    slot: String,
    from: &'a Redis,
    to: &'a Redis,
    to_id: String,
}

impl<'a> Move<'a> {
    /// Begins to move the slot of `key`.
    fn begin(cluster: &'a RedisCluster, key: &str) -> Self {
        let from = cluster.owner(key);
        let (from, to) = (&cluster.servers[from], &cluster.servers[(from + 1) % 3]);
        let slot = from.cli(&["CLUSTER", "KEYSLOT", key]);
        let (from_id, to_id) = (from.cli(&["CLUSTER", "MYID"]), to.cli(&["CLUSTER", "MYID"]));
        assert_eq!(to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]), "OK");
        assert_eq!(from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]), "OK");
        Self { slot, from, to, to_id }
    }

    fn take(&self, key: &str) {
        let port = self.to.address().port().to_string();
        assert_eq!(self.from.cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]), "OK");
    }

    fn end(&self) {
        for server in [self.to, self.from] {
            let set = ["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.to_id];
            assert_eq!(server.cli(&set), "OK");
        }
    }
}

/// Both limits count exactly, and what one of them refuses is given back at the other.
fn counts(gateway: &Gateway, user: &str, before: usize) {
    for number in before..5 {
        let expected = if number < 2 { 200 } else { 429 };
        assert_eq!(ask(gateway, "/both", user), expected, "request {number}");
    }
    let many: Vec<u16> = (0..4).map(|_| ask(gateway, "/many", user)).collect();
    assert_eq!(many, [200, 200, 200, 429], "what was refused was given back");
}

#[test]
fn two_limits_count_in_a_slot_that_is_left_open() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let gateway = start(&cluster, &upstream, BY_USER);
    // None of its keys is anywhere.
    let _open = Move::begin(&cluster, &counter("ada", "few"));
    counts(&gateway, "ada", 0);
    // One of them is on each side.
    assert_eq!(ask(&gateway, "/both", "bob"), 200);
    let open = Move::begin(&cluster, &counter("bob", "few"));
    open.take(&counter("bob", "few"));
    counts(&gateway, "bob", 1);
    open.take(&counter("bob", "many"));
    open.end();
    assert_eq!([ask(&gateway, "/both", "bob"), ask(&gateway, "/many", "bob")], [429, 429]);
}

#[test]
fn a_token_is_asked_about_in_a_slot_that_is_left_open() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n";
    let gateway = start(&cluster, &upstream, &(AUTH.to_owned() + route));
    let status = |jti: &str| {
        let mut claims = claims("ada");
        // Their keys lie in one slot, so one command names both.
        (claims["jti"], claims["sid"]) = (format!("{{x}}.{jti}").into(), "{x}.session".into());
        Client::get(gateway.public, "/").bearer(token(claims)).send().status
    };
    let _open = Move::begin(&cluster, "app:auth:blacklist:{x}.a");
    assert_eq!([status("a"), status("b")], [200, 200]);
    let revoked = operate(&gateway, "POST", "/v1/revocations", r#"{"jti": "{x}.a"}"#);
    assert_eq!(revoked.status, 201, "{}", revoked.text());
    assert_eq!([status("a"), status("b")], [401, 200]);
    let revoked = operate(&gateway, "POST", "/v1/revocations", r#"{"sid": "{x}.session"}"#);
    assert_eq!(revoked.status, 201, "{}", revoked.text());
    assert_eq!([status("a"), status("b")], [401, 401]);
}

#[test]
fn the_cache_is_purged_in_a_slot_that_is_left_open() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\ncache = { ttl = \"1h\" }\n";
    let _open = Move::begin(&cluster, "app:cache-epoch:{*}");
    let gateway = start(&cluster, &upstream, route);
    let is_hit = || {
        let reply = Client::get(gateway.public, "/a").send();
        reply.header("cache-status").expect("Cache-Status").contains("hit")
    };
    for purge in [r#"{"all": true}"#, r#"{"route": "all"}"#] {
        eventually("it is stored", is_hit);
        let purged = operate(&gateway, "POST", "/v1/cache/purge", purge);
        assert!(purged.status < 300, "{purge}: {}", purged.text());
        assert!(!is_hit(), "{purge}");
    }
}

#[test]
fn servers_that_send_on_to_each_other_hold_nothing_up() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let gateway = start(&cluster, &upstream, BY_USER);
    let users: Vec<String> = (0..20).map(|number| format!("user-{number}")).collect();
    let on = |server: usize| {
        let mut on = users.iter().filter(|user| cluster.owner(&counter(user, "few")) == server);
        on.next().expect("a user")
    };
    let (lost, others) = (on(0), [on(1), on(2)]);
    let slot = cluster.servers[0].cli(&["CLUSTER", "KEYSLOT", &counter(lost, "few")]);
    let second = cluster.servers[1].cli(&["CLUSTER", "MYID"]);
    // The first one says it is the second one's, who knows nothing of it.
    assert_eq!(cluster.servers[0].cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &second]), "OK");
    let sent_on = || {
        let stats = cluster.servers[0].cli(&["INFO", "errorstats"]);
        let moved = stats.lines().find_map(|line| line.strip_prefix("errorstat_MOVED:count="));
        moved.map_or(0, |count| count.trim().parse::<usize>().unwrap())
    };
    let before = sent_on();
    for _ in 0..5 {
        assert_eq!(ask(&gateway, "/both", lost), 503);
    }
    assert!(sent_on() - before <= 5 * 4, "{} of 5 requests", sent_on() - before);
    for user in others {
        assert_eq!(ask(&gateway, "/both", user), 200);
    }
    assert_eq!(cluster.servers[1].cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &second]), "OK");
    assert_eq!(ask(&gateway, "/both", lost), 200);
}

#[test]
fn a_cluster_that_is_down_keeps_its_connections() {
    let full = ["--cluster-require-full-coverage", "yes"];
    let (mut cluster, upstream) = (RedisCluster::start_so(3, &full), upstream());
    let routes = BY_USER.replace("2/1h", "1000000/1h").replace("5/1h", "1000000/1h");
    let gateway = start(&cluster, &upstream, &routes);
    let user = |number: usize| format!("user-{number}");
    let all = |path: &str, status: u16| (0..20).all(|it| ask(&gateway, path, &user(it)) == status);
    assert!(all("/both", 200));
    let connections = |server: &Redis| {
        let list = server.cli(&["CLIENT", "LIST"]);
        let ours = list.lines().filter(|line| line.contains(":requests "));
        ours.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before: Vec<_> = cluster.servers[..2].iter().map(connections).collect();
    cluster.servers[2].kill();
    eventually("nobody serves", || all("/both", 503));
    assert!(gateway.stderr().contains("CLUSTERDOWN"), "the log says so");
    let after: Vec<_> = cluster.servers[..2].iter().map(connections).collect();
    assert_eq!(before, after);
    cluster.servers[2].restart();
    eventually("all serve again", || all("/many", 200));
}

#[test]
fn revocations_are_followed_to_where_their_stream_moves() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n";
    let stale = AUTH.to_owned() + route;
    let gateway = start(&cluster, &upstream, &stale);
    let follower = {
        let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", cluster.url());
        let strict = "[store.on_outage]\nrevocation_max_stale = \"5m\"\n";
        Gateway::start(&(store + strict + &upstream.table("shop") + &stale))
    };
    let known = || {
        let status = operate(&follower, "GET", "/v1/status", "").json();
        status["revocations"]["known"].as_u64()
    };
    let revoke = |jti: &str| {
        let body = format!("{{\"jti\": \"{jti}\"}}");
        let revoked = operate(&gateway, "POST", "/v1/revocations", &body);
        assert_eq!(revoked.status, 201, "{}", revoked.text());
    };
    revoke("j1");
    eventually("the first one is known", || known() == Some(1));
    let stream = "app:auth:revocations";
    let moving = Move::begin(&cluster, stream);
    revoke("j2");
    eventually("it is known while the slot moves", || known() == Some(2));
    moving.take(stream);
    revoke("j3");
    moving.end();
    revoke("j4");
    eventually("all are known", || known() == Some(4));
    let mut claims = claims("ada");
    claims["jti"] = "j4".into();
    let bearer = token(claims);
    let status = || Client::get(follower.public, "/").bearer(&bearer).send().status;
    assert_eq!(status(), 401);
    // Where it is followed is nobody's affair; that it was not for long would be.
    let log = follower.stderr();
    let said = |what| log.matches(what).count();
    let [followed, away] = ["revocations are followed", "revocations are not followed"].map(said);
    assert_eq!(followed, 1 + away, "{log}");
}

#[test]
fn a_gateway_ends_in_time_while_a_server_fails_over() {
    let (mut cluster, upstream) = (RedisCluster::start_with_replicas(3), upstream());
    let mut gateway = start(&cluster, &upstream, BY_USER);
    (0..20).for_each(|it| assert_eq!(ask(&gateway, "/both", &format!("user-{it}")), 200));
    cluster.servers[0].kill();
    gateway.signal("TERM");
    assert!(gateway.wait().success());
}
