//! Bodies that stream in both directions, and upstreams and clients that go away.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use crate::support::{
    Chunks, Client, Gateway, PATIENCE, Session, Upstream, eventually, post, response,
};

fn in_front_of(upstream: &Upstream, settings: &str) -> Gateway {
    Gateway::start(&format!(
        "[server.limits]\nbody_bytes = \"64MiB\"\n{}{settings}
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"",
        upstream.table("shop")
    ))
}

#[test]
fn an_upload_passes_while_it_is_sent() {
    let (arrived, arrives) = channel();
    let arrived = Mutex::new(arrived);
    let upstream = Upstream::raw(move |stream| {
        let mut chunks = Chunks::of(stream);
        let _ = chunks.until(b"first");
        let _ = arrived.lock().unwrap().send("first");
        let _ = chunks.until(b"last");
        let _ = arrived.lock().unwrap().send("last");
        let _ = chunks.stream().write_all(response("200 OK", "fine").as_bytes());
        let _ = chunks.rest();
    });
    let gateway = in_front_of(&upstream, "");
    for (fields, first, last) in [
        ("Content-Length: 9", "first", "last"),
        ("Transfer-Encoding: chunked", "5\r\nfirst\r\n", "4\r\nlast\r\n0\r\n\r\n"),
    ] {
        let mut session = Session::open(gateway.public);
        session.write(post(fields.as_bytes(), first.as_bytes()));
        assert_eq!(arrives.recv_timeout(PATIENCE), Ok("first"), "{fields}");
        session.write(last);
        assert_eq!(arrives.recv_timeout(PATIENCE), Ok("last"), "{fields}");
        assert_eq!(session.read().text(), "fine");
        upstream.hang_up();
    }
}

#[test]
fn a_download_passes_while_it_is_sent() {
    for (fields, first, last) in [
        ("Content-Length: 9", "first", "last"),
        ("Transfer-Encoding: chunked", "5\r\nfirst\r\n", "4\r\nlast\r\n0\r\n\r\n"),
        ("Content-Type: text/event-stream", "first", "last"),
    ] {
        let (go, goes) = channel::<()>();
        let goes = Mutex::new(goes);
        let upstream = Upstream::with(move |_, connection| {
            let _ = write!(connection, "HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{first}");
            if goes.lock().unwrap().recv_timeout(PATIENCE).is_ok() {
                let _ = connection.write_all(last.as_bytes());
            }
            if fields.starts_with("Content-Type") {
                let _ = connection.shutdown(Shutdown::Both);
            }
        });
        let gateway = in_front_of(&upstream, "");
        let mut session = Session::open(gateway.public);
        session.write("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n");
        session.read_until("first");
        go.send(()).unwrap();
        session.read_until("last");
    }
}

/// A body in which every part differs from every other.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn large_bodies_arrive_as_they_were_sent() {
    const LENGTH: usize = 24 << 20;
    let upstream = Upstream::with(|request, connection| {
        let length = request.body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let _ = connection.write_all(head.as_bytes());
        let _ = connection.write_all(&request.body);
    });
    let gateway = in_front_of(&upstream, "");
    let body = pattern(LENGTH);
    let reply = Client::request(gateway.public, "POST", "/").body(&body).send();
    assert!(upstream.only().body == body, "the upload differs");
    assert!(reply.body == body, "the download differs");
    upstream.forget();

    let mut chunked = Vec::new();
    for (index, piece) in body[..1 << 20].chunks(1009).enumerate() {
        write!(chunked, "{:x}\r\n", piece.len()).unwrap();
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
        assert!(index < 2000);
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let mut session = Session::open(gateway.public);
    session.write(post(b"Transfer-Encoding: chunked", &chunked));
    assert!(session.read().body == body[..1 << 20], "the download differs");
    assert!(upstream.only().body == body[..1 << 20], "the upload differs");
}

#[test]
fn an_early_answer_ends_the_upload() {
    let upstream = Upstream::raw(|stream| {
        let mut chunks = Chunks::of(stream);
        let _ = chunks.until(b"\r\n\r\n");
        let answer = response("413 Content Too Large\r\nConnection: close", "too much");
        let _ = chunks.stream().write_all(answer.as_bytes());
        let _ = chunks.stream().shutdown(Shutdown::Write);
        let _ = chunks.rest();
    });
    let gateway = in_front_of(&upstream, "");
    let mut session = Session::open(gateway.public);
    session.write(post(b"Content-Length: 1000000", b"some of it"));
    let reply = session.read();
    assert_eq!((reply.status, reply.text().as_str()), (413, "too much"));
    session.rest();
}

#[test]
fn a_client_that_leaves_takes_its_upstream_request_along() {
    // Reads until the gateway hangs up.
    let upstream = Upstream::with(|request, connection| {
        if request.target() == "/endless" {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome");
        }
        let _ = connection.read(&mut [0; 16]);
    });
    let gateway = in_front_of(&upstream, "");
    for case in [
        "GET /wait HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "GET /endless HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "POST /upload HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\nhello",
    ] {
        let mut session = Session::open(gateway.public);
        session.write(case);
        eventually("the upstream has it", || upstream.open() == 1);
        if case.contains("/endless") {
            session.read_until("some");
        } else if case.starts_with("GET") {
            eventually("the upstream has read it", || upstream.seen() > 0);
        }
        drop(session);
        eventually("the upstream is free again", || upstream.open() == 0);
        upstream.forget();
    }
    eventually("each has its line", || gateway.access_lines().len() == 3);
}

