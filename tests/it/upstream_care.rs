//! Servers that fail, and what becomes of them: ejection, half-open requests, panic, by hand.

mod breaker;
mod checks;
mod fleet;
mod races;
mod retries;
mod together;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::support::{
    Client, Exposition, Gateway, Session, Upstream, eventually, operate, response, status,
};

/// What a server does instead of answering with a status.
const HANGS: u16 = 0;
const HANGS_UP: u16 = 1;
const LIES: u16 = 2;

/// A head that can be read in two ways.
const TWO_LENGTHS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";

/// A server whose answers can be changed while it runs.
struct Server {
    upstream: Upstream,
    does: Arc<AtomicU16>,
}

impl Server {
    fn new(does: u16) -> Self {
        let does = Arc::new(AtomicU16::new(does));
        let shared = Arc::clone(&does);
        let upstream = Upstream::with(move |_, connection| {
            answer(shared.load(Ordering::SeqCst), connection);
        });
        Self { upstream, does }
    }

    fn now(&self, does: u16) {
        self.does.store(does, Ordering::SeqCst);
    }

    fn seen(&self) -> usize {
        self.upstream.seen()
    }

    fn url(&self) -> String {
        self.upstream.url()
    }
}

fn answer(does: u16, connection: &mut TcpStream) {
    let _ = match does {
        // Until the gateway gives it up.
        HANGS => connection.read(&mut [0; 16]).map(drop),
        HANGS_UP => connection.shutdown(Shutdown::Both),
        LIES => connection.write_all(TWO_LENGTHS),
        status => connection.write_all(response(&format!("{status} Fine"), "told").as_bytes()),
    };
}

fn config(servers: &[&Server], more: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|server| server.url()).collect();
    format!(
        "[upstreams.shop]\nservers = {servers:?}\nbalance = \"round-robin\"\n{more}\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n\
         [routes.second]\npath = \"/second/*\"\nupstream = \"shop\"\n"
    )
}

fn before(servers: &[&Server], more: &str) -> Gateway {
    Gateway::start(&config(servers, more))
}

fn get(gateway: &Gateway) -> u16 {
    Client::get(gateway.public, "/").send().status
}

/// What the gateway knows of this server.
fn told(gateway: &Gateway, server: &Server) -> Value {
    let all = operate(gateway, "GET", "/v1/upstreams", "").json();
    let servers = all["upstreams"]["shop"]["servers"].as_array().unwrap().clone();
    servers.into_iter().find(|it| it["server"] == server.url()).unwrap()
}

fn is_out(gateway: &Gateway, server: &Server) -> bool {
    told(gateway, server)["state"] == "out"
}

#[test]
fn a_server_that_fails_is_ejected_whatever_it_does() {
    for (does, expected) in [(500, 500), (HANGS, 504), (HANGS_UP, 502), (LIES, 502)] {
        let (bad, good, other) = (Server::new(does), Server::new(200), Server::new(200));
        let gateway = before(
            &[&bad, &good, &other],
            "response_timeout = \"500ms\"\nfail_timeout = \"1ms\"\n\
             eject = { failures = 3, time = \"1h\" }",
        );
        let mut statuses = Vec::new();
        eventually("it is ejected", || {
            statuses.push(get(&gateway));
            is_out(&gateway, &bad)
        });
        assert_eq!(bad.seen(), 3, "{does}");
        let failed: Vec<u16> = statuses.into_iter().filter(|status| *status != 200).collect();
        assert_eq!(failed, [expected; 3], "{does}");
        for _ in 0..30 {
            assert_eq!(get(&gateway), 200, "{does}");
        }
        assert_eq!(bad.seen(), 3, "{does}");
        assert_eq!(told(&gateway, &bad)["reasons"][0], "ejected");
        eventually("it is logged", || {
            let log = gateway.stderr();
            log.contains("is out for") && log.contains(": 3 requests in a row failed")
        });
    }
}

/// The deadline is the route's, and so is the answer; the server is late all the same.
#[test]
fn a_server_that_hangs_behind_the_deadline_of_a_route_is_ejected() {
    for (method, body) in [("GET", ""), ("POST", "abc")] {
        let (bad, good) = (Server::new(HANGS), Server::new(200));
        let config = config(&[&bad, &good], "eject = { failures = 2, time = \"1h\" }");
        let all = "path = \"/*\"\n";
        let gateway =
            Gateway::start(&config.replacen(all, &format!("{all}deadline = \"1s\"\n"), 1));
        // A machine that is busy may take the time before it is asked.
        let is_ejected = (0..12).any(|_| {
            let status = Client::request(gateway.public, method, "/").body(body).send().status;
            assert!([200, 504].contains(&status), "{method}: {status}");
            is_out(&gateway, &bad)
        });
        assert!(is_ejected, "{method}");
    }
}

