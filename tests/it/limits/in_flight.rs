//! Limits on requests in flight, over two gateways of which one may die.

use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex};

use super::*;

/// An upstream that answers when the gate is open.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn upstream(&self) -> Upstream {
        let gate = self.clone();
        Upstream::with(move |_, connection| {
            let (open, changed) = &*gate.0;
            let guard = open.lock().unwrap();
            let waited = changed.wait_timeout_while(guard, SAFETY, |open| !*open);
            drop(waited);
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        })
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Nothing waits for a test that has ended.
        self.open();
    }
}

fn config(redis: &Redis, upstream: &Upstream, limit: &str) -> String {
    let (store, upstream) = (store(&redis.url()), upstream.table("shop"));
    format!(
        "{store}{upstream}\n[limits.slow]\nkey = [\"address\"]\n{limit}\n[routes.all]\n\
         path = \"/*\"\nupstream = \"shop\"\nlimits = [\"slow\"]\n"
    )
}

/// Sends a request and does not wait for its answer.
fn begin(gateway: &Gateway) -> Session {
    let mut session = Session::open(gateway.public);
    session.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    session
}

/// How many leases have not ended.
fn leases(redis: &Redis) -> usize {
    let time = redis.cli(&["TIME"]);
    let seconds: u64 = time.lines().next().unwrap().parse().unwrap();
    let key = "app:ratelimit:{address=127.0.0.1}:slow:in-flight";
    redis.cli(&["ZCOUNT", key, &(seconds * 1000).to_string(), "(1000000000000000"]).parse().unwrap()
}

