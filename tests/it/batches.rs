//! One question, one answer: how many round trips a request costs, as a proxy in front of Redis
//! counts them. One client, one request at a time.

use std::cell::Cell;

use serde_json::json;

use crate::support::{
    AUTH, Client, Gateway, Recorded, Redis, Reply, TcpProxy, Upstream, claims, eventually,
    response, token,
};

const ROUTES: &str = r#"
[server]
trusted_proxies = ["127.0.0.0/8"]
[session]
id_from = ["cookie:sid"]
header = "x-session"
idle_timeout = "30m"
[limits.address]
key = ["address"]
allow = ["1000000/1h", "100000/1m"]
[limits.user]
key = ["claim:sub"]
allow = ["1000000/1h", "100000/1m"]
[limits.few]
key = ["address"]
allow = ["1/1h"]
[routes.plain]
path = "/plain"
upstream = "shop"
[routes.limited]
path = "/limited"
upstream = "shop"
limits = ["address"]
[routes.few]
path = "/few"
upstream = "shop"
limits = ["few"]
[routes.auth]
path = "/auth"
upstream = "shop"
auth = "users"
[routes.session]
path = "/session"
upstream = "shop"
session = true
[routes.cached]
path = "/cached/*"
upstream = "shop"
cache = { ttl = "1h" }
invalidates = ["/cached/*", "/all/*"]
[routes.all]
path = "/all/*"
upstream = "shop"
auth = "users"
limits = ["address", "user"]
session = true
cache = { ttl = "1h", shared = true }
"#;

struct House {
    redis: Redis,
    proxy: TcpProxy,
    upstream: Upstream,
    gateway: Gateway,
    token: String,
}

impl House {
    fn start() -> Self {
        Self::with("")
    }

    /// With these keys of `[store]`.
    fn with(keys: &str) -> Self {
        let redis = Redis::start();
        let upstream = Upstream::replying(response("200 OK", "hello"));
        let proxy = TcpProxy::start(redis.address());
        // Nothing here is about deadlines, and the machine may be busy.
        let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n{keys}", proxy.url());
        let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + ROUTES));
        let token = token(claims("42"));
        Self { redis, proxy, upstream, gateway, token }
    }

    fn send(&self, method: &str, path: &str) -> Reply {
        let request = Client::request(self.gateway.public, method, path);
        if path.starts_with("/cached") {
            // To a public route a credential or a cookie is the upstream's own affair, and what it
            // answers to one is nobody else's.
            return request.send();
        }
        request.bearer(&self.token).header("Cookie", "sid=s1").send()
    }

    /// How many batches these requests cost, one after the other, each with this status. One more
    /// goes before them: its answer comes after those to all write-backs so far.
    fn cost<'a>(
        &self,
        status: u16,
        requests: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> usize {
        assert_eq!(self.send("GET", "/limited").status, 200);
        self.proxy.reset_count();
        for (method, path) in requests {
            let reply = self.send(method, path);
            assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        }
        self.proxy.batches()
    }

    /// What reached the upstream of this path's requests.
    fn forwarded(&self, path: &str) -> Vec<Recorded> {
        let all = self.upstream.recorded().into_iter();
        all.filter(|request| request.target() == path).collect()
    }

    fn entries(&self) -> usize {
        self.redis.cli(&["KEYS", "app:cache:*:entry:*"]).lines().count()
    }
}

fn times<'a>(
    count: usize,
    method: &'a str,
    path: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    std::iter::repeat_n((method, path), count)
}

#[test]
fn a_request_that_needs_nothing_asks_nothing() {
    let house = House::start();
    assert_eq!(house.cost(200, times(10, "GET", "/plain")), 0);
    assert_eq!(house.cost(404, times(10, "GET", "/nowhere")), 0);
    let bad = |path: &str| Client::get(house.gateway.public, path).bearer("bad").send().status;
    house.proxy.reset_count();
    assert_eq!((bad("/auth"), house.proxy.batches()), (401, 0), "no address to charge");
}

#[test]
fn every_single_function_costs_one() {
    let house = House::start();
    for path in ["/limited", "/auth", "/session"] {
        assert_eq!(house.cost(200, times(20, "GET", path)), 20, "{path}");
    }
}

#[test]
fn a_hit_from_this_nodes_memory_costs_one() {
    let house = House::start();
    assert_eq!(house.send("GET", "/cached/p").status, 200);
    eventually("it is in Redis", || house.entries() == 1);
    assert_eq!(house.cost(200, times(20, "GET", "/cached/p")), 20);
    assert_eq!(house.cost(200, times(20, "HEAD", "/cached/p")), 20);
    assert_eq!(house.forwarded("/cached/p").len(), 1, "they were hits");
}

