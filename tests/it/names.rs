//! Names of servers: each address is a server, and who stands for a name may change under traffic.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::{
    Client, Gateway, NameServer, Record, Recorded, Session, Upstream, eventually, operate, response,
};

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Two servers on the same port of two addresses.
fn two() -> (Upstream, Upstream, u16) {
    for _ in 0..100 {
        let one = Upstream::replying_at((ONE, 0).into(), response("200 OK", "one")).unwrap();
        let port = one.address().port();
        let other = Upstream::replying_at((OTHER, port).into(), response("200 OK", "other"));
        if let Ok(other) = other {
            return (one, other, port);
        }
    }
    panic!("no port is free at both addresses");
}

/// A server that answers `/long` for as long as somebody listens, and the rest at once.
fn patient() -> Upstream {
    let answer = |request: &Recorded, stream: &mut TcpStream| {
        if request.target() == "/long" {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx";
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.read(&mut [0]);
        } else {
            let _ = stream.write_all(response("200 OK", "patient").as_bytes());
        }
    };
    Upstream::with_at((ONE, 0).into(), answer).unwrap()
}

fn config(dns: &NameServer, server: &str, more: &str) -> String {
    format!(
        "[upstreams.shop]\nservers = [\"{server}\"]\ndns_servers = [\"{}\"]\n{more}\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        dns.address()
    )
}

fn before(dns: &NameServer, server: &str, more: &str) -> Gateway {
    Gateway::start(&config(dns, server, more))
}

fn told(gateway: &Gateway) -> Value {
    operate(gateway, "GET", "/v1/upstreams", "").json()["upstreams"]["shop"].clone()
}

fn servers(gateway: &Gateway) -> Vec<String> {
    let told = told(gateway);
    let servers = told["servers"].as_array().unwrap().iter();
    servers.map(|server| server["server"].as_str().unwrap().to_owned()).collect()
}

fn url(address: impl Into<IpAddr>, port: u16) -> String {
    format!("http://{}", SocketAddr::new(address.into(), port))
}