/// An upstream that answers each request as `plan` says, by number, from 0: or it hangs up.
fn unreliable(plan: &'static [bool]) -> Upstream {
    let number = AtomicUsize::new(0);
    Upstream::with(move |_, connection| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        let _ = if plan.get(number).copied().unwrap_or(true) {
            connection.write_all(response("200 OK", "fine").as_bytes())
        } else {
            connection.shutdown(Shutdown::Both)
        };
    })
}

#[test]
fn a_connection_that_the_upstream_closed_at_rest_costs_nobody_anything() {
    let upstream = unreliable(&[]);
    let gateway = in_front_of(&upstream, "");
    for method in ["GET", "POST", "DELETE", "PATCH", "POST", "PUT"] {
        assert_eq!(Client::get(gateway.public, "/first").send().status, 200);
        // The end is there when the next request comes, however soon that is.
        upstream.hang_up();
        let reply = Client::request(gateway.public, method, "/second").body("x").send();
        assert_eq!(reply.status, 200, "{method}");
        assert_eq!(upstream.seen(), 2, "{method}");
        upstream.forget();
    }
}

#[test]
fn a_request_that_met_a_closing_connection_is_repeated_when_that_is_safe() {
    for (method, body, status, seen) in [
        ("GET", None, 200, 3),
        ("HEAD", None, 200, 3),
        ("DELETE", None, 200, 3),
        ("POST", None, 502, 2),
        ("POST", Some("order"), 502, 2),
        ("PATCH", Some("order"), 502, 2),
        ("PUT", Some("order"), 502, 2),
    ] {
        let upstream = unreliable(&[true, false]);
        let gateway = in_front_of(&upstream, "");
        // One connection, because the thread that serves it keeps the upstream connection at rest.
        let mut session = Session::open(gateway.public);
        assert_eq!(session.get("/").send().status, 200);
        let mut request = session.request(method, "/again");
        if let Some(body) = body {
            request = request.body(body);
        }
        // The unreliable upstream sends a body even to HEAD.
        let reply = request.send();
        assert_eq!((reply.status, upstream.seen()), (status, seen), "{method} {body:?}");
        if status == 502 {
            assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        }
    }
}

#[test]
fn a_request_on_a_new_connection_is_never_repeated() {
    for method in ["GET", "POST"] {
        let upstream = unreliable(&[false]);
        let gateway = in_front_of(&upstream, "");
        assert_eq!(Client::request(gateway.public, method, "/").send().status, 502, "{method}");
        assert_eq!(upstream.seen(), 1, "{method}");
    }
}

#[test]
fn nobody_listens() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::start(&format!(
        "[upstreams.shop]\nservers = [\"http://{free}\"]\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n"
    ));
    let reply = Client::request(gateway.public, "POST", "/").body("x").send();
    assert_eq!(reply.status, 502);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let problem = reply.json();
    for field in ["type", "title", "detail", "request_id"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    assert_eq!(problem["status"], 502);
    assert_eq!(problem["request_id"], reply.header("x-request-id").unwrap());
    // Where it would have gone is nobody's business but the operator's.
    assert!(!reply.text().contains(&free.port().to_string()), "{}", reply.text());
    eventually("the log has it", || gateway.access_lines().len() == 1);
    assert_eq!(gateway.access_lines()[0]["status"], 502);
}

#[test]
fn an_upstream_that_does_not_answer_in_time() {
    let upstream = Upstream::with(|_, connection| {
        let _ = connection.read(&mut [0; 16]);
    });
    let gateway = in_front_of(&upstream, "response_timeout = \"1s\"\n");
    for method in ["GET", "POST"] {
        let reply = Client::request(gateway.public, method, "/").send();
        assert_eq!(reply.status, 504, "{method}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        eventually("the connection is given up", || upstream.open() == 0);
        assert_eq!(upstream.seen(), 1, "{method}");
        upstream.forget();
    }
}

#[test]
fn an_upstream_that_pauses_for_too_long() {
    let upstream = Upstream::with(|_, connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        let _ = connection.read(&mut [0; 16]);
    });
    let gateway = in_front_of(&upstream, "read_timeout = \"1s\"\n");
    let error = Client::get(gateway.public, "/").try_send().unwrap_err();
    assert!(error.contains("cut off"), "{error}");
    eventually("the connection is given up", || upstream.open() == 0);
    eventually("the log says why", || {
        gateway.access_lines().iter().any(|line| line["reason"] == "upstream_stalled")
    });
}

#[test]
fn a_busy_upstream_says_when_to_come_again() {
    let waiting: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let kept = Arc::clone(&waiting);
    let upstream = Upstream::with(move |_, connection| {
        kept.lock().unwrap().extend(connection.try_clone());
        let _ = connection.read(&mut [0; 16]);
    });
    let gateway = in_front_of(&upstream, "max_connections = 1\nconnect_timeout = \"1s\"\n");
    let mut first = Session::open(gateway.public);
    first.write("GET /first HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("the upstream is busy", || upstream.seen() == 1);
    let reply = Client::get(gateway.public, "/second").send();
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    assert_eq!(upstream.connections(), 1);
    let mut busy = waiting.lock().unwrap().remove(0);
    busy.write_all(response("200 OK", "fine").as_bytes()).unwrap();
    assert_eq!(first.read().text(), "fine");
}

#[test]
fn trailers_of_responses_stay_behind() {
    let upstream = Upstream::replying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Late: 1\r\nSet-Cookie: a=b\r\n\r\n",
    );
    let gateway = in_front_of(&upstream, "");
    for te in ["trailers", "gzip"] {
        let reply = Client::get(gateway.public, "/").header("TE", te).send();
        assert_eq!((reply.text().as_str(), reply.trailers), ("hello", Vec::new()));
        assert!(reply.headers.iter().all(|(name, _)| name != "trailer" && name != "x-late"));
    }
}
