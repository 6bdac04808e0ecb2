//! The cache as clients and operators see it: shared by all gateways, emptied by writes before they
//! are answered, and never the reason for a failure.

mod ahead;
mod away;
mod collapsing;
mod compressed;
mod follow;
mod isolation;
mod large;
mod late;
mod letter;
mod no_memory;
mod purging;
mod query;
mod races;
mod ranges;
mod rules;
mod seen;
mod stale;
mod tagging;
mod told;
mod validation;
mod warming;
mod write_through;

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::json;

use crate::support::{
    AUTH, Client, Gateway, PATIENCE, Redis, Reply, Session, Upstream, claims, eventually, response,
    token,
};

/// A store with a patient deadline: nothing here is about outages, and the machine may be busy.
fn store(redis: &Redis) -> String {
    format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url())
}

/// Everything below `/` is cached for an hour where the response does not say otherwise.
const ROUTES: &str = r#"
[routes.all]
path = "/*"
upstream = "shop"
cache = { ttl = "1h", max_bytes = "1KiB" }
"#;

/// Holds an upstream's answers back until it is opened.
#[derive(Clone)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn shut() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn open(&self) {
        self.set(true);
    }

    fn set(&self, open: bool) {
        *self.0.0.lock().unwrap() = open;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap());
    }
}

/// Reads wait at the gate, and tell how many writes had come when they did, and one.
fn counting_writes(gate: &Gate) -> Upstream {
    let (gate, version) = (gate.clone(), AtomicUsize::new(1));
    Upstream::with(move |request, connection| {
        let is_write = request.request_line().starts_with("POST");
        let now = version.fetch_add(usize::from(is_write), Ordering::SeqCst);
        if !is_write {
            gate.pass();
        }
        let _ = connection.write_all(response("200 OK", &now.to_string()).as_bytes());
    })
}

/// Answers, once the gate is open, with the language that the request wants, and says so.
fn speaking(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::with(move |request, connection| {
        gate.pass();
        let language = request.header("accept-language").unwrap_or("none");
        let head = "200 OK\r\nVary: Accept-Language";
        let _ = connection.write_all(response(head, language).as_bytes());
    })
}

/// A client that has sent a GET and not read the answer.
fn asking(gateway: &Gateway, path: &str, fields: &str) -> Session {
    let mut session = Session::open(gateway.public);
    session.write(format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n"));
    session
}

/// Text of this length that no part of it repeats.
fn text(length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(length as u64);
    std::iter::repeat_with(|| random.alphanumeric()).take(length).collect()
}

/// Two gateways on one Redis, in front of one upstream.
struct House {
    redis: Redis,
    upstream: Upstream,
    gateways: [Gateway; 2],
}

impl House {
    fn start(upstream: Upstream) -> Self {
        Self::with_routes(upstream, ROUTES)
    }

    fn with_routes(upstream: Upstream, routes: &str) -> Self {
        let redis = Redis::start();
        let config = store(&redis) + &upstream.table("shop") + routes;
        let gateways = [Gateway::start(&config), Gateway::start(&config)];
        Self { redis, upstream, gateways }
    }

    /// A request to one of the gateways by its own address, as a load balancer sends it.
    fn request(&self, gateway: usize, method: &str, path: &str) -> Reply {
        let address = self.gateways[gateway].public;
        Client::request(address, method, path).header("Host", address.to_string()).send()
    }

    fn get(&self, gateway: usize, path: &str) -> Reply {
        self.request(gateway, "GET", path)
    }

    /// The keys of the responses that Redis holds.
    fn entries(&self) -> Vec<String> {
        let keys = self.redis.cli(&["KEYS", "app:cache:*:entry:*"]);
        keys.lines().map(str::to_owned).collect()
    }

    /// A response goes into Redis behind the request: waits until there are this many.
    fn wait_for_entries(&self, count: usize) {
        eventually("the response is in Redis", || self.entries().len() == count);
    }
}

/// Whether the gateway answered from its cache, by its own word.
fn is_hit(reply: &Reply) -> bool {
    let status = reply.headers_named("cache-status").join(", ");
    assert!(status.contains("portcullis; "), "no Cache-Status in {reply:?}");
    let hit = status.contains("portcullis; hit");
    assert_ne!(hit, status.contains("portcullis; fwd="), "{status}");
    assert!(!hit || reply.header("age").is_some(), "a hit tells its age: {reply:?}");
    hit
}

fn plain() -> Upstream {
    Upstream::replying(response("200 OK\r\nContent-Type: text/plain", "hello"))
}

#[test]
fn what_one_gateway_fetched_is_a_hit_at_the_other() {
    let house = House::start(plain());
    let first = house.get(0, "/p?a=1");
    assert_eq!((first.status, is_hit(&first)), (200, false));
    house.wait_for_entries(1);
    for gateway in [1, 0, 1] {
        let again = house.get(gateway, "/p?a=1");
        assert_eq!((again.status, is_hit(&again)), (200, true));
        assert_eq!(again.text(), "hello");
        assert_eq!(again.header("content-type"), Some("text/plain"));
        assert_eq!(again.header("content-length"), Some("5"));
        let age: u64 = again.header("age").unwrap().parse().expect("seconds");
        assert!(age < 60, "{age}");
    }
    assert_eq!(house.upstream.seen(), 1);
    for other in ["/p", "/p?a=2", "/p?", "/p?a=1&", "/P?a=1", "/p/?a=1"] {
        assert!(!is_hit(&house.get(1, other)), "{other}");
    }
}

#[test]
fn every_spelling_of_a_path_is_one_response() {
    let house = House::start(plain());
    assert!(!is_hit(&house.get(0, "/a/b~c")));
    for spelling in ["/a/b%7Ec", "/a/b%7ec", "//a/b~c", "/a/./b~c", "/a/x/../b~c"] {
        assert!(is_hit(&house.get(0, spelling)), "{spelling}");
    }
}

#[test]
fn another_host_is_another_response() {
    let house = House::start(plain());
    let get = |host: &str| Client::get(house.gateways[0].public, "/p").header("Host", host).send();
    assert!(!is_hit(&get("a.test")));
    assert!(is_hit(&get("A.TEST:80")));
    assert!(!is_hit(&get("b.test")));
    assert!(!is_hit(&get("a.test:8081")));
}

#[test]
fn a_write_through_one_gateway_empties_the_path_at_both() {
    let house = House::start(plain());
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        house.get(0, "/p?a=1");
        eventually("it is cached at both", || {
            (0..2).all(|gateway| is_hit(&house.get(gateway, "/p?a=1")))
        });
        house.get(0, "/other");
        assert_eq!(house.request(0, method, "/p").status, 200);
        for gateway in [1, 0] {
            assert!(is_hit(&house.get(gateway, "/other")) || gateway == 1, "another path");
        }
        house.upstream.forget();
        assert!(!is_hit(&house.get(1, "/p?a=1")), "{method}");
        assert_eq!(house.upstream.only().request_line(), "GET /p?a=1 HTTP/1.1");
        eventually("the new one is shared again", || is_hit(&house.get(0, "/p?a=1")));
    }
}

