//! A first request, those that repeat it, and those that only seem to.

use super::{
    Client, Redis, Session, Upstream, bearer, begin, expect, gateway, holding, post, send, shop,
    told, with_code,
};
use crate::support::{Exposition, Gateway, PATIENCE, eventually, operate};
use std::io::{Read as _, Write as _};
use std::sync::Mutex;
use std::sync::mpsc::channel;

#[test]
fn a_request_that_is_repeated_gets_the_first_answer_from_any_gateway() {
    let redis = Redis::start();
    for stores in [vec!["memory:".to_owned()], vec![redis.url(), redis.url()]] {
        let upstream = shop();
        let gateways: Vec<Gateway> =
            stores.iter().map(|store| gateway(&upstream, store, "", "")).collect();
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        let reply = post(first, "\"8e03\"", "a book");
        assert_eq!((reply.status, &*reply.text()), (201, "order 1 of a book"));
        assert_eq!(reply.header("idempotent-replayed"), None);
        assert_eq!(reply.header("set-cookie"), Some("visit=1"));
        for key in ["8e03", "\"8e03\""] {
            let again = post(last, key, "a book");
            assert_eq!((again.status, &*again.text()), (201, "order 1 of a book"));
            assert_eq!(again.header("idempotent-replayed"), Some("true"));
            assert_eq!(again.header("location"), Some("/orders/1"));
            assert_eq!(again.header("content-type"), Some("text/plain"));
            assert_eq!(again.header("set-cookie"), None, "cookies are not for whoever comes later");
        }
        let only = upstream.only();
        assert_eq!(only.header("idempotency-key"), Some("\"8e03\""), "the upstream may look, too");
        let words = told(last, if stores.len() == 1 { 3 } else { 2 });
        let expected: &[&str] = if stores.len() == 1 { &["first"] } else { &[] };
        assert_eq!(words, [expected, &["replayed"; 2]].concat());
        let metrics = Exposition::text(&operate(last, "GET", "/metrics", "").text());
        let count =
            |outcome| metrics.value("portcullis_idempotency_keys_total", &[("outcome", outcome)]);
        assert_eq!(count("replayed"), Some(2.0));
    }
}

#[test]
fn another_request_with_the_key_is_refused_and_that_of_others_is_another_key() {
    let upstream = shop();
    let gateway = gateway(&upstream, "memory:", "", "");
    let ask = |path: &str, caller: Option<&str>, body: &str, kind: &str| {
        let request = Client::request(gateway.public, "POST", path).body(body);
        let request = request.header("Idempotency-Key", "k").header("Content-Type", kind);
        match caller {
            Some(token) => request.bearer(token).send(),
            None => request.send(),
        }
    };
    let (ada, bob) = (bearer("ada"), bearer("bob"));
    let text = "text/plain";
    assert_eq!(ask("/orders", Some(&ada), "a", text).text(), "order 1 of a");
    for (path, body, kind) in [
        ("/orders", "b", text),
        ("/orders", "", text),
        ("/orders?express=1", "a", text),
        ("/orders", "a", "text/html"),
    ] {
        let reply = ask(path, Some(&ada), body, kind);
        assert_eq!(
            with_code(&reply),
            expect(422, "idempotency_key_reused"),
            "{path} {body} {kind}"
        );
    }
    assert_eq!(ask("/orders", Some(&bob), "b", text).text(), "order 2 of b");
    assert_eq!(ask("/orders", None, "b", text).text(), "order 3 of b");
    assert_eq!(ask("/refunds", Some(&ada), "b", text).text(), "order 4 of b");
    // A new token is the same caller.
    assert_eq!(ask("/orders", Some(&bearer("ada")), "a", text).text(), "order 1 of a");
    // Nobody looks at the keys of these.
    for method in ["GET", "PUT", "DELETE"] {
        let before = upstream.seen();
        assert_eq!(send(&gateway, method, "k", "c").status, 201);
        assert_eq!(send(&gateway, method, "k", "d").status, 201);
        assert_eq!(upstream.seen(), before + 2, "{method}");
    }
}