#[test]
fn no_more_are_in_flight_over_all_gateways_and_each_end_frees_a_place() {
    let (redis, gate) = (Redis::start(), Gate::default());
    let upstream = gate.upstream();
    let config = config(&redis, &upstream, "concurrent = 3");
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let mut held: Vec<Session> = Vec::new();
    for number in 1..=3 {
        held.push(begin(&gateways[number % 2]));
        eventually("it is forwarded", || upstream.seen() == number);
    }
    for gateway in &gateways {
        let reply = Client::get(gateway.public, "/").send();
        assert_eq!((reply.status, &*code(&reply)), (429, "limit_exceeded"));
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    assert_eq!(upstream.seen(), 3);
    // A client that leaves gives its place back.
    drop(held.pop());
    eventually("the place is free", || {
        held.push(begin(&gateways[0]));
        upstream.seen() == 4
    });
    gate.open();
    for gateway in &gateways {
        eventually("all places are free", || Client::get(gateway.public, "/").send().status == 200);
    }
    eventually("nothing is left", || redis.cli(&["KEYS", "*in-flight"]).is_empty());
}

#[test]
fn the_places_of_a_gateway_that_was_killed_end_and_those_of_the_living_do_not() {
    let (redis, gate) = (Redis::start(), Gate::default());
    let upstream = gate.upstream();
    let config = config(&redis, &upstream, "concurrent = 2\nlease = \"5s\"");
    let (mut dying, living) = (Gateway::start(&config), Gateway::start(&config));
    let (_lost, _kept) = (begin(&dying), begin(&living));
    eventually("both are forwarded", || upstream.seen() == 2);
    assert_eq!(Client::get(living.public, "/").send().status, 429);
    dying.signal("KILL");
    dying.wait();
    assert_eq!(Client::get(living.public, "/").send().status, 429);
    eventually("the lease of the dead ends", || leases(&redis) == 1);
    let _next = begin(&living);
    eventually("its place is taken", || upstream.seen() == 3);
    // By now the other request is older than its first lease.
    assert_eq!(Client::get(living.public, "/").send().status, 429);
    assert_eq!(upstream.seen(), 3);
}

#[test]
fn a_place_is_given_back_though_the_store_was_away_when_its_request_ended() {
    let (redis, gate) = (Redis::start(), Gate::default());
    let proxy = TcpProxy::start(redis.address());
    let upstream = gate.upstream();
    let config = config(&redis, &upstream, "concurrent = 2\nlease = \"1h\"")
        .replace(&redis.url(), &proxy.url());
    let gateway = Gateway::start(&(config + "[store.on_outage]\nlimits = \"allow\"\n"));
    let mut held = begin(&gateway);
    eventually("it is forwarded", || upstream.seen() == 1);
    assert_eq!(leases(&redis), 1);
    proxy.refuse();
    gate.open();
    assert_eq!(held.read().status, 200);
    eventually("the store is away", || {
        gateway.access_lines().iter().any(|line| line["status"] == 200)
    });
    assert_eq!(leases(&redis), 1);
    proxy.pass();
    eventually("the place is free", || leases(&redis) == 0);
}

#[test]
fn a_question_that_reaches_the_store_after_its_request_has_ended_takes_no_place() {
    let (redis, gate) = (Redis::start(), Gate::default());
    let proxy = TcpProxy::start(redis.address());
    gate.open();
    let upstream = gate.upstream();
    let config = config(&redis, &upstream, "concurrent = 2\nlease = \"1h\"")
        .replace(&redis.url(), &proxy.url())
        .replace("timeout = \"5s\"", "timeout = \"50ms\"");
    let gateway = Gateway::start(&(config + "[store.on_outage]\nlimits = \"allow\"\n"));
    let ask = || Client::get(gateway.public, "/").send().status;
    let nobody = || redis.cli(&["KEYS", "*in-flight"]).is_empty();
    eventually("the store answers", || ask() == 200 && nobody());
    for _ in 0..3 {
        proxy.swallow();
        assert_eq!([ask(), ask()], [200, 200]);
        // The questions and the releases come in any order, over several connections.
        proxy.pass();
        eventually("nobody is left", || {
            leases(&redis) == 0 && redis.cli(&["KEYS", "*in-flight"]).contains("in-flight")
        });
    }
    eventually("there is room for two", || {
        let statuses = [ask(), ask()];
        statuses == [200, 200] && leases(&redis) == 0
    });
}

#[test]
fn a_local_limit_and_one_without_its_store_count_what_this_gateway_has_in_flight() {
    let (mut redis, gate) = (Redis::start(), Gate::default());
    let upstream = gate.upstream();
    let local = config(&redis, &upstream, "concurrent = 2\nscope = \"local\"");
    let shared = config(&redis, &upstream, "concurrent = 5");
    let shared = format!("{shared}[store.on_outage]\nlimits = \"local\"\nnodes = 2\n");
    let gateways = [Gateway::start(&local), Gateway::start(&shared)];
    redis.kill();
    for gateway in &gateways {
        let before = upstream.seen();
        let _held = [begin(gateway), begin(gateway)];
        eventually("both are forwarded", || upstream.seen() == before + 2);
        assert_eq!(Client::get(gateway.public, "/").send().status, 429);
        assert_eq!(upstream.seen(), before + 2);
    }
    gate.open();
    for gateway in &gateways {
        eventually("the places are free", || Client::get(gateway.public, "/").send().status == 200);
    }
}

#[test]
fn a_request_that_a_window_refuses_holds_no_place_and_the_other_way_round() {
    let (redis, gate) = (Redis::start(), Gate::default());
    gate.open();
    let upstream = gate.upstream();
    let limits = "concurrent = 1\n[limits.api]\nkey = [\"address\"]\nallow = [\"2/1h\"]";
    let config = config(&redis, &upstream, limits)
        .replace("limits = [\"slow\"]", "limits = [\"slow\", \"api\"]");
    let gateway = Gateway::start(&config);
    for status in [200, 200, 429, 429] {
        eventually("the place is free", || redis.cli(&["KEYS", "*in-flight"]).is_empty());
        assert_eq!(Client::get(gateway.public, "/").send().status, status);
    }
    redis.cli(&["FLUSHALL"]);
    redis.cli(&["ZADD", "app:ratelimit:{address=127.0.0.1}:slow:in-flight", "9e14", "somebody"]);
    eventually("the deny cache has forgotten", || {
        code(&Client::get(gateway.public, "/").send()) == "limit_exceeded"
            && upstream.seen() == 2
            && redis.cli(&["EXISTS", "app:ratelimit:{address=127.0.0.1}:api:1h"]) == "0"
    });
}

/// Also where this gateway counts in the store's place.
#[test]
fn what_is_refused_for_want_of_a_place_costs_nothing_while_the_store_is_away() {
    let (mut redis, gate) = (Redis::start(), Gate::default());
    let upstream = gate.upstream();
    let limits = "concurrent = 1\n[limits.api]\nkey = [\"address\"]\nallow = [\"10/1h\"]";
    let config = config(&redis, &upstream, limits)
        .replace("limits = [\"slow\"]", "limits = [\"slow\", \"api\"]");
    let gateway = Gateway::start(&(config + "[store.on_outage]\nlimits = \"local\"\n"));
    redis.kill();
    let mut held = begin(&gateway);
    eventually("it is forwarded", || upstream.seen() == 1);
    let refused = || {
        let reply = Client::get(gateway.public, "/").send();
        assert_eq!((reply.status, &*code(&reply)), (429, "limit_exceeded"));
        reply.header("x-ratelimit-remaining").map(str::to_owned)
    };
    for _ in 0..9 {
        refused();
    }
    // One for the request in flight, and one that this very request gets back.
    eventually("all is given back", || refused().as_deref() == Some("8"));
    gate.open();
    assert_eq!(held.read().status, 200);
}
