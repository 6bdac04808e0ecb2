//! The breaker of a whole upstream.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{HANGS, HANGS_UP, LIES, Server, before, config, get, told};
use crate::support::{Client, Gateway, eventually, operate, raw, status};

fn state(gateway: &Gateway) -> String {
    state_of(gateway, "shop")
}

fn state_of(gateway: &Gateway, upstream: &str) -> String {
    let all = operate(gateway, "GET", "/v1/upstreams", "").json();
    all["upstreams"][upstream]["breaker"].as_str().unwrap().to_owned()
}

fn restore(gateway: &Gateway, upstream: &str) {
    let body = json!({ "upstream": upstream }).to_string();
    assert_eq!(operate(gateway, "POST", "/v1/upstreams/restore", &body).status, 200);
}

/// Any failure that counts opens the breaker here, and one request that of another upstream, which
/// is judged at the same times.
fn beside_a_witness(server: &Server, witness: &Server, more: &str, route: &str) -> Gateway {
    let breaker = "breaker = { requests = 1, open = \"1h\" }";
    let all = config(&[server], &format!("eject = {{}}\n{breaker}\n{more}"));
    let all = all.replacen("path = \"/*\"\n", &format!("path = \"/*\"\n{route}\n"), 1);
    Gateway::start(&format!(
        "{all}[upstreams.witness]\nservers = [\"{}\"]\n{breaker}\n\
         [routes.witness]\npath = \"/witness\"\nupstream = \"witness\"\n",
        witness.url()
    ))
}

/// Waits until all that was counted before has been judged.
fn until_judged(gateway: &Gateway) {
    restore(gateway, "witness");
    Client::get(gateway.public, "/witness").send();
    eventually("the witness is judged", || state_of(gateway, "witness") == "open");
}

/// Fails requests until the breaker is open.
fn open(gateway: &Gateway, server: &Server) {
    server.now(500);
    eventually("the breaker opens", || {
        get(gateway);
        state(gateway) == "open"
    });
}

/// Whether a request would be let through; asking takes nobody's place.
fn passes(gateway: &Gateway) -> bool {
    let body = json!({ "path": "/" }).to_string();
    let explained = operate(gateway, "POST", "/v1/explain", &body).json();
    explained["outcome"]["passes"] == true
}

#[test]
fn an_open_breaker_answers_at_once() {
    let server = Server::new(200);
    let gateway = before(&[&server], "breaker = { requests = 5, open = \"1h\" }");
    assert_eq!(get(&gateway), 200);
    open(&gateway, &server);
    server.upstream.forget();
    server.now(HANGS);
    let refused = Client::get(gateway.public, "/").send();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["type"], "urn:portcullis:problem:upstream_open");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3_590..=3_960).contains(&wait), "{wait}");
    assert_eq!(server.seen(), 0);
    eventually("it is logged", || gateway.stderr().contains("upstreams.shop: the breaker is open"));
    // An operator knows better.
    server.now(200);
    restore(&gateway, "shop");
    assert_eq!((get(&gateway), state(&gateway).as_str()), (200, "closed"));
}

#[test]
fn an_open_breaker_may_have_an_answer_of_its_own() {
    let server = Server::new(200);
    let gateway = before(
        &[&server],
        "breaker = { requests = 5, open = \"1h\", fallback = { body = \"[]\", content_type = \
         \"application/json\" } }",
    );
    assert_eq!(get(&gateway), 200);
    open(&gateway, &server);
    let answer = Client::get(gateway.public, "/").send();
    assert_eq!((answer.status, answer.text().as_str()), (200, "[]"));
    let fields = ["content-type", "cache-control", "retry-after"].map(|name| answer.header(name));
    assert_eq!(fields, [Some("application/json"), Some("no-store"), None]);
    // Whoever reads the log knows what that was.
    eventually("it is logged", || {
        let lines = gateway.access_lines();
        lines.iter().any(|line| line["reason"] == "upstream_open" && line["status"] == 200)
    });
    // Who writes learns that nothing was done.
    assert_eq!(Client::request(gateway.public, "POST", "/").send().status, 503);
    // A call has no such answer.
    let call = Client::request(gateway.public, "POST", "/");
    let call = call.header("content-type", "application/grpc").send();
    assert_eq!((call.status, call.header("grpc-status")), (200, Some("14")));
}

