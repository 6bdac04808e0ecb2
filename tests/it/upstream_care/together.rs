//! Servers that fail together: whatever is judged of each, no client is left without any.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Barrier};

use serde_json::json;

use super::{HANGS, Server, answer, before, config, get, is_out, told};
use crate::support::{Client, Exposition, Gateway, Recorded, Upstream, eventually, operate};

/// A server whose checks end otherwise than its requests.
struct TwoFaced {
    upstream: Upstream,
    checks: Arc<AtomicU16>,
    requests: Arc<AtomicU16>,
}

impl TwoFaced {
    fn new() -> Self {
        let [checks, requests] = [(), ()].map(|()| Arc::new(AtomicU16::new(200)));
        let shared = (Arc::clone(&checks), Arc::clone(&requests));
        let upstream = Upstream::with(move |request: &Recorded, connection: &mut TcpStream| {
            let is_check = request.target() == "/health";
            let does = if is_check { &shared.0 } else { &shared.1 };
            answer(does.load(Ordering::SeqCst), connection);
        });
        Self { upstream, checks, requests }
    }
}

/// What the checks of these servers find is not believed against what requests met.
const CHECKED: &str = "health = { path = \"/health\", interval = \"300ms\", timeout = \"300ms\", \
                       trusted = false }";

fn before_two_faced(servers: &[TwoFaced], more: &str) -> Gateway {
    let urls: Vec<String> = servers.iter().map(|server| server.upstream.url()).collect();
    let text = config(&[], more).replacen("servers = []", &format!("servers = {urls:?}"), 1);
    Gateway::start(&text)
}

/// By the numbers of the servers: what is known against each.
fn reasons(gateway: &Gateway, servers: &[TwoFaced]) -> HashMap<usize, String> {
    let all = operate(gateway, "GET", "/v1/upstreams", "").json();
    let all = all["upstreams"]["shop"]["servers"].as_array().unwrap().clone();
    let number = |url: &str| servers.iter().position(|it| it.upstream.url() == url).unwrap();
    let out = all.iter().filter(|it| it["state"] == "out");
    out.map(|it| (number(it["server"].as_str().unwrap()), it["reasons"].to_string())).collect()
}

fn status(gateway: &Gateway) -> u16 {
    Client::get(gateway.public, "/").send().status
}

/// A share of two servers is one, a small share of five is one, and of none all are left.
#[test]
fn where_all_fail_at_once_some_of_them_stay() {
    for (count, most, expected) in
        [(2, "50%", 1), (2, "1%", 1), (2, "100%", 1), (4, "50%", 2), (4, "100%", 3), (5, "1%", 1)]
    {
        let servers: Vec<Server> = (0..count).map(|_| Server::new(500)).collect();
        let servers: Vec<&Server> = servers.iter().collect();
        let eject = format!("eject = {{ failures = 1, time = \"1h\", most = \"{most}\" }}");
        // Without panic, whoever finds no server gets a 503 of the gateway's own.
        let gateway = before(&servers, &format!("panic = \"0%\"\n{eject}"));
        let all_are_here = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    all_are_here.wait();
                    (0..5).for_each(|_| assert_eq!(get(&gateway), 500, "{count} {most}"));
                });
            }
        });
        let out = servers.iter().filter(|server| is_out(&gateway, server)).count();
        assert_eq!(out, expected, "{count} {most}");
    }
}

/// Who is ejected already keeps nobody in whose checks fail.
#[test]
fn a_check_takes_servers_out_beyond_the_share_that_may_be_ejected() {
    let servers = [(); 4].map(|()| TwoFaced::new());
    let eject = "eject = { failures = 1, time = \"1h\", most = \"50%\" }";
    let gateway = before_two_faced(&servers, &format!("panic = \"0%\"\n{CHECKED}\n{eject}"));
    for server in &servers[..2] {
        server.requests.store(500, Ordering::SeqCst);
    }
    eventually("two are ejected", || {
        status(&gateway);
        reasons(&gateway, &servers).len() == 2
    });
    servers[2].checks.store(503, Ordering::SeqCst);
    eventually("another one is down", || reasons(&gateway, &servers).len() == 3);
    let known = reasons(&gateway, &servers);
    assert_eq!([0, 1, 2].map(|at| &*known[&at]), ["[\"ejected\"]", "[\"ejected\"]", "[\"down\"]"]);
    servers.iter().for_each(|server| server.upstream.forget());
    for _ in 0..8 {
        assert_eq!(status(&gateway), 200);
    }
    let asked = |server: &TwoFaced| {
        let all = server.upstream.recorded();
        all.iter().filter(|request| request.target() == "/").count()
    };
    assert_eq!(servers.each_ref().map(asked), [0, 0, 0, 8]);
}

