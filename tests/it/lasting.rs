//! What lasts: requests in progress when what they went by has changed, answers whose source is
//! gone, and callers whose place must not change.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use portcullis::traffic::bucket;
use serde_json::{Value, json};

use crate::support::{
    Client, Gateway, NameServer, Record, Recorded, Session, Upstream, eventually, operate, response,
};

/// An upstream that answers its name at once, and `/held` when it is told to.
fn holding(name: &'static str) -> (Upstream, Sender<()>) {
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::with(move |request: &Recorded, connection: &mut TcpStream| {
        if request.target() == "/held" {
            let _ = told.lock().unwrap().recv();
        }
        let _ = connection.write_all(response("200 OK", name).as_bytes());
    });
    (upstream, go_on)
}

fn hold(gateway: &Gateway, upstream: &Upstream) -> Session {
    let seen = upstream.seen();
    let mut held = Session::open(gateway.public);
    held.write("GET /held HTTP/1.1\r\nHost: shop.test\r\nX-User: held\r\n\r\n");
    eventually("it is in progress", || upstream.seen() == seen + 1);
    held
}

fn of_shop(gateway: &Gateway) -> Value {
    operate(gateway, "GET", "/v1/upstreams", "").json()["upstreams"]["shop"].clone()
}

fn named(dns: &NameServer, port: u16, more: &str) -> Gateway {
    Gateway::start(&format!(
        "[upstreams.shop]\nservers = [\"http://shop.test:{port}\"]\ndns_servers = [\"{}\"]\n\
         {more}\n[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        dns.address()
    ))
}

#[test]
fn a_request_in_progress_outlives_the_name_of_its_server() {
    let (one, go_on) = holding("one");
    let dns = NameServer::start();
    dns.set("shop.test", 1, &[Record::Address(Ipv4Addr::LOCALHOST)]);
    let gateway = named(&dns, one.address().port(), "");
    let mut held = hold(&gateway, &one);
    // Nobody listens there; what is asked for from now on finds nobody.
    let elsewhere = Ipv4Addr::new(127, 0, 0, 9);
    dns.set("shop.test", 1, &[Record::Address(elsewhere)]);
    let there = SocketAddr::new(IpAddr::V4(elsewhere), one.address().port());
    eventually("the name leads elsewhere", || {
        of_shop(&gateway)["servers"][0]["server"] == format!("http://{there}")
    });
    assert_eq!(Client::get(gateway.public, "/").send().status, 502);
    go_on.send(()).unwrap();
    let reply = held.read();
    assert_eq!((reply.status, reply.text().as_str()), (200, "one"));
    eventually("its connection is kept for nobody", || one.open() == 0);
}

/// An answer without an address, or none because nobody is asked any more, is no reason to send
/// everybody away.
#[test]
fn the_last_answer_about_a_name_stays_whatever_comes_in_its_place() {
    for is_there in [true, false] {
        let one = Upstream::replying(response("200 OK", "one"));
        let dns = NameServer::start();
        dns.set("shop.test", 1, &[Record::Address(Ipv4Addr::LOCALHOST)]);
        let gateway = named(&dns, one.address().port(), "dns_refresh = \"1s\"");
        dns.set("shop.test", 1, &[]);
        let _dns = is_there.then_some(dns);
        eventually("it is noticed", || of_shop(&gateway)["names"][0]["fault"].is_string());
        for _ in 0..10 {
            assert_eq!(Client::get(gateway.public, "/").send().text(), "one", "{is_there}");
        }
        assert_eq!(of_shop(&gateway)["names"][0]["servers"], 1, "{is_there}");
    }
}

/// Two upstreams, and a route that sends so many of a hundred callers to the second one.
fn split(upstreams: [&Upstream; 2], share: u16, more: &str) -> String {
    let [base, next] = upstreams;
    format!(
        "{}{}\n[routes.all]\npath = \"/*\"\nsticky = \"header:x-user\"\n{more}\n\
         split = [{{ upstream = \"base\", weight = {} }}, {{ upstream = \"next\", weight = {share} \
         }}]\n",
        base.table("base"),
        next.table("next"),
        100 - share
    )
}

/// A canary that is taken back keeps what it has begun.
#[test]
fn a_request_in_progress_stays_with_its_canary() {
    let base = Upstream::replying(response("200 OK", "base"));
    let (next, go_on) = holding("next");
    let gateway = Gateway::start(&split([&base, &next], 100, "rollback = {}"));
    let mut held = hold(&gateway, &next);
    let stopped = operate(&gateway, "POST", "/v1/canary/stop", "{\"route\": \"all\"}");
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    assert_eq!(Client::get(gateway.public, "/").send().text(), "base");
    go_on.send(()).unwrap();
    assert_eq!(held.read().text(), "next");
    assert_eq!(held.get("/").send().text(), "base");
}

/// A share that grows takes callers to the canary, one that shrinks takes them back, and neither
/// does both.
#[test]
fn callers_move_one_way_when_a_share_changes() {
    let [base, next] = ["base", "next"].map(|name| Upstream::replying(response("200 OK", name)));
    let gateway = Gateway::start(&split([&base, &next], 10, ""));
    let mut session = Session::open(gateway.public);
    let mut at_next = || -> Vec<bool> {
        let users = (0..100).map(|number| format!("user-{number}"));
        let mut reply = |user| session.get("/").header("X-User", user).send().text();
        users.map(|user| reply(user) == "next").collect()
    };
    let mut before = at_next();
    for share in [30, 60, 100, 60, 5] {
        gateway.rewrite(&split([&base, &next], share, ""));
        assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 200);
        let now = at_next();
        let goes =
            |to: bool| before.iter().zip(&now).filter(|it| *it.0 != to && *it.1 == to).count();
        let moved = (goes(true), goes(false));
        assert!(moved.0 == 0 || moved.1 == 0, "{share}: {moved:?}");
        let expected = |at: usize| bucket("all", format!("user-{at}").as_bytes()) < share * 100;
        assert_eq!(now, (0..100).map(expected).collect::<Vec<bool>>(), "{share}");
        before = now;
    }
}

/// Whoever does not send what callers are told apart by is one caller by its address.
#[test]
fn callers_without_a_key_stay_where_they_are() {
    let [base, next] = ["base", "next"].map(|name| Upstream::replying(response("200 OK", name)));
    let gateway = Gateway::start(&format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n{}",
        split([&base, &next], 50, "")
    ));
    let arm = |client: u8| {
        let get = Client::get(gateway.public, "/");
        get.header("X-Forwarded-For", format!("192.0.2.{client}")).send().text()
    };
    let homes: Vec<String> = (1..=20).map(arm).collect();
    for _ in 0..3 {
        assert_eq!((1..=20).map(arm).collect::<Vec<_>>(), homes);
    }
    assert!(["base", "next"].iter().all(|name| homes.iter().any(|home| home == name)), "{homes:?}");
    let described = json!({ "path": "/", "headers": { "x-forwarded-for": "192.0.2.1" } });
    let told = operate(&gateway, "POST", "/v1/explain", &described.to_string()).json();
    assert!(told["arm"]["upstream"].is_string(), "{told}");
}