/// 1,000 requests from 16 threads at an upstream that is half open: exactly three arrive.
#[test]
fn exactly_so_many_requests_try_the_upstream() {
    const THREADS: usize = 16;
    const EACH: usize = 63;
    let server = Server::new(200);
    let gateway = before(
        &[&server],
        "max_connections = 2000\nclient_share = \"100%\"\n\
         breaker = { requests = 5, open = \"100ms\" }\n\
         [server.limits]\nconnections_per_address = 2000",
    );
    open(&gateway, &server);
    server.upstream.forget();
    server.now(HANGS);
    eventually("its time is over", || passes(&gateway));
    let (refused, all_are_here) = (AtomicUsize::new(0), Barrier::new(THREADS));
    let tries = std::thread::scope(|scope| {
        let one = || {
            all_are_here.wait();
            let send = |_| {
                let mut stream = TcpStream::connect(gateway.public).unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
                stream
            };
            let streams: Vec<TcpStream> = (0..EACH).map(send).collect();
            let is_refused = |stream: &TcpStream| {
                stream.set_nonblocking(true).unwrap();
                // Enough for the whole answer: a 503 of another kind would be none of the breaker.
                let mut answer = [0; 2048];
                let length = stream.peek(&mut answer).unwrap_or_default();
                String::from_utf8_lossy(&answer[..length]).contains("problem:upstream_open")
            };
            let mut waiting = streams;
            eventually("all but those that try it are refused", || {
                waiting.retain(|stream| {
                    let is_over = is_refused(stream);
                    refused.fetch_add(usize::from(is_over), Ordering::SeqCst);
                    !is_over
                });
                refused.load(Ordering::SeqCst) == THREADS * EACH - 3
            });
            waiting
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<TcpStream>>()
    });
    assert_eq!((tries.len(), server.seen()), (3, 3));
    assert_eq!(state(&gateway), "half_open");
    drop(tries);
    // Their clients have left, which says nothing: three others try it.
    server.now(200);
    eventually("it closes", || {
        get(&gateway);
        state(&gateway) == "closed"
    });
    assert_eq!(server.seen(), 6);
}

/// What tries the upstream is sent once, whatever else sends requests more often.
#[test]
fn what_tries_the_upstream_is_not_repeated() {
    for (does, status) in [(500, 500), (HANGS, 504)] {
        let servers = [Server::new(200), Server::new(200)];
        let gateway = before(
            &[&servers[0], &servers[1]],
            "response_timeout = \"300ms\"\nhedge = \"p50\"\n\
             retry = { on = [\"500\", \"timeout\"], backoff = \"1ms\", budget = \"100%\" }\n\
             breaker = { requests = 5, open = \"100ms\", probes = 1 }",
        );
        for _ in 0..40 {
            assert_eq!(get(&gateway), 200);
        }
        servers[1].now(500);
        open(&gateway, &servers[0]);
        eventually("its time is over", || passes(&gateway));
        for server in &servers {
            server.upstream.forget();
            server.now(does);
        }
        assert_eq!(get(&gateway), status);
        assert_eq!(servers[0].seen() + servers[1].seen(), 1, "{does}");
    }
}

#[test]
fn a_try_that_fails_opens_it_again() {
    let server = Server::new(200);
    let gateway = before(&[&server], "breaker = { requests = 5, open = \"100ms\", probes = 1 }");
    open(&gateway, &server);
    server.upstream.forget();
    eventually("its time is over", || passes(&gateway));
    assert_eq!((get(&gateway), server.seen()), (500, 1));
    assert_eq!(get(&gateway), 503);
    eventually("it is logged", || gateway.stderr().contains("the breaker is open again"));
    server.now(200);
    eventually("its time is over", || passes(&gateway));
    assert_eq!((get(&gateway), state(&gateway).as_str()), (200, "closed"));
}

#[test]
fn what_the_gateway_refuses_opens_nothing() {
    let (server, witness) = (Server::new(HANGS), Server::new(500));
    let bounds = "max_connections = 1\nclient_share = \"100%\"\nconnect_timeout = \"20ms\"";
    let gateway = beside_a_witness(&server, &witness, bounds, "");
    let mut held = TcpStream::connect(gateway.public).unwrap();
    held.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    eventually("it has the only place", || server.seen() == 1);
    for _ in 0..10 {
        let busy = Client::get(gateway.public, "/").send();
        assert_eq!(busy.json()["type"], "urn:portcullis:problem:upstream_busy");
    }
    drop(held);
    server.now(200);
    until_judged(&gateway);
    assert_eq!(state(&gateway), "closed");
    eventually("the place is free", || get(&gateway) == 200);
}

#[test]
fn what_servers_fail_opens_it_and_what_clients_do_does_not() {
    let (server, witness) = (Server::new(HANGS), Server::new(500));
    let gateway = beside_a_witness(&server, &witness, "", "");
    let mut leaves = TcpStream::connect(gateway.public).unwrap();
    leaves.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    eventually("the request has arrived", || server.seen() == 1);
    drop(leaves);
    let head = "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let broken = raw(gateway.public, format!("{head}3\r\nabc\r\nzz\r\n"));
    assert_eq!(status(&broken), 400);
    eventually("both are over", || told(&gateway, &server)["busy"] == 0);
    until_judged(&gateway);
    assert_eq!(state(&gateway), "closed");
    for does in [500, HANGS_UP, LIES] {
        server.now(does);
        get(&gateway);
        eventually("it opens", || state(&gateway) == "open");
        restore(&gateway, "shop");
    }
}

/// The time of the route passes, and the client owes a part of its body.
#[test]
fn a_body_that_comes_slowly_within_a_deadline_is_held_against_nobody() {
    let (server, witness) = (Server::new(HANGS), Server::new(500));
    let gateway = beside_a_witness(&server, &witness, "", "deadline = \"500ms\"");
    let slow = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\nabc";
    for _ in 0..3 {
        assert_eq!(status(&raw(gateway.public, slow)), 504);
    }
    assert_eq!(told(&gateway, &server)["failures_in_a_row"], 0);
    until_judged(&gateway);
    assert_eq!(state(&gateway), "closed");
    // Where nobody owes anything, the same time is held against the server.
    let opens = (0..5).any(|_| {
        get(&gateway);
        until_judged(&gateway);
        state(&gateway) == "open"
    });
    assert!(opens);
}
