//! Where a request ends: every way of making two parsers disagree about it by its head, over raw
//! sockets, and what reached the upstream. F1 to F13 are what was used to smuggle requests past
//! other proxies; `bodies.rs` goes on.

use crate::support::{Edge, SMUGGLED, post, raw, raw_until_close, status};

#[test]
fn f1_length_and_chunked_together() {
    let edge = Edge::open();
    let inner = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let cl_te = [b"0\r\n\r\n", SMUGGLED.as_bytes()].concat();
    for (body, length) in
        [(cl_te.as_slice(), cl_te.len()), (inner.as_bytes(), 4), (b"0\r\n\r\nG", 6)]
    {
        for fields in [
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"),
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
            format!("Transfer-Encoding: chunked\r\nContent-length: {length}\r\nContent-Length: 0"),
        ] {
            let passed = edge.refuses_or_closes(post(fields.as_bytes(), body));
            if let Some(passed) = passed {
                assert_eq!(passed.request_line(), "POST /f HTTP/1.1");
                assert!(passed.header("content-length").is_none_or(|l| l == "0"), "{passed:?}");
            }
        }
    }
    edge.still_serves();
}

#[test]
fn f2_f3_other_codings_than_chunked() {
    let edge = Edge::open();
    let values: [&[u8]; 25] = [
        b"identity",
        b"xchunked",
        b"chunkedx",
        b"chunked, identity",
        b"chunked, gzip",
        b"chunked, chunked",
        b"chunked\r\nTransfer-Encoding: chunked",
        b"chunked\r\nTransfer-Encoding: identity",
        b"identity\r\nTransfer-Encoding: chunked",
        b"cow\r\nTransfer-Encoding: chunked",
        b"\"chunked\"",
        b"chunked;q=1",
        b"",
        b",",
        b",chunked",
        b"chunked,",
        b"gzip, chunked",
        b"deflate, chunked",
        b"\x0bchunked",
        b"chunked\x0c",
        b"chunked\0",
        b"\x85chunked",
        b"chunked\xa0",
        b"\xffchunked",
        "chun\u{212a}ed".as_bytes(),
    ];
    for value in values {
        for length in [&b""[..], b"Content-Length: 5\r\n"] {
            let fields = [length, b"Transfer-Encoding: ", value].concat();
            edge.refuses(post(&fields, b"0\r\n\r\n"));
        }
    }
    edge.still_serves();
}

#[test]
fn f4_chunked_in_http_1_0() {
    let edge = Edge::open();
    for fields in ["", "Content-Length: 5\r\n", "Connection: keep-alive\r\n"] {
        let head = "POST /f HTTP/1.0\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n";
        edge.refuses(format!("{head}{fields}\r\n0\r\n\r\n"));
    }
    edge.still_serves();
}

#[test]
fn f5_lengths_that_are_no_plain_number() {
    let edge = Edge::open();
    let values: [&[u8]; 28] = [
        b"+5",
        b"-5",
        b"-0",
        b"0x5",
        b"0_5",
        b"5_",
        b"0o5",
        b"5.0",
        b"5e0",
        b"\"5\"",
        b"5;a",
        b"5,6",
        b"5,",
        b",5",
        b"5 5",
        b"",
        b"abc",
        b"5abc",
        b"18446744073709551621",
        b"100000000000000000000000000",
        "\u{665}".as_bytes(),
        "\u{ff15}".as_bytes(),
        b"5\0",
        b"\x0b5",
        b"5\r\nContent-Length: 6",
        b"\r\nContent-Length: 5",
        b"5\r\nContent-Length:",
        b"6\r\nContent-Length: 5",
    ];
    for value in values {
        edge.refuses(post(&[b"Content-Length: ", value].concat(), b"hello"));
    }
    edge.still_serves();
}

#[test]
fn f6_f7_one_length_in_many_words() {
    let edge = Edge::open();
    for value in ["5\r\nContent-Length: 5", "5\r\nContent-Length: 05", "5, 5", "0005", " 5 ", "5\t"]
    {
        let case =
            post(format!("Connection: close\r\nContent-Length: {value}").as_bytes(), b"hello");
        if let Some(passed) = edge.refuses_or_closes(case) {
            assert_eq!(passed.text(), "hello", "{value:?}");
            assert_eq!(passed.headers_named("content-length"), ["5"], "{value:?}");
        }
    }
    edge.still_serves();
}