#[test]
fn a_write_that_failed_or_was_none_empties_nothing() {
    let upstream = Upstream::with(|request, connection| {
        let status =
            if request.request_line().starts_with("GET") { "200 OK" } else { "409 Conflict" };
        let _ = connection.write_all(response(status, "hello").as_bytes());
    });
    let house = House::start(upstream);
    house.get(0, "/p");
    assert!(is_hit(&house.get(0, "/p")));
    assert_eq!(house.request(0, "POST", "/p").status, 409);
    assert!(is_hit(&house.get(0, "/p")));
    house.request(0, "OPTIONS", "/p");
    assert!(is_hit(&house.get(0, "/p")));
}

#[test]
fn a_write_empties_what_its_route_says() {
    let routes = r#"
        [routes.read]
        path = "/*"
        methods = ["GET"]
        upstream = "shop"
        cache = { ttl = "1h" }
        [routes.write]
        path = "/orders"
        methods = ["POST"]
        upstream = "shop"
        invalidates = ["/products/*", "/stock"]
    "#;
    let house = House::with_routes(plain(), routes);
    let stale = ["/orders", "/products", "/products/1", "/products/1/reviews?page=2", "/stock"];
    let kept = ["/stock/1", "/productsx", "/"];
    let all = || stale.iter().chain(&kept);
    all().for_each(|path| assert!(!is_hit(&house.get(0, path)), "{path}"));
    house.wait_for_entries(all().count());
    all().for_each(|path| assert!(is_hit(&house.get(1, path)), "{path}"));
    assert_eq!(house.request(0, "POST", "/orders").status, 200);
    kept.iter().for_each(|path| assert!(is_hit(&house.get(1, path)), "{path}"));
    stale.iter().for_each(|path| assert!(!is_hit(&house.get(1, path)), "{path}"));
}

#[test]
fn a_partition_gives_each_kind_of_caller_its_own_response() {
    let upstream = Upstream::with(|request, connection| {
        let role = request.header("x-user-role").unwrap_or("nobody").to_owned();
        let _ = connection.write_all(response("200 OK", &role).as_bytes());
    });
    let routes = AUTH.to_owned()
        + r#"
        [routes.all]
        path = "/*"
        upstream = "shop"
        auth = { by = "users", optional = true }
        cache = { ttl = "1h", partition = ["claim:role"] }
        "#;
    let house = House::with_routes(upstream, &routes);
    let get = |gateway: usize, sub: &str, role: Option<&str>| {
        let mut claims = claims(sub);
        if let Some(role) = role {
            claims["role"] = json!(role);
        }
        let reply = Client::get(house.gateways[gateway].public, "/p").bearer(token(claims)).send();
        assert_eq!(reply.text(), role.unwrap_or("nobody"), "{sub}");
        is_hit(&reply)
    };
    assert!(!get(0, "alice", Some("admin")));
    assert!(!get(0, "bob", Some("guest")));
    assert!(!get(0, "carol", None));
    house.wait_for_entries(2);
    assert!(get(1, "dave", Some("admin")));
    assert!(get(1, "erin", Some("guest")));
    assert!(!get(1, "frank", None), "who lacks the claim is nobody in particular");
    assert!(!get(1, "grace", Some("")), "an empty role is no missing one");
}

