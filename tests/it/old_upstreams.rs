//! Upstreams of HTTP/1.0, lengths that are written twice, and heads beyond their bounds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use crate::support::{Client, Gateway, Upstream, eventually, raw, raw_until_close, status};

/// What the upstream says, until the test has it say something else. It closes after each answer.
type Script = Arc<Mutex<String>>;

/// A gateway with a plain route and a cached one before an upstream that says what it is told.
fn stage(settings: &str) -> (Gateway, Upstream, Script) {
    let script = Script::default();
    let told = Arc::clone(&script);
    let upstream = Upstream::raw(move |stream| say(stream, &told.lock().unwrap().clone()));
    let gateway = Gateway::start(&format!(
        "{}{settings}
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"
        [routes.cached]
        path = \"/cached/*\"
        upstream = \"shop\"
        cache = {{ ttl = \"60s\" }}",
        upstream.table("shop")
    ));
    (gateway, upstream, script)
}

/// Reads one head and answers it.
fn say(mut stream: TcpStream, answer: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let _ = stream.write_all(answer.as_bytes());
}

fn tell(script: &Script, answer: impl Into<String>) {
    *script.lock().unwrap() = answer.into();
}

#[test]
fn the_client_gets_the_gateways_version() {
    let (gateway, _upstream, script) = stage("");
    let get = |path: &str, version: &str| {
        let request = format!("GET {path} HTTP/{version}\r\nHost: shop.test\r\n");
        raw_until_close(gateway.public, request + "Connection: close\r\n\r\n")
    };
    for (number, fields) in
        ["", "Content-Length: 5\r\n", "Connection: keep-alive\r\nContent-Length: 5\r\n"]
            .into_iter()
            .enumerate()
    {
        tell(&script, format!("HTTP/1.0 200 OK\r\n{fields}\r\nhello"));
        // What was kept is replayed in the same way.
        for path in ["/x".to_owned(), format!("/cached/{number}"), format!("/cached/{number}")] {
            let answer = get(&path, "1.1");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{fields:?} {path}: {answer}");
            let lower = answer.to_ascii_lowercase();
            let chunked = lower.contains("transfer-encoding: chunked");
            assert_ne!(chunked, lower.contains("content-length: 5"), "{path}: {answer}");
            let end = if chunked { "5\r\nhello\r\n0\r\n\r\n" } else { "\r\n\r\nhello" };
            assert!(answer.ends_with(end), "{fields:?} {path}: {answer}");
        }
        // A client of HTTP/1.0 gets no chunks: its body ends with the connection, or is measured.
        let answer = get("/x", "1.0");
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        assert!(!answer.to_ascii_lowercase().contains("chunked"), "{answer}");
    }
}

#[test]
fn a_truncated_body_does_not_look_whole() {
    let (gateway, _upstream, script) = stage("");
    tell(&script, "HTTP/1.0 200 OK\r\nContent-Length: 50\r\n\r\nhello");
    for path in ["/x", "/cached/x"] {
        let reply = Client::get(gateway.public, path).try_send();
        let refused = reply.as_ref().is_ok_and(|reply| reply.status == 502);
        assert!(refused || reply.is_err(), "{path}: {reply:?}");
    }
}

#[test]
fn codings_of_http_1_0_are_faulty() {
    let (gateway, _upstream, script) = stage("");
    for (method, head) in [
        ("GET", "200 OK"),
        ("HEAD", "200 OK"),
        ("GET", "304 Not Modified"),
        ("GET", "204 No Content"),
    ] {
        let fields = "Transfer-Encoding: chunked\r\nConnection: keep-alive";
        tell(&script, format!("HTTP/1.0 {head}\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
        let reply = Client::request(gateway.public, method, "/x").send();
        assert_eq!(reply.status, 502, "{method} {head}: {reply:?}");
    }
}

#[test]
fn no_second_request_follows_an_answer_in_http_1_0() {
    let upstream = Upstream::with(|request, stream| {
        let length = request.text().len();
        let fields = format!("Connection: keep-alive\r\nContent-Length: {length}");
        let answer = format!("HTTP/1.0 200 OK\r\n{fields}\r\n\r\n{}", request.text());
        let _ = stream.write_all(answer.as_bytes());
    });
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"",
        upstream.table("shop")
    ));
    for _ in 0..3 {
        // On a connection that had answered in HTTP/1.0 the chunks would be lost.
        let body = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let post = format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{body}");
        let answer = raw(gateway.public, post);
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
    assert_eq!((upstream.seen(), upstream.connections()), (3, 3));
}

#[test]
fn a_length_is_one_number_or_a_502() {
    let (gateway, _upstream, script) = stage("");
    let whole = |version: &str, lines: &str| format!("{version} 200 OK\r\n{lines}\r\n\r\nhello");
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for lines in [
            "Content-Length: 5, 5",
            "Content-Length: 5,5,5",
            "Content-Length: 05",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nX: y\r\nContent-Length: 5, 5",
        ] {
            tell(&script, whole(version, lines));
            for (method, path) in [("GET", "/x"), ("HEAD", "/x"), ("GET", "/cached/x")] {
                let reply = Client::request(gateway.public, method, path).send();
                assert_eq!(reply.status, 200, "{method} {lines:?}: {reply:?}");
                let lengths = reply.headers_named("content-length");
                assert_eq!(lengths, ["5"], "{method} {version} {lines:?}: {reply:?}");
            }
        }
        for lines in [
            "Content-Length: 5, 6",
            "Content-Length: 5,",
            "Content-Length: ,5",
            "Content-Length: +5",
            "Content-Length: 5 5",
            "Content-Length:",
            "Content-Length: 5\r\nContent-Length: 6",
        ] {
            tell(&script, whole(version, lines));
            for (method, path) in [("GET", "/x"), ("HEAD", "/x"), ("GET", "/cached/y")] {
                let reply = Client::request(gateway.public, method, path).send();
                assert_eq!(reply.status, 502, "{method} {version} {lines:?}: {reply:?}");
            }
        }
    }
    tell(&script, "HTTP/1.1 204 No Content\r\nContent-Length: 5, 5\r\n\r\n");
    let reply = Client::get(gateway.public, "/x").send();
    assert_eq!((reply.status, reply.header("content-length")), (204, None));
    tell(&script, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5, 5\r\n\r\n");
    let reply = Client::get(gateway.public, "/x").header("If-None-Match", "\"1\"").send();
    assert_eq!((reply.status, reply.header("content-length")), (304, None));
}

#[test]
fn heads_of_upstreams_are_bounded_by_keys() {
    let head = |fields: usize, bytes: usize| {
        let many: String = (2..fields).map(|i| format!("X-{i}: y\r\n")).collect();
        let long = format!("X: {}\r\n", "x".repeat(bytes));
        format!("HTTP/1.1 200 OK\r\n{many}{long}Content-Length: 5\r\n\r\nhello")
    };
    for (settings, fine, beyond) in [
        ("", [(100, 1), (3, 60 << 10)], [(101, 1), (3, 66 << 10)]),
        (
            "headers = 500\nheader_bytes = \"1MiB\"\n",
            [(500, 1), (3, 1000 << 10)],
            [(501, 1), (3, 1025 << 10)],
        ),
        ("headers = 10\nheader_bytes = \"2KiB\"\n", [(10, 1), (3, 1900)], [(11, 1), (3, 2048)]),
    ] {
        let (gateway, _upstream, script) = stage(settings);
        for (fields, bytes) in fine {
            tell(&script, head(fields, bytes));
            let answer = raw(gateway.public, "GET /x HTTP/1.1\r\nHost: shop.test\r\n\r\n");
            assert_eq!(status(&answer), 200, "{settings:?} {fields} {bytes}");
        }
        for (at, (fields, bytes)) in beyond.into_iter().enumerate() {
            tell(&script, head(fields, bytes));
            let reply = Client::get(gateway.public, "/x").send();
            assert_eq!(reply.status, 502, "{settings:?} {fields} {bytes}");
            assert!(!reply.text().contains("header"), "{}", reply.text());
            let mut line = serde_json::Value::Null;
            eventually("the log has it", || {
                line = gateway.access_lines().get(fine.len() + at).cloned().unwrap_or_default();
                !line.is_null()
            });
            assert_eq!(line["reason"], "upstream_head_too_large", "{line}");
            let error = line["error"].as_str().unwrap_or_default();
            assert!(error.contains("header_bytes") && error.contains("`headers`"), "{line}");
        }
    }
}
