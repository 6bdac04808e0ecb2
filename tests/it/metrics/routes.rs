//! What is counted of each route: how long its clients wait and for whom, once there is something
//! to count, and until a reload takes the route away.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Barrier, Mutex};

use tokio::time::Instant;

use super::scrape;
use crate::support::{
    AUTH, Chunks, Client, Gateway, Session, Upstream, claims, eventually, raw, response, token,
};

const CACHED: &str = r#"
[routes.all]
path = "/*"
upstream = "shop"
cache = { ttl = "1h" }
"#;

/// For whom clients may wait: the cache, nobody but the gateway, an upstream.
const CACHE: [usize; 3] = [1, 0, 0];
const GATEWAY: [usize; 3] = [0, 1, 0];
const UPSTREAM: [usize; 3] = [0, 0, 1];

/// How many requests of the route `all` have waited for each of them.
fn waited_for(gateway: &Gateway) -> [f64; 3] {
    let read = scrape(gateway);
    ["cache", "gateway", "upstream"].map(|by| {
        let labels = [("route", "all"), ("answered_by", by)];
        let count = read.value("portcullis_request_duration_seconds_count", &labels);
        count.unwrap_or_default()
    })
}

/// What it answers is stored. `/stale` is stale at once, `/failing` too, and fails the second time;
/// `/waits…` wait at the gate.
fn upstream(gate: &Arc<Barrier>) -> Upstream {
    let (gate, asked) = (Arc::clone(gate), Mutex::new(HashSet::new()));
    Upstream::with(move |request, connection| {
        let path = request.target().to_owned();
        if path.starts_with("/waits") {
            gate.wait();
        }
        let is_first = asked.lock().unwrap().insert(path.clone());
        let head = match (path.as_str(), is_first) {
            ("/stale", _) => "max-age=10, stale-while-revalidate=600\r\nAge: 20",
            ("/failing", true) => "max-age=10, stale-if-error=600\r\nAge: 20",
            _ => "max-age=600",
        };
        let status = if path == "/failing" && !is_first { "503 Away" } else { "200 OK" };
        let head = format!("{status}\r\nCache-Control: {head}");
        let _ = connection.write_all(response(&head, "hello").as_bytes());
    })
}

