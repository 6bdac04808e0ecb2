//! What a client is told when the gateway ends a request itself: the status and the stable code of
//! refusals that no other file is about. `tidy.rs` sees to it that every code is in some test.

use std::io::Write;

use crate::support::{Gateway, Upstream, post, raw, raw_until_close, response, status};
use crate::two_servers::socket_that_drops;

/// The code in the body of an answer as it came.
fn code(answer: &str) -> &str {
    let (_, rest) = answer.split_once("urn:portcullis:problem:").unwrap_or_default();
    rest.split('"').next().unwrap_or_default()
}

/// Everything at this upstream; `limits` are of `[server.limits]`.
fn before(upstream: &Upstream, limits: &str) -> Gateway {
    Gateway::start(&format!(
        "[server.limits]\n{limits}\n{}
        [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ))
}

#[test]
fn a_head_that_is_not_well_formed_is_refused_by_name() {
    let upstream = Upstream::replying(response("200 OK", "never"));
    let gateway = before(&upstream, "");
    let get = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n").into_bytes();
    for (request, expected) in [
        (get(""), (400, "host_invalid")),
        (get("Host: shop.test\r\nHost: shop.test\r\n"), (400, "host_invalid")),
        (get("Host: shop test\r\n"), (400, "host_invalid")),
        (b"GET * HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_vec(), (400, "target_invalid")),
        (
            b"GET https://shop.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_vec(),
            (400, "target_invalid"),
        ),
        (post(b"Transfer-Encoding: gzip, chunked", b""), (400, "transfer_encoding_invalid")),
        (get("Host: shop.test\r\nExpect: 200-ok\r\n"), (417, "expectation_failed")),
    ] {
        let answer = raw_until_close(gateway.public, &request);
        let what = String::from_utf8_lossy(&request);
        assert_eq!((status(&answer), code(&answer)), expected, "{what:?}: {answer}");
    }
    assert_eq!(upstream.seen(), 0);
}

#[test]
fn what_no_route_takes_is_refused_by_name() {
    let upstream = Upstream::replying(response("200 OK", "never"));
    let gateway = Gateway::start(&format!(
        "[server.limits]\nbody_bytes = \"1KiB\"\n{}
        [routes.some]\npath = \"/some\"\nmethods = [\"POST\", \"GET\"]\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let send = |method: &str, path: &str, fields: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n");
        let answer = raw(gateway.public, request);
        (status(&answer), code(&answer).to_owned(), answer.to_ascii_lowercase())
    };
    let (status, code, _) = send("GET", "/none", "");
    assert_eq!((status, &*code), (404, "route_not_found"));
    let (status, code, answer) = send("DELETE", "/some", "");
    assert_eq!((status, &*code), (405, "method_not_allowed"));
    let allowed = answer.lines().find_map(|line| line.strip_prefix("allow: "));
    assert_eq!(allowed, Some("get, head, post"), "{answer}");
    let (status, code, answer) = send("TRACE", "/some", "");
    assert_eq!((status, &*code), (405, "method_refused"), "{answer}");
    // Announced, and found out while it comes.
    let (status, code, answer) = send("POST", "/some", "Content-Length: 1025\r\n");
    assert_eq!((status, &*code), (413, "body_too_large"), "{answer}");
    let chunk = format!("Transfer-Encoding: chunked\r\n\r\n401\r\n{}\r\n0\r\n", "x".repeat(1025));
    let (status, code, answer) = send("POST", "/some", &chunk);
    assert_eq!((status, &*code), (413, "body_too_large"), "{answer}");
    assert_eq!(upstream.seen(), 0);
}

#[test]
fn a_body_that_is_no_body_or_stops_is_refused_by_name() {
    let upstream = Upstream::replying(response("200 OK", "never"));
    let gateway = before(&upstream, "progress_timeout = \"1s\"");
    for (body, expected) in [
        (&b"5\r\nhello\r\nno length\r\n"[..], (400, "body_malformed")),
        (b"5\r\nhel", (408, "body_stalled")),
    ] {
        let answer = raw_until_close(gateway.public, post(b"Transfer-Encoding: chunked", body));
        assert_eq!((status(&answer), code(&answer)), expected, "{answer}");
    }
    assert_eq!(upstream.seen(), 0);
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_nobodys() {
    let upstream = Upstream::with(|_, connection| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
        let _ = connection.write_all(head.as_bytes());
    });
    let gateway = before(&upstream, "");
    let answer = raw(gateway.public, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!((status(&answer), code(&answer)), (502, "upstream_malformed"), "{answer}");
}

#[test]
fn an_upstream_that_takes_no_connection_in_time_is_named_so() {
    let full = socket_that_drops();
    let gateway = Gateway::start(&format!(
        "[upstreams.shop]\nservers = [\"http://{}\"]\nconnect_timeout = \"300ms\"\n
        [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        full.address
    ));
    let answer = raw(gateway.public, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!((status(&answer), code(&answer)), (504, "upstream_connect_timeout"), "{answer}");
}
