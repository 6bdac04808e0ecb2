//! Interim responses (1xx) of an upstream: which of them reach an HTTP/1.1 client, and that nothing
//! else on the connection is moved by them.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{
    Client, Gateway, Recorded, Session, Upstream, eventually, raw, raw_until_close, response,
};

/// One 103 as upstreams send it, and as clients get it.
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
const HINTED: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";

/// A gateway before this upstream; `limits` is what `[server.limits]` says.
fn gateway(upstream: &Upstream, limits: &str) -> Gateway {
    Gateway::start(&format!(
        "[server.limits]\n{limits}\n{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ))
}

/// A gateway whose upstream sends `before` ahead of each answer, in one write.
fn stage(before: impl Into<String>) -> (Gateway, Upstream) {
    let upstream = Upstream::replying(before.into() + &response("200 OK", "hello"));
    (gateway(&upstream, ""), upstream)
}

/// A request without a body.
fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n")
}

/// Reads interim heads up to and including the head of the final response: all of them, and that.
fn heads(session: &mut Session) -> (Vec<String>, String) {
    let mut interim = Vec::new();
    loop {
        let head = session.read_until("\r\n\r\n");
        if !head.starts_with("HTTP/1.1 1") {
            return (interim, head);
        }
        interim.push(head);
    }
}

#[test]
fn hints_reach_the_client_before_there_is_an_answer() {
    let released = Arc::new(AtomicBool::new(false));
    let wait = Arc::clone(&released);
    let upstream = Upstream::with(move |_, connection| {
        connection.write_all(HINTS.as_bytes()).unwrap();
        eventually("the client has its hints", || wait.load(Ordering::SeqCst));
        connection.write_all(response("200 OK", "hello").as_bytes()).unwrap();
    });
    let gateway = gateway(&upstream, "");
    let mut session = Session::open(gateway.public);
    for _ in 0..3 {
        session.write(request("GET", "/x"));
        assert_eq!(session.read_until("\r\n\r\n"), HINTED);
        released.store(true, Ordering::SeqCst);
        let reply = session.read();
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        released.store(false, Ordering::SeqCst);
    }
    assert_eq!(upstream.connections(), 1, "the upstream connection is used again");
    eventually("each request has one line", || {
        let lines = gateway.access_lines();
        lines.len() == 3 && lines.iter().all(|line| line["status"] == 200)
    });
}

#[test]
fn hints_in_one_piece_with_the_answer_come_first() {
    let processing = "HTTP/1.1 102 Processing\r\n\r\n";
    let other = "HTTP/1.1 199 Whatever\r\nX-A: 1\r\nX-A: 2\r\n\r\n";
    let (gateway, _upstream) = stage(format!("{processing}{HINTS}{other}{HINTS}"));
    let answer = raw(gateway.public, request("GET", "/x"));
    let other = "HTTP/1.1 199 \r\nx-a: 1\r\nx-a: 2\r\n\r\n";
    let expected = format!("{processing}{HINTED}{other}{HINTED}HTTP/1.1 200 OK\r\n");
    assert!(answer.starts_with(&expected), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
}

#[test]
fn fields_of_the_upstreams_connection_stay_behind() {
    let (gateway, _upstream) = stage(
        "HTTP/1.1 103 Early Hints\r\nConnection: X-Hop\r\nX-Hop: 1\r\nLink: </a>\r\n\
         Keep-Alive: timeout=5\r\nContent-Length: 5\r\nX-Request-Id: theirs\r\n\r\n",
    );
    let mut session = Session::open(gateway.public);
    for _ in 0..2 {
        session.write(request("GET", "/x"));
        let hints = session.read_until("\r\n\r\n");
        assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        assert_eq!(session.read().text(), "hello");
    }
}

#[test]
fn a_continue_of_the_upstream_is_not_passed_on() {
    let (gateway, _upstream) = stage("HTTP/1.1 100 Continue\r\n\r\n");
    let answer = raw(gateway.public, request("GET", "/x"));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

    // The gateway's own comes once, whatever the upstream says.
    let (gateway, _upstream) = stage(format!("HTTP/1.1 100 Continue\r\n\r\n{HINTS}"));
    let mut session = Session::open(gateway.public);
    session.write(
        "POST /x HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    );
    assert_eq!(session.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    session.write("hi");
    let (interim, last) = heads(&mut session);
    assert_eq!(interim, [HINTED]);
    assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
}

#[test]
fn pipelined_answers_keep_their_order() {
    let upstream = Upstream::with(|request: &Recorded, connection: &mut TcpStream| {
        let path = request.target();
        let hints = format!("HTTP/1.1 103 Early Hints\r\nX-Of: {path}\r\n\r\n");
        let large = if path == "/large" { "x".repeat(4 << 20) } else { path.to_owned() };
        let _ = connection.write_all((hints + &response("200 OK", &large)).as_bytes());
    });
    let gateway = gateway(&upstream, "");
    let mut session = Session::open(gateway.public);
    let paths = ["/slow", "/large", "/next", "/last"];
    let all: String = paths.map(|path| request("GET", path)).concat();
    session.write(all);
    // Nobody reads until the gateway can write no more: the hints for the next one must wait.
    eventually("the large answer is on its way", || upstream.seen() >= 2);
    for path in paths {
        let (interim, last) = heads(&mut session);
        assert_eq!(interim, [format!("HTTP/1.1 103 Early Hints\r\nx-of: {path}\r\n\r\n")]);
        assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
        let length = if path == "/large" { 4 << 20 } else { path.len() };
        assert!(last.contains(&format!("content-length: {length}\r\n")), "{last}");
        let body = session.read_exactly(length);
        assert!(path == "/large" || body == path, "{body}");
    }
}

/// Answers whose heads alone are more than the socket takes, to a client that reads late.
#[test]
fn heads_that_wait_for_the_client_are_not_broken_up() {
    const REQUESTS: usize = 400;
    let field = format!("X-Large: {}\r\n", "x".repeat(30 << 10));
    let last = format!("HTTP/1.1 204 No Content\r\n{field}\r\n");
    let upstream = Upstream::with(move |_, connection| {
        let _ = connection.write_all(format!("{HINTS}{last}").as_bytes());
    });
    let gateway = gateway(&upstream, "");
    let mut session = Session::open(gateway.public);
    session.write(request("GET", "/x").repeat(REQUESTS));
    eventually("answers wait", || upstream.seen() >= 2);
    for number in 0..REQUESTS {
        let (interim, head) = heads(&mut session);
        assert_eq!(interim, [HINTED], "{number}");
        assert!(head.starts_with("HTTP/1.1 204 No Content\r\n"), "{number}");
        assert!(head.len() > 30 << 10, "{number}: {head}");
    }
    assert_eq!(upstream.seen(), REQUESTS);
}

#[test]
fn before_answers_without_a_body_and_chunked_ones() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for (method, last, body) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ""),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n", ""),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("GET", chunked, "5\r\nhello\r\n0\r\n\r\n"),
        ("DELETE", "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "no"),
    ] {
        let upstream = Upstream::with(move |_, connection| {
            let _ = connection.write_all(format!("{HINTS}{last}").as_bytes());
        });
        let gateway = gateway(&upstream, "");
        let mut session = Session::open(gateway.public);
        for _ in 0..2 {
            session.write(request(method, "/x"));
            let (interim, head) = heads(&mut session);
            assert_eq!(interim, [HINTED], "{method} {last:?}");
            assert_eq!(head.lines().next(), last.lines().next(), "{method}");
            assert_eq!(session.read_exactly(body.len()), body, "{method} {last:?}");
        }
    }
}

#[test]
fn a_failure_after_hints_is_an_answer_of_its_own() {
    let upstream = Upstream::with(|_, connection| {
        let _ = connection.write_all(HINTS.as_bytes());
        let _ = connection.shutdown(std::net::Shutdown::Both);
    });
    let gateway = gateway(&upstream, "");
    let answer = raw(gateway.public, request("POST", "/x"));
    assert!(answer.starts_with(&format!("{HINTED}HTTP/1.1 502 ")), "{answer}");
}

#[test]
fn an_older_client_gets_none() {
    let (gateway, _upstream) = stage(HINTS);
    let old = "GET /x HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n";
    let answer = raw(gateway.public, old);
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    let last = raw_until_close(gateway.public, "GET /x HTTP/1.0\r\nHost: shop.test\r\n\r\n");
    assert!(last.starts_with("HTTP/1.0 200 OK\r\n"), "{last}");
    assert!(last.ends_with("\r\n\r\nhello"), "{last}");
}

#[test]
fn a_flood_of_hints_is_bounded() {
    for (limits, most) in [("", 8), ("interim_responses = 3", 3), ("interim_responses = 0", 0)] {
        let flood = HINTS.repeat(1000) + &response("200 OK", "hello");
        let upstream = Upstream::replying(flood);
        let gateway = gateway(&upstream, limits);
        let mut session = Session::open(gateway.public);
        for _ in 0..3 {
            session.write(request("GET", "/x"));
            let (interim, head) = heads(&mut session);
            assert_eq!(interim, vec![HINTED; most], "{limits}");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert_eq!(session.read_exactly(5), "hello");
        }
    }
}

#[test]
fn a_head_that_is_too_large_is_left_out() {
    let large = format!("HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n", "x".repeat(17 << 10));
    let (gateway, _upstream) = stage(format!("{large}{HINTS}{large}"));
    let mut session = Session::open(gateway.public);
    session.write(request("GET", "/x"));
    let (interim, _) = heads(&mut session);
    assert_eq!(interim, [HINTED]);
    assert_eq!(session.read_exactly(5), "hello");
}

#[test]
fn an_answer_from_the_cache_has_no_hints() {
    let stored = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello";
    let upstream = Upstream::with(move |_, connection| {
        let _ = connection.write_all(format!("{HINTS}{stored}").as_bytes());
    });
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n[routes.all.cache]\nttl = \"1m\"\n",
        upstream.table("shop")
    ));
    let mut session = Session::open(gateway.public);
    for expected in [vec![HINTED.to_owned()], vec![]] {
        session.write(request("GET", "/x"));
        let (interim, _) = heads(&mut session);
        assert_eq!(interim, expected);
        assert_eq!(session.read_exactly(5), "hello");
    }
    assert_eq!(upstream.seen(), 1);
}