#[test]
fn durations_say_for_whom_a_client_has_waited() {
    let gate = Arc::new(Barrier::new(2));
    let upstream = upstream(&gate);
    let gateway = Gateway::start(&(upstream.table("shop") + CACHED));
    let get = |path: &str| Client::get(gateway.public, path).send();
    let mut expected = [0.0; 3];
    let mut counted = |what: &str, more: [usize; 3]| {
        expected = [0, 1, 2].map(|by: usize| expected[by] + more[by] as f64);
        eventually(what, || waited_for(&gateway) == expected);
    };
    for (stored, path) in [(1.0, "/p"), (2.0, "/failing"), (3.0, "/stale")] {
        assert_eq!(get(path).status, 200);
        counted("a miss", UPSTREAM);
        eventually("it is stored", || {
            let stored_in_all =
                scrape(&gateway).value("portcullis_cache_stored_total", &[("route", "all")]);
            stored_in_all == Some(stored)
        });
    }
    assert_eq!(get("/p").status, 200);
    counted("a hit", CACHE);
    assert_eq!(get("/failing").status, 200, "what is stored, as the upstream fails");
    counted("it has waited for the upstream all the same", UPSTREAM);
    assert_eq!(get("/stale").status, 200);
    counted("a stale answer, while a new one is fetched", CACHE);
    let only = Client::get(gateway.public, "/none").header("Cache-Control", "only-if-cached");
    assert_eq!(only.send().status, 504);
    counted("a refusal", GATEWAY);
    let ask = |path: &str| {
        let mut session = Session::open(gateway.public);
        session.write(format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        session
    };
    let mut crowd: Vec<Session> = (0..20).map(|_| ask("/waits")).collect();
    eventually("all of them are behind the gate", || {
        scrape(&gateway).value("portcullis_requests_in_flight", &[]) == Some(20.0)
    });
    gate.wait();
    let statuses =
        crowd.iter_mut().map(|session| session.read().header("cache-status").map(str::to_owned));
    let hits = statuses.flatten().filter(|status| status.contains("hit")).count();
    assert!(hits < 19, "nobody followed");
    counted("who asked, who followed, and who came late", [hits, 0, 20 - hits]);
    let seen = upstream.seen();
    let gone = ask("/waits/too");
    eventually("the upstream is asked", || upstream.seen() == seen + 1);
    drop(gone);
    counted("a client that has gone", UPSTREAM);
    gate.wait();
}

/// It lasts much longer than its head, and its client has waited for the head alone.
#[test]
fn a_stream_is_judged_by_its_head() {
    let upstream = Upstream::raw(|stream| {
        let mut chunks = Chunks::of(stream);
        let _ = chunks.until(b"\r\n\r\n");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
        let _ = chunks.stream().write_all(head.as_bytes());
        let _ = chunks.rest();
    });
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let asked = Instant::now();
    let mut session = Session::open(gateway.public);
    session.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    session.read_until("data: 1");
    let head_after = asked.elapsed();
    eventually("it lasts", || asked.elapsed() > 2 * head_after);
    drop(session);
    eventually("it is counted", || waited_for(&gateway) == [0.0, 0.0, 1.0]);
    let labels = [("route", "all"), ("answered_by", "upstream")];
    let sum = scrape(&gateway).value("portcullis_request_duration_seconds_sum", &labels);
    assert!(sum.is_some_and(|sum| sum <= head_after.as_secs_f64()), "{sum:?}, {head_after:?}");
}

#[test]
fn who_asks_no_server_waits_for_none() {
    let gateway = Gateway::start(
        "[upstreams.gone]\nservers = [\"http://127.0.0.1:1\"]\n\
         breaker = { requests = 1, open = \"1h\" }\n\
         [routes.all]\npath = \"/*\"\nupstream = \"gone\"\n",
    );
    let (mut refused, mut unasked) = (0.0, 0.0);
    eventually("the breaker opens", || {
        match Client::get(gateway.public, "/").send().status {
            502 => refused += 1.0,
            status => {
                assert_eq!(status, 503);
                unasked += 1.0;
            }
        }
        unasked == 3.0
    });
    eventually("all are counted", || waited_for(&gateway) == [0.0, unasked, refused]);
}

/// A route of the crowd, of which every second one has a cache.
fn route(number: usize) -> String {
    let more =
        if number.is_multiple_of(2) { "cache = { ttl = \"1h\" }" } else { "auth = \"users\"" };
    format!("[routes.r{number}]\npath = \"/r{number}/*\"\nupstream = \"shop\"\n{more}\n")
}

/// The number of series of each route, buckets among them.
fn series(gateway: &Gateway) -> BTreeMap<String, usize> {
    let mut series = BTreeMap::new();
    for line in Client::get(gateway.admin, "/metrics").send().text().lines() {
        let route = line.split_once("route=\"").and_then(|(_, rest)| rest.split_once('"'));
        if let Some((route, _)) = route.filter(|_| !line.starts_with('#')) {
            *series.entry(route.to_owned()).or_default() += 1;
        }
    }
    series
}

/// Requests for everything in all ways. Returns how many there were.
fn fuzz(gateway: &Gateway, random: &mut fastrand::Rng) -> usize {
    let word =
        |random: &mut fastrand::Rng| -> String { (0..8).map(|_| random.alphanumeric()).collect() };
    let good = token(claims("42"));
    let mut sent = 0;
    for number in 0..200 {
        let (path, host) = (format!("/r{number}/{}", word(random)), word(random));
        let mut head = format!("{} HTTP/1.1\r\nHost: {host}.test\r\n", path);
        let _ = write!(head, "X-{}: {}\r\n", word(random), word(random));
        for (method, token) in
            [("GET", &good), ("GET", &good), ("GET", &word(random)), ("HEAD", &good)]
        {
            raw(gateway.public, format!("{method} {head}Authorization: Bearer {token}\r\n\r\n"));
        }
        let odd = word(random);
        raw(gateway.public, format!("{odd} {head}\r\n"));
        raw(gateway.public, format!("GET /{odd} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        raw(gateway.public, format!("{odd}\r\n\r\n"));
        sent += 7;
    }
    sent
}

#[test]
fn a_route_has_no_series_unused_few_in_use_and_none_behind_its_end() {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let config = |count: usize| -> String {
        let routes: String = (0..count).map(route).collect();
        format!("{AUTH}{}{routes}", upstream.table("shop"))
    };
    let gateway = Gateway::start(&config(200));
    assert_eq!(series(&gateway), BTreeMap::new());
    let mut random = fastrand::Rng::with_seed(15);
    let mut sent = fuzz(&gateway, &mut random);
    let requests = || super::requests(&gateway) as usize;
    eventually("all are counted", || requests() == sent);
    let used = series(&gateway);
    assert_eq!(used.len(), 202, "all routes, and those that are none");
    let most = used.iter().max_by_key(|(_, count)| **count);
    assert!(most.is_some_and(|(_, count)| *count <= 60), "{most:?}");
    sent += fuzz(&gateway, &mut random);
    eventually("all are counted", || requests() == sent);
    assert_eq!(series(&gateway), used, "what clients send makes none");
    gateway.rewrite(&config(100));
    gateway.signal("HUP");
    eventually("it is reloaded", || {
        scrape(&gateway).value("portcullis_reloads_total", &[("result", "applied")]) == Some(1.0)
    });
    let left = series(&gateway);
    assert_eq!(left.len(), 102);
    assert!(left.iter().all(|(route, count)| used.get(route) == Some(count)), "{left:?}");
}
