//! What a route allows a request beside what all routes do: the length of its body, and its time.

use std::io::Write;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use crate::support::{Client, Gateway, Upstream, eventually, raw, response, status};

fn chunked(path: &str, bytes: usize) -> String {
    let body = "x".repeat(bytes);
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         {bytes:x}\r\n{body}\r\n0\r\n\r\n"
    )
}

#[test]
fn a_route_has_a_bound_of_its_own_for_bodies() {
    let upstream = Upstream::replying(response("200 OK", "ok"));
    let gateway = Gateway::start(&format!(
        "[server.limits]
        body_bytes = \"100B\"
        {}
        [routes.small]
        path = \"/small\"
        upstream = \"shop\"
        body_bytes = \"10B\"
        [routes.large]
        path = \"/large\"
        upstream = \"shop\"
        body_bytes = \"1000B\"
        [routes.usual]
        path = \"/usual\"
        upstream = \"shop\"",
        upstream.table("shop"),
    ));
    for (path, most) in [("/small", 10), ("/usual", 100), ("/large", 1000)] {
        for (bytes, expected) in [(most, 200), (most + 1, 413)] {
            let post = Client::request(gateway.public, "POST", path);
            let answer = post.body(vec![b'x'; bytes]).send();
            assert_eq!(answer.status, expected, "{path}: {bytes} bytes, announced");
            let answer = raw(gateway.public, chunked(path, bytes));
            assert_eq!(status(&answer), expected, "{path}: {bytes} bytes in chunks");
        }
    }
    eventually("lines that name the bounds", || {
        let lines = gateway.access_lines();
        let of = |route: &str, bound: &str| {
            let is = |line: &&serde_json::Value| line["route"] == route && line["bound"] == bound;
            lines.iter().filter(is).count()
        };
        of("small", "routes.small.body_bytes") == 2
            && of("usual", "server.limits.body_bytes") == 2
            && of("large", "routes.large.body_bytes") == 2
    });
}

#[test]
fn a_request_has_no_more_time_than_its_route_gives_it() {
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::with(move |request, connection| {
        if request.target().starts_with("/slow") {
            let _ = told.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        let _ = connection.write_all(response("200 OK", "ok").as_bytes());
    });
    let gateway = Gateway::start(&format!(
        "{}
        [routes.slow]
        path = \"/slow/*\"
        upstream = \"shop\"
        deadline = \"200ms\"
        [routes.kept]
        path = \"/slow/kept\"
        upstream = \"shop\"
        cache = {{}}
        deadline = \"200ms\"
        [routes.quick]
        path = \"/quick\"
        upstream = \"shop\"
        deadline = \"60s\"
        deadline_header = \"X-Deadline-Ms\"",
        upstream.table("shop"),
    ));
    for path in ["/slow/1", "/slow/kept"] {
        let answer = Client::get(gateway.public, path).send();
        assert_eq!(answer.status, 504, "{path}");
        assert!(answer.text().contains("deadline_exceeded"), "{path}: {}", answer.text());
    }
    let call = Client::request(gateway.public, "POST", "/slow/call");
    let answer = call.header("Content-Type", "application/grpc").send();
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("4")));
    eventually("a line that names the bound", || {
        let lines = gateway.access_lines();
        lines.iter().any(|line| {
            line["reason"] == "deadline_exceeded" && line["bound"] == "routes.slow.deadline"
        })
    });
    upstream.forget();
    let quick = Client::get(gateway.public, "/quick").header("X-Deadline-Ms", "999999999");
    assert_eq!(quick.send().status, 200);
    let request = upstream.only();
    let left: Vec<u64> =
        request.headers_named("x-deadline-ms").iter().map(|it| it.parse().unwrap()).collect();
    assert!(matches!(left[..], [1..=60_000]), "{left:?}");
    drop(go_on);
}
