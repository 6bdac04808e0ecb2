//! Rate limits: exact over several gateways, told to the client, cheap to enforce.

mod checks;
mod features;
mod in_flight;
mod keys;
mod telling;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::auth::code;
use crate::support::{
    AUTH, Client, Gateway, Redis, Reply, Session, TcpProxy, Upstream, claims, eventually, token,
};

/// Bound of everything that must come to an end: a safety net, not an expectation.
const SAFETY: Duration = Duration::from_secs(60);

fn upstream() -> Upstream {
    Upstream::replying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

/// A store with a patient deadline: nothing here is about outages, and the machine may be busy.
fn store(url: &str) -> String {
    format!("[store]\nurl = \"{url}\"\ntimeout = \"5s\"\n")
}

/// One public route `/` with one limit per address.
fn by_address(upstream: &Upstream, allow: &str) -> String {
    let upstream = upstream.table("shop");
    format!(
        "{upstream}\n[limits.api]\nkey = [\"address\"]\nallow = [{allow}]\n[routes.all]\n\
         path = \"/*\"\nupstream = \"shop\"\nlimits = [\"api\"]\n"
    )
}

/// One request of a pushing client.
struct Push {
    sent: Instant,
    received: Instant,
    status: u16,
}

/// Eight clients on both gateways push as fast as they can while `go_on` says so.
fn push(gateways: &[Gateway; 2], go_on: impl Fn(&AtomicUsize) -> bool + Sync) -> Vec<Push> {
    let (admitted, begin) = (AtomicUsize::new(0), Instant::now());
    let client = |number: usize| {
        let mut session = Session::open(gateways[number % 2].public);
        let mut pushes = Vec::new();
        while go_on(&admitted) {
            assert!(begin.elapsed() < SAFETY, "the limit admits nobody any more");
            let sent = Instant::now();
            let status = session.get("/").send().status;
            let received = Instant::now();
            assert!(matches!(status, 200 | 429), "{status}");
            admitted.fetch_add(usize::from(status == 200), Ordering::SeqCst);
            pushes.push(Push { sent, received, status });
        }
        pushes
    };
    let client = &client;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|n| scope.spawn(move || client(n))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// Each request was charged between its sending and its answer. So those that were sent after one
/// moment and answered less than a window later were all charged within one window.
fn assert_never_over(pushes: &[Push], limit: usize, window: Duration) {
    let admitted: Vec<&Push> = pushes.iter().filter(|push| push.status == 200).collect();
    for first in &admitted {
        let later = admitted.iter().filter(|push| push.sent >= first.sent);
        let within = later.filter(|push| push.received - first.sent < window).count();
        assert!(within <= limit, "{within} admitted within {window:?}, {limit} allowed");
    }
}

#[test]
fn two_gateways_admit_exactly_the_limit_to_clients_that_push() {
    for limit in [50, 200] {
        let (redis, upstream) = (Redis::start(), upstream());
        let config = store(&redis.url()) + &by_address(&upstream, &format!("\"{limit}/1h\""));
        let gateways = [Gateway::start(&config), Gateway::start(&config)];
        let started = AtomicUsize::new(0);
        let pushes = push(&gateways, |_| started.fetch_add(1, Ordering::SeqCst) < 3 * limit);
        assert_eq!(pushes.len(), 3 * limit);
        assert_eq!(pushes.iter().filter(|push| push.status == 200).count(), limit);
        assert_eq!(upstream.seen(), limit, "what is refused does not reach the upstream");
    }
}

/// Pushes until more was admitted than three windows hold.
fn over_three_windows(limit: usize) {
    let (redis, upstream) = (Redis::start(), upstream());
    let config = store(&redis.url()) + &by_address(&upstream, &format!("\"{limit}/1500ms\""));
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let pushes = push(&gateways, |admitted| admitted.load(Ordering::SeqCst) <= 3 * limit);
    assert_never_over(&pushes, limit, Duration::from_millis(1500));
}

#[test]
fn no_sliding_window_ever_holds_more_than_an_exact_limit() {
    over_three_windows(40);
}

#[test]
fn no_sliding_window_ever_holds_more_than_a_limit_that_is_counted_in_cells() {
    over_three_windows(150);
}

#[test]
fn a_flood_on_an_exhausted_key_asks_the_store_about_once_a_second() {
    let (redis, upstream) = (Redis::start(), upstream());
    let proxy = TcpProxy::start(redis.address());
    let gateway = Gateway::start(&(store(&proxy.url()) + &by_address(&upstream, "\"1/1h\"")));
    let mut client = Session::open(gateway.public);
    assert_eq!(client.get("/").send().status, 200);
    assert_eq!(client.get("/").send().status, 429);
    proxy.reset_count();
    let begin = Instant::now();
    for _ in 0..500 {
        let reply = client.get("/").send();
        assert_eq!((reply.status, &*code(&reply)), (429, "limit_exceeded"));
        assert_limit_headers(&reply);
    }
    // What was known at the beginning, and one question for each second that began.
    let most = 1 + begin.elapsed().as_secs() as usize;
    assert!(proxy.batches() <= most, "{} questions, {most} at most", proxy.batches());
    // It is asked again: an operator who frees the key is heard.
    assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
    eventually("the freed key passes", || client.get("/").send().status == 200);
}

fn assert_limit_headers(reply: &Reply) {
    for name in
        ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-reset", "retry-after"]
    {
        assert!(reply.header(name).is_some(), "no {name} in {reply:?}");
    }
    assert_eq!(reply.header("x-ratelimit-remaining"), Some("0"));
}

#[test]
fn a_limit_of_this_node_needs_no_store_and_is_each_nodes_own() {
    let (redis, upstream) = (Redis::start(), upstream());
    let proxy = TcpProxy::start(redis.address());
    let local = by_address(&upstream, "\"3/1h\"").replace("key =", "scope = \"local\"\nkey =");
    let config = store(&proxy.url()) + &local;
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    proxy.reset_count();
    for gateway in &gateways {
        for status in [200, 200, 200, 429, 429] {
            assert_eq!(Client::get(gateway.public, "/").send().status, status);
        }
    }
    assert_eq!(proxy.batches(), 0);
    assert_eq!(redis.cli(&["KEYS", "app:ratelimit:*"]), "");
}

#[test]
fn a_bad_token_charges_what_is_counted_by_address_and_nothing_else() {
    let (redis, upstream) = (Redis::start(), upstream());
    let routes = r#"
        [server]
        trusted_proxies = ["127.0.0.0/8"]
        [limits.guesses]
        key = ["address"]
        allow = ["3/1h"]
        [limits.mine]
        key = ["claim:sub"]
        allow = ["1/1h"]
        [routes.all]
        path = "/*"
        upstream = "shop"
        auth = "users"
        limits = ["mine", "guesses"]
    "#;
    let config = store(&redis.url()) + AUTH + &upstream.table("shop") + routes;
    let gateway = Gateway::start(&config);
    let get = |from: &str, token: &str| {
        Client::get(gateway.public, "/").header("X-Forwarded-For", from).bearer(token).send()
    };
    for _ in 0..3 {
        let reply = get("198.51.100.1", "bad");
        assert_eq!((reply.status, &*code(&reply)), (401, "token_invalid"));
    }
    let good = token(claims("42"));
    for token in ["bad", &good] {
        let reply = get("198.51.100.1", token);
        assert_eq!((reply.status, &*code(&reply)), (429, "limit_exceeded"));
    }
    assert_eq!(redis.cli(&["KEYS", "app:ratelimit:*:mine:*"]), "");
    assert_eq!(get("198.51.100.2", &good).status, 200, "another address");
    assert_eq!(get("198.51.100.3", &good).status, 429, "the caller's own limit");
    assert_eq!(upstream.seen(), 1);
}

#[test]
fn a_401_comes_before_a_429_and_a_429_before_the_cache() {
    let redis = Redis::start();
    let upstream = Upstream::replying(crate::support::response(
        "200 OK\r\nCache-Control: max-age=600\r\nRateLimit: \"theirs\";r=9;t=9",
        "cached",
    ));
    let routes = r#"
        [limits.mine]
        key = ["claim:sub"]
        allow = ["3/1h"]
        [routes.all]
        path = "/*"
        upstream = "shop"
        auth = "users"
        limits = ["mine"]
        cache = { shared = true }
    "#;
    let config = store(&redis.url()) + AUTH + &upstream.table("shop") + routes;
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let mut claims = claims("42");
    claims["jti"] = json!("t1");
    let token = token(claims);
    let get = |gateway: &Gateway| Client::get(gateway.public, "/").bearer(&token).send();
    for left in ["2", "1", "0"] {
        let reply = get(&gateways[0]);
        assert_eq!((reply.status, reply.text().as_str()), (200, "cached"));
        // A hit is charged like any other request, and tells today's figures, not the stored ones.
        assert_eq!(reply.header("x-ratelimit-remaining"), Some(left));
        let told = reply.headers_named("ratelimit");
        assert!(told.len() == 1 && told[0].starts_with(&format!("\"mine\";r={left}")), "{told:?}");
    }
    assert_eq!(upstream.seen(), 1, "the others were hits");
    let refused = get(&gateways[0]);
    assert_eq!((refused.status, &*code(&refused)), (429, "limit_exceeded"));
    assert_eq!(refused.header("age"), None);
    // Without a token nothing of this caller's is known, so nothing of it is told.
    let anonymous = Client::get(gateways[0].public, "/").send();
    assert_eq!((anonymous.status, &*code(&anonymous)), (401, "token_missing"));
    // The other gateway does not know of the exhaustion yet: revoked comes first.
    redis.cli(&["SET", "app:auth:blacklist:t1", "1"]);
    let revoked = get(&gateways[1]);
    assert_eq!((revoked.status, &*code(&revoked)), (401, "token_revoked"));
}