/// However the upstream cuts its bytes into pieces, the client gets the same ones.
#[test]
fn pieces_make_no_difference() {
    const ROUNDS: usize = 300;
    let upstream = Upstream::with(|request: &Recorded, connection: &mut TcpStream| {
        let mut random = fastrand::Rng::with_seed(request.target()[1..].parse().unwrap());
        let bytes = format!("{HINTS}{HINTS}HTTP/1.1 100 Continue\r\n\r\n{HINTS}")
            + &response("200 OK", request.target());
        let mut rest = bytes.as_bytes();
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(random.usize(1..=rest.len().min(120)));
            let _ = connection.write_all(piece);
            if random.bool() {
                std::thread::yield_now();
            }
            rest = more;
        }
    });
    let gateway = gateway(&upstream, "");
    let mut session = Session::open(gateway.public);
    for round in 0..ROUNDS {
        let path = format!("/{round}");
        session.write(request("GET", &path));
        let (interim, head) = heads(&mut session);
        assert_eq!(interim, [HINTED; 3], "seed {round}");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "seed {round}: {head}");
        assert_eq!(session.read_exactly(path.len()), path, "seed {round}");
    }
    // Whoever uses a library that skips interim responses sees nothing of them.
    assert_eq!(Client::get(gateway.public, "/1").send().text(), "/1");
}