/// Two routes of one upstream are one server's requests.
#[test]
fn health_belongs_to_the_upstream_and_not_to_a_route() {
    let (bad, good) = (Server::new(500), Server::new(200));
    let gateway = before(&[&bad, &good], "eject = { failures = 4, time = \"1h\" }");
    let mut turn = ["/", "/second/x"].into_iter().cycle();
    eventually("it is ejected", || {
        for _ in 0..2 {
            Client::get(gateway.public, turn.next().unwrap()).send();
        }
        turn.next();
        is_out(&gateway, &bad)
    });
    assert_eq!(bad.seen(), 4);
}

#[test]
fn a_server_that_is_well_again_comes_back_by_one_request() {
    let (bad, good) = (Server::new(500), Server::new(200));
    let gateway = before(&[&bad, &good], "eject = { failures = 2, time = \"50ms\" }");
    eventually("it is ejected", || {
        get(&gateway);
        is_out(&gateway, &bad)
    });
    bad.now(200);
    bad.upstream.forget();
    eventually("it is back", || {
        assert_eq!(get(&gateway), 200);
        told(&gateway, &bad)["state"] == "in"
    });
    assert_eq!(bad.seen(), 1);
    eventually("it is logged", || {
        gateway.stderr().contains("is back: a request that tried it went well")
    });
}

/// A hundred requests at the moment when an ejected server may be tried: one of them tries it.
#[test]
fn a_crowd_sends_one_request_to_a_server_that_is_tried() {
    let (bad, good) = (Server::new(500), Server::new(200));
    let gateway = before(&[&bad, &good], "eject = { failures = 2, time = \"200ms\" }");
    eventually("it is ejected", || {
        get(&gateway);
        is_out(&gateway, &bad)
    });
    bad.now(HANGS);
    bad.upstream.forget();
    let public = gateway.public;
    let mut waiting = Vec::new();
    eventually("somebody tries it", || {
        let mut stream = TcpStream::connect(public).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
        waiting.push(stream);
        bad.seen() == 1
    });
    let all_are_here = Barrier::new(16);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                all_are_here.wait();
                (0..7).for_each(|_| assert_eq!(get(&gateway), 200));
            });
        }
    });
    assert_eq!(bad.seen(), 1);
    assert_eq!(told(&gateway, &bad)["state"], "probing");
    // Its client leaves: that says nothing, and another request tries it.
    drop(waiting);
    bad.now(200);
    eventually("it is back", || {
        assert_eq!(get(&gateway), 200);
        told(&gateway, &bad)["state"] == "in"
    });
}

#[test]
fn clients_who_leave_or_break_their_uploads_eject_nobody() {
    let (one, other) = (Server::new(HANGS), Server::new(HANGS));
    let gateway = before(&[&one, &other], "eject = { failures = 1, time = \"1h\" }");
    for number in 1..=20 {
        let mut rude = TcpStream::connect(gateway.public).unwrap();
        rude.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
        eventually("the request has arrived", || one.seen() + other.seen() == number);
    }
    eventually("all are over", || {
        [&one, &other].iter().all(|server| told(&gateway, server)["busy"] == 0)
    });
    for server in [&one, &other] {
        server.now(200);
        server.upstream.forget();
    }
    for _ in 0..6 {
        let broken =
            "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz";
        let answer = crate::support::raw(gateway.public, broken.to_owned() + "\r\n");
        assert_eq!(status(&answer), 400);
    }
    for server in [&one, &other] {
        assert_eq!(told(&gateway, server)["state"], "in");
        assert_eq!(told(&gateway, server)["failures_in_a_row"], 0);
    }
}

#[test]
fn the_last_server_stays() {
    let (one, other) = (Server::new(500), Server::new(500));
    let gateway = before(&[&one, &other], "eject = { failures = 1, time = \"1h\" }");
    for _ in 0..10 {
        assert_eq!(get(&gateway), 500);
    }
    let out = [&one, &other].iter().filter(|server| is_out(&gateway, server)).count();
    assert_eq!(out, 1);
}

