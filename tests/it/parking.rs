//! Parked connections: idle HTTP/1.1 connections that have given their buffers back. Nobody but the
//! metrics can tell them from others.

use std::io::Read;
use std::net::Shutdown;
use std::time::Duration;

use crate::support::{
    Client, Exposition, Gateway, Session, Upstream, eventually, raw, raw_until_close, response,
    status,
};

/// A gateway that parks as soon as it may; `more` is what else `[server]` says, and its limits.
fn parking(more: &str, upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "[server]\npark_after = \"100ms\"\n{more}\n{}
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"",
        upstream.table("shop")
    ))
}

/// An upstream that answers with what it was sent.
fn echo() -> Upstream {
    Upstream::with(|request, connection| {
        use std::io::Write as _;
        let text = String::from_utf8_lossy(&request.body).into_owned();
        connection.write_all(response("200 OK", &text).as_bytes()).unwrap();
    })
}

fn metric(gateway: &Gateway, name: &str) -> f64 {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    Exposition::text(&text).value(&format!("portcullis_{name}"), &[]).unwrap()
}

fn wait_parked(gateway: &Gateway, count: f64) {
    eventually("they are parked", || metric(gateway, "connections_parked") == count);
}

/// A connection that has made one request and is parked.
fn parked(gateway: &Gateway) -> Session {
    let mut session = Session::open(gateway.public);
    let before = metric(gateway, "connections_parked");
    assert_eq!(session.get("/first").send().status, 200);
    wait_parked(gateway, before + 1.0);
    session
}

#[test]
fn a_parked_connection_goes_on_with_bodies() {
    let upstream = echo();
    let gateway = parking("", &upstream);
    let mut session = parked(&gateway);
    for round in 0..3 {
        assert_eq!(metric(&gateway, "connections"), 1.0, "it counts as before");
        let reply = session.request("POST", "/x").body(format!("sized {round}")).send();
        assert_eq!((reply.status, reply.text()), (200, format!("sized {round}")));
        wait_parked(&gateway, 1.0);
        session.write(
            "POST /y HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
        );
        assert_eq!(session.read().text(), "onetwo");
        wait_parked(&gateway, 1.0);
    }
    // A head in pieces, of which the first ends the rest.
    for piece in ["\r", "\nGET /z HT", "TP/1.1\r\nHost: shop.test\r", "\n\r\n"] {
        session.write(piece);
    }
    assert_eq!(session.read().status, 200);
    drop(session);
    eventually("nothing is left", || {
        metric(&gateway, "connections") == 0.0 && metric(&gateway, "connections_parked") == 0.0
    });
    assert_eq!(gateway.access_lines().len(), 8, "one line for each request, and none for parking");
    assert!(gateway.access_lines().iter().all(|line| line["status"] == 200));
}

#[test]
fn a_long_head_and_a_long_body_come_whole() {
    let upstream = echo();
    let gateway = parking("", &upstream);
    let mut session = parked(&gateway);
    let (long, body) = ("x".repeat(20_000), "y".repeat(300_000));
    let reply = session.request("POST", "/x").header("X-Long", &long).body(&*body).send();
    assert_eq!((reply.status, reply.text()), (200, body));
}