#[test]
fn a_name_that_leads_elsewhere_is_followed_under_traffic() {
    let (one, other, port) = two();
    let dns = NameServer::start();
    dns.set("shop.test", 1, &[Record::Address(ONE)]);
    let gateway = before(&dns, &format!("http://shop.test:{port}"), "");
    assert_eq!(servers(&gateway), [url(ONE, port)]);
    let (is_over, wrong) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut session = Session::open(gateway.public);
                while !is_over.load(Ordering::Relaxed) {
                    if session.get("/").send().status != 200 {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        eventually("the first one is busy", || one.seen() > 100);
        assert_eq!(other.seen(), 0);
        dns.set("shop.test", 1, &[Record::Address(OTHER)]);
        eventually("the name leads elsewhere", || servers(&gateway) == [url(OTHER, port)]);
        eventually("the other one is busy", || other.seen() > 100);
        // What was in progress has ended, and nothing is kept for later.
        eventually("no connection is left", || one.open() == 0);
        let seen = (one.seen(), other.seen());
        eventually("requests go on", || other.seen() > seen.1 + 100);
        assert_eq!(one.seen(), seen.0);
        dns.set("shop.test", 1, &[Record::Address(ONE), Record::Address(OTHER)]);
        eventually("both are servers", || servers(&gateway).len() == 2);
        eventually("both are busy", || one.seen() > seen.0 + 100);
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    let age = metrics
        .lines()
        .find(|line| line.starts_with("portcullis_upstream_dns_age_seconds{"))
        .unwrap();
    assert!(age.contains("name=\"shop.test\"") && age.contains("upstream=\"shop\""), "{age}");
    assert_eq!(told(&gateway)["names"][0]["name"], "shop.test");
}

/// One long request keeps its own connection, and none that others have left.
#[test]
fn a_server_that_has_gone_keeps_no_connection_that_nobody_uses() {
    let (one, other) = (patient(), Upstream::replying(response("200 OK", "other")));
    let dns = NameServer::start();
    dns.set("shop.test", 1, &[Record::Address(ONE)]);
    let server = |upstream: &str, port: u16| format!("http://{upstream}:{port}");
    let named = server("shop.test", one.address().port());
    let gateway = before(&dns, &named, "eject = {}");
    let long = || {
        let mut stream = TcpStream::connect(gateway.public).unwrap();
        stream.write_all(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        stream
    };
    let mut open = vec![long()];
    let get = || Client::get(gateway.public, "/").send().text();
    assert_eq!((get(), one.open()), ("patient".to_owned(), 2));
    // The name leads elsewhere.
    dns.set("shop.test", 1, &[Record::Address(OTHER)]);
    eventually("the name leads elsewhere", || {
        servers(&gateway) == [url(OTHER, one.address().port())]
    });
    eventually("one connection is left", || one.open() == 1);
    // A reload names another server in place of this one, then another upstream.
    let reload = |server: &str, more: &str| {
        gateway.rewrite(&config(&dns, server, more));
        assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 200);
    };
    let plain = one.url();
    for more in ["eject = {}", "headers = 99"] {
        reload(&plain, "eject = {}");
        open.push(long());
        assert_eq!((get(), one.open()), ("patient".to_owned(), open.len() + 1));
        reload(&other.url(), more);
        eventually("the unused one is closed", || one.open() == open.len());
    }
    assert_eq!(get(), "other");
}

#[test]
fn what_was_known_of_a_name_is_used_for_a_while() {
    let (one, _other, port) = two();
    let dns = NameServer::start();
    dns.set("shop.test", 1, &[Record::Address(ONE)]);
    let gateway = before(&dns, &format!("http://shop.test:{port}"), "dns_refresh = \"1s\"\n");
    dns.remove("shop.test");
    eventually("it is noticed", || told(&gateway)["names"][0]["fault"].is_string());
    for _ in 0..10 {
        assert_eq!(Client::get(gateway.public, "/").send().text(), "one");
    }
    assert_eq!(one.seen(), 10);
    drop(gateway);

    // For no time at all.
    dns.set("shop.test", 1, &[Record::Address(ONE)]);
    let more = "dns_refresh = \"1s\"\ndns_stale = \"0s\"";
    let gateway = before(&dns, &format!("http://shop.test:{port}"), more);
    dns.remove("shop.test");
    eventually("it has no server", || servers(&gateway).is_empty());
    let refused = Client::get(gateway.public, "/").send();
    assert_eq!(refused.status, 502);
    assert_eq!(refused.json()["type"], "urn:portcullis:problem:upstream_unresolved");
    let explained = operate(&gateway, "POST", "/v1/explain", r#"{"path": "/"}"#).json();
    assert_eq!(explained["outcome"]["code"], "upstream_unresolved");
    dns.set("shop.test", 1, &[Record::Address(ONE)]);
    eventually("it is back", || Client::get(gateway.public, "/").send().status == 200);
}

/// The gateway waits for the first answer for `connect_timeout` alone, and asks on.
#[test]
fn a_name_whose_first_answer_is_late_has_its_servers_when_it_comes() {
    let (one, _other, port) = two();
    let dns = NameServer::start();
    dns.set("shop.test", 1, &[Record::Address(ONE)]);
    dns.silence("shop.test");
    let more = "connect_timeout = \"50ms\"\ndns_refresh = \"1s\"\n";
    let gateway = before(&dns, &format!("http://shop.test:{port}"), more);
    assert!(dns.asked() > 0);
    assert_eq!(Client::get(gateway.public, "/").send().status, 502);
    dns.set("shop.test", 1, &[Record::Address(ONE)]);
    eventually("the answer is used", || servers(&gateway) == [url(ONE, port)]);
    assert_eq!(Client::get(gateway.public, "/").send().text(), "one");
    assert_eq!(one.seen(), 1);
}

/// A reload that brings names is in force once they are looked up.
#[test]
fn a_reload_with_new_names_sends_its_first_request_to_their_servers() {
    let (one, other, port) = two();
    let dns = NameServer::start();
    dns.set("shop.test", 300, &[Record::Address(ONE)]);
    dns.set("other.test", 300, &[Record::Address(OTHER)]);
    let upstream = |server: &str, more: &str| config(&dns, server, more);
    let gateway = Gateway::start(&upstream("http://127.0.0.1:9", ""));
    let reloaded = |config: &str| {
        gateway.rewrite(config);
        let reply = operate(&gateway, "POST", "/v1/config/reload", "{}");
        assert_eq!(reply.status, 200, "{}", reply.text());
        Client::get(gateway.public, "/").send().text()
    };
    let (first, second) = (format!("http://shop.test:{port}"), format!("http://other.test:{port}"));
    assert_eq!(reloaded(&upstream(&first, "")), "one");
    assert_eq!(reloaded(&upstream(&second, "")), "other");
    // What its connections are bound by is another upstream's.
    assert_eq!(reloaded(&upstream(&first, "headers = 99")), "one");
    // Another name server is asked though the answer of the first one still holds.
    let elsewhere = NameServer::start();
    elsewhere.set("shop.test", 300, &[Record::Address(OTHER)]);
    assert_eq!(reloaded(&config(&elsewhere, &first, "headers = 99")), "other");
    // One that says nothing holds up the reload for `connect_timeout`, and what is known stays.
    let silent = NameServer::start();
    silent.silence("shop.test");
    let more = "headers = 99\nconnect_timeout = \"50ms\"";
    assert_eq!(reloaded(&config(&silent, &first, more)), "other");
    assert!(silent.asked() > 0);
    assert_eq!((one.seen(), other.seen()), (2, 3));
}

/// The answer holds for five minutes; a server that takes no connection is a reason to doubt it.
#[test]
fn a_refused_connection_has_its_name_looked_up_at_once() {
    let (one, other, port) = two();
    let dead = Ipv4Addr::new(127, 0, 0, 4);
    let dns = NameServer::start();
    dns.set("shop.test", 300, &[Record::Address(dead)]);
    let gateway = before(&dns, &format!("http://shop.test:{port}"), "");
    assert_eq!(servers(&gateway), [url(dead, port)]);
    dns.set("shop.test", 300, &[Record::Address(OTHER)]);
    let mut statuses = Vec::new();
    eventually("the name is looked up", || {
        statuses.push(Client::get(gateway.public, "/").send().status);
        statuses.last() == Some(&200)
    });
    assert!(statuses.contains(&502), "{statuses:?}");
    assert_eq!((one.seen(), other.seen()), (0, 1));
}

#[test]
fn services_name_their_servers_ports_and_weights() {
    let one = Upstream::replying_at((ONE, 0).into(), response("200 OK", "one")).unwrap();
    let other = Upstream::replying_at((OTHER, 0).into(), response("200 OK", "other")).unwrap();
    let dns = NameServer::start();
    let (first, second) = (one.address().port(), other.address().port());
    let records = [
        Record::Service(1, 3, first, "a.test"),
        Record::Service(1, 1, second, "b.test"),
        Record::Service(2, 9, 1, "c.test"),
    ];
    dns.set("_http._tcp.shop.test", 60, &records);
    dns.set("a.test", 60, &[Record::Address(ONE)]);
    dns.set("b.test", 60, &[Record::Address(OTHER)]);
    let more = "balance = \"round-robin\"";
    let gateway = before(&dns, "srv+http://_http._tcp.shop.test", more);
    assert_eq!(servers(&gateway), [url(ONE, first), url(OTHER, second)]);
    for _ in 0..8 {
        assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    }
    assert_eq!((one.seen(), other.seen()), (6, 2));
}

/// Of the targets of a service, one has no address, and nobody says anything of another one.
#[test]
fn a_bad_target_takes_none_of_the_others_away() {
    let one = Upstream::replying_at((ONE, 0).into(), response("200 OK", "one")).unwrap();
    let other = Upstream::replying_at((OTHER, 0).into(), response("200 OK", "other")).unwrap();
    let dns = NameServer::start();
    let (first, second) = (one.address().port(), other.address().port());
    let records = [
        Record::Service(1, 1, 1, "gone.test"),
        Record::Service(1, 1, second, "silent.test"),
        Record::Service(1, 1, first, "a.test"),
    ];
    dns.set("_http._tcp.shop.test", 300, &records);
    dns.set("a.test", 300, &[Record::Address(ONE)]);
    dns.set("silent.test", 300, &[Record::Address(OTHER)]);
    dns.silence("silent.test");
    let gateway = before(&dns, "srv+http://_http._tcp.shop.test", "dns_refresh = \"1s\"");
    eventually("the good one is known", || servers(&gateway) == [url(ONE, first)]);
    assert_eq!(Client::get(gateway.public, "/").send().text(), "one");
    // Whatever the others' answers hold for, it is asked for again.
    dns.set("silent.test", 300, &[Record::Address(OTHER)]);
    eventually("it is found", || servers(&gateway) == [url(ONE, first), url(OTHER, second)]);
    assert_eq!(told(&gateway)["names"][0]["fault"], Value::Null);
    // What is known of it is of use for no time at all.
    let more = "dns_refresh = \"1s\"\ndns_stale = \"0s\"";
    gateway.rewrite(&config(&dns, "srv+http://_http._tcp.shop.test", more));
    assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 200);
    dns.silence("silent.test");
    eventually("the other one is left", || servers(&gateway) == [url(ONE, first)]);
    let fault = told(&gateway)["names"][0]["fault"].clone();
    assert!(fault.as_str().is_some_and(|why| why.starts_with("silent.test: ")), "{fault}");
}