#[test]
fn an_operator_takes_servers_out_and_back() {
    let (one, other) = (Server::new(200), Server::new(200));
    let gateway = before(&[&one, &other], "");
    let change = |verb: &str, body: Value| {
        operate(&gateway, "POST", &format!("/v1/upstreams/{verb}"), &body.to_string())
    };
    let this = json!({ "upstream": "shop", "server": one.url() });
    assert_eq!(change("eject", this.clone()).status, 200);
    for _ in 0..10 {
        assert_eq!(get(&gateway), 200);
    }
    assert_eq!((one.seen(), other.seen()), (0, 10));
    assert_eq!(told(&gateway, &one)["reasons"], json!(["by_hand"]));
    let explained = operate(&gateway, "POST", "/v1/explain", &json!({ "path": "/" }).to_string());
    let outcome = explained.json()["outcome"].clone();
    assert_eq!(outcome["server"], other.url(), "{outcome}");
    assert_eq!(outcome["why"], "the next one in turn, among 1 of 2 servers that are in");
    // Both: then there is nobody, and no panic either.
    change("eject", json!({ "upstream": "shop", "server": other.url() }));
    let refused = Client::get(gateway.public, "/").send();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["type"], "urn:portcullis:problem:upstream_unavailable");
    assert_eq!(change("restore", json!({ "upstream": "shop" })).status, 200);
    assert_eq!(get(&gateway), 200);
    for (verb, body, code) in [
        ("eject", json!({ "upstream": "shop" }), 400),
        ("eject", json!({ "upstream": "shop", "server": "http://nobody:1" }), 400),
        ("restore", json!({ "upstream": "nobody" }), 400),
        ("restore", json!({}), 400),
    ] {
        assert_eq!(change(verb, body.clone()).status, code, "{verb} {body}");
    }
    assert_eq!(operate(&gateway, "POST", "/v1/upstreams", "{}").status, 405);
}

#[test]
fn a_single_server_of_which_nothing_is_learned_stays() {
    let only = Server::new(200);
    let gateway = before(&[&only], "");
    let body = json!({ "upstream": "shop", "server": only.url() }).to_string();
    assert_eq!(operate(&gateway, "POST", "/v1/upstreams/eject", &body).status, 409);
    assert_eq!(get(&gateway), 200);
}

#[test]
fn a_reload_keeps_connections_and_what_is_known() {
    let (bad, good) = (Server::new(500), Server::new(200));
    let servers = [&bad, &good];
    let gateway = before(&servers, "eject = { failures = 2, time = \"1h\" }");
    let mut session = Session::open(gateway.public);
    eventually("it is ejected", || {
        session.get("/").send();
        is_out(&gateway, &bad)
    });
    let connections = good.upstream.connections();
    let reload = |more: &str, count: usize| {
        gateway.rewrite(&config(&servers, more));
        gateway.signal("HUP");
        eventually("it is reloaded", || {
            gateway.stderr().matches("configuration was reloaded").count() == count
        });
    };
    let others = "eject = { failures = 3, time = \"1h\" }\nresponse_timeout = \"29s\"";
    reload(others, 1);
    for _ in 0..10 {
        assert_eq!(session.get("/").send().status, 200);
    }
    assert!(is_out(&gateway, &bad));
    assert_eq!(bad.seen(), 2);
    assert_eq!(good.upstream.connections(), connections);
    // Who ejects nobody any more has nobody ejected.
    reload("", 2);
    assert!(!is_out(&gateway, &bad));
}

#[test]
fn metrics_say_what_is_known() {
    let (bad, good) = (Server::new(500), Server::new(200));
    let gateway = before(
        &[&bad, &good],
        "eject = { failures = 2, time = \"1h\" }\nbreaker = { requests = 1000 }",
    );
    eventually("it is ejected", || {
        get(&gateway);
        is_out(&gateway, &bad)
    });
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let metrics = Exposition::text(&text);
    let of = |name: &str, labels: &[(&str, &str)]| {
        let labels = [&[("upstream", "shop")], labels].concat();
        metrics.value(&format!("portcullis_upstream_{name}"), &labels)
    };
    let url = bad.url();
    assert_eq!(of("server_state", &[("server", &url), ("state", "ejected")]), Some(1.0));
    assert_eq!(of("server_state", &[("server", &good.url()), ("state", "ejected")]), Some(0.0));
    assert_eq!(of("server_failures_total", &[("server", &url), ("kind", "status")]), Some(2.0));
    assert_eq!(of("server_busy", &[("server", &url)]), Some(0.0));
    assert_eq!(of("ejections_total", &[("reason", "failures")]), Some(1.0));
    assert_eq!(of("panic", &[]), Some(0.0));
    assert_eq!(of("breaker_state", &[("state", "closed")]), Some(1.0));
    assert_eq!(of("breaker_state", &[("state", "open")]), Some(0.0));
}