#[test]
fn parked_connections_take_places() {
    let upstream = echo();
    let gateway = parking("[server.limits]\nconnections = 2", &upstream);
    let first = parked(&gateway);
    let mut second = parked(&gateway);
    let refused = raw_until_close(gateway.public, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(status(&refused), 503, "{refused}");
    assert_eq!(second.get("/").send().status, 200);
    drop(first);
    eventually("a place is free", || {
        Client::get(gateway.public, "/").try_send().is_ok_and(|reply| reply.status == 200)
    });
}

#[test]
fn the_idle_timeout_goes_on() {
    let upstream = echo();
    let gateway = parking("[server.limits]\nidle_timeout = \"4s\"", &upstream);
    let mut session = parked(&gateway);
    assert_eq!(session.rest(), "");
    eventually("its place is free", || metric(&gateway, "connections") == 0.0);
    assert_eq!(gateway.access_lines().len(), 1);
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let failed = |line: &&str| {
        line.starts_with("portcullis_connection_errors_total{") && !line.ends_with(" 0")
    };
    assert_eq!(text.lines().find(failed), None);
}

#[test]
fn an_idle_timeout_before_parking_parks_nothing() {
    let upstream = echo();
    let gateway = Gateway::start(&format!(
        "[server]\npark_after = \"1100ms\"\n[server.limits]\nidle_timeout = \"1s\"\n{}
        [routes.all]\npath = \"/*\"\nupstream = \"shop\"",
        upstream.table("shop")
    ));
    let mut session = Session::open(gateway.public);
    assert_eq!(session.get("/").send().status, 200);
    eventually("it is closed", || {
        assert_eq!(metric(&gateway, "connections_parked"), 0.0);
        metric(&gateway, "connections") == 0.0
    });
    assert_eq!(session.rest(), "");
}

#[test]
fn the_drain_ends_parked_connections_at_once() {
    let upstream = echo();
    let mut gateway = parking("drain = \"1h\"", &upstream);
    let mut sessions: Vec<_> = (0..3).map(|_| parked(&gateway)).collect();
    gateway.signal("TERM");
    assert!(sessions.iter_mut().all(|session| session.rest().is_empty()));
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_client_that_says_no_more_is_let_go() {
    let upstream = echo();
    let gateway = parking("", &upstream);
    let mut session = parked(&gateway);
    session.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(session.rest(), "");
    eventually("its place is free", || metric(&gateway, "connections") == 0.0);
}

#[test]
fn a_slow_head_on_a_parked_connection_is_due_in_time() {
    let upstream = echo();
    let gateway = parking("[server.limits]\nheader_timeout = \"1s\"", &upstream);
    for begun in ["G", "GET / HTTP/1.1\r\nHost: shop.test\r\n", "\r\n"] {
        let mut session = parked(&gateway);
        session.write(begun);
        let answer = session.rest();
        assert_eq!(status(&answer), 408, "{begun:?}: {answer}");
    }
    // A body that is over is no reason to wait longer.
    let mut session = parked(&gateway);
    assert_eq!(session.request("POST", "/").body("over").send().status, 200);
    wait_parked(&gateway, 1.0);
    session.write("GET /");
    assert_eq!(status(&session.rest()), 408);
}

#[test]
fn empty_lines_behind_a_request_are_no_next_one() {
    let upstream = echo();
    let gateway = parking("[server.limits]\nheader_timeout = \"2s\"", &upstream);
    for request in [
        "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n\r\n\n\r\n",
        // As old browsers did it.
        "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi\r\n",
    ] {
        let mut session = Session::open(gateway.public);
        session.write(request);
        assert_eq!(session.read().status, 200, "{request:?}");
        wait_parked(&gateway, 1.0);
        assert_eq!(session.get("/").send().status, 200, "{request:?}");
        drop(session);
        wait_parked(&gateway, 0.0);
    }
    // What comes behind them is one.
    let mut session = Session::open(gateway.public);
    session.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n\r\nG");
    assert_eq!(session.read().status, 200);
    assert_eq!(status(&session.rest()), 408);
}

/// A request, and in the same write the beginning of the next.
const AND_A_HALF: &str = "GET /1 HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /2 HTTP/1.1\r\nHo";

#[test]
fn a_head_that_came_with_the_last_request_is_not_lost() {
    let upstream = echo();
    let gateway = parking("", &upstream);
    let mut session = Session::open(gateway.public);
    session.write(AND_A_HALF);
    assert_eq!(session.read().status, 200);
    // Another one is parked meanwhile, after as long as this one was silent.
    let _other = parked(&gateway);
    assert_eq!(metric(&gateway, "connections_parked"), 1.0, "this one has begun a request");
    session.write("st: shop.test\r\n\r\n");
    assert_eq!(session.read().status, 200);
}

#[test]
fn a_head_that_came_with_the_last_request_is_due_in_time() {
    let upstream = echo();
    let gateway = parking("[server.limits]\nheader_timeout = \"1s\"", &upstream);
    let mut session = Session::open(gateway.public);
    session.write(AND_A_HALF);
    assert_eq!(session.read().status, 200);
    assert_eq!(status(&session.rest()), 408);
}

#[test]
fn a_request_is_answered_whenever_it_comes() {
    let upstream = echo();
    let gateway = parking("", &upstream);
    let mut session = Session::open(gateway.public);
    // Around the moment of parking, sooner and later; no answer depends on which.
    for pause in [80, 90, 95, 98, 99, 100, 101, 102, 105, 110, 120] {
        assert_eq!(session.get("/").send().status, 200);
        let stream = session.stream();
        stream.set_read_timeout(Some(Duration::from_millis(pause))).unwrap();
        assert!(stream.read(&mut [0; 64]).is_err(), "nothing comes uncalled for");
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn http_1_0_that_keeps_its_connection_is_parked_too() {
    let upstream = echo();
    let gateway = parking("", &upstream);
    let mut session = Session::open(gateway.public);
    for _ in 0..3 {
        session.write("GET / HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n");
        let head = session.read_until("\r\n\r\n");
        assert!(head.to_ascii_lowercase().contains("connection: keep-alive"), "{head}");
        wait_parked(&gateway, 1.0);
    }
    // One that does not, ends with its response, and so does one that says so.
    session.write("GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n");
    assert_eq!(status(&session.rest()), 200);
    let mut session = parked(&gateway);
    assert_eq!(session.get("/").header("Connection", "close").send().status, 200);
    assert_eq!(session.rest(), "");
}

#[test]
fn a_parked_connection_speaks_its_protocol_still() {
    let upstream = echo();
    let gateway = parking("", &upstream);
    // hyper hangs up on a preface that does not come first; TLS is no request.
    for (other, answer) in
        [(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], 0), (b"\x16\x03\x01\x02\x00\r\n\r\n", 400)]
    {
        let mut session = parked(&gateway);
        session.write(other);
        assert_eq!(status(&session.rest()), answer);
    }
    assert_eq!(status(&raw(gateway.public, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")), 200);
}

#[test]
fn interim_responses_find_their_way_after_parking() {
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
    let upstream = Upstream::replying(HINTS.to_owned() + &response("200 OK", "hello"));
    let gateway = parking("", &upstream);
    let mut session = Session::open(gateway.public);
    for _ in 0..2 {
        session.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        assert_eq!(session.read_until("\r\n\r\n"), HINTS);
        assert_eq!(session.read().text(), "hello");
        wait_parked(&gateway, 1.0);
    }
}

#[test]
fn a_parked_connection_goes_on_under_the_rules_of_now() {
    let upstream = echo();
    let gateway = parking("[server.limits]\nheader_timeout = \"1h\"", &upstream);
    let mut session = parked(&gateway);
    gateway.rewrite(&format!(
        "[server]\npark_after = \"100ms\"\n[server.limits]\nheader_timeout = \"1s\"\n{}
        [routes.new]\npath = \"/new\"\nupstream = \"shop\"",
        upstream.table("shop")
    ));
    gateway.signal("HUP");
    eventually("the new rules are in force", || {
        Client::get(gateway.public, "/other").send().status == 404
    });
    assert_eq!(session.get("/new").send().status, 200);
    wait_parked(&gateway, 1.0);
    session.write("GET /");
    assert_eq!(status(&session.rest()), 408);
}
