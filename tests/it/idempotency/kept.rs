//! What is kept of an answer, and after what a key is free again, or its outcome unknown.

use super::{Redis, Upstream, config, expect, gateway, keys, post, send, told, with_code};
use crate::support::{Client, Gateway, Session, eventually, response};

#[test]
fn of_an_answer_that_is_too_long_the_status_is_kept() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   400\r\n"
        .to_owned()
        + &"x".repeat(1024)
        + "\r\n5\r\nyyyyy\r\n0\r\n\r\n";
    for answer in [response("200 OK", &"x".repeat(1025)), chunked] {
        let upstream = Upstream::replying(answer);
        let gateway = gateway(&upstream, "memory:", "keep_bytes = \"1KiB\"", "");
        assert!(post(&gateway, "k", "a").body.len() > 1024, "it passes whole");
        let again = post(&gateway, "k", "a");
        assert_eq!(with_code(&again), expect(409, "idempotency_response_not_kept"));
        assert_eq!(with_code(&post(&gateway, "k", "b")), expect(422, "idempotency_key_reused"));
        assert_eq!(upstream.seen(), 1);
    }
}

#[test]
fn a_body_that_breaks_off_was_an_answer_all_the_same() {
    let upstream = Upstream::with(|_, stream| {
        use std::io::Write as _;
        let _ = stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\nhalf");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let gateway = gateway(&upstream, "memory:", "", "");
    let first = Client::request(gateway.public, "POST", "/orders").body("a");
    first.header("Idempotency-Key", "k").try_send().expect_err("it breaks off");
    eventually("that is kept", || {
        with_code(&post(&gateway, "k", "a")) == expect(409, "idempotency_response_not_kept")
    });
    assert_eq!(upstream.seen(), 1);
}

#[test]
fn a_key_is_free_after_what_has_done_nothing() {
    for status in ["408 Short", "429 Slow", "503 Away", "425 Early"] {
        let upstream = Upstream::replying(response(status, "later"));
        let gateway = gateway(&upstream, "memory:", "", "");
        for _ in 0..2 {
            let reply = post(&gateway, "k", "a");
            assert!(status.starts_with(&reply.status.to_string()), "{status}: {reply:?}");
            assert_eq!(reply.header("idempotent-replayed"), None);
        }
        assert_eq!(upstream.seen(), 2, "{status}");
    }
    for status in ["500 Oh", "400 What", "302 There"] {
        let upstream = Upstream::replying(response(status, "so"));
        let gateway = gateway(&upstream, "memory:", "", "");
        for _ in 0..2 {
            assert_eq!(post(&gateway, "k", "a").text(), "so");
        }
        assert_eq!(upstream.seen(), 1, "{status}");
    }
    let (upstream, redis) = (Upstream::replying(""), Redis::start());
    let whole = config(&upstream, &redis.url(), "", "");
    // Nobody ever listens there.
    let gateway = Gateway::start(&whole.replace(&upstream.url(), "http://127.0.0.1:1"));
    for _ in 0..2 {
        assert_eq!(with_code(&post(&gateway, "k", "a")), expect(502, "upstream_unreachable"));
        assert_eq!(keys(&redis), 0, "nobody has acted");
    }
}

#[test]
fn what_may_have_acted_leaves_its_outcome_unknown() {
    let silent = || {
        Upstream::with(|_, stream| {
            // Until the gateway hangs up.
            let _ = std::io::Read::read(stream, &mut [0; 1]);
        })
    };
    let upstream = silent();
    let methods = "methods = [\"POST\", \"PUT\"]";
    let refusing = gateway(&upstream, "memory:", methods, "");
    assert_eq!(with_code(&post(&refusing, "k", "a")), expect(504, "upstream_timeout"));
    for _ in 0..2 {
        let again = post(&refusing, "k", "a");
        assert_eq!(with_code(&again), expect(409, "idempotency_outcome_unknown"));
    }
    assert_eq!(upstream.seen(), 1);
    // Nor does one that speaks for others know what they did.
    let bad = Upstream::replying(response("502 Bad", "so"));
    let asking = gateway(&bad, "memory:", "", "");
    assert_eq!(post(&asking, "k", "a").status, 502);
    assert_eq!(with_code(&post(&asking, "k", "a")), expect(409, "idempotency_outcome_unknown"));
    assert_eq!(bad.seen(), 1);
    // What may be repeated by its method is.
    for _ in 0..2 {
        let put = send(&refusing, "PUT", "p", "a");
        assert_eq!(with_code(&put), expect(504, "upstream_timeout"));
    }
    assert_eq!(upstream.seen(), 3);
    assert_eq!(told(&refusing, 5), ["first", "-", "-", "first", "repeated"]);
    let upstream = silent();
    let forwarding = gateway(&upstream, "memory:", "unknown = \"forward\"", "");
    for _ in 0..2 {
        assert_eq!(with_code(&post(&forwarding, "k", "a")), expect(504, "upstream_timeout"));
    }
    let heads = upstream.recorded();
    assert_eq!(heads.len(), 2);
    assert!(heads.iter().all(|it| it.header("idempotency-key") == Some("k")), "{heads:?}");
}

/// A PUT may be sent where nobody knows what a POST with its key did. What becomes of the PUT says
/// nothing of the POST.
#[test]
fn what_may_have_acted_stays_unknown_behind_another_request_that_did_nothing() {
    let upstream = Upstream::with(|request, stream| {
        if request.request_line().starts_with("POST") {
            // Until the gateway hangs up.
            let _ = std::io::Read::read(stream, &mut [0; 1]);
            return;
        }
        let _ = std::io::Write::write_all(stream, response("503 Away", "later").as_bytes());
    });
    let gateway = gateway(&upstream, "memory:", "methods = [\"POST\", \"PUT\"]", "");
    assert_eq!(with_code(&post(&gateway, "k", "a")), expect(504, "upstream_timeout"));
    for _ in 0..2 {
        assert_eq!(send(&gateway, "PUT", "k", "a").status, 503);
        let again = post(&gateway, "k", "a");
        assert_eq!(with_code(&again), expect(409, "idempotency_outcome_unknown"));
    }
    let posts = upstream.recorded().into_iter().filter(|it| it.request_line().starts_with("POST"));
    assert_eq!(posts.count(), 1);
}

/// A request that is refused on its way has no key, though it asked for one.
#[test]
fn a_refused_request_leaves_its_key_free() {
    let upstream = Upstream::replying(response("200 OK", "done"));
    let redis = Redis::start();
    let limited = gateway(
        &upstream,
        &redis.url(),
        "",
        "limits = [\"api\"]\n[limits.api]\nkey = [\"claim:sub\"]\nallow = [\"2/1h\"]",
    );
    assert_eq!(post(&limited, "a", "a").status, 200);
    // To get an answer again costs nothing.
    for _ in 0..4 {
        eventually("the units are given back", || post(&limited, "a", "a").status == 200);
    }
    eventually("there is one left", || post(&limited, "b", "b").status == 200);
    assert_eq!(with_code(&post(&limited, "c", "c")), expect(429, "limit_exceeded"));
    eventually("its key is free", || keys(&redis) == 2);
    assert_eq!(upstream.seen(), 2);

    let config = config(&upstream, &redis.url(), "", "session = \"required\"");
    let session = "\n[session]\nid_from = [\"cookie:sid\"]\n";
    let gateway = Gateway::start(&(config + session));
    let refusal = post(&gateway, "d", "d");
    assert_eq!(refusal.status, 401, "{refusal:?}");
    let unknown = Client::request(gateway.public, "POST", "/orders").header("Cookie", "sid=s-1");
    let unknown = unknown.header("Idempotency-Key", "d").body("d").send();
    assert_eq!(unknown.status, 401, "{unknown:?}");
    eventually("its key is free", || keys(&redis) == 2);
    assert_eq!(upstream.seen(), 2);
}

/// What counts addresses bounds how often anybody may ask, also for what was answered.
#[test]
fn an_answer_that_is_sent_once_more_counts_by_address() {
    let upstream = Upstream::replying(response("200 OK", "done"));
    let limits = "limits = [\"api\"]\n[limits.api]\nkey = [\"address\"]\nallow = [\"3/1h\"]";
    let limited = gateway(&upstream, "memory:", "", limits);
    for _ in 0..3 {
        assert_eq!(post(&limited, "a", "a").text(), "done");
    }
    assert_eq!(with_code(&post(&limited, "a", "a")), expect(429, "limit_exceeded"));
    assert_eq!(upstream.seen(), 1);
}

const HALF: &str = "POST /orders HTTP/1.1\r\nHost: shop.test\r\nIdempotency-Key: k\r\n\
                    Content-Length: 9\r\n\r\n";

/// Who sends nothing of a request's body may send it again: the upstream never had it.
#[test]
fn a_request_without_any_of_its_body_leaves_its_key_free() {
    let upstream = Upstream::replying(response("200 OK", "done"));
    let gateway = gateway(&upstream, "memory:", "", "");
    let mut session = Session::open(gateway.public);
    session.write(HALF);
    eventually("it is on its way", || upstream.open() == 1);
    drop(session);
    eventually("its key is free", || post(&gateway, "k", "the whole").status == 200);
    assert_eq!(upstream.only().text(), "the whole");
}

/// The upstream may act on what it has of a request that was cut off.
#[test]
fn a_request_that_was_cut_off_leaves_its_outcome_unknown() {
    let (came, arrived) = std::sync::mpsc::channel();
    let came = std::sync::Mutex::new(came);
    let upstream = Upstream::raw(move |mut stream| {
        let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
        while let Ok(count @ 1..) = std::io::Read::read(&mut stream, &mut buffer) {
            read.extend_from_slice(&buffer[..count]);
            if read.ends_with(b"half") {
                came.lock().unwrap().send(()).unwrap();
            }
        }
    });
    let gateway = gateway(&upstream, "memory:", "", "");
    let mut session = Session::open(gateway.public);
    session.write(HALF);
    session.write("half");
    arrived.recv_timeout(crate::support::PATIENCE).expect("half of it arrives");
    drop(session);
    eventually("its outcome is unknown", || {
        let reply = post(&gateway, "k", "the whole");
        with_code(&reply) == expect(409, "idempotency_outcome_unknown")
    });
    assert_eq!(upstream.connections(), 1);
}
