//! Where a request goes: one authority, one form of target, known versions and methods, and no way
//! to make the gateway dial, tunnel or switch protocols (T1 to T5, T8 and T9).

use std::io::Write;
use std::net::TcpListener;

use crate::support::{Edge, Gateway, Session, Upstream, raw, raw_until_close, response, status};

#[test]
fn t1_exactly_one_host() {
    let edge = Edge::open();
    let refused: [&[u8]; 28] = [
        b"X: y",
        b"Host: shop.test\r\nHost: shop.test",
        b"Host: shop.test\r\nHost: evil.test",
        b"Host: shop.test\r\nX: y\r\nhost: evil.test",
        b"Host:",
        b"Host: shop.test, evil.test",
        b"Host: user@shop.test",
        b"Host: shop.test/admin",
        b"Host: shop.test?x",
        b"Host: shop.test#x",
        b"Host: shop test",
        b"Host: shop\0test",
        b"Host: shop.test..",
        b"Host: shop.test..:80",
        b"Host: shop..test",
        b"Host: .shop.test",
        b"Host: .",
        b"Host: :",
        b"Host: :80",
        b"Host: shop%2Etest",
        b"Host: [fe80::1%25eth0]",
        b"Host: shop.test::",
        b"Host: shop.test:0",
        b"Host: shop.test:x",
        b"Host: shop.test:65536",
        b"Host: shop.test:80:80",
        b"Host: [::1",
        b"Host : shop.test",
    ];
    for host in refused {
        edge.refuses([b"GET /t HTTP/1.1\r\n", host, b"\r\n\r\n"].concat());
    }
    edge.still_serves();
    for (host, forwarded) in [
        ("shop.test", "shop.test"),
        ("SHOP.Test.", "shop.test"),
        ("shop.test:", "shop.test"),
        ("shop.test.:", "shop.test"),
        ("shop.test:8443", "shop.test:8443"),
        ("shop.test:08443", "shop.test:8443"),
        ("[::1]:", "[::1]"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
        ("[::1]:81", "[::1]:81"),
        ("192.0.2.1", "192.0.2.1"),
    ] {
        let passed = edge.passes(format!("GET /t HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(passed.headers_named("host"), [forwarded]);
        assert_eq!(passed.headers_named("x-forwarded-host"), [forwarded]);
    }
}

/// A host with a token beside a public route for every other one.
#[test]
fn no_spelling_of_a_host_leaves_its_route() {
    let edge = Edge::with(
        "[routes.api]\nhost = \"API.test.\"\npath = \"/*\"\nupstream = \"shop\"\n\
         auth = \"users\"\n[routes.six]\nhost = \"[0:0::0:1]\"\npath = \"/*\"\n\
         upstream = \"shop\"\nauth = \"users\"\n",
    );
    for host in [
        "api.test",
        "API.TEST",
        "api.test.",
        "api.test:",
        "api.test.:",
        "api.test:80",
        "api.test:0080",
        "api.test..",
        "api.test...",
        "api..test",
        ".api.test",
        "[::1]",
        "[::1]:",
        "[0:0:0:0:0:0:0:1]:81",
        "[::0001]",
        "[::1].",
        "[::1%1]",
    ] {
        let fields = "Connection: close\r\n\r\n";
        for case in [
            format!("GET /t HTTP/1.1\r\nHost: {host}\r\n{fields}"),
            format!("GET http://{host}/t HTTP/1.1\r\nHost: shop.test\r\n{fields}"),
            format!("GET http://{host} HTTP/1.1\r\nHost: shop.test\r\n{fields}"),
            format!("GET http://{host}?x HTTP/1.0\r\n{fields}"),
        ] {
            let answer = raw_until_close(edge.gateway.public, &case);
            assert!(matches!(status(&answer), 400 | 401), "{case}: {answer}");
        }
    }
    assert_eq!(edge.upstream.seen(), 0);
    edge.still_serves();
}

#[test]
fn t2_an_absolute_target_is_the_authority() {
    let edge = Edge::open();
    for target in [
        "https://shop.test/t",
        "http://user@shop.test/t",
        "http://user:pass@shop.test/t",
        "http://shop.test@evil.test/t",
        "http://shop.test../t",
        "http://shop.test:0/t",
        "ftp://shop.test/t",
        "file:///etc/passwd",
        "http:///t",
        "http://",
        "http://?x",
    ] {
        edge.refuses(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
    }
    // The Host beside it counts for nothing, but an invalid one is an error all the same.
    for host in ["X: y", "Host: a\r\nHost: a", "Host: a b", "Host:", "Host: a.."] {
        edge.refuses(format!("GET http://shop.test/t HTTP/1.1\r\n{host}\r\n\r\n"));
    }
    edge.still_serves();
    for (target, line, host) in [
        ("http://shop.test/t?q=1", "GET /t?q=1 HTTP/1.1", "shop.test"),
        ("http://shop.test", "GET / HTTP/1.1", "shop.test"),
        ("http://shop.test?x=1", "GET /?x=1 HTTP/1.1", "shop.test"),
        ("http://shop.test?", "GET /? HTTP/1.1", "shop.test"),
        ("http://shop.test:81?a/../b", "GET /?a/../b HTTP/1.1", "shop.test:81"),
        ("http://other.test/t", "GET /t HTTP/1.1", "other.test"),
        ("HTTP://Other.Test.:/t", "GET /t HTTP/1.1", "other.test"),
        ("http://shop.test:81/t", "GET /t HTTP/1.1", "shop.test:81"),
        ("http://127.0.0.1:22/", "GET / HTTP/1.1", "127.0.0.1:22"),
    ] {
        let passed = edge.passes(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        assert_eq!(passed.request_line(), line, "{target}");
        assert_eq!(passed.headers_named("host"), [host], "{target}");
        assert_eq!(passed.headers_named("x-forwarded-host"), [host], "{target}");
    }
}

#[test]
fn t2_nobody_chooses_whom_the_gateway_dials() {
    let edge = Edge::open();
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let there = trap.local_addr().unwrap();
    for host in [&*there.to_string(), "shop.test"] {
        let case = format!("GET http://{there}/t HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(edge.passes(case).target(), "/t");
    }
    edge.refuses(format!("CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\n"));
    assert!(trap.accept().is_err(), "the gateway dialled what a client named");
}

#[test]
fn options_of_the_server_in_both_forms() {
    let edge = Edge::open();
    for target in ["*", "http://shop.test", "http://shop.test:81", "HTTP://other.test"] {
        let case = format!("OPTIONS {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        let answer = raw(edge.gateway.public, case);
        assert!(matches!(status(&answer), 200 | 204), "{target}: {answer}");
        assert_eq!(edge.upstream.seen(), 0, "{target}");
    }
    for (target, passed) in [
        ("http://shop.test/", "/"),
        ("http://shop.test?x", "/?x"),
        ("http://shop.test/t", "/t"),
        ("/", "/"),
    ] {
        let case = format!("OPTIONS {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        assert_eq!(edge.passes(case).request_line(), format!("OPTIONS {passed} HTTP/1.1"));
    }
}

#[test]
fn an_old_client_without_a_host() {
    let edge = Edge::open();
    let passed = edge.passes("GET /t HTTP/1.0\r\n\r\n");
    // RFC 9112 §3.2: the field is there, and empty.
    assert_eq!(passed.headers_named("host"), [""]);
    assert_eq!(passed.headers_named("x-forwarded-host"), [""; 0]);
    assert_eq!(passed.headers_named("forwarded"), ["for=127.0.0.1;proto=http"]);
    let passed = edge.passes("GET http://shop.test/t HTTP/1.0\r\n\r\n");
    assert_eq!(passed.headers_named("host"), ["shop.test"]);
}

#[test]
fn t3_targets_that_are_no_path() {
    let edge = Edge::open();
    for target in
        ["foo", "@evil.test/", ":80/", "?x", "shop.test", "shop.test:80", "*", "//", "t/x", "%2Ft"]
    {
        if target != "//" {
            edge.refuses(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        }
    }
    edge.refuses("POST * HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n");
    edge.refuses("GET  HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    edge.still_serves();
    // `OPTIONS *` asks the gateway itself.
    let case = "OPTIONS * HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let answer = raw_until_close(edge.gateway.public, case);
    assert!(matches!(status(&answer), 200 | 204), "{answer}");
    assert_eq!(edge.upstream.seen(), 0);
}

#[test]
fn t4_characters_of_a_target() {
    let edge = Edge::open();
    let refused: [&[u8]; 14] = [
        b"/a\\b",
        b"/..\\admin",
        b"/a%00",
        b"/a%0d%0aX:y",
        b"/a%0A",
        b"/a%5cb",
        b"/a%2fb",
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/a\x01",
        b"/a\x7f",
        b"/a b",
        b"/a\tb",
    ];
    for target in refused {
        edge.refuses([b"GET ", target, b" HTTP/1.1\r\nHost: shop.test\r\n\r\n"].concat());
    }
    edge.still_serves();
    let either: [(&[u8], &str); 5] = [
        (b"/a#frag", "/a"),
        ("/\u{e9}".as_bytes(), "/%C3%A9"),
        (b"/\xff", "/%FF"),
        (b"/\xc0\xaf", "/%C0%AF"),
        (b"/a|{b}", "/a%7C%7Bb%7D"),
    ];
    for (target, canonical) in either {
        let tail = b" HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
        let case = [b"GET ", target, tail].concat();
        if let Some(passed) = edge.refuses_or_closes(case) {
            assert_eq!(passed.target(), canonical);
        }
    }
    for length in [64 << 10, 1 << 20] {
        let target = "a".repeat(length);
        let code = edge.refuses(format!("GET /{target} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        assert!(matches!(code, 0 | 400 | 414 | 431), "{code}");
    }
    edge.still_serves();
}

#[test]
fn t5_versions() {
    let edge = Edge::open();
    for version in [
        "",
        " HTTP/0.9",
        " HTTP/1.2",
        " HTTP/2.0",
        " HTTP/2",
        " HTTP/3.0",
        " HTTP/1.11",
        " HTTP/01.1",
        " HTTP/1",
        " http/1.1",
        " ICY",
        " HTTP/1.1 x",
        "  HTTP/1.1",
        " HTTP/1.1 ",
        "\tHTTP/1.1",
        " HTTPS/1.1",
        " HTTP /1.1",
    ] {
        edge.refuses(format!("GET /t{version}\r\nHost: shop.test\r\n\r\n"));
    }
    edge.refuses(" GET /t HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    edge.still_serves();
    let passed = edge.passes("GET /t HTTP/1.0\r\nHost: shop.test\r\n\r\n");
    assert_eq!(passed.request_line(), "GET /t HTTP/1.1");
}

#[test]
fn t5_methods() {
    let edge = Edge::open();
    let long = "M".repeat(9 << 10);
    for method in ["get", "FOO", "PRI", &long] {
        edge.keeps(format!("{method} /t HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
    }
    for method in ["TRACE", "G\x01T", "G\x7fT", "G(T", "G\"T", "G\u{e9}T", ""] {
        edge.refuses(format!("{method} /t HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
    }
    for target in ["shop.test:80", "shop.test", "/t", "http://shop.test/t"] {
        edge.refuses(format!("CONNECT {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
    }
    edge.still_serves();
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let case = format!("{method} /t HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(edge.passes(case).request_line(), format!("{method} /t HTTP/1.1"));
    }
}

#[test]
fn t8_an_upgrade_is_not_passed_on() {
    let edge = Edge::open();
    for fields in [
        "Connection: Upgrade\r\nUpgrade: h2c",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA",
        "Connection: upgrade\r\nUpgrade: websocket, h2c\r\nSec-WebSocket-Version: 13",
        "Upgrade: h2c",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0",
    ] {
        // That no such field arrived is what the upstream insists on.
        let passed = edge.passes(format!("GET /t HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n\r\n"));
        assert_eq!(passed.request_line(), "GET /t HTTP/1.1");
    }
}

#[test]
fn t9_bytes_behind_a_handshake_are_not_tunnelled() {
    let edge = Edge::open();
    let handshake = "GET /t HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let behind = "GET /admin HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let answer = raw_until_close(edge.gateway.public, format!("{handshake}{behind}"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // What follows is a request like any other, or nothing at all.
    assert_eq!(edge.upstream.only().request_line(), "GET /t HTTP/1.1");
}

#[test]
fn t9_a_switch_of_protocols_that_nobody_could_ask_for() {
    let upstream = Upstream::with(|request, connection| {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\n\r\nSMUGGLED";
        let text = match request.target() {
            "/ws" => switch.to_owned(),
            _ => response("200 OK", "fine"),
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let mut session = Session::open(gateway.public);
    for upgrade in ["", "Connection: Upgrade\r\nUpgrade: websocket\r\n"] {
        session.write(format!("GET /ws HTTP/1.1\r\nHost: shop.test\r\n{upgrade}\r\n"));
        let reply = session.read();
        assert_eq!(reply.status, 502, "{}", reply.text());
        assert_eq!(session.get("/next").send().text(), "fine");
    }
}
