//! Deadlines and bounds: what a slow, silent, greedy or departing client may take, and how the
//! gateway itself departs.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{
    AUTH, Client, Gateway, PATIENCE, Session, Upstream, eventually, post, raw_until_close,
    response, status,
};

/// A gateway with these `[server.limits]`, and `/*` behind it.
fn bounded(limits: &str, upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "[server.limits]\n{limits}\n{AUTH}{}
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"
        [routes.private]
        path = \"/private\"
        upstream = \"shop\"
        auth = \"users\"",
        upstream.table("shop")
    ))
}

fn fine() -> Upstream {
    Upstream::replying(response("200 OK", "fine"))
}

/// Sends `piece` again and again, with a pause between (a read that waits for the gateway), until
/// the gateway ends the connection. Returns what it said.
fn drip(address: SocketAddr, start: impl AsRef<[u8]>, piece: &[u8]) -> String {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PAUSE)).unwrap();
    stream.write_all(start.as_ref()).unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        match stream.read(&mut buffer) {
            Ok(0) => return String::from_utf8_lossy(&said).into_owned(),
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // A closed connection shows at the next read.
                let _ = stream.write_all(piece);
            }
            Err(_) => return String::from_utf8_lossy(&said).into_owned(),
        }
    }
    panic!("a slow client is served for ever; it was told: {}", String::from_utf8_lossy(&said));
}

#[test]
fn a_silent_connection_is_closed_silently() {
    let upstream = fine();
    let gateway = bounded("header_timeout = \"1s\"", &upstream);
    assert_eq!(raw_until_close(gateway.public, ""), "");
}