/// Nobody may be ejected where the others are down, and where the last one goes down, too, all are
/// better than none.
#[test]
fn the_ejected_and_those_that_are_down_together_are_not_all() {
    let servers = [(); 3].map(|()| TwoFaced::new());
    let eject = "eject = { failures = 1, time = \"1h\", most = \"100%\" }";
    let gateway = before_two_faced(&servers, &format!("{CHECKED}\n{eject}"));
    let known = || reasons(&gateway, &servers);
    servers[0].checks.store(503, Ordering::SeqCst);
    eventually("one is down", || {
        // Nobody is in a hurry to know it while nobody asks.
        assert_eq!(status(&gateway), 200);
        known().len() == 1
    });
    for server in &servers[1..] {
        server.requests.store(500, Ordering::SeqCst);
    }
    for _ in 0..6 {
        // With one of three servers in, all are used: also the one that is down.
        assert!([200, 500].contains(&status(&gateway)));
    }
    assert_eq!(known().len(), 2, "the last one is not ejected");
    servers[1..].iter().for_each(|server| server.checks.store(503, Ordering::SeqCst));
    eventually("all are out", || known().len() == 3);
    servers.iter().for_each(|server| server.requests.store(200, Ordering::SeqCst));
    servers.iter().for_each(|server| server.upstream.forget());
    for _ in 0..6 {
        assert_eq!(status(&gateway), 200);
    }
    let is_asked = |server: &TwoFaced| {
        server.upstream.recorded().iter().any(|request| request.target() == "/")
    };
    assert!(servers.iter().all(is_asked), "not all are used");
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    let panic = Exposition::text(&metrics);
    assert_eq!(panic.value("portcullis_upstream_panic", &[("upstream", "shop")]), Some(1.0));
}

/// All would be slow at the same time, and none of them has to catch up.
#[test]
fn nobody_is_slow_when_the_gateway_starts() {
    let (one, other) = (Server::new(200), Server::new(200));
    let more = "slow_start = \"1h\"\neject = { failures = 1, time = \"50ms\" }";
    let gateway = before(&[&one, &other], more);
    let is_slow = |server: &Server| {
        let text = Client::get(gateway.admin, "/metrics").send().text();
        let labels = [("upstream", "shop"), ("server", &*server.url()), ("state", "slow_start")];
        Exposition::text(&text).value("portcullis_upstream_server_state", &labels) == Some(1.0)
    };
    assert!(!is_slow(&one) && !is_slow(&other));
    // One that comes back is, and one that a reload adds.
    one.now(500);
    eventually("it is ejected", || {
        get(&gateway);
        is_out(&gateway, &one)
    });
    one.now(200);
    eventually("it is back", || {
        get(&gateway);
        told(&gateway, &one)["state"] == "in"
    });
    assert!(is_slow(&one) && !is_slow(&other));
    let third = Server::new(200);
    gateway.rewrite(&config(&[&one, &other, &third], more));
    assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 200);
    assert!(is_slow(&third) && !is_slow(&other));
}

/// Each gateway of a fleet asks, and none of that is traffic of a route.
#[test]
fn checks_are_nobodys_requests() {
    let server = TwoFaced::new();
    let servers = [server];
    let gateway = before_two_faced(&servers, &format!("{CHECKED}\nbreaker = {{ requests = 1 }}"));
    servers[0].checks.store(HANGS, Ordering::SeqCst);
    // Others would keep their interval for a minute after the last request.
    assert_eq!(status(&gateway), 200);
    eventually("it is down", || !reasons(&gateway, &servers).is_empty());
    let asked = servers[0].upstream.recorded();
    assert!(asked.iter().filter(|request| request.target() == "/health").count() > 2);
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    let metrics = Exposition::text(&metrics);
    let labels = [("route", "all"), ("status", "200")];
    assert_eq!(metrics.value("portcullis_requests_total", &labels), Some(1.0));
    let all = operate(&gateway, "GET", "/v1/upstreams", "").json();
    assert_eq!(all["upstreams"]["shop"]["breaker"], "closed", "no check opens it");
    assert_eq!(all["upstreams"]["shop"]["servers"][0]["failures_in_a_row"], json!(0));
}
