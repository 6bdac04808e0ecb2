//! What becomes of reads and writes where readers, servers or Redis are away, and where a write
//! fails.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, mpsc};

use tokio::net::TcpSocket;

use super::{ALL, Service, explained, fleet, get, put, told};
use crate::support::{Client, Gateway, Redis, TcpProxy, Upstream, eventually, operate, response};

/// A port that refuses connections for as long as this is held: it is bound, and nobody listens.
fn nobody_at(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[test]
fn servers_take_what_no_reader_takes() {
    let service = Service::start();
    let dead = nobody_at("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = dead.local_addr().unwrap();
    let gateway = Gateway::start(&format!(
        "{}readers = [\"http://{address}\"]\nfail_timeout = \"1h\"\n{ALL}",
        service.servers.table("shop")
    ));
    for _ in 0..3 {
        assert_eq!(get(&gateway, "/a").text(), "servers 0");
    }
    assert_eq!(told(&gateway, 3), ["out"; 3]);
    let explained = explained(&gateway, "/a");
    assert_eq!(explained["pool"]["pool"], "servers", "it is known to take nothing: {explained}");
    assert_eq!(explained["outcome"]["server"], service.servers.url(), "{explained}");
}

#[test]
fn the_last_reader_is_ejected_and_can_be_taken_out_by_hand() {
    let service = Service::start();
    let failing = Upstream::replying(response("500 No", "readers"));
    let gateway = Gateway::start(&format!(
        "{}readers = [\"{}\"]
        [upstreams.shop.eject]
        failures = 1
        time = \"1h\"
        {ALL}",
        service.servers.table("shop"),
        failing.url()
    ));
    assert_eq!(get(&gateway, "/a").status, 500, "an answer is an answer");
    for _ in 0..3 {
        assert_eq!(get(&gateway, "/a").text(), "servers 0");
    }
    assert_eq!(failing.seen(), 1);
    let gateway = Gateway::start(&(service.table("shop", "") + ALL));
    let which = format!(r#"{{"upstream": "shop:readers", "server": "{}"}}"#, service.readers.url());
    assert_eq!(get(&gateway, "/a").text(), "readers 0");
    let ejected = operate(&gateway, "POST", "/v1/upstreams/eject", &which);
    assert_eq!(ejected.status, 200, "{}", ejected.text());
    assert_eq!(get(&gateway, "/a").text(), "servers 0");
}

#[test]
fn a_reader_that_may_have_read_it_is_followed_by_nobody() {
    let service = Service::start();
    let silent = Upstream::with(|_, stream| {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let gateway = Gateway::start(&format!(
        "{}readers = [\"{}\"]\n{ALL}",
        service.servers.table("shop"),
        silent.url()
    ));
    assert_eq!(get(&gateway, "/a").status, 502);
    assert_eq!(service.servers.seen(), 0);
}

#[test]
fn no_reader_answers_who_has_written_where_the_servers_are_away() {
    let Service { servers, readers, .. } = Service::start();
    let gateway = Gateway::start(&format!(
        "[server]
        trusted_proxies = [\"127.0.0.1/32\"]
        {}readers = [\"{}\"]\nstick = \"1h\"\n{ALL}",
        servers.table("shop"),
        readers.url()
    ));
    let ask = |method: &str, from: &str| {
        let asked = Client::request(gateway.public, method, "/a");
        asked.header("X-Forwarded-For", from).send()
    };
    assert_eq!(ask("PUT", "10.0.0.1").status, 200);
    let address = servers.address();
    drop(servers);
    let mut held = None;
    eventually("nobody listens there", || {
        held = nobody_at(address).ok();
        held.is_some()
    });
    assert!(ask("PUT", "10.0.0.2").status >= 500);
    assert!(ask("GET", "10.0.0.1").status >= 500);
    assert_eq!(readers.seen(), 0);
    // Nobody read the second write, so that nobody has to be asked for it.
    assert_eq!(ask("GET", "10.0.0.2").text(), "readers 0");
}

#[test]
fn what_has_failed_has_written_nothing_and_what_may_have_acted_has() {
    let service = Service::start();
    let shop = service.table("shop", "stick = \"1h\"");
    for (answer, expected) in
        [("200", "servers"), ("404", "readers"), ("409", "readers"), ("500", "servers")]
    {
        let gateway = Gateway::start(&(shop.clone() + ALL));
        let asked = Client::request(gateway.public, "POST", "/a").header("X-Answer", answer);
        assert_eq!(asked.send().status.to_string(), answer);
        assert_eq!(get(&gateway, "/a").header("x-who"), Some(expected), "behind a {answer}");
    }
    // It had all of the request, and nobody knows what it has done with it.
    let silent = Upstream::with(|request, stream| {
        if request.request_line().starts_with("GET ") {
            let _ = stream.write_all(response("200 OK", "servers").as_bytes());
        } else {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    });
    let gateway = Gateway::start(&format!(
        "{}readers = [\"{}\"]\nstick = \"1h\"\n{ALL}",
        silent.table("shop"),
        service.readers.url()
    ));
    assert_eq!(put(&gateway, "/a").status, 502);
    assert_eq!(get(&gateway, "/a").text(), "servers");
}

#[test]
fn a_write_whose_client_has_gone_is_marked() {
    let (redis, service) = (Redis::start(), Service::start());
    let (began, begins) = mpsc::channel();
    let (ends, ended) = mpsc::channel::<()>();
    let (began, ended) = (Mutex::new(began), Mutex::new(ended));
    let servers = Upstream::with(move |_, _| {
        let _ = began.lock().unwrap().send(());
        let _ = ended.lock().unwrap().recv();
    });
    let [gateway, _] = fleet(
        &redis.url(),
        &format!(
            "{}readers = [\"{}\"]\nstick = \"1h\"\n{ALL}",
            servers.table("shop"),
            service.readers.url()
        ),
    );
    let mut client = TcpStream::connect(gateway.public).unwrap();
    client.write_all(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
    begins.recv().unwrap();
    assert_eq!(redis.cli(&["KEYS", "app:wrote:*"]), "");
    drop(client);
    eventually("it is marked", || redis.cli(&["KEYS", "app:wrote:*"]).lines().count() == 2);
    // Others read where they did before.
    let described = serde_json::json!({ "path": "/a", "address": "10.0.0.9" });
    eventually("nobody is taken for a writer for want of a mark", || {
        let told = operate(&gateway, "POST", "/v1/explain", &described.to_string()).json();
        told["pool"]["pool"] == "readers"
    });
    drop(ends);
}

#[test]
fn while_redis_is_away_servers_take_all_reads() {
    let (redis, service) = (Redis::start(), Service::start());
    let proxy = TcpProxy::start(redis.address());
    let shop = service.table("shop", "stick = \"1h\"");
    let store = |url: &str| {
        format!(
            "[server]\ndegraded_header = true\n
            [store]\nurl = \"{url}\"\ntimeout = \"2s\"\n{shop}{ALL}"
        )
    };
    let [a, b] = [proxy.url(), redis.url()].map(|url| Gateway::start(&store(&url)));
    assert_eq!([&a, &b].map(|it| get(it, "/a").text()), ["readers 0"; 2].map(str::to_owned));
    proxy.refuse();
    eventually("it is away", || {
        let reply = get(&a, "/a");
        assert_eq!(reply.status, 200, "a read is answered");
        reply.text() == "servers 0"
    });
    let reply = get(&a, "/a");
    assert_eq!(reply.header("x-portcullis-degraded"), Some("pools"));
    assert_eq!(told(&a, 2).last().map(String::as_str), Some("unknown"));
    let line = a.access_lines().pop().unwrap();
    assert_eq!(line["degraded"], serde_json::json!(["pools"]), "{line}");
    // What was written meanwhile is marked as soon as it can be.
    assert_eq!(put(&a, "/a").text(), "servers 1");
    assert_eq!(get(&b, "/a").text(), "readers 0");
    proxy.pass();
    eventually("the other gateway knows of it", || get(&b, "/a").text() == "servers 1");
    // Nor is it forgotten where other marks may be missing: nothing stored answers him.
    eventually("his write is known here", || {
        get(&a, "/a");
        a.access_lines().pop().is_some_and(|line| line["pool"] == "wrote")
    });
    // Somebody else may have been told that he wrote, by a gateway that has ended since.
    assert_eq!(get(&a, "/b").text(), "servers 0");
    assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
    assert_eq!(get(&a, "/b").text(), "servers 0");
    assert_eq!(get(&b, "/b").text(), "readers 0");
    let described = serde_json::json!({ "path": "/b", "address": "10.0.0.9" });
    let told = operate(&a, "POST", "/v1/explain", &described.to_string()).json();
    let why = told["pool"]["why"].to_string();
    assert!(why.contains("was away"), "{why}");
    // Whoever wrote at this gateway is known there, whatever Redis has lost.
    assert!(explained(&a, "/a")["pool"]["why"].to_string().contains("has written"));
    let mut line = String::new();
    let mut stream = TcpStream::connect(a.admin).unwrap();
    let asked = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", a.admin);
    stream.write_all(asked.as_bytes()).unwrap();
    stream.read_to_string(&mut line).unwrap();
    assert!(line.contains("portcullis_store_failures_total{function=\"pools\"}"), "{line}");
}