#[test]
fn half_a_head_is_told_so() {
    let upstream = fine();
    let gateway = bounded("header_timeout = \"1s\"", &upstream);
    let begun =
        ["G", "GET /", "GET / HTTP/1.1\r\nHost: shop.test\r\nX: ", "\r\n", "PRI", "PRI * H"];
    for (before, begun) in begun.into_iter().enumerate() {
        let answer = raw_until_close(gateway.public, begun);
        assert_eq!(status(&answer), 408, "{begun:?}: {answer}");
        eventually("the log has it", || gateway.access_lines().len() == before + 1);
    }
    assert!(gateway.access_lines().iter().all(|line| line["status"] == 408));
    // Dripping does not extend the time.
    let answer = drip(gateway.public, "GET / HTTP/1.1\r\nHost: shop.test\r\n", b"X: y\r\n");
    assert_eq!(status(&answer), 408, "{answer}");
    let next = drip(gateway.public, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\nGET", b"x");
    assert!(next.starts_with("HTTP/1.1 200") && next.contains("HTTP/1.1 408"), "{next}");
    assert_eq!(upstream.seen(), 1);
}

#[test]
fn a_silent_http2_connection_is_closed() {
    let upstream = fine();
    let gateway = bounded("header_timeout = \"1s\"\nidle_timeout = \"1s\"", &upstream);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0u8, 0, 0, 4, 0, 0, 0, 0, 0];
    raw_until_close(gateway.public, preface);
    raw_until_close(gateway.public, [&preface[..], &settings].concat());
    // Frames that ask for nothing do not extend the time.
    let ping = [0u8, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    drip(gateway.public, [&preface[..], &settings].concat(), &ping);
}

#[test]
fn a_stalled_body_ends_its_request() {
    let upstream = fine();
    let gateway = bounded("progress_timeout = \"1s\"", &upstream);
    for case in [
        post(b"Content-Length: 10", b"hello"),
        post(b"Content-Length: 10", b""),
        post(b"Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
        post(b"Transfer-Encoding: chunked", b"5\r\nhel"),
        post(b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n"),
    ] {
        let what = String::from_utf8_lossy(&case).into_owned();
        let answer = raw_until_close(gateway.public, &case);
        assert!(matches!(status(&answer), 0 | 408), "{what:?}: {answer}");
        eventually("the upstream is free again", || upstream.open() == 0);
    }
    // A drip below progress_bytes is a stall too.
    let answer = drip(gateway.public, post(b"Content-Length: 9000", b""), b"x");
    assert!(matches!(status(&answer), 0 | 408), "{answer}");
    eventually("the upstream is free again", || upstream.open() == 0);
    assert_eq!(upstream.seen(), 0);
}

#[test]
fn a_short_rest_between_requests_demands_no_faster_body() {
    let upstream = fine();
    let gateway = bounded("idle_timeout = \"1s\"\nprogress_timeout = \"1h\"", &upstream);
    let mut session = Session::open(gateway.public);
    session.write("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 6\r\n\r\nhello");
    session.stream().set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    assert!(session.stream().read(&mut [0; 64]).is_err(), "it waits for what is missing");
    session.write("!");
    assert_eq!(session.read().status, 200);
}

#[test]
fn a_stalled_body_that_nobody_reads_ends_its_connection() {
    let upstream = fine();
    let gateway = bounded("progress_timeout = \"1s\"\nidle_timeout = \"1s\"", &upstream);
    let head = "POST /private HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 9000\r\n\r\n";
    let answer = raw_until_close(gateway.public, head);
    assert_eq!(status(&answer), 401, "{answer}");
    let answer = drip(gateway.public, head, b"x");
    assert_eq!(status(&answer), 401, "{answer}");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_reader_that_does_not_read_is_cut_off() {
    const LENGTH: usize = 64 << 20;
    let upstream = Upstream::with(|_, connection| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        let _ = connection.write_all(head.as_bytes());
        let piece = vec![b'x'; 1 << 16];
        let _ = (0..LENGTH / piece.len()).try_for_each(|_| connection.write_all(&piece));
    });
    let gateway = bounded("progress_timeout = \"1s\"", &upstream);
    let mut session = Session::open(gateway.public);
    session.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("the upstream sends", || upstream.open() == 1);
    eventually("the upstream is free again", || upstream.open() == 0);
    assert!(session.rest().len() < LENGTH, "the whole response was sent to nobody");
    // Others are served meanwhile and after.
    assert_eq!(Client::request(gateway.public, "HEAD", "/private").send().status, 401);
}

#[test]
fn places_are_bounded_in_all() {
    let upstream = fine();
    let gateway = bounded("connections = 2", &upstream);
    let mut first = Session::open(gateway.public);
    let mut second = Session::open(gateway.public);
    assert_eq!(first.get("/").send().status, 200);
    assert_eq!(second.get("/").send().status, 200);
    let answer = raw_until_close(gateway.public, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.to_ascii_lowercase().contains("retry-after:"), "{answer}");
    assert_eq!(first.get("/").send().status, 200);
    drop(second);
    eventually("a place is free", || {
        Client::get(gateway.public, "/").try_send().is_ok_and(|reply| reply.status == 200)
    });
}

#[test]
fn places_are_bounded_for_each_address() {
    let upstream = fine();
    let gateway = bounded("connections_per_address = 1", &upstream);
    let mut first = Session::open(gateway.public);
    assert_eq!(first.get("/").send().status, 200);
    let answer = raw_until_close(gateway.public, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(status(&answer), 503, "{answer}");
    assert_eq!(first.get("/").send().status, 200);

    let trusted = Gateway::start(&format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[server.limits]\n\
         connections_per_address = 1\n{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let mut sessions: Vec<_> = (0..3).map(|_| Session::open(trusted.public)).collect();
    assert!(sessions.iter_mut().all(|session| session.get("/").send().status == 200));
}

#[test]
fn bodies_are_bounded() {
    let upstream = fine();
    let gateway = bounded("body_bytes = \"1KiB\"", &upstream);
    let chunks = |count: usize| {
        let body = format!("80\r\n{}\r\n", "x".repeat(128)).repeat(count) + "0\r\n\r\n";
        post(b"Transfer-Encoding: chunked", body.as_bytes())
    };
    let sized = |count: usize| {
        let fields = format!("Content-Length: {count}");
        post(fields.as_bytes(), "x".repeat(count).as_bytes())
    };
    for case in [sized(1025), sized(100_000), chunks(9), chunks(1000)] {
        let answer = raw_until_close(gateway.public, case);
        assert_eq!(status(&answer), 413, "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert_eq!(upstream.seen(), 0);
    }
    // Nobody needs to see such a body to refuse it.
    let head = post(b"Expect: 100-continue\r\nContent-Length: 1025", b"");
    let answer = raw_until_close(gateway.public, head);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    for case in [sized(1024), chunks(8)] {
        let answer = crate::support::raw(gateway.public, case);
        assert_eq!(status(&answer), 200, "{answer}");
    }
    assert_eq!(upstream.seen(), 2);
}

#[test]
fn heads_are_bounded() {
    let upstream = fine();
    let gateway = bounded("header_bytes = \"8KiB\"\nheaders = 10", &upstream);
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n");
    let long = |bytes: usize| get(&format!("X: {}\r\n", "x".repeat(bytes)));
    let many = |count: usize| get(&(1..count).map(|i| format!("X-{i}: y\r\n")).collect::<String>());
    assert_eq!(status(&crate::support::raw(gateway.public, long(7 << 10))), 200);
    assert_eq!(status(&crate::support::raw(gateway.public, many(10))), 200);
    upstream.forget();
    for case in [long(9 << 10), long(64 << 10), long(1 << 20), many(11), many(100), many(500)] {
        let what = &case[..60];
        let answer = raw_until_close(gateway.public, &case);
        assert!(matches!(status(&answer), 0 | 431), "{what}: {answer}");
        assert_eq!(upstream.seen(), 0, "{what}");
    }
    for case in [long(9 << 10), many(11)] {
        assert_eq!(status(&raw_until_close(gateway.public, case)), 431);
    }
}

#[test]
fn every_refused_head_has_one_line_in_the_log() {
    let upstream = fine();
    let gateway = bounded("header_bytes = \"8KiB\"\nheaders = 10", &upstream);
    let many: String = (0..50).map(|i| format!("X-{i}: y\r\n")).collect();
    let mut expected = 0;
    for case in [
        "NOT HTTP\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: shop.test\r\n\r\n", "x".repeat(9000)),
        format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{many}\r\n"),
    ] {
        let answer = raw_until_close(gateway.public, &case);
        expected += 1;
        eventually("the log has it", || gateway.access_lines().len() >= expected);
        // What was written twice would stand before the line of the next request.
        Client::get(gateway.public, "/").send();
        expected += 1;
        eventually("the log has the next", || gateway.access_lines().len() >= expected);
        let lines = gateway.access_lines();
        assert_eq!(lines.len(), expected, "{case:?}: {lines:?}");
        assert_eq!(lines[expected - 1]["status"], 200, "{lines:?}");
        assert_eq!(lines[expected - 2]["status"], status(&answer), "{case:?}: {lines:?}");
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let upstream = fine();
    let gateway = bounded("idle_timeout = \"1s\"", &upstream);
    let mut session = Session::open(gateway.public);
    assert_eq!(session.get("/").send().status, 200);
    assert_eq!(session.get("/").send().status, 200);
    assert_eq!(session.rest(), "");
}

/// An upstream that answers when it is told to.
fn patient() -> (Upstream, Sender<()>) {
    let (tell, told) = channel();
    let told: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(told));
    let upstream = Upstream::with(move |_, connection| {
        if told.lock().unwrap().recv().is_ok() {
            let _ = connection.write_all(response("200 OK", "fine").as_bytes());
        }
    });
    (upstream, tell)
}

#[test]
fn a_drain_finishes_what_has_begun() {
    let (upstream, tell) = patient();
    let mut gateway = bounded("", &upstream);
    let mut idle = Session::open(gateway.public);
    tell.send(()).unwrap();
    assert_eq!(idle.get("/").send().status, 200);
    let mut busy = Session::open(gateway.public);
    busy.write("GET /busy HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("the request is at the upstream", || upstream.seen() == 2);
    gateway.signal("TERM");
    eventually("nobody new is let in", || TcpStream::connect(gateway.public).is_err());
    assert_eq!(idle.rest(), "", "an idle connection ends");
    tell.send(()).unwrap();
    let reply = busy.read();
    assert_eq!((reply.status, reply.text().as_str()), (200, "fine"));
    assert_eq!(busy.rest(), "");
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(gateway.access_lines().len(), 2);
}

#[test]
fn a_drain_ends() {
    let (upstream, _tell) = patient();
    let mut gateway = Gateway::start(&format!(
        "[server]\ndrain = \"1s\"\n{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let mut busy = Session::open(gateway.public);
    busy.write("GET /busy HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("the request is at the upstream", || upstream.seen() == 1);
    gateway.signal("INT");
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(busy.rest(), "");
    assert_eq!(gateway.access_lines().len(), 1);
}

#[test]
fn a_drain_waits_until_load_balancers_know() {
    let upstream = fine();
    let mut gateway = Gateway::start(&format!(
        "[server]\ndrain_delay = \"1h\"\n{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let ready = || Client::get(gateway.admin, "/readyz").send().status;
    let mut kept = Session::open(gateway.public);
    assert_eq!((ready(), kept.get("/").send().status), (200, 200));
    gateway.signal("TERM");
    eventually("load balancers are told", || ready() == 503);
    for _ in 0..3 {
        assert_eq!(Client::get(gateway.public, "/").send().status, 200, "on a new connection");
        assert_eq!(kept.get("/").send().status, 200, "and on one that was open");
    }
    for other in ["HUP", "USR1"] {
        gateway.signal(other);
        assert_eq!((ready(), kept.get("/").send().status), (503, 200), "{other}");
    }
    gateway.signal("INT");
    assert_eq!(gateway.wait().code(), Some(1), "a second signal ends it at once");
}

#[test]
fn a_drain_begins_when_its_delay_is_over() {
    let upstream = fine();
    let mut gateway = Gateway::start(&format!(
        "[server]\ndrain_delay = \"1ms\"\n{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    gateway.signal("INT");
    assert_eq!(gateway.wait().code(), Some(0));
    let said = gateway.stderr();
    assert!(said.contains("server.drain_delay") && said.contains("draining"), "{said}");
}

#[test]
fn signals_that_others_reopen_logs_by_end_nothing() {
    let upstream = fine();
    let gateway = Gateway::start(&format!(
        "[server]\nhandover = false\n{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    for name in ["USR1", "USR2", "WINCH", "PIPE"] {
        gateway.signal(name);
        assert_eq!(Client::get(gateway.public, "/").send().status, 200, "{name}");
    }
    eventually("it is said", || {
        let said = gateway.stderr();
        said.contains("SIGUSR1: nothing to reopen") && said.contains("SIGUSR2: nothing to do")
    });
}
