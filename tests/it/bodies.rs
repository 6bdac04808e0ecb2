//! Bodies: where they end, who reads them when the gateway answers by itself, and what chunks and
//! trailers may hold (F8 to F10, F14 to F18).

use std::io::Write;

use crate::support::{
    AUTH, Client, Edge, Gateway, SMUGGLED, Session, Upstream, claims, post, raw_until_close,
    response, status, token,
};

/// A chunked POST with this body as it stands.
fn chunked(body: &[u8]) -> Vec<u8> {
    post(b"Transfer-Encoding: chunked", body)
}

/// A chunked POST after which the client expects the connection to end.
fn last_chunked(body: &[u8]) -> Vec<u8> {
    post(b"Connection: close\r\nTransfer-Encoding: chunked", body)
}

#[test]
fn f8_bodies_of_methods_that_rarely_have_one() {
    let edge = Edge::open();
    let length = SMUGGLED.len();
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PATCH", "PUT", "PROPFIND", "FOO"] {
        for (framing, body) in [
            (format!("Content-Length: {length}"), SMUGGLED.to_owned()),
            (
                "Transfer-Encoding: chunked".to_owned(),
                format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            ),
        ] {
            let head = format!("{method} /f HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n");
            let passed = edge.refuses_or_closes(format!("{head}{framing}\r\n\r\n{body}"));
            let usual = method != "FOO";
            assert_eq!(passed.is_some(), usual, "{method} with {framing}");
            if let Some(passed) = passed {
                assert_eq!(passed.text(), SMUGGLED, "{method} with {framing}");
                assert_eq!(passed.request_line(), format!("{method} /f HTTP/1.1"));
            }
        }
    }
    edge.still_serves();
}

/// A gateway that answers by itself at `/private` (401), `/staff` (403), `/nowhere` (404),
/// `/reading` (405 for a POST), `/limited` (429 from the second on) and `/cached` (a hit from the
/// second on).
fn answering_itself() -> (Gateway, Upstream) {
    let upstream = Upstream::with(|request, connection| {
        let head = "200 OK\r\nCache-Control: public, max-age=600";
        let _ = connection.write_all(response(head, request.target()).as_bytes());
    });
    let route = |name: &str, more: &str| {
        format!("[routes.{name}]\npath = \"/{name}\"\nupstream = \"shop\"\n{more}\n")
    };
    let gateway = Gateway::start(&format!(
        "{AUTH}{}{}{}{}{}{}{}{}[limits.one]\nkey = [\"address\"]\nallow = [\"1/1h\"]\n",
        upstream.table("shop"),
        route("private", "auth = \"users\""),
        route("staff", "auth = \"users\"\nrequire = { role = [\"staff\"] }"),
        route("reading", "methods = [\"GET\"]"),
        route("limited", "limits = [\"one\"]"),
        route("cached", "cache = { ttl = \"10m\" }"),
        route("marker", ""),
        route("smuggled", ""),
    ));
    assert_eq!(Client::get(gateway.public, "/limited").send().status, 200);
    assert_eq!(Client::get(gateway.public, "/cached").send().status, 200);
    upstream.forget();
    (gateway, upstream)
}

/// Requests that the gateway of [`answering_itself`] answers by itself, and the status.
const ANSWERED: [(&str, u16); 7] = [
    ("GET /private", 401),
    ("POST /staff", 403),
    ("POST /nowhere", 404),
    ("POST /reading", 405),
    ("POST /limited", 429),
    ("GET /cached", 200),
    ("POST /private", 401),
];

/// What makes a caller known who may not pass.
fn bearer(line: &str) -> String {
    match line {
        "POST /staff" => format!("Authorization: Bearer {}\r\n", token(claims("42"))),
        _ => String::new(),
    }
}

/// A request like any other, after which the connection ends.
const MARKER: &str = "GET /marker HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";

/// The status of the first final response.
fn first_status(answer: &str) -> u16 {
    let last = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(answer);
    status(last.split("\r\n").next().unwrap_or_default())
}

#[test]
fn f9_a_body_that_nobody_reads_is_not_the_next_request() {
    let (gateway, upstream) = answering_itself();
    let length = SMUGGLED.len();
    for (line, expected) in ANSWERED {
        for (fields, body) in [
            (format!("Content-Length: {length}"), SMUGGLED.to_owned()),
            (
                "Transfer-Encoding: chunked".to_owned(),
                format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            ),
            (format!("Expect: 100-continue\r\nContent-Length: {length}"), SMUGGLED.to_owned()),
            (format!("Upgrade: h2c\r\nContent-Length: {length}"), SMUGGLED.to_owned()),
        ] {
            let head =
                format!("{line} HTTP/1.1\r\nHost: shop.test\r\n{}{fields}\r\n\r\n", bearer(line));
            let answer = raw_until_close(gateway.public, format!("{head}{body}{MARKER}"));
            // A cached answer to a request that has a body may also come from the upstream.
            assert_eq!(first_status(&answer), expected, "{head}: {answer}");
            let after: Vec<_> =
                upstream.recorded().iter().map(|request| request.target().to_owned()).collect();
            assert!(
                after.iter().all(|target| target == "/marker" || target == "/cached"),
                "{head}: {after:?}"
            );
            assert!(!answer.contains("/smuggled"), "{head}: {answer}");
            upstream.forget();
        }
    }
}