#[test]
fn a_route_may_want_a_key_and_a_key_must_be_one() {
    let upstream = shop();
    let gateway = gateway(&upstream, "memory:", "required = true", "");
    let without = Client::request(gateway.public, "POST", "/orders").body("a").send();
    assert_eq!(with_code(&without), expect(400, "idempotency_key_missing"));
    assert_eq!(Client::get(gateway.public, "/orders").send().status, 201);
    let long = "k".repeat(256);
    for key in ["", "\"\"", "a b", &long] {
        let reply = post(&gateway, key, "a");
        assert_eq!(with_code(&reply), expect(400, "idempotency_key_invalid"), "{key:?}");
    }
    let both = Client::request(gateway.public, "POST", "/orders").body("a");
    let both = both.header("Idempotency-Key", "a").header("Idempotency-Key", "a").send();
    assert_eq!(with_code(&both), expect(400, "idempotency_key_invalid"));
    assert_eq!(upstream.seen(), 1);
}

#[test]
fn who_repeats_a_request_that_runs_is_told_to_wait() {
    let (upstream, held) = holding();
    let redis = Redis::start();
    let gateways = [0, 1].map(|_| gateway(&upstream, &redis.url(), "", ""));
    let mut first = begin(&gateways[0], "k", "a");
    held.wait();
    for gateway in &gateways {
        let reply = post(gateway, "k", "a");
        assert_eq!(with_code(&reply), expect(409, "idempotency_in_progress"));
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    held.let_go();
    assert_eq!(first.read().text(), "done");
    for gateway in &gateways {
        assert_eq!(post(gateway, "k", "a").text(), "done");
    }
    assert_eq!(upstream.seen(), 1);
}

/// Neither the request nor its answer is held back for the sake of its key.
#[test]
fn the_first_request_streams_both_ways() {
    let (came, arrived) = channel();
    let (go_on, told) = channel::<()>();
    let (came, told) = (Mutex::new(came), Mutex::new(told));
    let upstream = Upstream::raw(move |mut stream| {
        let mut read = Vec::new();
        let mut buffer = [0; 1024];
        while !read.ends_with(b"half") {
            let count = stream.read(&mut buffer).unwrap_or(0);
            read.extend_from_slice(&buffer[..count]);
        }
        came.lock().unwrap().send(()).unwrap();
        while !read.ends_with(b"whole") {
            let count = stream.read(&mut buffer).unwrap_or(0);
            read.extend_from_slice(&buffer[..count]);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let _ = stream.write_all(b"5\r\nfirst\r\n");
        let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        let _ = stream.write_all(b"4\r\nlast\r\n0\r\n\r\n");
    });
    let gateway = gateway(&upstream, "memory:", "", "");
    let mut session = Session::open(gateway.public);
    session.write(
        "POST /orders HTTP/1.1\r\nHost: shop.test\r\nIdempotency-Key: k\r\n\
         Content-Length: 9\r\n\r\nhalf",
    );
    arrived.recv_timeout(PATIENCE).expect("half of the body arrives");
    session.write("whole");
    session.read_until("first");
    let running = post(&gateway, "k", "halfwhole");
    assert_eq!(with_code(&running), expect(409, "idempotency_in_progress"));
    go_on.send(()).unwrap();
    session.read_until("0\r\n\r\n");
    let again = post(&gateway, "k", "halfwhole");
    assert_eq!((&*again.text(), again.header("idempotent-replayed")), ("firstlast", Some("true")));
    let other = post(&gateway, "k", "halfhole");
    assert_eq!(with_code(&other), expect(422, "idempotency_key_reused"));
}

/// Of a request that was answered before its body had come, the head alone is compared.
#[test]
fn an_answer_before_the_body_is_an_answer() {
    let upstream = Upstream::raw(|mut stream| {
        let mut read = Vec::new();
        let mut buffer = [0; 1024];
        while !read.windows(4).any(|four| four == b"\r\n\r\n") {
            let count = stream.read(&mut buffer).unwrap_or(0);
            read.extend_from_slice(&buffer[..count]);
        }
        let answer = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
        let _ = stream.write_all(answer);
    });
    let gateway = gateway(&upstream, "memory:", "", "");
    let mut session = Session::open(gateway.public);
    session.write(
        "POST /orders HTTP/1.1\r\nHost: shop.test\r\nIdempotency-Key: k\r\n\
         Content-Length: 9\r\n\r\nhalf",
    );
    assert_eq!(session.read().status, 403);
    drop(session);
    eventually("it is kept", || post(&gateway, "k", "any other").status == 403);
    let again = post(&gateway, "k", "any other");
    assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again:?}");
    assert_eq!(upstream.connections(), 1);
    let other = Client::request(gateway.public, "POST", "/orders?b").body("half");
    let other = other.header("Idempotency-Key", "k").send();
    assert_eq!(with_code(&other), expect(422, "idempotency_key_reused"));
}