#[test]
fn a_hit_from_redis_costs_one_and_the_lease_that_is_not_needed() {
    let house = House::with("near_cache_bytes = \"0B\"\n");
    assert_eq!(house.send("GET", "/cached/p").status, 200);
    eventually("it is in Redis", || house.entries() == 1);
    for _ in 0..20 {
        let before = house.cost(200, [("GET", "/cached/p")]);
        assert!((1..=2).contains(&before), "{before} batches when the answer came");
        // It would end by itself, much later, without a batch.
        eventually("the lease is given back", || house.proxy.batches() == 2);
    }
    assert_eq!(house.forwarded("/cached/p").len(), 1, "they were hits");
}

#[test]
fn a_miss_costs_one_and_one_write_back() {
    let house = House::start();
    for number in 1..=20 {
        let path = format!("/cached/{number}");
        let before = house.cost(200, [("GET", &*path)]);
        // The question takes the lease, too, so that no other gateway fetches the same.
        assert!((1..=2).contains(&before), "{before} batches when the answer to {number} came");
        eventually("it is in Redis", || house.entries() == number);
        assert_eq!(house.proxy.batches(), 2);
    }
}

#[test]
fn everything_at_once_costs_one() {
    let house = House::start();
    // The session has its full life, so it needs no renewal, which would be a write-back.
    house.redis.cli(&["SET", "app:session:s1", "{}", "EX", "7200"]);
    assert_eq!(house.send("GET", "/all/p").status, 200);
    eventually("it is in Redis", || house.entries() == 1);
    assert_eq!(house.cost(200, times(20, "GET", "/all/p")), 20);
    let forwarded = house.forwarded("/all/p");
    assert_eq!(forwarded.len(), 1, "they were hits");
    let seen = &forwarded[0];
    assert!(seen.header("x-session").is_some() && seen.header("x-user-id").is_some());
}

#[test]
fn a_session_that_is_renewed_costs_one_write_back() {
    let house = House::start();
    for _ in 0..10 {
        house.redis.cli(&["SET", "app:session:s1", "{}", "EX", "60"]);
        let before = house.cost(200, [("GET", "/session")]);
        assert!((1..=2).contains(&before), "{before} batches when the answer came");
        eventually("it is renewed", || {
            house.redis.cli(&["TTL", "app:session:s1"]).parse::<i64>().unwrap() > 60
        });
        assert_eq!(house.proxy.batches(), 2);
    }
    // Straight after a renewal there is nothing to renew.
    assert_eq!(house.cost(200, [("GET", "/session")]), 1);
}

#[test]
fn a_write_costs_one_invalidation_beside_its_question() {
    let house = House::start();
    // Three scopes are made stale at once. Nothing is asked: nothing may be stored.
    assert_eq!(house.cost(200, times(10, "POST", "/cached/p")), 10);
    assert_eq!(house.cost(200, times(10, "POST", "/all/p")), 20);
}

#[test]
fn a_refusal_costs_one_at_most() {
    let house = House::start();
    let number = Cell::new(0);
    let bad = |path: &str| {
        house.proxy.reset_count();
        number.set(number.get() + 1);
        let from = format!("198.51.100.{}", number.get());
        let request = Client::get(house.gateway.public, path).header("X-Forwarded-For", from);
        (request.bearer("bad").send().status, house.proxy.batches())
    };
    for _ in 0..10 {
        assert_eq!(bad("/all/p"), (401, 1), "its address is charged");
    }
    assert_eq!(house.cost(200, [("GET", "/few")]), 1);
    assert_eq!(house.cost(429, [("GET", "/few")]), 1, "the store says no");
    assert_eq!(house.cost(429, [("GET", "/few")]), 0, "and that is remembered for a while");
}

#[test]
fn a_revoked_token_costs_one_and_what_is_given_back() {
    let house = House::start();
    let mut revoked = claims("42");
    revoked["jti"] = json!("t1");
    let revoked = token(revoked);
    house.redis.cli(&["SET", "app:auth:blacklist:t1", "1"]);
    let get = |path: &str| Client::get(house.gateway.public, path).bearer(&revoked).send().status;
    house.proxy.reset_count();
    for _ in 0..10 {
        assert_eq!(get("/auth"), 401);
    }
    assert_eq!(house.proxy.batches(), 10, "there was nothing to give back");
    for _ in 0..10 {
        house.proxy.reset_count();
        assert_eq!(get("/all/p"), 401);
        eventually("the charge is given back, and the lease on the fetch that is not made", || {
            house.redis.cli(&["KEYS", "app:ratelimit:*"]).is_empty()
                && house.redis.cli(&["KEYS", "app:cache:*:lock:*"]).is_empty()
        });
        assert!(house.proxy.batches() <= 3, "{} batches", house.proxy.batches());
    }
}

#[test]
fn a_forgotten_script_costs_one_more_once() {
    let house = House::start();
    assert_eq!(house.cost(200, [("GET", "/limited")]), 1);
    house.redis.cli(&["SCRIPT", "FLUSH"]);
    house.proxy.reset_count();
    assert_eq!(house.send("GET", "/limited").status, 200);
    assert_eq!(house.proxy.batches(), 2);
    assert_eq!(house.cost(200, times(10, "GET", "/limited")), 10);
}