#[test]
fn f9_a_body_that_comes_after_the_answer_is_not_the_next_request() {
    let (gateway, upstream) = answering_itself();
    for (line, expected) in ANSWERED {
        if line == "GET /cached" {
            // A GET whose body is awaited has no answer yet.
            continue;
        }
        for expect in ["", "Expect: 100-continue\r\n"] {
            let mut session = Session::open(gateway.public);
            let length = SMUGGLED.len();
            let head = format!("{line} HTTP/1.1\r\nHost: shop.test\r\n{}{expect}", bearer(line));
            session.write(format!("{head}Content-Length: {length}\r\n\r\n"));
            assert_eq!(session.read().status, expected, "{line}");
            // Whether the gateway drains the body or hangs up, is its choice.
            let late = format!("{SMUGGLED}{MARKER}");
            let _ = session.stream().write_all(late.as_bytes());
            let rest = session.rest();
            assert!(rest.is_empty() || rest.matches("HTTP/1.1 ").count() == 1, "{line}: {rest}");
            assert!(!rest.contains("/smuggled"), "{line}: {rest}");
            let after = upstream.recorded();
            assert!(after.iter().all(|r| r.target() == "/marker"), "{line}: {after:?}");
            upstream.forget();
        }
    }
}

#[test]
fn f9_the_admin_listener_does_not_read_bodies_as_requests_either() {
    let (gateway, _upstream) = answering_itself();
    let hidden = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for line in ["GET /healthz", "POST /healthz", "GET /nowhere", "POST /v1/nowhere"] {
        let length = hidden.len();
        for (framing, body) in [
            (format!("Content-Length: {length}"), hidden.to_owned()),
            (
                "Transfer-Encoding: chunked".to_owned(),
                format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n"),
            ),
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
            let answer = raw_until_close(gateway.admin, format!("{head}{body}{last}"));
            assert!(answer.starts_with("HTTP/1.1 "), "{head}: {answer}");
            assert!(answer.matches("HTTP/1.1 ").count() <= 2, "{head}: {answer}");
            assert!(!answer.contains("# TYPE"), "{head}: {answer}");
        }
    }
}