#[test]
fn f11_line_ends_without_cr() {
    let edge = Edge::open();
    for case in [
        "GET /f HTTP/1.1\nHost: shop.test\nConnection: close\n\n",
        "GET /f HTTP/1.1\nHost: shop.test\r\nConnection: close\r\n\r\n",
        "GET /f HTTP/1.1\r\nHost: shop.test\nConnection: close\r\n\r\n",
        "GET /f HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\n",
        "GET /f HTTP/1.1\r\nConnection: close\r\nHost: shop.test\n\n",
        "GET /f HTTP/1.1\r\nConnection: close\r\nHost: shop.test\nX-User-Id: admin\r\n\r\n",
    ] {
        if let Some(passed) = edge.refuses_or_closes(case) {
            assert_eq!(passed.request_line(), "GET /f HTTP/1.1", "{case:?}");
            assert_eq!(passed.header("x-user-id"), None, "{case:?}");
        }
    }
    edge.still_serves();
}

#[test]
fn f12_control_characters() {
    let edge = Edge::open();
    let cases: [&[u8]; 16] = [
        b"GET /f HTTP/1.1\rHost: shop.test\r\n\r\n",
        b"GET /f HTTP/1.1\r\nHost: shop.test\rX: y\r\n\r\n",
        b"GET /f HTTP/1.1\r\r\nHost: shop.test\r\n\r\n",
        b"GET /f HTTP/1.1\r\nHost: shop.test\r\r\nX: y\r\n\r\n",
        b"GET /f HTTP/1.1\n\rHost: shop.test\r\n\r\n",
        b"GET /f HTTP/1.1\r\nHost: shop.test\r\n\rX: y\r\n\r\n",
        b"GET /f HTTP/1.1\r\nHost: shop.test\r\nX\0: y\r\n\r\n",
        b"GET /f HTTP/1.1\r\nHost: shop.test\r\nX: y\0\r\n\r\n",
        b"GET /f HTTP/1.1\r\nHost: shop.test\r\nX\x01: y\r\n\r\n",
        b"GET /f HTTP/1.1\r\nHost: shop.test\r\nX: y\x01\r\n\r\n",
        b"GET /f HTTP/1.1\r\nHost: shop.test\r\nX\x7f: y\r\n\r\n",
        b"GET /f HTTP/1.1\r\nHost: shop.test\r\nX: y\x7f\r\n\r\n",
        b"GET /f\0 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        b"GET /f\x01 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        b"GET /f\x7f HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        b"GET /f\rX: y HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    ];
    for case in cases {
        edge.refuses(case);
    }
    edge.still_serves();
}

#[test]
fn f13_fields_that_are_no_fields() {
    let edge = Edge::open();
    let lines: [&[u8]; 15] = [
        b"X: a\r\n b",
        b"X: a\r\n\tb",
        b"X:\r\n a",
        b"Content-Length: 0\r\n 5",
        b"Transfer-Encoding: chunked\r\n ,x",
        b"Transfer-Encoding:\r\n chunked",
        b"X : y",
        b"Content-Length : 5",
        b"Transfer-Encoding\t: chunked",
        b"X",
        b": v",
        b"X Y: z",
        b"X(: y",
        b"X\": y",
        b"X\xe9: y",
    ];
    for line in lines {
        let case = [b"GET /f HTTP/1.1\r\nHost: shop.test\r\n", line, b"\r\n\r\n"].concat();
        edge.refuses(case);
        let first = [b"GET /f HTTP/1.1\r\n", line, b"\r\nHost: shop.test\r\n\r\n"].concat();
        edge.refuses(first);
    }
    edge.refuses("GET /f HTTP/1.1\r\n Host: shop.test\r\n\r\n");
    edge.refuses("GET /f HTTP/1.1\r\n X: y\r\nHost: shop.test\r\n\r\n");
    edge.still_serves();
}

#[test]
fn pipelined_requests_are_answered_in_turn() {
    let edge = Edge::open();
    let first = String::from_utf8(post(b"Content-Length: 5", b"hello")).unwrap();
    let last = "GET /last HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let answer = raw_until_close(edge.gateway.public, format!("{first}{first}{last}"));
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    let targets: Vec<_> = edge.upstream.recorded().iter().map(|r| r.target().to_owned()).collect();
    assert_eq!(targets, ["/f", "/f", "/last"]);
    // A client that speaks HTTP/1.0 is served as well, and its connection ends.
    let old = raw(edge.gateway.public, "GET /old HTTP/1.0\r\nHost: shop.test\r\n\r\n");
    assert_eq!(status(&old), 200, "{old}");
}