#[test]
fn a_shared_route_answers_every_caller_alike_and_still_checks_each() {
    let routes = AUTH.to_owned()
        + r#"
        [routes.all]
        path = "/*"
        upstream = "shop"
        auth = "users"
        cache = { ttl = "1h", shared = true }
        "#;
    let house = House::with_routes(plain(), &routes);
    let get = |token: &str| Client::get(house.gateways[0].public, "/p").bearer(token).send();
    assert!(!is_hit(&get(&token(claims("alice")))));
    assert!(is_hit(&get(&token(claims("bob")))));
    let mut revoked = claims("carol");
    revoked["jti"] = json!("t1");
    house.redis.cli(&["SET", "app:auth:blacklist:t1", "1"]);
    assert_eq!(get(&token(revoked)).status, 401);
    assert_eq!(get("bad").status, 401);
    assert_eq!(house.upstream.seen(), 1);
}

#[test]
fn an_emptied_redis_costs_hits_and_nothing_else() {
    let house = House::start(plain());
    house.get(0, "/p");
    eventually("it is cached", || is_hit(&house.get(0, "/p")));
    assert_eq!(house.redis.cli(&["FLUSHALL"]), "OK");
    for gateway in [0, 1] {
        let reply = house.get(gateway, "/p");
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        assert!(!is_hit(&reply), "what was withdrawn before the flush could come back");
    }
    for gateway in [0, 1] {
        eventually("it is cached again", || is_hit(&house.get(gateway, "/p")));
    }
}

#[test]
fn poison_in_redis_is_a_miss() {
    let redis = Redis::start();
    let upstream = Upstream::with(|request, connection| {
        let body = format!("this is {}", request.target());
        let _ = connection.write_all(response("200 OK", &body).as_bytes());
    });
    let own_memory = "near_cache_bytes = \"0B\"\n";
    let config = store(&redis) + own_memory + &upstream.table("shop") + ROUTES;
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let house = House { redis, upstream, gateways };
    // Reads what is cached and stores nothing, so that nothing is repaired behind the test.
    let look = |gateway: usize, path: &str| {
        let address = house.gateways[gateway].public;
        let request = Client::get(address, path).header("Host", address.to_string());
        request.header("Cache-Control", "no-store").send()
    };
    house.get(0, "/a");
    house.wait_for_entries(1);
    let a = house.entries().remove(0);
    assert!(is_hit(&look(1, "/a")), "it is read from Redis");
    let b = a.replacen("/a}", "/b}", 1);
    assert_ne!(a, b);
    let length: usize = house.redis.cli(&["HSTRLEN", &a, "-"]).parse().unwrap();
    // Behind the eight bytes that say how long it lives, which the response says itself, too.
    let places = [8, 12, 20, 36, 48, length / 2, length - 1].map(|at| at.to_string());
    let append = "local v = redis.call('HGET', KEYS[1], '-') \
                  redis.call('HSET', KEYS[1], '-', v .. 'x') return 'OK'";
    let overwrite = "local v, at = redis.call('HGET', KEYS[1], '-'), tonumber(ARGV[1]) \
                     v = v:sub(1, at) .. '\\127oox' .. v:sub(at + 5) \
                     redis.call('HSET', KEYS[1], '-', v) return 'OK'";
    let mut poisons: Vec<Vec<&str>> = vec![
        vec!["SET", &a, "garbage"],
        vec!["EVAL", "return 'OK' .. redis.call('HSET', KEYS[1], '-', 'garbage')", "1", &a],
        vec!["EVAL", "return 'OK' .. redis.call('HSET', KEYS[1], '-', '')", "1", &a],
        vec!["EVAL", append, "1", &a],
        vec!["COPY", &b, &a, "REPLACE"],
        vec!["LPUSH", &a, "poison"],
    ];
    // Four bytes: the odds that they stand there already are negligible.
    poisons.extend(places.iter().map(|at| vec!["EVAL", overwrite, "1", &a, at]));
    for poison in poisons {
        house.redis.cli(&["DEL", &a, &b]);
        house.get(0, "/a");
        house.get(0, "/b");
        eventually("both are cached", || is_hit(&look(1, "/a")) && is_hit(&look(1, "/b")));
        if poison[0] == "LPUSH" {
            house.redis.cli(&["DEL", &a]);
        }
        let done = house.redis.cli(&poison);
        assert!(!done.contains("error") && done != "0", "{poison:?}: {done}");
        let reply = look(1, "/a");
        assert_eq!((reply.status, reply.text().as_str()), (200, "this is /a"), "{poison:?}");
        assert!(!is_hit(&reply), "{poison:?}");
    }
}