#[test]
fn f10_expectations() {
    let edge = Edge::open();
    let passed = edge.passes(post(b"Expect: 100-continue\r\nContent-Length: 5", b"hello"));
    assert_eq!(passed.text(), "hello");
    for method in ["GET", "HEAD"] {
        let case =
            format!("{method} /f HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(edge.passes(case).body, b"");
    }
    for odd in ["y 100-continue", "100-continue, x", "200-ok", "x"] {
        let fields = format!("Expect: {odd}\r\nContent-Length: 5");
        assert_eq!(edge.refuses(post(fields.as_bytes(), b"hello")), 417, "{odd}");
    }
    // Late: nothing reaches the upstream as a whole request before the body is there.
    let mut session = Session::open(edge.gateway.public);
    session.write(post(b"Expect: 100-continue\r\nContent-Length: 5", b""));
    assert_eq!(session.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(edge.upstream.seen(), 0);
    session.write("hello");
    assert_eq!(session.read().status, 200);
    assert_eq!(edge.upstream.only().text(), "hello");
}

/// Sends a request whose body breaks after a good head: the client is told 400, the upstream never
/// sees the request's end.
fn breaks_off(edge: &Edge, body: &[u8]) {
    let what = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
    let mut case = chunked(body);
    case.extend_from_slice(SMUGGLED.as_bytes());
    let answer = raw_until_close(edge.gateway.public, case);
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what:?}: {answer}");
    assert_eq!(status(&answer), 400, "{what:?}: {answer}");
    assert_eq!(edge.upstream.seen(), 0, "{what:?}: {:?}", edge.upstream.recorded());
    edge.upstream.forget();
}

#[test]
fn f14_chunk_sizes() {
    let edge = Edge::open();
    for size in [
        "",
        "G",
        "0x5",
        "0_5",
        "+5",
        "-0",
        "-5",
        " 5",
        "\t5",
        "5 5",
        "5these-bytes",
        "5,",
        "\"5\"",
        "10000000000000005",
        "fffffffffffffffff",
    ] {
        breaks_off(&edge, format!("{size}\r\nhello\r\n0\r\n\r\n").as_bytes());
    }
    edge.still_serves();
    for size in ["5 ", "00000000000000000000005", "05"] {
        let body = format!("{size}\r\nhello\r\n0\r\n\r\n");
        if let Some(passed) = edge.refuses_or_closes(last_chunked(body.as_bytes())) {
            assert_eq!(passed.text(), "hello", "{size:?}");
        }
    }
}

#[test]
fn f15_chunk_extensions() {
    let edge = Edge::open();
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("1;{}\r\nx\r\n", "y".repeat(30)).repeat(2000) + "0\r\n\r\n";
    for body in [
        b"5;\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ] as [&[u8]; 4]
    {
        breaks_off(&edge, body);
    }
    edge.still_serves();
    for extension in ["a", "a=b", "a=\"b\"", "a\0b", ""] {
        let body = format!("5;{extension}\r\nhello\r\n0;x\r\n\r\n");
        if let Some(passed) = edge.refuses_or_closes(last_chunked(body.as_bytes())) {
            assert_eq!(passed.text(), "hello", "{extension:?}");
        }
    }
}

#[test]
fn f16_chunks_without_their_end() {
    let edge = Edge::open();
    for body in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
    ] {
        breaks_off(&edge, body.as_bytes());
    }
    edge.still_serves();
}

#[test]
fn f17_after_the_last_chunk() {
    let edge = Edge::open();
    for body in [
        format!("0\r\n{SMUGGLED}"),
        format!("0\r\n\n{SMUGGLED}"),
        format!("0\n\n{SMUGGLED}"),
        format!("0\n\r\n{SMUGGLED}"),
        format!("0\r\n\r\n{SMUGGLED}"),
        format!("000\r\n\r\n{SMUGGLED}"),
        format!("0;x\r\n\r\n{SMUGGLED}"),
    ] {
        if let Some(passed) = edge.refuses_or_closes(last_chunked(body.as_bytes())) {
            assert_eq!((passed.target(), passed.text().as_str()), ("/f", ""), "{body:?}");
        }
    }
    edge.still_serves();
}

#[test]
fn f18_trailers_stay_behind() {
    let edge = Edge::open();
    for trailer in [
        "Content-Length: 7",
        "Transfer-Encoding: chunked",
        "Host: evil",
        "Authorization: Bearer x",
        "Cookie: sid=x",
        "X-User-Id: admin",
        "x_user_id: admin",
        "X-Forwarded-For: 6.6.6.6",
        "Grpc-Status: 0",
        "X-Anything: x",
    ] {
        let name = trailer.split(':').next().unwrap();
        for announced in [String::new(), format!("Trailer: {name}\r\n")] {
            let fields = format!("{announced}Connection: close\r\nTransfer-Encoding: chunked");
            let body = format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n");
            let case = post(fields.as_bytes(), body.as_bytes());
            let passed =
                edge.refuses_or_closes(case).unwrap_or_else(|| panic!("{trailer}: refused"));
            assert_eq!(passed.text(), "hello", "{trailer}");
            assert!(passed.trailers.is_empty(), "{trailer}: {:?}", passed.trailers);
            assert_eq!(passed.header("x-user-id"), None, "{trailer}");
            assert_eq!(passed.header("host"), Some("shop.test"), "{trailer}");
        }
    }
    edge.still_serves();
}

#[test]
fn f18_trailers_are_bounded_and_well_formed() {
    let edge = Edge::open();
    let long = format!("X: {}\r\n", "x".repeat(64 << 10));
    let many: String = (0..1000).map(|i| format!("X-{i}: y\r\n")).collect();
    for trailers in ["X y\r\n", "X : y\r\n", "X: \0\r\n", "X\x01: y\r\n", &long, &many] {
        breaks_off(&edge, format!("5\r\nhello\r\n0\r\n{trailers}\r\n").as_bytes());
    }
    edge.still_serves();
}

#[test]
fn a_client_that_ends_in_the_middle_of_a_body_asked_for_nothing() {
    let edge = Edge::open();
    for case in [
        post(b"Content-Length: 10", b"hello"),
        chunked(b"5\r\nhello\r\n"),
        chunked(b"5\r\nhel"),
        chunked(b"5\r\nhello\r\n0\r\n"),
    ] {
        let mut session = Session::open(edge.gateway.public);
        session.write(&case);
        session.stream().shutdown(std::net::Shutdown::Write).unwrap();
        let answer = session.rest();
        assert!(matches!(status(&answer), 0 | 400), "{answer}");
        assert_eq!(edge.upstream.seen(), 0, "{:?}", edge.upstream.recorded());
        edge.upstream.forget();
    }
    edge.still_serves();
}
